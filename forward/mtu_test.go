// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"bytes"
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

const lro = mbuf.RxLRO | mbuf.RxL4CksumNone

func mtuRig(t testing.TB, burst, pool int) *rig {
	p := newPool(t, mbuf.Config{Count: pool})
	return newRig(t, p, Config{Mode: "mtu", Burst: burst, Alloc: shared(p), Csum: CsumConfig{TCPSeg: true, UDPSeg: true}})
}

// after moves a TCP packet on by n bytes of the stream, and its IPv4 ID by ids.
func (d made) after(n, ids int) made {
	b := edit(d.b, func(b []byte) {
		put16(b[18:], uint16(0x1234+ids))
		put16(b[24:], 0)
		put16(b[24:], inetSum(b[14:34]))
		put16(b[40:], uint16(0x0304+n))
		b[47] &^= 8 // PSH ends a frame
	})
	return made{append(b[:34:34], made{b: b[34:]}.seal(6, addrs4).b...), d.sums}
}

// TestMTU: frames come out as they came in, asking for what they were made of, with the tag that was stripped.
func TestMTU(t *testing.T) {
	tests := []struct {
		kind string
		want uint64
	}{
		{"tcp4", mbuf.TxTCPSeg | mbuf.TxTCPCksum | mbuf.TxIPv4 | mbuf.TxVLAN},
		{"tcp6", mbuf.TxTCPSeg | mbuf.TxTCPCksum | mbuf.TxIPv6 | mbuf.TxVLAN},
		{"udp4", mbuf.TxUDPSeg | mbuf.TxUDPCksum | mbuf.TxIPv4 | mbuf.TxVLAN},
		{"tcp6 qinq", mbuf.TxTCPSeg | mbuf.TxTCPCksum | mbuf.TxIPv6 | mbuf.TxVLAN},
	}
	for _, tt := range tests {
		r := mtuRig(t, 32, 256)
		for _, n := range []int{200, 201, 555, 1700} {
			for _, cuts := range [][]int{nil, {200}, {3, 60, 77}, ones(100)} {
				f := frames(n)[tt.kind]
				m := r.passMbuf(r.received(f.b, lro|oneTag, 100, cuts...))
				if m == nil {
					t.Fatalf("%s of %d bytes: %+v", tt.kind, n, r.s.Stats())
				}
				if m.OlFlags&mbuf.TxOffloadMask != tt.want || m.Lengths().TSOSegSize != 100 || m.VlanTCI != 0xe064 {
					t.Errorf("%s: flags %#x, want %#x; %+v", tt.kind, m.OlFlags, tt.want, m.Lengths())
				}
				wantBytes(t, tt.kind, transmit(t, m), tag(f.b, "8100 e064"))
				m.Free()
			}
		}
	}
}

// TestMTUKeepsApart: what the sending port cannot cut is not merged.
func TestMTUKeepsApart(t *testing.T) {
	for _, c := range []struct {
		kind string
		csum CsumConfig
		want int
	}{
		{"tcp4", CsumConfig{TCPSeg: true}, 1},
		{"tcp4", CsumConfig{UDPSeg: true}, 4},
		{"udp4", CsumConfig{UDPSeg: true}, 1},
		{"udp4", CsumConfig{TCPSeg: true}, 4},
	} {
		p := newPool(t, mbuf.Config{Count: 256})
		r := newRig(t, p, Config{Mode: "mtu", Alloc: shared(p), Csum: c.csum})
		r.rx.waiting = append(r.rx.waiting, r.received(frames(400)[c.kind].b, lro, 100))
		r.s.burst()
		if got := len(r.tx.got); got != c.want {
			t.Errorf("%s, %+v: sent as %d packets, want %d", c.kind, c.csum, got, c.want)
		}
		mbuf.FreeBulk(r.tx.got)
	}
}

// TestMTUMerges: what belongs together goes out together, so it was looked at packet by packet.
func TestMTUMerges(t *testing.T) {
	r := mtuRig(t, 32, 256)
	whole := tcp(600, "").ip4(6, "").ether("0800").after(0, 0).b
	part := func(from, to, ids int) []byte {
		d := tcp(0, "")
		d.b = append(d.b, text(600)[from:to]...)
		return d.ip4(6, "").ether("0800").after(from, ids).b
	}
	open := bytes.Clone(frames(9)["udp4"].b)
	put16(open[40:], ^inetSum(addrs4, []byte{0, 17, 0, 17}))
	r.rx.waiting = []*mbuf.Mbuf{
		r.received(part(0, 200, 0), lro, 100),                // two packets
		r.received(part(200, 300, 2), mbuf.RxL4CksumGood, 0), // one
		r.received(part(300, 600, 3), lro, 100, 13),          // three
		r.received(frames(9)["arp"].b, oneTag, 0),            // something else
		r.received(open, mbuf.RxL4CksumNone, 0),              // completed on the way
	}
	if n := r.s.burst(); n != 5 {
		t.Errorf("burst returned %d, want 5", n)
	}
	if len(r.tx.got) != 3 {
		t.Fatalf("%d packets sent, want 3", len(r.tx.got))
	}
	for i, want := range [][]byte{whole, tag(frames(9)["arp"].b, "8100 e064"), frames(9)["udp4"].b} {
		wantBytes(t, "sent", transmit(t, r.tx.got[i]), want)
	}
	if l := r.tx.got[0].Lengths(); l.TSOSegSize != 100 {
		t.Errorf("segment size %d, want 100", l.TSOSegSize)
	}
	mbuf.FreeBulk(r.tx.got)
	wantStats(t, r.s, Stats{RxPackets: 5, TxPackets: 3})
}

