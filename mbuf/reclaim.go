// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import "unsafe"

// reclaim first completes the marks of what proc, which is dead, had in hand
// and then takes home everything that has its mark.
func (p *Pool) reclaim(proc int) int {
	h, mark := p.hdr, held(uint32(proc))
	p.settleRings(proc)
	for k := range uint64(opsPerSeat) {
		h.settle(uint64(proc)*opsPerSeat+k, mark)
	}
	n := h.takeHome(mark)
	for r := range p.rings {
		r.hdr.vacate(proc)
	}
	h.owner(proc).Store(0)
	return n
}

// settle completes or undoes what operation record who says was going on: the
// elements that were the process's then get its mark.
func (h *header) settle(who, mark uint64) {
	op := h.op(who)
	arg, expect := op.arg.Load(), op.expect.Load()
	n, succeeded := int(arg>>opCountShift&opCountMask), h.succeeded(who, expect)
	switch kind := arg & opKindMask; {
	case kind == opPop && succeeded:
		h.markUnmarked(indexOf(expect), n, mark)
	case kind == opPush && !succeeded:
		h.markUnmarked(uint32(arg), n, mark)
	}
	op.arg.Store(0)
}

// succeeded reports whether record who has replaced head expect. One looks at
// head first: who replaces it notes that in the record before.
func (h *header) succeeded(who, expect uint64) bool {
	after := nextHead(expect, who, 0)
	if h.head.Load()&^none == after {
		return true
	}
	return h.op(who).done.Load() == after>>tagShift
}

// markUnmarked marks the chain of at most n elements from i that have no mark.
func (h *header) markUnmarked(i uint32, n int, mark uint64) {
	for ; n > 0 && i < h.count; n-- {
		link := h.link(i).Load()
		if link&heldBit != 0 {
			return
		}
		h.link(i).Store(mark)
		i = uint32(link)
	}
}

// takeHome makes free mbufs of those with a mark and returns their number.
func (h *header) takeHome(mark uint64) int {
	total := 0
	var b batch
	for i := range h.count {
		if h.link(i).Load() != mark {
			continue
		}
		m := h.mbuf(i)
		m.ownBuffer(h)
		m.pool, m.OlFlags = unsafe.Pointer(h), 0
		m.RefCnt = 1
		debugReclaim(h, i)
		b.add(m)
		total++
	}
	b.flush()
	return total
}
