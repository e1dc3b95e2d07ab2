// SPDX-License-Identifier: BSD-3-Clause

package port

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/rtap-project/rtap/mbuf"
)

// memory is rtap.Memory over a struct rte_mempool, for one Rx queue.
type memory struct {
	host               Host
	pool               uintptr
	dataRoom, headroom int
	regions            []mbuf.Region
	pen                *pen
}

// newMemory is the memory that c describes. What the queue gives back goes to pen.
func newMemory(host Host, c *QueueConf, pen *pen) *memory {
	return &memory{host: host, pool: uintptr(c.Pool), dataRoom: int(c.DataRoom), headroom: int(c.Headroom),
		regions: regionsOf(c), pen: pen}
}

func regionsOf(c *QueueConf) (all []mbuf.Region) {
	for _, r := range c.Regions[:min(c.NRegions, MaxRegions)] {
		all = append(all, mbuf.Region{Base: uintptr(r.Base), Size: uintptr(r.Size)})
	}
	return all
}

// AllocBulk implements mbuf.Allocator: one call of the host's a burst.
func (m *memory) AllocBulk(bufs []*mbuf.Mbuf) int {
	if len(bufs) == 0 {
		return 0
	}
	return m.host.Alloc(m.pool, bufs)
}

// FreeBulk implements mbuf.Allocator. An Rx queue gives back little in its bursts: what it keeps for nothing when
// idle, and packets that are none.
func (m *memory) FreeBulk(bufs []*mbuf.Mbuf) { m.pen.put(bufs) }

// DataRoom implements rtap.Memory.
func (m *memory) DataRoom() int { return m.dataRoom }

// Headroom implements rtap.Memory.
func (m *memory) Headroom() int { return m.headroom }

// Regions implements rtap.Memory.
func (m *memory) Regions() []mbuf.Region { return m.regions }

// sent is where Tx queues give back what they have sent, of any pool. They do so in bursts only, so the thread is the
// application's.
type sent struct{ host Host }

// AllocBulk implements mbuf.Allocator: there are none here.
func (sent) AllocBulk([]*mbuf.Mbuf) int { return 0 }

// FreeBulk implements mbuf.Allocator: one call of the host's a burst.
func (s sent) FreeBulk(bufs []*mbuf.Mbuf) {
	if len(bufs) > 0 {
		s.host.Free(bufs)
	}
}

// union is the memory of several pools, sorted, each piece once: so all queues that ask for it have it registered once.
func union(pools ...[]mbuf.Region) []mbuf.Region {
	all := slices.SortedFunc(slices.Values(slices.Concat(pools...)), func(a, b mbuf.Region) int {
		return cmp.Or(cmp.Compare(a.Base, b.Base), cmp.Compare(a.Size, b.Size))
	})
	return slices.Compact(all)
}

// maxRegions is how many pieces of memory a Tx queue registers, the largest: each burst looks packets up there, one after
// the other. What lies elsewhere is sent too.
const maxRegions = 64

// largest are the n largest regions, sorted as union has them.
func largest(regions []mbuf.Region, n int) []mbuf.Region {
	bySize := slices.SortedStableFunc(slices.Values(regions), func(a, b mbuf.Region) int { return cmp.Compare(b.Size, a.Size) })
	return union(bySize[:min(n, len(bySize))])
}

// pen holds mbufs that an Rx queue has given up until a thread of the application's comes by, in a burst or a control
// call: the queue's slots may be emptied by a goroutine that follows the interface, on a thread that DPDK knows
// nothing of, and a mempool may be made for one thread at a time to give back to. They hang together by Next, as one packet's
// segments do, so nothing is allocated, and rte_pktmbuf_free_bulk frees them all.
type pen struct{ first atomic.Pointer[mbuf.Mbuf] }

// put puts packets into the pen. Any goroutine may, at any time.
func (p *pen) put(bufs []*mbuf.Mbuf) {
	var first, last *mbuf.Mbuf
	for _, m := range bufs {
		if m == nil {
			continue
		}
		if first == nil {
			first = m
		} else {
			last.Next = m
		}
		for last = m; last.Next != nil; {
			last = last.Next
		}
	}
	if first == nil {
		return
	}
	for {
		old := p.first.Load()
		last.Next = old
		if p.first.CompareAndSwap(old, first) {
			return
		}
	}
}

// isEmpty reports whether there is nothing in it.
func (p *pen) isEmpty() bool { return p.first.Load() == nil }

// empty gives back what is in it. one is memory of the caller's, so that nothing is allocated.
func (p *pen) empty(host Host, one *[1]*mbuf.Mbuf) {
	if one[0] = p.first.Swap(nil); one[0] != nil {
		host.Free(one[:])
		one[0] = nil
	}
}