// TestMTUWindow: frames of more packets than fit at a time come out whole, or in as few pieces as the window makes.
func TestMTUWindow(t *testing.T) {
	tests := []struct {
		frames, payload, seg int
		want                 int // frames sent
	}{
		{1, 10 * mtuWindow, 10, 1},
		{1, 10*mtuWindow + 1, 10, 2},
		{1, 5 * mtuWindow, 2, 3},
		{4, 1000, 10, 4},   // 100 packets each: the third does not go into the window with two others
		{40, 1790, 30, 40}, // 60 packets
	}
	for _, tt := range tests {
		r := mtuRig(t, 32, 4096)
		f := tcp(tt.payload, "").ip4(6, "").ether("0800").b // with PSH: the frame ends here
		for range tt.frames {
			r.rx.waiting = append(r.rx.waiting, r.received(f, lro, tt.seg, 1000, 1000))
		}
		for got := 0; got < tt.frames; {
			n := r.s.burst()
			if n == 0 {
				t.Fatal("nothing received")
			}
			got += n
		}
		if len(r.tx.got) != tt.want {
			t.Errorf("%+v: %d frames sent", tt, len(r.tx.got))
		}
		var stream []byte
		for _, m := range r.tx.got {
			stream = append(stream, m.AppendTo(nil)[m.Lengths().Headers():]...)
		}
		if !bytes.Equal(stream, bytes.Repeat(text(tt.payload), tt.frames)) {
			t.Errorf("%+v: %d bytes came out, others than the %d sent", tt, len(stream), tt.frames*tt.payload)
		}
		mbuf.FreeBulk(r.tx.got)
		wantStats(t, r.s, Stats{RxPackets: uint64(tt.frames), TxPackets: uint64(tt.want)})
	}
}

// TestMTUBursts: packets that are not merged go out in bursts no larger than those that are received.
func TestMTUBursts(t *testing.T) {
	r := mtuRig(t, 4, 256)
	r.tx.step = 3
	f := tcp(1000, "").ip4(6, "").ether("0800").b
	f[47] |= 0x20 // URG is not for merging
	r.rx.waiting = []*mbuf.Mbuf{r.received(f, lro, 100)}
	r.s.burst()
	if r.tx.largest != 4 || len(r.tx.got) != 8 {
		t.Errorf("%d packets sent, at most %d in a burst; want 8 and 4", len(r.tx.got), r.tx.largest)
	}
	for _, m := range r.tx.got {
		if n := m.PktLen - 54; n != 100 || m.OlFlags&mbuf.TxOffloadMask != 0 {
			t.Errorf("a packet with %d bytes of payload, flags %#x", n, m.OlFlags)
		}
	}
	mbuf.FreeBulk(r.tx.got)
	wantStats(t, r.s, Stats{RxPackets: 1, TxPackets: 8, FwdDropped: 2})
}

// TestMTULost: packets without an mbuf, and frames that are none, are counted.
func TestMTULost(t *testing.T) {
	r := mtuRig(t, 32, 8)
	wait := func(m *mbuf.Mbuf) { r.rx.waiting = append(r.rx.waiting, m) }
	wait(r.received(frames(1000)["tcp4"].b, lro, 100)) // 10 packets, 7 mbufs
	r.s.burst()
	if len(r.tx.got) != 1 || r.tx.got[0].PktLen != 54+700 {
		t.Errorf("%d frames sent, want one with 700 bytes", len(r.tx.got))
	}
	mbuf.FreeBulk(r.tx.got)
	r.tx.got = nil
	for _, kind := range []string{"arp", "gre", "icmp4", "fragment"} {
		wait(r.received(frames(100)[kind].b, lro, 10))
	}
	wait(r.received(frames(100)["tcp4"].b, lro, 0))
	r.s.burst()
	r.s.burst()
	wantStats(t, r.s, Stats{RxPackets: 6, TxPackets: 1, NoMbuf: 3, Malformed: 5})
}

func TestMTUIdle(t *testing.T) {
	r := mtuRig(t, 32, 8)
	if n := r.s.burst(); n != 0 || r.tx.calls != 0 {
		t.Errorf("burst returned %d with %d calls of the Tx queue, want 0 and 0", n, r.tx.calls)
	}
	_, err := New(Config{Mode: "mtu"}, testPorts(1)...)
	if ce, ok := err.(*ConfigError); !ok || ce.Field != "Alloc" {
		t.Errorf("without Alloc: %v", err)
	}
}
