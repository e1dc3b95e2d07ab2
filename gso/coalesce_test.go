// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

const good = mbuf.RxL4CksumGood | mbuf.RxIPCksumGood

// next is the packet after s, with n bytes.
func (s spec) next(n int) spec {
	s.seq += uint32(len(s.payload))
	s.id++
	s.payload = pattern(n, byte(s.seq))
	return s
}

func received(t testing.TB, a mbuf.Allocator, s spec, flags uint64) *mbuf.Mbuf {
	t.Helper()
	m := packetOf(t, a, s.build())
	m.OlFlags, m.PacketType = flags, s.ptype()
	m.SetLengths(s.lengths(0))
	return m
}

// TestCoalesce: what was cut is put together to what it was, byte for byte.
func TestCoalesce(t *testing.T) {
	p := newPool(t, 128, 2048)
	big := newPool(t, 2, 65000)
	out := make([]*mbuf.Mbuf, 128)
	for _, size := range []struct{ payload, mss int }{{2, 1}, {3000, 1448}, {2896, 1448}, {1449, 1448}, {60000, 1448}, {63 * 20, 20}, {64 * 20, 20}} {
		for _, v6 := range []bool{false, true} {
			for _, tcp := range []bool{false, true} {
				for tags := range 4 {
					s := base(v6, tcp, size.payload)
					if s.bare = tags == 3; !s.bare {
						s.tags = []uint16{0x88a8, 0x8100}[2-tags:]
					}
					s.partial = true
					if tcp {
						s.flags |= tcpCWR | tcpFIN | tcpPSH | 0x40
						s.tcpOpts = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}
					}
					t.Run(fmt.Sprintf("v6=%v tcp=%v tags=%d %d by %d", v6, tcp, tags, size.payload, size.mss), func(t *testing.T) {
						m := largeOf(t, big, s, size.mss)
						defer m.Free()
						var seg Segmenter
						n, err := seg.Segment(m, p, out)
						if err != nil {
							t.Fatal(err)
						}
						co := NewCoalescer(CoalescerConfig{IP: s.bare})
						k := co.Burst(out[:n])
						for _, left := range out[k:n] {
							if left != nil {
								t.Fatal("something is left behind the last packet")
							}
						}
						if k == 1 {
							merged(t, &s, out[0], size.mss)
							back, err := seg.Segment(out[0], p, out[1:])
							if err != nil {
								t.Fatal(err)
							}
							expect(t, out[1:1+back], s.cutUp(size.mss))
						}
						expect(t, out[:k], [][]byte{s.build()})
					})
				}
			}
		}
	}
}

func merged(t *testing.T, s *spec, m *mbuf.Mbuf, mss int) {
	t.Helper()
	want := uint64(mbuf.TxIPv4)
	if s.v6 {
		want = mbuf.TxIPv6
	}
	if s.tcp {
		want |= mbuf.TxTCPSeg | mbuf.TxTCPCksum
	} else {
		want |= mbuf.TxUDPSeg | mbuf.TxUDPCksum
	}
	if m.OlFlags != want || m.Lengths() != s.lengths(mss) || m.PacketType != s.ptype() {
		t.Errorf("flags %#x, want %#x; %+v; type %#x", m.OlFlags, want, m.Lengths(), m.PacketType)
	}
}

