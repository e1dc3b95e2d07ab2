// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"errors"
	"testing"
)

func TestCloneSharesData(t *testing.T) {
	p := newPool(t, Config{Count: 32, DataRoom: 64, PrivSize: 16})
	q := newPool(t, Config{Count: 32, DataRoom: 10, PrivSize: 40})
	data := pattern(200, 1)
	for name, free := range map[string]func(m, c, c2 *Mbuf){
		"original first": func(m, c, c2 *Mbuf) { m.Free(); expect(t, c, data); c.Free(); expect(t, c2, data); c2.Free() },
		"original last":  func(m, c, c2 *Mbuf) { c2.Free(); c.Free(); expect(t, m, data); m.Free() },
		"in the middle":  func(m, c, c2 *Mbuf) { c.Free(); expect(t, m, data); m.Free(); expect(t, c2, data); c2.Free() },
		"all at once":    func(m, c, c2 *Mbuf) { FreeBulk([]*Mbuf{c2, m, c}) },
	} {
		m := packet(t, p, data)
		m.Port, m.VlanTCI, m.PacketType, m.TxOffload, m.Hash = 5, 6, 7, 8, [2]uint32{9, 10}
		m.OlFlags = 1 << 3
		c := Clone(m, q)
		c2 := Clone(c, p) // a clone of a clone hangs on the same mbufs
		for _, x := range []*Mbuf{c, c2} {
			expect(t, x, data)
			if x.IsDirect() || x.IsWritable() || x.OlFlags != Indirect|1<<3 {
				t.Errorf("flags %x", x.OlFlags)
			}
			if x.Port != 5 || x.VlanTCI != 6 || x.PacketType != 7 || x.TxOffload != 8 || x.Hash != m.Hash {
				t.Errorf("packet fields: %+v", *x)
			}
			if x.DataAddr() != m.DataAddr() || x.NbSegs != m.NbSegs {
				t.Error("the data was copied")
			}
		}
		if m.RefCount() != 3 || m.LastSeg().RefCount() != 3 || m.IsWritable() {
			t.Errorf("references: %d and %d", m.RefCount(), m.LastSeg().RefCount())
		}
		free(m, c, c2)
		if p.InUseCount() != 0 || q.InUseCount() != 0 {
			t.Fatalf("%s: %d and %d mbufs lost", name, p.InUseCount(), q.InUseCount())
		}
		checkFree(t, p)
		checkFree(t, q)
	}
}

// Moving the ends of a clone leaves the original alone.
func TestCloneIsIndependent(t *testing.T) {
	p := newPool(t, Config{Count: 8})
	m := packet(t, p, []byte("0123456789"))
	c := Clone(m, p)
	if !c.Adj(2) || !c.Trim(3) {
		t.Fatal("adj or trim")
	}
	expect(t, m, []byte("0123456789"))
	expect(t, c, []byte("23456"))
	m.Adj(9)
	c2 := Clone(c, p)
	expect(t, c2, []byte("23456"))
	FreeBulk([]*Mbuf{m, c, c2})
}

func TestCloneExhausted(t *testing.T) {
	p := newPool(t, Config{Count: 9, DataRoom: 10})
	m := packet(t, p, pattern(50, 0))
	for range 3 { // 5 of 9 are taken; a clone needs 5
		if c := Clone(m, p); c != nil {
			t.Fatal("a clone from nothing")
		}
		if p.InUseCount() != 5 || m.RefCount() != 1 || m.LastSeg().RefCount() != 1 {
			t.Fatalf("in use %d, references %d", p.InUseCount(), m.RefCount())
		}
	}
	m.Free()
	if Clone(nil, p) != nil {
		t.Error("a clone of nothing")
	}
}

func TestAttachDetach(t *testing.T) {
	p := newPool(t, Config{Count: 8})
	m, mi, other := packet(t, p, pattern(10, 0)), p.Alloc(), p.Alloc()
	if err := Attach(mi, m); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		mi, m *Mbuf
		want  error
	}{
		"indirect":  {mi, other, ErrShared},
		"shared":    {m, other, ErrShared},
		"itself":    {other, other, ErrShared},
		"own clone": {m, mi, ErrShared},
	} {
		if err := Attach(c.mi, c.m); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m.Free()
	expect(t, mi, pattern(10, 0))
	if p.InUseCount() != 3 {
		t.Errorf("in use %d, the direct mbuf must stay", p.InUseCount())
	}
	mi.Detach()
	if p.InUseCount() != 2 {
		t.Errorf("in use %d after Detach", p.InUseCount())
	}
	if !mi.IsWritable() || mi.DataLen != 0 || mi.Headroom() != p.Headroom() || mi.Tailroom() != p.DataRoom() {
		t.Errorf("after Detach: %+v", *mi)
	}
	mi.Detach()
	mi.PktLen = 0
	copy(mi.Append(3), "abc")
	expect(t, mi, []byte("abc"))
	other.OlFlags |= External
	if err := Attach(mi, other); !errors.Is(err, ErrExternal) {
		t.Errorf("external: %v", err)
	}
	FreeBulk([]*Mbuf{mi, other})
}

// An mbuf that became indirect while its own buffer was shared, or a direct
// one attached to in mid-life, never loses its buffer.
func TestReferenceLimit(t *testing.T) {
	p := newPool(t, Config{Count: 3})
	m, mi := p.Alloc(), p.Alloc()
	m.RefCnt = maxRefs - 1
	if err := Attach(mi, m); err != nil {
		t.Fatal(err)
	}
	last := p.Alloc()
	if err := Attach(last, m); !errors.Is(err, ErrTooManyRefs) {
		t.Fatalf("attached beyond the limit: %v", err)
	}
	if m.RefCount() != maxRefs || !last.IsDirect() {
		t.Errorf("references %d", m.RefCount())
	}
	m.RefCnt = 2
	FreeBulk([]*Mbuf{m, last, mi})
}

// The count and DataOff share a word: neither disturbs the other.
func TestRefUpdate(t *testing.T) {
	p := newPool(t, Config{Count: 1})
	m := p.Alloc()
	for _, off := range []uint16{0, 1, 128, 0xffff} {
		m.DataOff = off
		for _, step := range []struct {
			add  int16
			want uint16
		}{{4, 5}, {-1, 4}, {32000, 32004}, {32000, 64004}, {-32000, 32004}, {-32003, 1}} {
			if got := m.RefUpdate(step.add); got != step.want || m.RefCount() != step.want || m.RefCnt != step.want {
				t.Fatalf("added %d: %d, count %d, want %d", step.add, got, m.RefCount(), step.want)
			}
			if m.DataOff != off {
				t.Fatalf("DataOff became %d", m.DataOff)
			}
		}
	}
	m.Free()
}

// A packet referenced twice is freed by the second Free, segment by segment.
func TestFreeSharedChain(t *testing.T) {
	p := newPool(t, Config{Count: 8, DataRoom: 10})
	m := packet(t, p, pattern(30, 0))
	for s := m; s != nil; s = s.Next {
		s.RefUpdate(1)
	}
	m.Free()
	if p.InUseCount() != 3 {
		t.Fatalf("in use %d", p.InUseCount())
	}
	expect(t, m, pattern(30, 0))
	mid := m.Next
	m.Next, m.NbSegs, m.PktLen = mid.Next, 2, 20
	mid.FreeSeg()
	m.Free()
	(*Mbuf)(nil).Free()
	(*Mbuf)(nil).FreeSeg()
}
