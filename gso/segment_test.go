// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// variants are packets with everything that headers may have.
func variants(payload int) map[string]spec {
	all := make(map[string]spec)
	for _, v6 := range []bool{false, true} {
		for _, tcp := range []bool{false, true} {
			s := base(v6, tcp, payload)
			s.partial = true
			name := fmt.Sprintf("v6=%v tcp=%v ", v6, tcp)
			all[name+"plain"] = s
			whole := s
			whole.partial = false
			all[name+"whole checksum"] = whole
			tagged := s
			tagged.tags = []uint16{0x8100}
			all[name+"vlan"] = tagged
			tagged.tags = []uint16{0x88a8, 0x8100}
			all[name+"qinq"] = tagged
			padded := s
			padded.pad = 5
			all[name+"padded"] = padded
			if tcp {
				s.flags = 0xff &^ (tcpSYN | tcpRST | tcpURG)
				s.tcpOpts = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}
				all[name+"flags and options"] = s
			}
			s.ipOpts = []byte{1, 1, 1, 0}
			if v6 {
				s.ipOpts, s.ext = nil, []byte{0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
			}
			all[name+"extended"] = s
			s.bare = true
			all[name+"extended, bare"] = s
			s = base(v6, tcp, payload)
			s.partial, s.bare = true, true
			all[name+"bare"] = s
			s.pad = 5
			all[name+"bare, padded"] = s
		}
	}
	return all
}

func TestSegment(t *testing.T) {
	big := newPool(t, 4, 65000)
	chain := newPool(t, 128, 2048)
	small := newPool(t, 2048, 201) // odd: sums of further segments have their bytes swapped
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]*mbuf.Mbuf, 2048)
	for _, size := range []struct{ payload, mss int }{
		{1, 1}, {2, 1}, {63, 7}, {1447, 1448}, {1448, 1448}, {1449, 1448}, {2896, 1448}, {20001, 999}, {40000, 8948}, {60000, 30001},
	} {
		for name, s := range variants(size.payload) {
			t.Run(fmt.Sprintf("%s %d by %d", name, size.payload, size.mss), func(t *testing.T) {
				frame, want := s.build(), s.cutUp(size.mss)
				for _, in := range []*mbuf.Mbuf{packetOf(t, big, frame), packetOf(t, chain, frame), pieces(t, small, frame, r, 97)} {
					asLarge(in, &s, size.mss)
					for _, to := range []*mbuf.Pool{chain, small, big} {
						var seg Segmenter
						if len(want)*(1+size.mss/to.DataRoom()) >= to.AvailCount() {
							continue
						}
						if n := seg.Segments(in); n != len(want) {
							t.Errorf("Segments: %d, want %d", n, len(want))
						}
						n, err := seg.Segment(in, to, out)
						if err != nil {
							t.Fatal(err)
						}
						described(t, &s, out[:n])
						expect(t, out[:n], want)
						if st := seg.Stats(); st != (Stats{Frames: 1, Packets: uint64(n)}) {
							t.Errorf("%+v", st)
						}
					}
					if d := differ(in.AppendTo(nil), frame); d != "" {
						t.Error("the frame was changed: ", d)
					}
					in.Free()
				}
			})
		}
	}
}

// described checks what packets cut from s say of themselves.
func described(t *testing.T, s *spec, out []*mbuf.Mbuf) {
	t.Helper()
	for _, m := range out {
		flags := mbuf.RxL4CksumGood
		if !s.v6 {
			flags |= mbuf.RxIPCksumGood
		}
		want := s.lengths(0)
		if m.OlFlags != flags || m.PacketType != s.ptype() || m.Lengths() != want {
			t.Errorf("flags %#x, want %#x; type %#x, want %#x; %+v, want %+v", m.OlFlags, flags, m.PacketType, s.ptype(), m.Lengths(), want)
		}
		if l := s.parse(m.AppendTo(nil)); l.Lengths() != want || l.PacketType != s.ptype() || !header.VerifyL4(m, l) {
			t.Errorf("the headers are %+v", l)
		}
	}
}

// TestSegmentGoesByWhatItFinds: without lengths or packet type.
func TestSegmentGoesByWhatItFinds(t *testing.T) {
	p := newPool(t, 64, 2048)
	out := make([]*mbuf.Mbuf, 32)
	for name, s := range variants(5000) {
		seg := New(Config{IP: s.bare})
		m := largeOf(t, p, s, 1000)
		m.PacketType = 0
		n, err := seg.Segment(m, p, out)
		if err != nil {
			t.Errorf("%s, without type: %v", name, err)
		}
		described(t, &s, out[:n])
		expect(t, out[:n], s.cutUp(1000))
		m.SetLengths(mbuf.Lengths{TSOSegSize: 1000})
		if n, err = seg.Segment(m, p, out); err != nil {
			t.Errorf("%s, without lengths: %v", name, err)
		}
		described(t, &s, out[:n])
		expect(t, out[:n], s.cutUp(1000))
		m.Free()
	}
}

