// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import "sync"

// Allocator is where empty mbufs come from and used ones go: the one thing in
// which rtap's mbufs and DPDK's differ. A burst calls it once, with all it
// needs. [Pool] may be used by any number of goroutines, [Cache] by one at a
// time.
type Allocator interface {
	// AllocBulk fills bufs[:n] with fresh packets of one empty segment, and
	// returns n, less than len(bufs) when there are no more. The caller owns
	// them.
	AllocBulk(bufs []*Mbuf) int
	// FreeBulk gives up whole packets, every segment of each. Nil entries are
	// skipped. The slice is not changed.
	FreeBulk(bufs []*Mbuf)
}

// ones lends slices of one to allocators of other packages: what is passed to
// an unknown method escapes, and would be allocated anew each time.
var ones = sync.Pool{New: func() any { return new([1]*Mbuf) }}

// allocOne takes one mbuf from a, or returns nil.
func allocOne(a Allocator) *Mbuf {
	switch a := a.(type) {
	case *Pool:
		return a.Alloc()
	case *Cache:
		return a.Alloc()
	}
	one := ones.Get().(*[1]*Mbuf)
	one[0] = nil
	a.AllocBulk(one[:])
	m := one[0]
	one[0] = nil
	ones.Put(one)
	return m
}

// freeOne gives a packet back to a. Nil is ignored.
func freeOne(a Allocator, m *Mbuf) {
	switch a := a.(type) {
	case *Pool:
		a.FreeBulk([]*Mbuf{m})
		return
	case *Cache:
		a.FreeBulk([]*Mbuf{m})
		return
	}
	one := ones.Get().(*[1]*Mbuf)
	one[0] = m
	a.FreeBulk(one[:])
	one[0] = nil
	ones.Put(one)
}