// TestNothingIsOvertaken by packets of its flow, as far as that can be told.
func TestNothingIsOvertaken(t *testing.T) {
	p := newPool(t, 8, 2048)
	between := map[string]struct {
		v6     bool
		change func(s *spec, m *mbuf.Mbuf)
		want   int
	}{
		"IPv4 options": {false, func(_ *spec, m *mbuf.Mbuf) { m.Bytes()[14] = 0x46 }, 3},
		"a fragment":   {false, func(_ *spec, m *mbuf.Mbuf) { m.Bytes()[20] = 0x20 }, 3},
		"three tags": {false, func(_ *spec, m *mbuf.Mbuf) {
			copy(m.Bytes()[12:], []byte{0x81, 0, 0, 0, 0x88, 0xa8, 0, 0, 0x81, 0, 0, 0})
		}, 3},
		"a short IPv4 header": {false, func(_ *spec, m *mbuf.Mbuf) { m.Trim(int(m.PktLen) - 33) }, 3},
		"a short IPv6 header": {true, func(_ *spec, m *mbuf.Mbuf) { m.Trim(int(m.PktLen) - 53) }, 3},
		"short ports":         {true, func(_ *spec, m *mbuf.Mbuf) { m.Trim(int(m.PktLen) - 61) }, 3},
		"a short TCP header":  {false, func(_ *spec, m *mbuf.Mbuf) { m.Trim(int(m.PktLen) - 53) }, 3},
		"a tag, cut short":    {false, func(_ *spec, m *mbuf.Mbuf) { m.Bytes()[12] = 0x81; m.Bytes()[13] = 0; m.Trim(int(m.PktLen) - 17) }, 3},
		"not IPv6":            {true, func(_ *spec, m *mbuf.Mbuf) { m.Bytes()[14] = 0x40 }, 3},
		"ICMP":                {false, func(_ *spec, m *mbuf.Mbuf) { m.Bytes()[23] = 1 }, 2},
		"ICMPv6":              {true, func(_ *spec, m *mbuf.Mbuf) { m.Bytes()[20] = 58 }, 2},
		"ARP":                 {false, func(_ *spec, m *mbuf.Mbuf) { m.Bytes()[13] = 6 }, 2},
		"another flow":        {false, func(_ *spec, m *mbuf.Mbuf) { m.Bytes()[35]++ }, 2},
		"the same flow":       {true, func(_ *spec, m *mbuf.Mbuf) { m.OlFlags = mbuf.RxL4CksumBad }, 3},
	}
	for _, next := range []byte{0, 43, 44, 51, 60} {
		between[fmt.Sprintf("IPv6 extension header %d", next)] = struct {
			v6     bool
			change func(s *spec, m *mbuf.Mbuf)
			want   int
		}{true, func(_ *spec, m *mbuf.Mbuf) { m.Bytes()[20] = next }, 3}
	}
	for name, c := range between {
		s := base(c.v6, true, 100)
		bufs := []*mbuf.Mbuf{received(t, p, s, good), received(t, p, s, good), received(t, p, s.next(100), good)}
		c.change(&s, bufs[1])
		var co Coalescer
		n := co.Burst(bufs)
		if n != c.want {
			t.Errorf("%s: %d are left, want %d", name, n, c.want)
		}
		mbuf.FreeBulk(bufs[:n])
	}
}

// TestHeadersLongerThanTheFirst packet are not looked for in it.
func TestHeadersLongerThanTheFirst(t *testing.T) {
	p := newPool(t, 8, 2048)
	s := base(false, true, 1)
	second := s.next(1)
	second.tcpOpts = make([]byte, 40)
	bufs := []*mbuf.Mbuf{received(t, p, s, good), received(t, p, second, good)}
	var co Coalescer
	if n := co.Burst(bufs); n != 2 {
		t.Errorf("%d are left", n)
	}
	mbuf.FreeBulk(bufs)
}

func TestTCPHeaderTooShort(t *testing.T) {
	p := newPool(t, 8, 2048)
	s := base(true, true, 96)
	second := s.next(96)
	second.seq += 4 // what is missing in the header counts as payload
	bufs := []*mbuf.Mbuf{received(t, p, s, good), received(t, p, second, good)}
	for _, m := range bufs {
		m.Bytes()[14+40+12] = 0x40
	}
	var co Coalescer
	n := co.Burst(bufs)
	if n != 2 {
		t.Errorf("%d are left", n)
	}
	mbuf.FreeBulk(bufs[:n])
}

