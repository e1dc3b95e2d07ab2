// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// rule is a change to the second of two packets, and what becomes of them.
type rule struct {
	name   string
	change func(s *spec)
	fate   fate
}

type fate int

const (
	apart fate = iota // not merged
	last              // merged, but nothing may follow
	joined
)

var rules = []rule{
	{"nothing", func(*spec) {}, joined},
	{"shorter", func(s *spec) { s.payload = s.payload[:99] }, last},
	{"larger", func(s *spec) { s.payload = pattern(len(s.payload)+1, 0) }, apart},
	{"empty", func(s *spec) { s.payload = nil }, apart},
	{"other source MAC", func(s *spec) { s.mac++ }, apart},
	{"a tag", func(s *spec) { s.tags = []uint16{0x8100} }, apart},
	{"other TTL", func(s *spec) { s.ttl++ }, apart},
	{"other TOS", func(s *spec) { s.tos = 3 }, apart},
	{"padding", func(s *spec) { s.pad = 1 }, apart},
	{"other source port", func(s *spec) { s.sport++ }, apart},
	{"other destination port", func(s *spec) { s.dport++ }, apart},
	{"other address", func(s *spec) { s.host++ }, apart},
	{"other protocol", func(s *spec) { s.tcp = !s.tcp }, apart},
}

var rules4 = []rule{
	{"no DF", func(s *spec) { s.df = false }, apart},
	{"ID skips one", func(s *spec) { s.id++ }, apart},
	{"ID goes back", func(s *spec) { s.id -= 2 }, apart},
	{"ID stays", func(s *spec) { s.id-- }, last}, // that of the third does not
	{"options", func(s *spec) { s.ipOpts = []byte{1, 1, 1, 0} }, apart},
	{"first fragment", func(s *spec) { s.frag = 0x2000 }, apart},
	{"last fragment", func(s *spec) { s.frag = 1 }, apart},
}

var rules6 = []rule{
	{"flow label", func(s *spec) { s.label++ }, apart},
	{"extension header", func(s *spec) { s.ext = []byte{0, 0, 1, 4, 0, 0, 0, 0} }, apart},
}

var rulesTCP = []rule{
	{"gap", func(s *spec) { s.seq++ }, apart},
	{"again", func(s *spec) { s.seq -= 100 }, apart},
	{"ACK", func(s *spec) { s.ack++ }, apart},
	{"window", func(s *spec) { s.win++ }, apart},
	{"more options", func(s *spec) { s.tcpOpts = append(s.tcpOpts, 1, 1, 1, 1) }, apart},
	{"other options", func(s *spec) { s.tcpOpts = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 9} }, apart},
	{"SYN", func(s *spec) { s.flags |= tcpSYN }, apart},
	{"RST", func(s *spec) { s.flags |= tcpRST }, apart},
	{"URG", func(s *spec) { s.flags |= tcpURG }, apart},
	{"no ACK", func(s *spec) { s.flags = 0 }, apart},
	{"ECE", func(s *spec) { s.flags |= 0x40 }, apart},
	{"CWR", func(s *spec) { s.flags |= tcpCWR }, apart},
	{"PSH", func(s *spec) { s.flags |= tcpPSH }, last},
	{"FIN", func(s *spec) { s.flags |= tcpFIN }, last},
}

func TestRules(t *testing.T) {
	p := newPool(t, 16, 2048)
	for _, v6 := range []bool{false, true} {
		for _, tcp := range []bool{false, true} {
			all := append([]rule(nil), rules...)
			all = append(all, map[bool][]rule{false: rules4, true: rules6}[v6]...)
			if tcp {
				all = append(all, rulesTCP...)
			}
			for _, r := range all {
				t.Run(fmt.Sprintf("v6=%v tcp=%v %s", v6, tcp, r.name), func(t *testing.T) { r.check(t, p, v6, tcp) })
			}
		}
	}
}

func (r rule) check(t *testing.T, p *mbuf.Pool, v6, tcp bool) {
	first := base(v6, tcp, 100)
	first.tcpOpts = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}
	second := first.next(100)
	third := second.next(100)
	r.change(&second)
	want := [][]byte{first.build(), second.build()}
	var co Coalescer
	bufs := []*mbuf.Mbuf{received(t, p, first, good), received(t, p, second, good)}
	n := co.Burst(bufs)
	if (n == 2) != (r.fate == apart) {
		t.Errorf("%d packets are left of two", n)
	}
	for i, m := range bufs[:n] {
		if n == 2 && (m.OlFlags != good || differ(m.AppendTo(nil), want[i]) != "") {
			t.Errorf("packet %d was changed", i)
		}
	}
	mbuf.FreeBulk(bufs[:n])
	if r.fate == last {
		bufs = []*mbuf.Mbuf{received(t, p, first, good), received(t, p, second, good), received(t, p, third, good)}
		if n := co.Burst(bufs); n != 2 {
			t.Errorf("%d packets are left of three", n)
		}
		mbuf.FreeBulk(bufs[:2])
	}
}

