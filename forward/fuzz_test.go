// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"bytes"
	"testing"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// cutsOf reads segment lengths from bytes: no more than the pool has mbufs for.
func cutsOf(b []byte) []int {
	var cuts []int
	for _, n := range b[:min(len(b), 100)] {
		cuts = append(cuts, int(n))
	}
	return cuts
}

func seed(f *testing.F, add func(data, cuts []byte)) {
	for _, b := range [][]byte{arpWho, ping4, ping6, solicit6, probe6, frame, tag(ping4, "88a8 0123 8100 e064"), nil} {
		add(b, nil)
		add(b, []byte{0, 13, 1, 5, 14, 0, 3, 20})
		add(b, bytes.Repeat([]byte{1}, 100))
	}
}

// fuzzRig passes a packet, whole and in segments: the outcomes must be the same, and no mbuf must be lost.
type fuzzRig struct {
	*rig
	t *testing.T
}

// both returns the outcome of the whole packet, after comparing it with that of the segments.
func (r fuzzRig) both(data, cuts []byte) []byte {
	data = data[:min(len(data), 2048)]
	whole := r.outcome(data, nil)
	parts := r.outcome(data, cutsOf(cuts))
	if !bytes.Equal(whole, parts) {
		r.t.Errorf("whole    %x\nsegments %x\ncame out differently for %x", whole, parts, data)
	}
	if n := r.pool.InUseCount(); n != 0 {
		r.t.Errorf("%d mbufs still in use", n)
	}
	return whole
}

func (r fuzzRig) outcome(data []byte, cuts []int) []byte {
	before := r.s.Stats()
	got := r.pass(data, cuts...)
	after := r.s.Stats()
	sent := after.TxPackets - before.TxPackets
	other := after.Ignored - before.Ignored + after.Malformed - before.Malformed
	if after.RxPackets-before.RxPackets != 1 || sent+other != 1 || (sent == 1) != (got != nil) {
		r.t.Errorf("stats went from %+v to %+v", before, after)
	}
	return got
}

// FuzzICMPEcho: whatever comes in, what goes out is an answer, and only where one may be.
func FuzzICMPEcho(f *testing.F) {
	seed(f, func(data, cuts []byte) {
		f.Add(data, cuts, false)
		f.Add(data, cuts, true)
	})
	pool := newPool(f, mbuf.Config{})
	f.Fuzz(func(t *testing.T, data, cuts []byte, own bool) {
		c := Config{Mode: "icmpecho"}
		if own {
			c.Owned = addrs("10.0.0.2", "fd00::2")
		}
		r := fuzzRig{newRig(t, pool, c), t}
		if got := r.both(data, cuts); got != nil {
			checkAnswer(t, data, got)
		}
	})
}

// checkAnswer looks at an answer as a kernel would.
func checkAnswer(t *testing.T, req, got []byte) {
	l3, typ := 14, got[12:14]
	for tags := 0; tags < 2 && (bytes.Equal(typ, []byte{0x81, 0}) || bytes.Equal(typ, []byte{0x88, 0xa8})); tags++ {
		typ, l3 = got[l3+2:l3+4], l3+4
	}
	p := got[l3:]
	if got[6]&1 != 0 || !bytes.Equal(got[12:l3], req[12:l3]) {
		t.Errorf("Ethernet header %x", got[:l3])
	}
	switch {
	case bytes.Equal(typ, []byte{0x08, 0x06}):
		if !bytes.Equal(p[:8], unhex("0001 0800 0604 0002")) || !bytes.Equal(p[8:14], portMAC[:]) {
			t.Errorf("ARP answer %x", p)
		}
	case bytes.Equal(typ, []byte{0x08, 0x00}):
		hlen := int(p[0]&15) * 4
		if inetSum(p[:hlen]) != 0 || p[8] != 64 || p[9] != 1 || p[hlen] != 0 || p[12] >= 224 {
			t.Errorf("ICMP answer %x", p)
		}
	default:
		checkAnswer6(t, p)
	}
}

func checkAnswer6(t *testing.T, p []byte) {
	n := int(p[4])<<8 | int(p[5])
	if p[8] == 0xff || p[6] != 58 || (p[40] != 129 && p[40] != 136) {
		t.Errorf("ICMPv6 answer %x", p)
	}
	if p[40] == 136 && (n != 32 || len(p) != 72 || p[7] != 255 ||
		inetSum(p[8:40], []byte{0, 0, 0, 32, 0, 0, 0, 58}, p[40:]) != 0) {
		t.Errorf("advertisement %x", p)
	}
}

