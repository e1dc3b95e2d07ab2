// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"math/rand/v2"
	"testing"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// guard fills the room behind a packet's data, so that what reads or writes beyond
// it is seen: by a packet that has such bytes, or by the bytes that are gone.
const guard = 0xa5

func guarded(t testing.TB, p *mbuf.Pool, data []byte) *mbuf.Mbuf {
	t.Helper()
	m := packetOf(t, p, data)
	for s := m; s != nil; s = s.Next {
		n := s.Tailroom()
		end := len(s.Bytes())
		s.DataLen += uint16(n)
		for i := range s.Bytes()[end:] {
			s.Bytes()[end+i] = guard
		}
		s.DataLen -= uint16(n)
	}
	return m
}

func unharmed(t testing.TB, m *mbuf.Mbuf) {
	t.Helper()
	for s := m; s != nil; s = s.Next {
		n, end := s.Tailroom(), len(s.Bytes())
		s.DataLen += uint16(n)
		for i, b := range s.Bytes()[end:] {
			if b != guard {
				t.Fatalf("byte %d behind the data was written", i)
			}
		}
		s.DataLen -= uint16(n)
	}
}

func allBack(t *testing.T, p *mbuf.Pool) {
	t.Helper()
	if n := p.InUseCount(); n != 0 && !t.Failed() {
		t.Fatalf("%d mbufs lost", n)
	}
}

// FuzzSegment: whatever the frame holds and the mbuf says of it, it is refused or
// cut into packets that are right by themselves and whose payloads are its bytes.
func FuzzSegment(f *testing.F) {
	for _, s := range variants(300) {
		l := s.lengths(100)
		v, _ := mbuf.PackLengths(l)
		f.Add(s.build(), mbuf.RxLRO, s.ptype(), v, uint32(0), uint16(0))
		f.Add(s.build(), mbuf.RxLRO, uint32(0), v&^0xff, uint32(1), uint16(64))
	}
	for _, c := range tunnels() {
		f.Add(c.frame(300), mbuf.RxLRO, uint32(0), uint64(100)<<24, uint32(0), uint16(0))
		l := c.lengths()
		l.TSOSegSize = 100
		v, _ := mbuf.PackLengths(l)
		f.Add(c.frame(300), mbuf.RxLRO|mbuf.RxL4CksumNone, c.ptype, v, uint32(0), uint16(0))
		f.Add(c.frame(300), mbuf.TxTCPSeg|c.tx, uint32(0), v, uint32(0), uint16(0))
	}
	p := newPool(f, 200, 700)
	f.Fuzz(func(t *testing.T, data []byte, flags uint64, ptype uint32, lengths uint64, lie uint32, size uint16) {
		if len(data) > 4000 {
			return
		}
		defer allBack(t, p)
		m := guarded(t, p, data)
		m.OlFlags = flags &^ (mbuf.Indirect | mbuf.External)
		m.PacketType, m.TxOffload = ptype, lengths
		m.PktLen += lie
		seg := New(Config{SegSize: int(size), IP: size&1 != 0})
		out := make([]*mbuf.Mbuf, 64)
		n, err := seg.Segment(m, p, out)
		if (n == 0) != (err != nil) {
			t.Errorf("%d packets, %v", n, err)
		}
		total := 0
		for _, d := range out[:n] {
			if err := d.Check(); err != nil {
				t.Fatal(err)
			}
			total += int(d.PktLen) - seg.plan.length
			plausible(t, d)
		}
		if n > 0 && total != seg.plan.payload {
			t.Errorf("%d bytes of payload became %d", seg.plan.payload, total)
		}
		mbuf.FreeBulk(out[:n])
		unharmed(t, m)
		if d := differ(m.AppendTo(nil), data); d != "" {
			t.Error("the frame was changed: ", d)
		}
		m.PktLen -= lie
		var got int
		for in := []*mbuf.Mbuf{m}; len(in) > 0; {
			taken, n := seg.Burst(in, p, out[:5])
			in = in[taken:]
			mbuf.FreeBulk(out[:n])
			if got += n; got > 5000 {
				t.Fatal("there is no end")
			}
		}
	})
}

// plausible checks a packet's checksums, if header.Parse sees in it what the
// Segmenter saw.
func plausible(t *testing.T, d *mbuf.Mbuf) {
	t.Helper()
	b := d.AppendTo(nil)
	bare := beginsWithIP(d.Lengths(), false)
	l := parseOuter(b, bare)
	if d.Lengths().OuterL3 != 0 {
		s := spec{bare: bare}
		l = s.parse(b)
	}
	if l.Lengths() != d.Lengths() || l.L3 == 0 {
		return
	}
	ip := b[l.IPStart():]
	if ip[0]>>4 == 4 && slowSum(ip[:l.L3]) != 0xffff {
		t.Errorf("IPv4 checksum of %x", b)
	}
	if ip[0]>>4 == 6 && l.L3 > 40 {
		return // a routing header, perhaps
	}
	if !header.VerifyL4(d, l) {
		t.Errorf("checksum of %x, %+v", b, l)
	}
}

// FuzzCoalesce: whatever the packets hold, none is lost, and what remains is whole.
func FuzzCoalesce(f *testing.F) {
	for seed := range uint64(20) {
		var all []byte
		for _, b := range newGenerator(rand.New(rand.NewPCG(seed, 4))).burst(12) {
			all = append(append(all, byte(len(b))), b...)
		}
		f.Add(all, good, uint16(0))
		f.Add(all, uint64(0), uint16(1))
	}
	p := newPool(f, 600, 80)
	f.Fuzz(func(t *testing.T, data []byte, flags uint64, lie uint16) {
		defer allBack(t, p)
		bufs := make([]*mbuf.Mbuf, 0, 100)
		total, segs := 0, 0
		for len(data) > 1 && len(bufs) < cap(bufs) {
			n := min(int(data[0]), len(data)-1)
			m := guarded(t, p, data[1:1+n])
			data = data[1+n:]
			m.OlFlags = flags &^ (mbuf.Indirect | mbuf.External)
			bufs = append(bufs, m)
			total += n
			segs += int(m.NbSegs)
		}
		if len(bufs) > 2 { // one whose description is not true
			bufs[2].PktLen += uint32(lie)
		}
		liar := append([]*mbuf.Mbuf(nil), bufs...)
		co := NewCoalescer(CoalescerConfig{IP: lie&1 != 0})
		n := co.Burst(bufs)
		if len(liar) > 2 {
			liar[2].PktLen -= uint32(lie)
		}
		left := 0
		for _, m := range bufs[:n] {
			if err := m.Check(); err != nil {
				t.Fatal(err)
			}
			unharmed(t, m)
			left += int(m.PktLen)
			segs -= int(m.NbSegs)
			if m.OlFlags&(mbuf.TxTCPSeg|mbuf.TxUDPSeg) != 0 && flags&mbuf.TxOffloadMask == 0 {
				left += mergedHeaders(t, m)
			}
		}
		if left != total || segs != 0 {
			t.Errorf("%d bytes became %d, %d mbufs lost", total, left, segs)
		}
		mbuf.FreeBulk(bufs[:n])
	})
}

// mergedHeaders checks a merged frame and is how many bytes of headers it saved.
func mergedHeaders(t *testing.T, m *mbuf.Mbuf) int {
	t.Helper()
	var seg Segmenter
	n := seg.Segments(m)
	if n < 2 {
		t.Fatalf("a merged frame is of %d packets: %x", n, m.AppendTo(nil))
	}
	return (n - 1) * m.Lengths().Headers()
}
