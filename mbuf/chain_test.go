// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"errors"
	"testing"
)

func TestEnds(t *testing.T) {
	p := newPool(t, Config{Count: 8, DataRoom: 10, Headroom: 6})
	m := packet(t, p, []byte("abcdefghijklmno")) // 10 and 5
	copy(m.Prepend(6), "UVWXYZ")
	copy(m.Append(5), "pqrst")
	expect(t, m, []byte("UVWXYZabcdefghijklmnopqrst"))
	for name, refused := range map[string]bool{
		"prepend":         m.Prepend(1) == nil,
		"prepend less":    m.Prepend(-1) == nil,
		"append":          m.Append(1) == nil,
		"append less":     m.Append(-1) == nil,
		"adj":             !m.Adj(17),
		"adj less":        !m.Adj(-1),
		"trim":            !m.Trim(11),
		"trim less":       !m.Trim(-1),
		"append too much": m.Append(1<<20) == nil,
		"trim too much":   !m.Trim(1 << 20),
	} {
		if !refused {
			t.Errorf("%s: not refused", name)
		}
	}
	expect(t, m, []byte("UVWXYZabcdefghijklmnopqrst"))
	if !m.Adj(16) || !m.Trim(10) || m.Prepend(0) == nil || m.Append(0) == nil {
		t.Error("to the last byte: refused")
	}
	expect(t, m, nil)
	if m.NbSegs != 2 || m.Headroom() != 16 || m.LastSeg().Tailroom() != 10 {
		t.Errorf("%d segments, headroom %d, tailroom %d", m.NbSegs, m.Headroom(), m.LastSeg().Tailroom())
	}
	m.Free()
}

func TestChain(t *testing.T) {
	p := newPool(t, Config{Count: 16, DataRoom: 10})
	a, b := packet(t, p, pattern(25, 1)), packet(t, p, pattern(15, 2))
	if err := Chain(a, b); err != nil {
		t.Fatal(err)
	}
	expect(t, a, append(pattern(25, 1), pattern(15, 2)...))
	if a.NbSegs != 5 || a.PktLen != 40 || a.IsContiguous() {
		t.Errorf("%d segments, %d bytes", a.NbSegs, a.PktLen)
	}
	a.Free()
}

func TestChainLimits(t *testing.T) {
	p := newPool(t, Config{Count: MaxSegs + 2, DataRoom: 1, Headroom: -1})
	bufs := make([]*Mbuf, MaxSegs+1)
	p.AllocBulk(bufs)
	head := bufs[0]
	for i, m := range bufs[1:MaxSegs] { // by hand: Chain looks for the end
		bufs[i].Next = m
	}
	head.NbSegs = MaxSegs
	expect(t, head, nil)
	if err := Chain(head, bufs[MaxSegs]); !errors.Is(err, ErrTooManySegs) {
		t.Errorf("65536 segments: %v", err)
	}
	if err := head.CopyIn(pattern(MaxSegs+1, 0), p); !errors.Is(err, ErrTooManySegs) {
		t.Errorf("CopyIn to 65536 segments: %v", err)
	}
	if err := head.CopyIn(pattern(MaxSegs, 0), p); err != nil {
		t.Error(err)
	}
	expect(t, head, pattern(MaxSegs, 0))
	FreeBulk([]*Mbuf{head, bufs[MaxSegs]})
	a, b := p.Alloc(), p.Alloc()
	a.PktLen, b.PktLen = 0xffffffff, 1
	if err := Chain(a, b); !errors.Is(err, ErrTooManySegs) || a.Next != nil {
		t.Errorf("4 GiB: %v", err)
	}
	FreeBulk([]*Mbuf{a, b})
}

func TestLinearize(t *testing.T) {
	small := newPool(t, Config{Name: "small", Count: 16, DataRoom: 10})
	big := newPool(t, Config{Name: "big", Count: 4, DataRoom: 40})
	m := packet(t, big, pattern(10, 0))
	if err := Chain(m, packet(t, small, pattern(30, 1))); err != nil {
		t.Fatal(err)
	}
	want := append(pattern(10, 0), pattern(30, 1)...)
	m.RefUpdate(1)
	if err := m.Linearize(); !errors.Is(err, ErrShared) {
		t.Errorf("shared: %v", err)
	}
	m.RefUpdate(-1)
	for range 2 {
		if err := m.Linearize(); err != nil {
			t.Fatal(err)
		}
		expect(t, m, want)
		if !m.IsContiguous() || small.InUseCount() != 0 {
			t.Errorf("%d segments, %d small mbufs in use", m.NbSegs, small.InUseCount())
		}
	}
	if err := Chain(m, packet(t, small, pattern(1, 0))); err != nil {
		t.Fatal(err)
	}
	if err := m.Linearize(); !errors.Is(err, ErrNoRoom) {
		t.Errorf("no room: %v", err)
	}
	expect(t, m, append(want, pattern(1, 0)...))
	m.PktLen = 0 // a liar's length
	if err := m.Linearize(); !errors.Is(err, ErrNoRoom) {
		t.Errorf("PktLen below DataLen: %v", err)
	}
	m.Free()
}