// TestLoop: a chain without end.
func TestLoop(t *testing.T) {
	p := newPool(t, 8, 2048)
	s := base(false, true, 100)
	bufs := []*mbuf.Mbuf{received(t, p, s, good), received(t, p, s.next(100), good)}
	second := bufs[1]
	second.Next = second
	var co Coalescer
	if n := co.Burst(bufs); n != 2 {
		t.Errorf("%d are left", n)
	}
	var seg Segmenter
	asLarge(second, &s, 10)
	out := make([]*mbuf.Mbuf, 16)
	n, _ := seg.Segment(second, p, out)
	p.FreeBulk(out[:n])
	second.Next = nil
	mbuf.FreeBulk(bufs)
}

func TestTunnelsAreLeftAlone(t *testing.T) {
	p := newPool(t, 8, 2048)
	for _, ptype := range []uint32{mbuf.PTypeTunnelVXLAN, mbuf.PTypeTunnelGENEVE, 0} {
		s := base(false, false, 100)
		bufs := []*mbuf.Mbuf{received(t, p, s, good), received(t, p, s.next(100), good)}
		bufs[0].PacketType |= ptype
		bufs[1].PacketType |= ptype
		var co Coalescer
		n := co.Burst(bufs)
		if (n == 1) != (ptype == 0) {
			t.Errorf("type %#x: %d are left", ptype, n)
		}
		mbuf.FreeBulk(bufs[:n])
	}
}

func TestLimits(t *testing.T) {
	p := newPool(t, 2048, 100)
	for _, c := range []struct {
		cfg                  CoalescerConfig
		packets, bytes, want int
	}{
		{CoalescerConfig{}, 2, 100, 1},
		{CoalescerConfig{MaxSegs: 1}, 3, 40, 3},
		{CoalescerConfig{MaxSegs: 2}, 3, 40, 2},
		{CoalescerConfig{MaxSegs: 3}, 4, 100, 4}, // of two segments each
		{CoalescerConfig{MaxSegs: 4}, 4, 100, 2},
		{CoalescerConfig{MaxSize: 40 + 120}, 6, 40, 2},
		{CoalescerConfig{MaxSize: 40 + 119}, 6, 40, 3},
		{CoalescerConfig{MaxSize: 100000}, 66, 1000, 2}, // 65 × 1000 + 40
		{CoalescerConfig{}, 45, 1455, 1},                // 65515
		{CoalescerConfig{}, 45, 1456, 2},                // 65560
		{CoalescerConfig{MaxSegs: 100000}, 1500, 1, 1},
		{CoalescerConfig{MaxSegs: -1, MaxSize: -1}, 1500, 1, 2},
		{CoalescerConfig{NoTCP: true}, 3, 40, 3},
		{CoalescerConfig{NoUDP: true}, 3, 40, 1},
	} {
		s := base(false, true, c.bytes)
		var bufs []*mbuf.Mbuf
		for range c.packets {
			bufs = append(bufs, received(t, p, s, good))
			s = s.next(c.bytes)
		}
		n := NewCoalescer(c.cfg).Burst(bufs)
		if n != c.want {
			t.Errorf("%+v: %d of %d are left, want %d", c.cfg, n, c.packets, c.want)
		}
		for _, m := range bufs[:n] {
			if err := m.Check(); err != nil {
				t.Error(err)
			}
			for s := m.Next; s != nil; s = s.Next {
				if s.NbSegs != 1 {
					t.Errorf("%+v: a segment inside says that it is %d", c.cfg, s.NbSegs)
				}
			}
			if l := header.IPLength(m.Bytes()[14:]); l != int(m.PktLen)-14 {
				t.Errorf("%+v: IP says %d of %d bytes", c.cfg, l, m.PktLen)
			}
		}
		mbuf.FreeBulk(bufs[:n])
	}
}

