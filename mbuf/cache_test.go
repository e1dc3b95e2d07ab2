// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import "testing"

func TestCacheLevels(t *testing.T) {
	p := newPool(t, Config{Count: 100})
	c := p.NewCache(16)
	defer c.Close()
	if m := c.Alloc(); m == nil {
		t.Fatal("exhausted")
	} else {
		c.FreeBulk([]*Mbuf{m})
	}
	if c.n != 16 || p.hdr.length() != 84 || p.AvailCount() != 100 {
		t.Errorf("cache %d, list %d, available %d", c.n, p.hdr.length(), p.AvailCount())
	}
	// More than the cache size: what is cached, and the rest past it.
	bufs := make([]*Mbuf, 60)
	if n := c.AllocBulk(bufs); n != 60 || p.InUseCount() != 60 || c.n != 0 {
		t.Fatalf("got %d, in use %d, cache %d", n, p.InUseCount(), c.n)
	}
	// Freeing overflows it: it never holds more than 1.5 times its size.
	c.FreeBulk(bufs)
	if c.n < 16 || c.n > 24 || p.InUseCount() != 0 {
		t.Errorf("cache %d, in use %d", c.n, p.InUseCount())
	}
	c.Flush()
	if c.n != 0 || p.hdr.length() != 100 {
		t.Errorf("after Flush: cache %d, list %d", c.n, p.hdr.length())
	}
}

// Every request size against every fill level, around the pool's end.
func TestCacheServesAll(t *testing.T) {
	const count = 40
	for size := 1; size <= 26; size += 5 {
		for first := range count + 2 {
			p := newPool(t, Config{Count: count, DataRoom: 1})
			c := p.NewCache(size)
			a, b := make([]*Mbuf, first), make([]*Mbuf, count)
			n := c.AllocBulk(a)
			k := c.AllocBulk(b)
			if n != min(first, count) || k != count-n || p.InUseCount() != count {
				t.Fatalf("size %d: %d of %d, then %d, in use %d", size, n, first, k, p.InUseCount())
			}
			want := uint64(first - n + count - k)
			if p.Exhausted() != want {
				t.Fatalf("size %d: exhausted %d, want %d", size, p.Exhausted(), want)
			}
			seen := make(map[*Mbuf]bool)
			for _, m := range append(a[:n:n], b[:k]...) {
				if m == nil || seen[m] {
					t.Fatalf("size %d: mbuf %p twice", size, m)
				}
				seen[m] = true
				checkFresh(t, p, m)
			}
			c.FreeBulk(b)
			c.FreeBulk(a)
			c.Close()
			closePool(t, p)
		}
	}
}

func TestCacheSizes(t *testing.T) {
	p := newPool(t, Config{Count: 3000, DataRoom: 1, CacheSize: 100})
	small := newPool(t, Config{Count: 1, DataRoom: 1})
	for _, c := range []struct {
		pool      *Pool
		ask, want int
	}{{p, 0, 100}, {p, -5, 100}, {p, 7, 7}, {p, 9999, MaxCacheSize}, {small, 0, 1}} {
		cache := c.pool.NewCache(c.ask)
		if cache.size != c.want {
			t.Errorf("NewCache(%d) of %d mbufs: size %d, want %d", c.ask, c.pool.Count(), cache.size, c.want)
		}
		m := cache.Alloc()
		if m == nil {
			t.Fatal("exhausted")
		}
		if cache.Pool() != c.pool || cache.DataRoom() != c.pool.DataRoom() ||
			cache.Headroom() != c.pool.Headroom() || cache.Regions()[0] != c.pool.Regions()[0] {
			t.Error("the cache describes another pool")
		}
		cache.FreeBulk([]*Mbuf{m})
		cache.Close()
	}
}

// A closed cache still sends home what it is given.
func TestClosedCache(t *testing.T) {
	p := newPool(t, Config{Count: 10})
	c := p.NewCache(4)
	bufs := make([]*Mbuf, 6)
	c.AllocBulk(bufs)
	c.Close()
	c.FreeBulk(bufs)
	c.Flush()
	if p.hdr.length() != 10 || c.AllocBulk(bufs) != 0 {
		t.Errorf("list %d, and mbufs from a closed cache", p.hdr.length())
	}
}