func TestSegmentKeepsWhatIsNotInTheData(t *testing.T) {
	p := newPool(t, 64, 2048)
	out := make([]*mbuf.Mbuf, 32)
	s := base(true, false, 3000)
	m := largeOf(t, p, s, 1000)
	const stays = mbuf.RxVLAN | mbuf.RxVLANStripped | mbuf.RxQinQ | mbuf.RxQinQStripped | mbuf.RxRSSHash | mbuf.TxVLAN | mbuf.TxQinQ
	m.OlFlags = ^(mbuf.Indirect | mbuf.External | mbuf.TxTunnelMask | mbuf.TxTCPSeg)
	m.Port, m.VlanTCI, m.VlanTCIOuter, m.Hash = 3, 4, 5, [2]uint32{6, 7}
	var seg Segmenter
	n, err := seg.Segment(m, p, out)
	if n != 3 || err != nil {
		t.Fatal(n, err)
	}
	for _, d := range out[:n] {
		if d.OlFlags != stays|mbuf.RxL4CksumGood || d.Port != 3 || d.VlanTCI != 4 || d.VlanTCIOuter != 5 || d.Hash != m.Hash {
			t.Errorf("flags %#x of %+v", d.OlFlags, d)
		}
	}
	mbuf.FreeBulk(out[:n])
	m.Free()
}

func TestSegSize(t *testing.T) {
	p := newPool(t, 128, 2048)
	out := make([]*mbuf.Mbuf, 64)
	for _, c := range []struct{ config, frame, tcp, udp int }{
		{0, 1000, 1000, 1000}, {500, 1000, 500, 1000}, {1001, 1000, 1000, 1000}, {-1, 1000, 1000, 1000}, {700, 0, 700, 0}, {0, 0, 0, 0},
	} {
		for _, tcp := range []bool{true, false} {
			s := base(false, tcp, 5001)
			m := largeOf(t, p, s, c.frame)
			mss := c.udp
			if tcp {
				mss = c.tcp
			}
			seg := New(Config{SegSize: c.config})
			n, err := seg.Segment(m, p, out)
			if mss == 0 {
				if !errors.Is(err, ErrMalformed) || n != 0 {
					t.Errorf("%+v: %d, %v", c, n, err)
				}
			} else {
				expect(t, out[:n], s.cutUp(mss))
			}
			m.Free()
		}
	}
}

// TestUDPChecksumIsNeverZero: that would mean that there is none.
func TestUDPChecksumIsNeverZero(t *testing.T) {
	p := newPool(t, 8, 2048)
	out := make([]*mbuf.Mbuf, 4)
	for _, v6 := range []bool{false, true} {
		s := base(v6, false, 20)
		s.payload = s.payload[:10]
		clear(s.payload[:2])
		b := s.build()
		copy(s.payload[:2], b[s.lengths(0).Headers()-2:]) // what it lacked to a sum of 0xffff
		s.payload = append(s.payload, s.payload...)
		m := largeOf(t, p, s, 10)
		var seg Segmenter
		n, err := seg.Segment(m, p, out)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range out[:n] {
			if at := s.lengths(0).Headers() - 2; be.Uint16(d.Bytes()[at:]) != 0xffff {
				t.Errorf("v6=%v: checksum %#x", v6, be.Uint16(d.Bytes()[at:]))
			}
		}
		expect(t, out[:n], s.cutUp(10))
		m.Free()
	}
}

// TestRoutingHeader: the sum of the pseudo-header is the sender's, who knows the
// final destination.
func TestRoutingHeader(t *testing.T) {
	p := newPool(t, 8, 2048)
	out := make([]*mbuf.Mbuf, 4)
	s := base(true, true, 150)
	s.partial = true
	s.ext = []byte{0, 2, 2, 1, 0, 0, 0, 0, 0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200}
	s.host = 100 // the final destination is that in the routing header
	final := s.build()
	s.host = 1
	b := s.build()
	const at = 14 + 40 + 24 + 16
	b[20] = 43
	copy(b[at:], final[at:at+2])
	m := packetOf(t, p, b)
	asLarge(m, &s, 100)
	var seg Segmenter
	n, err := seg.Segment(m, p, out)
	if n != 2 || err != nil {
		t.Fatal(n, err)
	}
	s.host = 100
	for i, want := range s.cutUp(100) {
		if got := out[i].Bytes()[at : at+2]; string(got) != string(want[at:at+2]) {
			t.Errorf("packet %d: checksum %x, want %x", i, got, want[at:at+2])
		}
	}
	p.FreeBulk(out[:n])
	m.Free()
}