// TestMoreFlowsThanPlaces: nothing is lost, and what is in the table still merges.
func TestMoreFlowsThanPlaces(t *testing.T) {
	const flows = 4 * tableSize
	p := newPool(t, 2*flows+1, 200)
	var co Coalescer
	for range 2 {
		var bufs []*mbuf.Mbuf
		for i := range 2 * flows {
			s := base(false, true, 10)
			s.sport = uint16(i)
			if i >= flows { // the last flows first: those before have lost their places
				s.sport = uint16(2*flows - 1 - i)
				s = s.next(10)
			}
			bufs = append(bufs, received(t, p, s, good))
		}
		n := co.Burst(bufs)
		if n <= flows || n >= 2*flows-tableSize/2 {
			t.Errorf("%d of %d are left", n, 2*flows)
		}
		total := 0
		for _, m := range bufs[:n] {
			total += int(m.PktLen) - 54
		}
		if total != 2*flows*10 {
			t.Errorf("%d bytes", total)
		}
		mbuf.FreeBulk(bufs[:n])
		for i := range co.table.flows {
			if f := &co.table.flows[i]; f.head != nil || f.last != nil {
				t.Fatal("mbufs are kept behind Burst")
			}
		}
	}
}

// TestFlowsThatLoseTheirPlace: frames are complete all the same.
func TestFlowsThatLoseTheirPlace(t *testing.T) {
	const flows = 4 * tableSize
	p := newPool(t, 2*flows+1, 200)
	var bufs []*mbuf.Mbuf
	for i := range flows {
		s := base(false, true, 10)
		s.sport = uint16(i)
		bufs = append(bufs, received(t, p, s, good), received(t, p, s.next(10), good))
	}
	var co Coalescer
	n := co.Burst(bufs)
	if n != flows {
		t.Errorf("%d are left of %d flows", n, flows)
	}
	for _, m := range bufs[:n] {
		if m.OlFlags&mbuf.TxTCPSeg == 0 || header.IPLength(m.Bytes()[14:]) != 60 {
			t.Fatalf("flags %#x, %d bytes of IP", m.OlFlags, header.IPLength(m.Bytes()[14:]))
		}
	}
	mbuf.FreeBulk(bufs[:n])
}

// TestSameHash: flows are told apart by more than their hashes.
func TestSameHash(t *testing.T) {
	p := newPool(t, 1, 2048)
	for _, v6 := range []bool{false, true} {
		s := base(v6, true, 10)
		m := received(t, p, s, good)
		var a packet
		a.parse(m.Bytes(), false)
		var tab table
		tab.open(1).begin(m, &a)
		for name, change := range map[string]func(s *spec){
			"nothing": func(*spec) {}, "source port": func(s *spec) { s.sport++ }, "port": func(s *spec) { s.dport++ },
			"address": func(s *spec) { s.host++ }, "protocol": func(s *spec) { s.tcp = false }, "version": func(s *spec) { s.v6 = !v6 },
		} {
			other := base(v6, true, 10)
			change(&other)
			b := other.build()
			var q packet
			q.parse(b, false)
			if found := tab.find(1, b, &q) != nil; found != (name == "nothing") {
				t.Errorf("v6=%v, other %s: found %v", v6, name, found)
			}
		}
		tab.closeAll()
		m.Free()
	}
}

func TestCoalesceDoesNotAllocate(t *testing.T) {
	p := newPool(t, 128, 2048)
	var co Coalescer
	bufs := make([]*mbuf.Mbuf, 0, 64)
	s := base(false, true, 1000)
	frames := s.cutUp(50)
	n := testing.AllocsPerRun(nettest.Scale(100), func() {
		bufs = bufs[:cap(bufs)]
		k := p.AllocBulk(bufs[:20])
		for i, m := range bufs[:k] {
			copy(m.Append(len(frames[i])), frames[i])
		}
		if n := co.Burst(bufs[:k]); n != 1 {
			t.Fatal(n)
		}
		p.FreeBulk(bufs[:1])
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
