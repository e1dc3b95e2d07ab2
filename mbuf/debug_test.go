// SPDX-License-Identifier: BSD-3-Clause

//go:build mbufdebug

package mbuf

import (
	"strings"
	"testing"
	"unsafe"
)

// panics returns what f panics with.
func panics(f func()) (msg string) {
	defer func() { msg, _ = recover().(string) }()
	f()
	return ""
}

func TestDebugPanics(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(p *Pool, c *Cache)
		want string
	}{
		"double free": {func(p *Pool, _ *Cache) { m := p.Alloc(); m.Free(); m.Free() },
			`double free of mbuf 0 of pool "watched"`},
		"double free in one burst": {func(p *Pool, _ *Cache) { m := p.Alloc(); p.FreeBulk([]*Mbuf{m, m}) },
			"double free of mbuf 0"},
		"double free in a cache": {func(_ *Pool, c *Cache) { m := c.Alloc(); c.FreeBulk([]*Mbuf{m, m}) },
			"double free of mbuf"},
		"double free of a segment": {func(p *Pool, _ *Cache) { m := p.Alloc(); m.FreeSeg(); m.FreeSeg() },
			"double free of mbuf 0"},
		"direct freed under its clone": {func(p *Pool, _ *Cache) {
			m := p.Alloc()
			c := Clone(m, p)
			m.Free()
			m.Free()
			c.Free()
		}, "double free of mbuf 0"},
		"no references": {func(p *Pool, _ *Cache) { m := p.Alloc(); m.RefCnt = 0; m.Free() },
			"double free of mbuf 0"},
		"made by hand": {func(p *Pool, _ *Cache) { (&Mbuf{RefCnt: 1, NbSegs: 1}).Free() },
			"foreign mbuf"},
		"not an element": {func(p *Pool, _ *Cache) {
			m := (*Mbuf)(unsafe.Add(unsafe.Pointer(p.hdr.mbuf(3)), 64))
			m.pool, m.RefCnt = unsafe.Pointer(p.hdr), 1
			m.Free()
		}, `it is not in its pool "watched"`},
		"behind the pool": {func(p *Pool, _ *Cache) {
			m := &Mbuf{RefCnt: 1, NbSegs: 1}
			m.pool = unsafe.Pointer(p.hdr)
			p.FreeBulk([]*Mbuf{m})
		}, "it is not in its pool"},
		"another's pool": {func(p *Pool, _ *Cache) {
			other := make([]uint64, 64)
			m := p.Alloc()
			m.pool = unsafe.Pointer(&other[0])
			m.Free()
		}, "belongs to no pool"},
		"reference added after free": {func(p *Pool, _ *Cache) { m := p.Alloc(); m.Free(); m.RefUpdate(1); p.Alloc() },
			`mbuf 0 of pool "watched" was written to after it was freed`},
		"chained after free": {func(p *Pool, c *Cache) {
			m := c.Alloc()
			c.FreeBulk([]*Mbuf{m})
			m.Next = m
			c.Alloc()
		}, "was written to after it was freed"},
		"freed by another process": {func(p *Pool, _ *Cache) {
			var one [1]*Mbuf
			(&seat{h: p.hdr, proc: 9}).pop(one[:])
			debugAlloc(p.hdr, one[0])
			one[0].Free()
		}, `mbuf 0 of pool "watched" is that of process 9, and used by process 0`},
		"freed in a ring": {func(p *Pool, _ *Cache) {
			m := p.Alloc()
			p.hdr.mark(m, held(ringHolder))
			m.Free()
		}, "is in a ring"},
		"handed over twice": {func(p *Pool, _ *Cache) {
			r := ownRing(t, p, 4)
			m := p.Alloc()
			r.Producer().Enqueue([]*Mbuf{m, m})
		}, "mbuf 0 of pool \"watched\" is in a ring, and used by process 0"},
		"attached after free": {func(p *Pool, _ *Cache) {
			a, b := p.Alloc(), p.Alloc()
			b.Free()
			_ = Attach(b, a)
			p.Alloc()
		}, "was written to after it was freed"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newHeapPoolUnchecked(t, Config{Name: "watched", Count: 8})
			cache := p.NewCache(2)
			if msg := panics(func() { c.do(p, cache) }); !strings.Contains(msg, c.want) {
				t.Errorf("panic %q, want %q", msg, c.want)
			}
		})
	}
}