// TestFirstOfFrame: what a frame may begin with.
func TestFirstOfFrame(t *testing.T) {
	p := newPool(t, 16, 2048)
	for flags, want := range map[byte]int{
		0x10: 1, 0x10 | tcpCWR: 1, 0x10 | tcpPSH: 2, 0x10 | tcpFIN: 2, 0x10 | tcpSYN: 2, 0x10 | tcpRST: 2, 0x10 | tcpURG: 2,
	} {
		s := base(false, true, 100)
		s.flags = flags
		second := s.next(100)
		second.flags &^= tcpCWR
		bufs := []*mbuf.Mbuf{received(t, p, s, good), received(t, p, second, good)}
		var co Coalescer
		n := co.Burst(bufs)
		if n != want {
			t.Errorf("flags %#x: %d are left, want %d", flags, n, want)
		}
		if n == 1 && bufs[0].Bytes()[14+20+13] != flags {
			t.Errorf("flags %#x became %#x", flags, bufs[0].Bytes()[14+20+13])
		}
		mbuf.FreeBulk(bufs[:n])
	}
}

// TestFlags: what the driver says of packets, and what they ask for, decides too.
func TestFlags(t *testing.T) {
	p := newPool(t, 32, 2048)
	set := func(f uint64) func(m *mbuf.Mbuf) { return func(m *mbuf.Mbuf) { m.OlFlags = f } }
	wrong := func(at int) func(m *mbuf.Mbuf) {
		return func(m *mbuf.Mbuf) { m.OlFlags = 0; m.Bytes()[at]++ }
	}
	for _, c := range []struct {
		name   string
		change func(m *mbuf.Mbuf)
		want   int
	}{
		{"good", set(good), 1},
		{"nobody looked", set(0), 1},
		{"partial", set(mbuf.RxL4CksumNone), 1},
		{"IP not looked at", set(mbuf.RxL4CksumGood), 1},
		{"bad", set(mbuf.RxL4CksumBad), 3},
		{"IP bad", set(mbuf.RxL4CksumGood | mbuf.RxIPCksumBad), 3},
		{"wrong data", wrong(80), 3},
		{"wrong checksum", wrong(50), 3},
		{"wrong IP checksum", wrong(24), 3},
		{"large already", set(good | mbuf.RxLRO), 3},
		{"asks for a checksum", set(mbuf.TxTCPCksum | mbuf.TxIPv4), 3},
		{"asks for a tag", set(good | mbuf.TxVLAN), 3},
		{"stripped tag", set(good | mbuf.RxVLAN | mbuf.RxVLANStripped), 3},
		{"other port", func(m *mbuf.Mbuf) { m.Port = 9 }, 3},
		{"shared", func(m *mbuf.Mbuf) { m.RefUpdate(1) }, 3},
		{"PktLen lies", func(m *mbuf.Mbuf) { m.PktLen++ }, 3},
		{"NbSegs lies", func(m *mbuf.Mbuf) { m.NbSegs++ }, 3},
		{"PktLen and the IP header lie", func(m *mbuf.Mbuf) { m.PktLen--; m.Bytes()[17]-- }, 3},
		{"TCP header length", func(m *mbuf.Mbuf) { m.Bytes()[14+20+12] = 0x40 }, 3},
		{"DataOff lies", func(m *mbuf.Mbuf) { m.DataOff += 60000 }, 3},
	} {
		for which := range 3 {
			s := base(false, true, 100)
			bufs := []*mbuf.Mbuf{received(t, p, s, good), received(t, p, s.next(100), good), received(t, p, s.next(100).next(100), good)}
			all := append([]*mbuf.Mbuf(nil), bufs...)
			c.change(bufs[which])
			var co Coalescer
			n := co.Burst(bufs)
			want := c.want
			if want == 3 && which != 1 {
				want = 2
			}
			if n != want {
				t.Errorf("%s, packet %d: %d are left, want %d", c.name, which, n, want)
			}
			if m := all[which]; m.RefCount() == 2 {
				m.RefUpdate(-1)
			}
			all[which].NbSegs = 1
			mbuf.FreeBulk(bufs[:n])
		}
	}
}

