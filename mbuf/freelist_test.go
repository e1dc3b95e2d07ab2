// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import "testing"

// The same element on top again is not the same list: a goroutine that slept
// meanwhile must not swap in the successor it read.
func TestTagTellsListsApart(t *testing.T) {
	p := newPool(t, Config{Count: 8, DataRoom: 1})
	h := p.hdr
	before := h.head.Load()
	successor := uint32(h.link(indexOf(before)).Load())
	a, b := p.Alloc(), p.Alloc() // b is that successor
	a.Free()
	if indexOf(h.head.Load()) != indexOf(before) {
		t.Fatal("the freed mbuf is not on top")
	}
	if h.head.CompareAndSwap(before, nextHead(before, 0, successor)) {
		t.Error("an mbuf in use was swapped into the list")
	}
	b.Free()
}

// The tag wraps without touching the index.
func TestTagWraps(t *testing.T) {
	p := newPool(t, Config{Count: 8, DataRoom: 1})
	p.hdr.head.Store(0xfffffff<<tagShift | p.hdr.head.Load()&none)
	m := p.Alloc()
	if tag := p.hdr.head.Load() >> tagShift; tag != 0 {
		t.Errorf("tag %x", tag)
	}
	m.Free()
}
