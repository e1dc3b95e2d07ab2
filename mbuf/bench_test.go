// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"fmt"
	"testing"
)

// perMbuf reports the cost of one mbuf beside that of one burst.
func perMbuf(b *testing.B, burst int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(burst), "ns/mbuf")
}

func benchAllocFree(b *testing.B, a Allocator, burst int) {
	bufs := make([]*Mbuf, burst)
	b.ReportAllocs()
	for b.Loop() {
		if a.AllocBulk(bufs) != burst {
			b.Fatal("exhausted")
		}
		a.FreeBulk(bufs)
	}
	perMbuf(b, burst)
}

func BenchmarkAllocFree(b *testing.B) {
	for _, burst := range []int{1, 8, 32, 64} {
		b.Run(fmt.Sprintf("pool/%d", burst), func(b *testing.B) {
			benchAllocFree(b, newPool(b, Config{}), burst)
		})
		b.Run(fmt.Sprintf("cache/%d", burst), func(b *testing.B) {
			c := newPool(b, Config{}).NewCache(0)
			defer c.Close()
			benchAllocFree(b, c, burst)
		})
	}
}

// BenchmarkRotate frees each burst only when all other mbufs have been used,
// as a queue with a deep backlog does: no mbuf is warm.
func BenchmarkRotate(b *testing.B) {
	const burst = 32
	for name, alloc := range map[string]func(*Pool) Allocator{
		"pool":  func(p *Pool) Allocator { return p },
		"cache": func(p *Pool) Allocator { return p.NewCache(0) },
	} {
		b.Run(name, func(b *testing.B) {
			p := newPool(b, Config{})
			a := alloc(p)
			ring := make([]*Mbuf, 3*1024)
			a.AllocBulk(ring)
			at := 0
			b.ReportAllocs()
			for b.Loop() {
				a.FreeBulk(ring[at : at+burst])
				if a.AllocBulk(ring[at:at+burst]) != burst {
					b.Fatal("exhausted")
				}
				at = (at + burst) % len(ring)
			}
			perMbuf(b, burst)
			a.FreeBulk(ring)
			if c, ok := a.(*Cache); ok {
				c.Close()
			}
		})
	}
}

func BenchmarkParallel(b *testing.B) {
	const burst = 32
	b.Run("pool", func(b *testing.B) {
		p := newPool(b, Config{})
		b.RunParallel(func(pb *testing.PB) {
			bufs := make([]*Mbuf, burst)
			for pb.Next() {
				FreeBulk(bufs[:p.AllocBulk(bufs)])
			}
		})
		perMbuf(b, burst)
	})
	b.Run("cache", func(b *testing.B) {
		p := newPool(b, Config{})
		b.RunParallel(func(pb *testing.PB) {
			c := p.NewCache(0)
			defer c.Close()
			bufs := make([]*Mbuf, burst)
			for pb.Next() {
				c.FreeBulk(bufs[:c.AllocBulk(bufs)])
			}
		})
		perMbuf(b, burst)
	})
}

func BenchmarkClone(b *testing.B) {
	c := newPool(b, Config{}).NewCache(0)
	defer c.Close()
	m := c.Alloc()
	m.Append(64)
	one := make([]*Mbuf, 1)
	b.ReportAllocs()
	for b.Loop() {
		one[0] = Clone(m, c)
		c.FreeBulk(one)
	}
	m.Free()
}

func BenchmarkCopyIn(b *testing.B) {
	for _, size := range []int{64, 1500, 9000, 65535} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c := newPool(b, Config{}).NewCache(0)
			defer c.Close()
			m := c.Alloc()
			src := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := m.CopyIn(src, c); err != nil {
					b.Fatal(err)
				}
			}
			m.Free()
		})
	}
}

func BenchmarkAccess(b *testing.B) {
	m := newPool(b, Config{}).Alloc()
	m.Append(64)
	b.Run("Bytes", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n += int(m.Bytes()[0])
		}
	})
	b.Run("PrependAdj", func(b *testing.B) {
		for b.Loop() {
			m.Prepend(14)
			m.Adj(14)
		}
	})
	m.Free()
}
