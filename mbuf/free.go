// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"sync/atomic"
	"unsafe"
)

// maxRefs leaves room below 65535 for goroutines that count up at the same
// time, so that the count cannot wrap.
const maxRefs = 65000

// refWord is the 32-bit word {DataOff, RefCnt}: Go has no 16-bit atomics.
// RefCnt is its upper half (little-endian), so adding n<<16 changes RefCnt
// alone and a carry falls off the end; the owner may store DataOff meanwhile.
// DPDK's 16-bit atomics on the same field mix with these.
func (m *Mbuf) refWord() *uint32 {
	return (*uint32)(unsafe.Add(unsafe.Pointer(m), refOff))
}

// RefCount returns the reference count, rte_mbuf_refcnt_read. Safe while
// others change it.
func (m *Mbuf) RefCount() uint16 { return uint16(atomic.LoadUint32(m.refWord()) >> 16) }

// RefUpdate adds n to the reference count and returns the new value,
// rte_mbuf_refcnt_update. Each reference added must be given up by a Free.
// Any goroutine that holds a reference may call it. Overflow is not checked.
func (m *Mbuf) RefUpdate(n int16) uint16 {
	return uint16(atomic.AddUint32(m.refWord(), uint32(n)<<16) >> 16)
}

// Free gives up a packet: each segment loses a reference, and one without any
// left goes back to the pool it came from, as rte_pktmbuf_free. Nil is
// ignored. Any goroutine may call it. FreeBulk, above all that of a [Cache],
// is cheaper for many. For mbufs of this package's pools only.
func (m *Mbuf) Free() {
	var b batch
	b.packet(m)
	b.flush()
}

// FreeSeg gives up this segment alone, rte_pktmbuf_free_seg. The caller has
// taken it out of its chain. Nil is ignored.
func (m *Mbuf) FreeSeg() {
	if m == nil {
		return
	}
	var b batch
	b.seg(m)
	b.flush()
}

// FreeBulk gives up packets that may come from different pools,
// rte_pktmbuf_free_bulk. Nil entries are skipped. Any goroutine may call it.
// For mbufs of this package's pools only.
func FreeBulk(bufs []*Mbuf) {
	var b batch
	for _, m := range bufs {
		b.packet(m)
	}
	b.flush()
}

// batch collects mbufs on their way home, so that the list is touched once
// for many. It lives on the stack.
type batch struct {
	cache *Cache  // takes those of its pool; nil: none
	h     *header // the pool of bufs[:n]
	n     int
	bufs  [64]*Mbuf
}

// packet gives up the segments of m.
func (b *batch) packet(m *Mbuf) {
	for m != nil {
		next := m.Next // before the segment is somebody else's
		b.seg(m)
		m = next
	}
}

// seg gives up one reference to m.
func (b *batch) seg(m *Mbuf) {
	if debug {
		debugFree(m)
	}
	// A count of 1 is ours alone: nobody else can raise it.
	if m.RefCount() != 1 && m.RefUpdate(-1) != 0 {
		return
	}
	if !m.IsDirect() {
		if d := m.detach(); d != nil {
			b.add(d)
		}
	}
	b.add(m)
}

// add takes m, which has no references left.
func (b *batch) add(m *Mbuf) {
	h := m.home()
	if debug {
		debugHome(h, m)
	}
	m.clean()
	if b.cache != nil && b.cache.hdr == h {
		b.cache.stash(m)
		return
	}
	if b.h != h || b.n == len(b.bufs) {
		b.flush()
		b.h = h
	}
	b.bufs[b.n] = m
	b.n++
}

func (b *batch) flush() {
	if b.n > 0 {
		b.h.push(b.bufs[:b.n])
		b.n = 0
	}
}

// clean restores what holds for every free mbuf (rte_mbuf.h): RefCnt 1, no
// next segment, one segment. Fields are compared first because their cache
// line may be shared.
func (m *Mbuf) clean() {
	if m.RefCnt != 1 {
		m.RefCnt = 1
	}
	if m.Next != nil {
		m.Next = nil
	}
	if m.NbSegs != 1 {
		m.NbSegs = 1
	}
}