func TestLastNext(t *testing.T) {
	h := make([]byte, ipv6Len, 100)
	for _, c := range []struct {
		first byte
		ext   []byte
		want  byte
	}{
		{6, nil, 6},
		{0, []byte{6, 0, 0, 0, 0, 0, 0, 0}, 6},
		{43, []byte{17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 17},
		{51, []byte{6, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 6}, // in 4 bytes
		{0, []byte{60, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0}, 17},
		{44, []byte{6, 0, 0, 0, 0, 0, 0, 0}, 0},    // a fragment
		{0, []byte{6, 1, 0, 0, 0, 0, 0, 0}, 0},     // too short
		{0, []byte{6, 0, 0, 0, 0, 0, 0, 0, 1}, 0},  // a rest
		{6, []byte{60, 0, 0, 0, 0, 0, 0, 0}, 0},    // a header that nothing announces
		{0, []byte{60, 0, 0, 0, 0, 0, 0, 0}, 60},   // more are announced
		{59, []byte{6, 0, 0, 0, 0, 0, 0, 0, 0}, 0}, // no next header
	} {
		h[6] = c.first
		if got := lastNext(append(h, c.ext...)); got != c.want {
			t.Errorf("%d, %v: %d, want %d", c.first, c.ext, got, c.want)
		}
	}
}

func TestSegmentRefuses(t *testing.T) {
	p := newPool(t, 64, 2048)
	out := make([]*mbuf.Mbuf, 8)
	for name, c := range map[string]struct {
		change func(m *mbuf.Mbuf)
		want   error
	}{
		"ordinary":            {func(m *mbuf.Mbuf) { m.OlFlags = mbuf.RxL4CksumGood }, ErrNotLarge},
		"bad checksum":        {func(m *mbuf.Mbuf) { m.OlFlags = mbuf.RxLRO | mbuf.RxL4CksumBad }, ErrMalformed},
		"too little room":     {func(m *mbuf.Mbuf) { setMSS(m, 10) }, ErrShort},
		"no segment size":     {func(m *mbuf.Mbuf) { setMSS(m, 0) }, ErrMalformed},
		"another protocol":    {func(m *mbuf.Mbuf) { m.Bytes()[23] = 1 }, ErrMalformed},
		"asks for UDP of TCP": {func(m *mbuf.Mbuf) { m.OlFlags |= mbuf.TxUDPSeg }, ErrMalformed},
		"asks for both":       {func(m *mbuf.Mbuf) { m.OlFlags |= mbuf.TxUDPSeg | mbuf.TxTCPSeg }, ErrMalformed},
		"a fragment":          {func(m *mbuf.Mbuf) { m.Bytes()[20] |= 0x20 }, ErrMalformed},
		"a later fragment":    {func(m *mbuf.Mbuf) { m.Bytes()[21] = 1 }, ErrMalformed},
		"longer than it is":   {func(m *mbuf.Mbuf) { m.Bytes()[17]++ }, ErrMalformed},
		"cut short":           {func(m *mbuf.Mbuf) { m.Trim(1) }, ErrMalformed},
		"shorter than headers": {func(m *mbuf.Mbuf) {
			be.PutUint16(m.Bytes()[16:], 39)
		}, ErrMalformed},
		"IP header length":  {func(m *mbuf.Mbuf) { m.Bytes()[14]++ }, ErrMalformed},
		"IP version":        {func(m *mbuf.Mbuf) { m.Bytes()[14] = 0x55 }, ErrMalformed},
		"TCP header length": {func(m *mbuf.Mbuf) { m.Bytes()[14+20+12] = 0x40 }, ErrMalformed},
		"lengths beyond":    {func(m *mbuf.Mbuf) { m.SetLengths(mbuf.Lengths{L2: 127, L3: 511, L4: 20, TSOSegSize: 1000}) }, ErrMalformed},
		"lengths too small": {func(m *mbuf.Mbuf) { m.SetLengths(mbuf.Lengths{L2: 1, L3: 20, L4: 20, TSOSegSize: 1000}) }, ErrMalformed},
		"an IP header in the Ethernet header": {func(m *mbuf.Mbuf) {
			m.SetLengths(mbuf.Lengths{L2: 1, L3: 20, L4: 20, TSOSegSize: 1000})
			b := m.Bytes()[1:]
			b[0], b[9], b[32] = 0x45, protoTCP, 0x50
			be.PutUint16(b[2:], uint16(len(b)))
			clear(b[6:8])
		}, ErrMalformed},
		"a tunnel without UDP header": {func(m *mbuf.Mbuf) {
			m.OlFlags |= mbuf.TxTunnelVXLAN
			m.SetLengths(mbuf.Lengths{OuterL2: 14, OuterL3: 20, L3: 20, L4: 20, TSOSegSize: 1000})
			b := m.Bytes()
			copy(b[34:], b[14:34])
			be.PutUint16(b[36:], uint16(len(b)-34))
			b[23], b[54+12] = protoUDP, 0x50
		}, ErrMalformed},
		"PktLen too large": {func(m *mbuf.Mbuf) { m.PktLen = 60000; be.PutUint16(m.Bytes()[16:], 50000) }, ErrMalformed},
		"a tunnel of another kind": {func(m *mbuf.Mbuf) {
			m.OlFlags |= mbuf.TxTunnelGRE
			m.SetLengths(mbuf.Lengths{OuterL2: 14, OuterL3: 20, L2: 4, L3: 20, L4: 20, TSOSegSize: 1000})
		}, ErrTunnel},
		"a tunnel that is none": {func(m *mbuf.Mbuf) {
			m.OlFlags |= mbuf.TxTunnelVXLAN
			m.SetLengths(mbuf.Lengths{OuterL2: 14, OuterL3: 20, L2: 30, L3: 20, L4: 20, TSOSegSize: 1000})
		}, ErrMalformed},
	} {
		m := largeOf(t, p, base(false, true, 1500), 1000)
		c.change(m)
		var seg Segmenter
		n, err := seg.Segment(m, p, out)
		if n != 0 || !errors.Is(err, c.want) {
			t.Errorf("%s: %d, %v", name, n, err)
		}
		if (seg.Segments(m) == 0) == (c.want == ErrShort) {
			t.Errorf("%s: Segments is %d", name, seg.Segments(m))
		}
		m.DataLen = min(m.DataLen, 2048) // for Free
		m.Free()
	}
}

func setMSS(m *mbuf.Mbuf, mss int) {
	l := m.Lengths()
	l.TSOSegSize = mss
	m.SetLengths(l)
}

func TestSegmentWithoutMbufs(t *testing.T) {
	big := newPool(t, 1, 65000)
	s := base(false, true, 10000)
	m := largeOf(t, big, s, 1000)
	defer m.Free()
	out := make([]*mbuf.Mbuf, 16)
	var seg Segmenter
	for name, to := range map[string]*mbuf.Pool{
		"none": newPool(t, 9, 2048), "for some": newPool(t, 25, 500), "for the headers": newPool(t, 100, 40),
	} {
		if n, err := seg.Segment(m, to, out); n != 0 || !errors.Is(err, ErrNoMbufs) {
			t.Errorf("%s: %d, %v", name, n, err)
		}
		if n := to.InUseCount(); n != 0 {
			t.Errorf("%s: %d lost", name, n)
		}
		for i := range out {
			if out[i] != nil {
				t.Errorf("%s: something is left in out", name)
			}
		}
	}
}

// TestBeyond64KB: a frame whose IP header cannot say how long it is.
func TestBeyond64KB(t *testing.T) {
	p := newPool(t, 8, 65400)
	out := make([]*mbuf.Mbuf, 4)
	for _, v6 := range []bool{false, true} {
		s := base(v6, true, 70000)
		m := largeOf(t, p, s, 65535)
		clear(m.Bytes()[16:20]) // IPv4: length and ID; IPv6: the half of the label and the length
		most := 0xffff - s.lengths(0).L3 - 20
		var seg Segmenter
		n, err := seg.Segment(m, p, out)
		if err != nil {
			t.Fatal(err)
		}
		s.id, s.label = 0, s.label&0xf0000
		expect(t, out[:n], s.cutUp(most))
		m.Free()
	}
}

func TestSegmentDoesNotAllocate(t *testing.T) {
	p := newPool(t, 256, 2048)
	c := p.NewCache(0)
	defer c.Close()
	var seg Segmenter
	m := largeOf(t, p, base(false, true, 60000), 1448)
	defer m.Free()
	out := make([]*mbuf.Mbuf, 64)
	for name, a := range map[string]mbuf.Allocator{"pool": p, "cache": c} {
		n := testing.AllocsPerRun(nettest.Scale(100), func() {
			n, _ := seg.Segment(m, a, out)
			a.FreeBulk(out[:n])
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