func TestTagsInFlags(t *testing.T) {
	p := newPool(t, 32, 2048)
	const vlan, qinq = mbuf.RxVLAN | mbuf.RxVLANStripped, mbuf.RxVLAN | mbuf.RxVLANStripped | mbuf.RxQinQ | mbuf.RxQinQStripped
	for _, c := range []struct {
		flags  uint64
		change func(m *mbuf.Mbuf)
		want   int
	}{
		{0, func(m *mbuf.Mbuf) { m.VlanTCI = 9 }, 1}, // means nothing
		{vlan, func(m *mbuf.Mbuf) { m.VlanTCI = 9 }, 2},
		{vlan, func(m *mbuf.Mbuf) { m.VlanTCIOuter = 9 }, 1},
		{qinq, func(m *mbuf.Mbuf) { m.VlanTCIOuter = 9 }, 2},
	} {
		s := base(true, true, 100)
		bufs := []*mbuf.Mbuf{received(t, p, s, good|c.flags), received(t, p, s.next(100), good|c.flags)}
		c.change(bufs[1])
		var co Coalescer
		n := co.Burst(bufs)
		if n != c.want {
			t.Errorf("%#x: %d are left, want %d", c.flags, n, c.want)
		}
		if n == 1 && bufs[0].OlFlags&qinq != c.flags {
			t.Errorf("%#x: the frame's flags are %#x", c.flags, bufs[0].OlFlags)
		}
		mbuf.FreeBulk(bufs[:n])
	}
}

func TestSameIDs(t *testing.T) {
	p := newPool(t, 32, 2048)
	for _, c := range []struct {
		ids  []uint16
		df   bool
		want int
	}{
		{[]uint16{7, 7, 7}, true, 1},
		{[]uint16{0, 0, 0}, true, 1},
		{[]uint16{7, 7, 7}, false, 3},
		{[]uint16{0xffff, 0, 1}, false, 1},
		{[]uint16{7, 8, 8}, true, 2},
		{[]uint16{7, 8, 7}, true, 2},
		{[]uint16{7, 7, 8}, true, 2},
		{[]uint16{7, 8, 10}, true, 2},
		{[]uint16{7, 9, 10}, true, 2},
	} {
		s := base(false, true, 100)
		s.df = c.df
		var bufs []*mbuf.Mbuf
		for _, id := range c.ids {
			s.id = id
			bufs = append(bufs, received(t, p, s, good))
			s = s.next(100)
		}
		var co Coalescer
		n := co.Burst(bufs)
		if n != c.want {
			t.Errorf("%v: %d are left, want %d", c.ids, n, c.want)
		}
		mbuf.FreeBulk(bufs[:n])
	}
}

func TestUDPOnly(t *testing.T) {
	p := newPool(t, 256, 2048)
	burst := func(n int, change func(s *spec, b []byte)) int {
		s := base(true, false, 100)
		var bufs []*mbuf.Mbuf
		for range n {
			m := received(t, p, s, good)
			change(&s, m.Bytes())
			bufs = append(bufs, m)
			s = s.next(100)
		}
		var co Coalescer
		left := co.Burst(bufs)
		mbuf.FreeBulk(bufs[:left])
		return left
	}
	const udp = 14 + 40
	for name, c := range map[string]struct {
		n, want int
		change  func(s *spec, b []byte)
	}{
		"64 datagrams":  {64, 1, func(*spec, []byte) {}},
		"65 datagrams":  {65, 2, func(*spec, []byte) {}},
		"no checksum":   {3, 3, func(_ *spec, b []byte) { clear(b[udp+6 : udp+8]) }},
		"length short":  {3, 3, func(_ *spec, b []byte) { b[udp+5]-- }},
		"length long":   {3, 3, func(_ *spec, b []byte) { b[udp+5]++ }},
		"VXLAN":         {3, 3, func(_ *spec, b []byte) { be.PutUint16(b[udp+2:], 4789) }},
		"VXLAN, old":    {3, 3, func(_ *spec, b []byte) { be.PutUint16(b[udp+2:], 8472) }},
		"GENEVE":        {3, 3, func(_ *spec, b []byte) { be.PutUint16(b[udp+2:], 6081) }},
		"from VXLAN":    {3, 1, func(_ *spec, b []byte) { be.PutUint16(b[udp:], 4789) }},
		"three tags":    {3, 3, func(_ *spec, b []byte) { copy(b[12:], []byte{0x81, 0, 0, 0, 0x81, 0, 0, 0, 0x81, 0, 0, 0}) }},
		"not IP":        {3, 3, func(_ *spec, b []byte) { b[12]++ }},
		"not version 6": {3, 3, func(_ *spec, b []byte) { b[14] = 0x45 }},
	} {
		if got := burst(c.n, c.change); got != c.want {
			t.Errorf("%s: %d of %d are left, want %d", name, got, c.n, c.want)
		}
	}
}
