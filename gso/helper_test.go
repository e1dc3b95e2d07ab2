// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

func TestMain(m *testing.M) { nettest.Main(m) }

// newPool makes a pool that must have all its mbufs back when the test ends.
func newPool(t testing.TB, count, room int) *mbuf.Pool {
	t.Helper()
	p, err := mbuf.NewPool(mbuf.Config{Count: count, DataRoom: room})
	nettest.NeedLinux(t, err)
	t.Cleanup(func() {
		if n := p.InUseCount(); n != 0 {
			t.Errorf("%d mbufs lost", n)
			return
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// spec describes a packet; build makes it. It is a second, plain implementation of
// what the package does: a large frame is built from one spec, and the packets it
// has to be cut into from others.
type spec struct {
	v6, tcp bool
	bare    bool     // without Ethernet header
	tags    []uint16 // TPIDs in the data; the tag is 100 and counts up
	mac     byte
	tos     byte
	ttl     byte
	label   uint32 // IPv6
	id      uint16
	df      bool
	frag    uint16 // offset in 8 bytes, and MF
	ipOpts  []byte
	ext     []byte // IPv6, without the next header of the last
	host    byte
	sport   uint16
	dport   uint16
	seq     uint32
	ack     uint32
	win     uint16
	flags   byte
	tcpOpts []byte
	payload []byte
	partial bool // the checksum is the sum of the pseudo-header
	pad     int  // bytes behind the IP packet
}

func (s *spec) build() []byte {
	b := s.buildFrame()
	if s.bare {
		b = b[14:]
	}
	return b
}

func (s *spec) buildFrame() []byte {
	b := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, s.mac}
	for i, tpid := range s.tags {
		b = be.AppendUint16(b, tpid)
		b = be.AppendUint16(b, uint16(100+i))
	}
	l4 := s.transport()
	if s.v6 {
		b = be.AppendUint16(b, etherIPv6)
		b = append(b, s.network6(len(l4))...)
	} else {
		b = be.AppendUint16(b, etherIPv4)
		b = append(b, s.network4(len(l4))...)
	}
	b = append(b, l4...)
	return append(b, make([]byte, s.pad)...)
}

func (s *spec) addrs() []byte {
	if !s.v6 {
		return []byte{10, 0, 0, 1, 10, 0, 0, 100 + s.host}
	}
	a := make([]byte, 32)
	a[0], a[1], a[15], a[16], a[17], a[31] = 0xfd, 1, 1, 0xfd, 1, 100+s.host
	return a
}

func (s *spec) proto() byte {
	if s.tcp {
		return 6
	}
	return 17
}

func (s *spec) network4(n int) []byte {
	b := []byte{0x45 + byte(len(s.ipOpts)/4), s.tos}
	b = be.AppendUint16(b, uint16(20+len(s.ipOpts)+n))
	b = be.AppendUint16(b, s.id)
	off := s.frag
	if s.df {
		off |= 0x4000
	}
	b = be.AppendUint16(b, off)
	b = append(b, s.ttl, s.proto(), 0, 0)
	b = append(b, s.addrs()...)
	b = append(b, s.ipOpts...)
	be.PutUint16(b[10:], ^slowSum(b))
	return b
}

func (s *spec) network6(n int) []byte {
	b := be.AppendUint32(nil, 6<<28|uint32(s.tos)<<20|s.label)
	b = be.AppendUint16(b, uint16(n+len(s.ext)))
	next := s.proto()
	if len(s.ext) > 0 {
		next = 60 // destination options, the only ones here
	}
	b = append(b, next, s.ttl)
	b = append(b, s.addrs()...)
	if len(s.ext) > 0 {
		at := len(b)
		b = append(b, s.ext...)
		b[at] = s.proto()
	}
	return b
}

func (s *spec) transport() []byte {
	b := be.AppendUint16(nil, s.sport)
	b = be.AppendUint16(b, s.dport)
	field := 6
	if s.tcp {
		field = 16
		b = be.AppendUint32(b, s.seq)
		b = be.AppendUint32(b, s.ack)
		b = append(b, byte(5+len(s.tcpOpts)/4)<<4, s.flags)
		b = be.AppendUint16(b, s.win)
		b = append(b, 0, 0, 0, 0)
		b = append(b, s.tcpOpts...)
	} else {
		b = be.AppendUint16(b, uint16(8+len(s.payload)))
		b = append(b, 0, 0)
	}
	b = append(b, s.payload...)
	pseudo := be.AppendUint16(append(s.addrs(), 0, s.proto()), uint16(len(b)))
	if s.partial {
		be.PutUint16(b[field:], slowSum(pseudo))
		return b
	}
	if len(b)&1 == 1 {
		pseudo = append(append(pseudo, b...), 0)
	} else {
		pseudo = append(pseudo, b...)
	}
	c := ^slowSum(pseudo)
	if c == 0 && !s.tcp {
		c = 0xffff
	}
	be.PutUint16(b[field:], c)
	return b
}

// slowSum is RFC 1071 word by word.
func slowSum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i]) << 8
		if i+1 < len(b) {
			s += uint32(b[i+1])
		}
		if s > 0xffff {
			s = s&0xffff + 1
		}
	}
	return uint16(s)
}

