// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"sync/atomic"
	"unsafe"
)

// Cache is an [Allocator] that keeps some mbufs of a pool at hand for one
// goroutine at a time, as DPDK's per-lcore cache: most bursts then never touch
// the pool's shared list. Mbufs of other pools go straight home when freed
// through it. Make one per queue or worker with [Pool.NewCache] and Close it.
type Cache struct {
	pool *Pool
	hdr  *header // nil once closed
	size int     // filled up to here when empty, emptied down to here when full
	objs []*Mbuf // capacity is fixed: flushed when it is full
	n    int     // objs[:n] are free mbufs, the last freed on top
	// level is n for other goroutines.
	level atomic.Int32
}

// MaxCacheSize is the largest cache, RTE_MEMPOOL_CACHE_MAX_SIZE.
const MaxCacheSize = 512

// NewCache returns an empty cache. It fetches size mbufs when it runs dry and
// holds at most 1.5 times as many. 0 means Config.CacheSize; a size is cut to
// MaxCacheSize and to 2/3 of the pool. The cache must be closed before the
// pool. Any goroutine may call NewCache.
func (p *Pool) NewCache(size int) *Cache {
	p.mu.Lock()
	defer p.mu.Unlock()
	if size <= 0 {
		size = p.cfg.CacheSize
	}
	size = max(min(size, MaxCacheSize, p.cfg.Count*2/3), 1)
	c := &Cache{pool: p, hdr: p.hdr, size: size, objs: make([]*Mbuf, max(size*3/2, size+1))}
	if p.hdr != nil {
		p.caches[c] = struct{}{}
	}
	return c
}

// AllocBulk implements [Allocator]. A closed cache gives none.
func (c *Cache) AllocBulk(bufs []*Mbuf) int {
	if len(bufs) > c.n {
		return c.allocSlow(bufs)
	}
	c.take(bufs)
	return len(bufs)
}

// take hands out len(bufs) mbufs, which are there.
func (c *Cache) take(bufs []*Mbuf) {
	if len(bufs) == 0 {
		return
	}
	c.n -= len(bufs)
	copy(bufs, c.objs[c.n:])
	c.level.Store(int32(c.n))
	c.hdr.resetAll(bufs)
}

// allocSlow serves a request that is larger than the fill level: large ones
// past the cache, others after filling it.
func (c *Cache) allocSlow(bufs []*Mbuf) int {
	h := c.hdr
	if h == nil {
		return 0
	}
	n := 0
	if len(bufs) > c.size {
		n = h.pop(bufs[:len(bufs)-c.n])
		h.resetAll(bufs[:n])
	} else {
		c.n += h.pop(c.objs[c.n:c.size])
	}
	rest := min(len(bufs)-n, c.n)
	c.take(bufs[n : n+rest])
	n += rest
	if n < len(bufs) {
		h.exhausted.Add(uint64(len(bufs) - n))
	}
	return n
}

// Alloc returns one fresh mbuf, or nil.
func (c *Cache) Alloc() *Mbuf {
	var one [1]*Mbuf
	c.AllocBulk(one[:])
	return one[0]
}

// FreeBulk implements [Allocator].
func (c *Cache) FreeBulk(bufs []*Mbuf) {
	h := c.hdr
	for i, m := range bufs {
		if m == nil {
			continue
		}
		// The common packet: one segment of our pool, nobody else's.
		if m.pool != unsafe.Pointer(h) || m.Next != nil || !m.IsWritable() || debug {
			c.freeSlow(bufs[i:])
			break
		}
		if m.NbSegs != 1 {
			m.NbSegs = 1
		}
		c.stash(m)
	}
	c.level.Store(int32(c.n))
}

// freeSlow is FreeBulk for chains, clones and mbufs of other pools.
func (c *Cache) freeSlow(bufs []*Mbuf) {
	b := batch{cache: c}
	for _, m := range bufs {
		b.packet(m)
	}
	b.flush()
}

// stash keeps one clean mbuf of our pool.
func (c *Cache) stash(m *Mbuf) {
	if c.n == len(c.objs) {
		c.spill()
	}
	c.objs[c.n] = m
	c.n++
}

// spill returns the coldest mbufs of a full cache to the pool.
func (c *Cache) spill() {
	excess := c.n - c.size
	c.hdr.push(c.objs[:excess])
	c.n = copy(c.objs, c.objs[excess:c.n])
}

// Pool returns the pool that the cache belongs to.
func (c *Cache) Pool() *Pool { return c.pool }

// DataRoom is that of the pool.
func (c *Cache) DataRoom() int { return c.pool.DataRoom() }

// Headroom is that of the pool.
func (c *Cache) Headroom() int { return c.pool.Headroom() }

// Regions is that of the pool.
func (c *Cache) Regions() []Region { return c.pool.Regions() }

// Flush returns all cached mbufs to the pool, where others can get them.
func (c *Cache) Flush() {
	if c.n > 0 {
		c.hdr.push(c.objs[:c.n])
	}
	c.n = 0
	c.level.Store(0)
}

// Close flushes the cache and parts it from the pool. Afterwards it gives no
// mbufs; those freed through it still go home. Closing twice does nothing.
func (c *Cache) Close() {
	c.Flush()
	c.hdr = nil
	c.pool.mu.Lock()
	delete(c.pool.caches, c)
	c.pool.mu.Unlock()
}