// FuzzModes: the modes that forward change nothing but the addresses.
func FuzzModes(f *testing.F) {
	seed(f, func(data, cuts []byte) {
		for mode := range uint8(3) {
			f.Add(mode, data, cuts)
		}
	})
	pool := newPool(f, mbuf.Config{})
	f.Fuzz(func(t *testing.T, mode uint8, data, cuts []byte) {
		name := []string{"io", "mac", "macswap"}[mode%3]
		r := fuzzRig{newRig(t, pool, Config{Mode: name}), t}
		got := r.both(data, cuts)
		data = data[:min(len(data), 2048)]
		switch {
		case len(data) < 14 && name != "io":
			data = nil
		case name == "mac":
			data = append(unhex("0200 0000 0000 PORT"), data[12:]...)
		case name == "macswap":
			data = append(append(bytes.Clone(data[6:12]), data[:6]...), data[12:]...)
		}
		wantBytes(t, name, got, data)
	})
}

// FuzzCsum: software, and whoever does what is asked for, make the same packet of what comes in, and of what comes in
// in segments; and where there is nothing to mend, nothing is changed but the addresses.
func FuzzCsum(f *testing.F) {
	for _, d := range frames(21) {
		for flags := range uint8(len(fuzzFlags)) {
			f.Add(d.damaged(), []byte{0, 13, 1, 5, 14, 0, 3, 20}, flags)
		}
		f.Add(d.b, bytes.Repeat([]byte{1}, 100), uint8(0))
	}
	pool := newPool(f, mbuf.Config{Count: 512})
	f.Fuzz(func(t *testing.T, data, cuts []byte, flags uint8) {
		data = data[:min(len(data), 2048)]
		rx := fuzzFlags[int(flags)%len(fuzzFlags)]
		var first []byte
		var stats Stats
		for _, c := range csumSettings() {
			r := newRig(t, pool, Config{Mode: "csum", Csum: c})
			for i, cuts := range [][]int{nil, cutsOf(cuts)} {
				got := csumOutcome(t, r, data, rx, cuts)
				if first == nil {
					first, stats = got, r.s.Stats()
				}
				wantBytes(t, "outcome", got, first)
				if i == 0 && r.s.Stats() != stats {
					t.Errorf("stats %+v and %+v", r.s.Stats(), stats)
				}
				if again := csumOutcome(t, r, got, 0, nil); len(got) > 0 && rx == 0 {
					wantBytes(t, "again", again, got)
				}
			}
		}
		if n := pool.InUseCount(); n != 0 {
			t.Errorf("%d mbufs still in use", n)
		}
	})
}

var fuzzFlags = []uint64{
	0, mbuf.RxL4CksumNone, mbuf.RxL4CksumNone | mbuf.RxOuterL4CksumInvalid,
	oneTag, twoTags | mbuf.RxL4CksumNone, mbuf.RxL4CksumBad,
}

// csumOutcome is what is on the wire behind mode csum and a driver that does as it is asked; empty if dropped.
func csumOutcome(t *testing.T, r *rig, data []byte, rx uint64, cuts []int) []byte {
	m := packet(t, r.pool, data, cuts...)
	l := header.Parse(data)
	m.PacketType, m.OlFlags, m.VlanTCI, m.VlanTCIOuter = l.PacketType, rx, 0xe064, 0x0123
	m.SetLengths(l.Lengths())
	if m = r.passMbuf(m); m == nil {
		return []byte{}
	}
	defer m.Free()
	return transmit(t, m)
}

// FuzzMTU: what is cut and merged again is what would be sent without.
func FuzzMTU(f *testing.F) {
	for _, d := range frames(300) {
		f.Add(d.b, []byte{100, 7}, uint8(0), uint16(50))
		f.Add(d.b, []byte{1, 50}, uint8(1), uint16(100))
		f.Add(d.b, []byte{}, uint8(2), uint16(0))
	}
	pool := newPool(f, mbuf.Config{Count: 2048 + 512})
	f.Fuzz(func(t *testing.T, data, cuts []byte, flags uint8, seg uint16) {
		r := newRig(t, pool, Config{Mode: "mtu", Alloc: shared(pool)})
		data = data[:min(len(data), 1024)]
		m := packet(t, pool, data, cutsOf(cuts)...)
		l := header.Parse(data)
		lengths := l.Lengths()
		lengths.TSOSegSize = int(seg)
		m.SetLengths(lengths)
		m.PacketType, m.OlFlags = l.PacketType, []uint64{lro, mbuf.RxLRO, oneTag, mbuf.RxL4CksumNone}[flags%4]
		r.rx.waiting = append(r.rx.waiting, m)
		r.s.burst()
		payload := 0
		for _, m := range r.tx.got {
			if err := m.Check(); err != nil {
				t.Error(err)
			}
			payload += int(m.PktLen)
		}
		st := r.s.Stats()
		if len(r.tx.got) == 0 && st.Malformed+st.NoMbuf == 0 {
			t.Errorf("lost without a count: %+v", st)
		}
		if flags%4 >= 2 && payload != len(data) {
			t.Errorf("%d bytes came out of %d", payload, len(data))
		}
		mbuf.FreeBulk(r.tx.got)
		if n := pool.InUseCount(); n != 0 {
			t.Errorf("%d mbufs still in use", n)
		}
	})
}