// cutUp is what the packet has to become.
func (s *spec) cutUp(mss int) [][]byte {
	var out [][]byte
	for off := 0; off == 0 || off < len(s.payload); off += mss {
		p := *s
		p.partial, p.pad = false, 0
		p.payload = s.payload[off:min(off+mss, len(s.payload))]
		p.seq += uint32(off)
		p.id += uint16(len(out))
		if off > 0 {
			p.flags &^= 0x80
		}
		if off+mss < len(s.payload) {
			p.flags &^= 0x09
		}
		out = append(out, p.build())
	}
	return out
}

// l2 and the others are the lengths of the headers.
func (s *spec) lengths(mss int) mbuf.Lengths {
	l := mbuf.Lengths{L2: 14 + 4*len(s.tags), L3: 20 + len(s.ipOpts), L4: 8, TSOSegSize: mss}
	if s.bare {
		l.L2 = 0
	}
	if s.v6 {
		l.L3 = 40 + len(s.ext)
	}
	if s.tcp {
		l.L4 = 20 + len(s.tcpOpts)
	}
	return l
}

func (s *spec) ptype() uint32 {
	t := []uint32{mbuf.PTypeL2Ether, mbuf.PTypeL2EtherVLAN, mbuf.PTypeL2EtherQinQ}[len(s.tags)]
	if s.bare {
		t = 0
	}
	switch {
	case s.v6 && len(s.ext) > 0:
		t |= mbuf.PTypeL3IPv6Ext
	case s.v6:
		t |= mbuf.PTypeL3IPv6
	case len(s.ipOpts) > 0:
		t |= mbuf.PTypeL3IPv4Ext
	default:
		t |= mbuf.PTypeL3IPv4
	}
	if s.tcp {
		return t | mbuf.PTypeL4TCP
	}
	return t | mbuf.PTypeL4UDP
}

// base is a packet of a flow with everything in its usual place.
func base(v6, tcp bool, payload int) spec {
	return spec{v6: v6, tcp: tcp, mac: 2, ttl: 64, id: 0xfffe, df: true, sport: 1000, dport: 2000, label: 0x12345,
		seq: 0xffffff00, ack: 77, win: 500, flags: 0x10, payload: pattern(payload, 1)}
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)*3 ^ byte(i>>8) + seed
	}
	return b
}

// packetOf makes an mbuf of data, or a chain.
func packetOf(t testing.TB, a mbuf.Allocator, data []byte) *mbuf.Mbuf {
	t.Helper()
	var one [1]*mbuf.Mbuf
	if a.AllocBulk(one[:]) != 1 {
		t.Fatal("no mbufs")
	}
	if err := one[0].CopyIn(data, a); err != nil {
		t.Fatal(err)
	}
	return one[0]
}

// pieces makes a chain of data cut anywhere.
func pieces(t testing.TB, a mbuf.Allocator, data []byte, r *rand.Rand, most int) *mbuf.Mbuf {
	t.Helper()
	var head *mbuf.Mbuf
	for head == nil || len(data) > 0 {
		n := min(1+r.IntN(most), len(data))
		m := packetOf(t, a, data[:n])
		data = data[n:]
		if head == nil {
			head = m
		} else if err := mbuf.Chain(head, m); err != nil {
			t.Fatal(err)
		}
	}
	return head
}

// largeOf makes the large frame that s and mss say.
func largeOf(t testing.TB, a mbuf.Allocator, s spec, mss int) *mbuf.Mbuf {
	t.Helper()
	m := packetOf(t, a, s.build())
	asLarge(m, &s, mss)
	return m
}

func asLarge(m *mbuf.Mbuf, s *spec, mss int) {
	m.OlFlags |= mbuf.RxLRO | mbuf.RxL4CksumNone
	if !s.partial {
		m.OlFlags = m.OlFlags&^mbuf.RxL4CksumMask | mbuf.RxL4CksumGood
	}
	m.PacketType = s.ptype()
	m.SetLengths(s.lengths(mss))
}

// parse is what package header says of packet b.
func (s *spec) parse(b []byte) header.Layout {
	if s.bare {
		return header.ParseIP(b)
	}
	return header.Parse(b)
}

// differ says where two packets differ.
func differ(got, want []byte) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Sprintf("byte %d is %#x, want %#x", i, got[i], want[i])
		}
	}
	return ""
}

// expect checks packets and gives them up.
func expect(t testing.TB, got []*mbuf.Mbuf, want [][]byte) {
	t.Helper()
	defer mbuf.FreeBulk(got)
	if len(got) != len(want) {
		t.Errorf("%d packets, want %d", len(got), len(want))
		return
	}
	for i, m := range got {
		if err := m.Check(); err != nil {
			t.Errorf("packet %d: %v", i, err)
			return
		}
		if d := differ(m.AppendTo(nil), want[i]); d != "" {
			t.Errorf("packet %d of %d: %s", i, len(want), d)
			return
		}
	}
}
