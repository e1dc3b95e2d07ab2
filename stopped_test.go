// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// owed is memory of the program's own, that knows how many mbufs are out.
type owed struct {
	*mbuf.Pool
	out int
}

func (l *owed) AllocBulk(bufs []*mbuf.Mbuf) int {
	n := l.Pool.AllocBulk(bufs)
	l.out += n
	return n
}

func (l *owed) FreeBulk(bufs []*mbuf.Mbuf) {
	for _, m := range bufs {
		for s := m; s != nil; s = s.Next {
			l.out--
		}
	}
	l.Pool.FreeBulk(bufs)
}

// TestStoppedHoldsNothing: a port that was stopped has given back every mbuf of its queues, whatever memory they are of,
// also after a flood, in which they have many, and after the interface was deleted; and it starts again. A cache that is the
// poller's is not touched: it has the mbufs still that it had.
func TestStoppedHoldsNothing(t *testing.T) {
	const count = 1000 // odd for caches, so that whole means whole
	for _, c := range []struct {
		name string
		room int
		of   func(t *testing.T, pool *mbuf.Pool) (m Memory, before func(q *RxQueue), check func())
	}{
		{"pool", 2048, func(t *testing.T, pool *mbuf.Pool) (Memory, func(*RxQueue), func()) {
			return pool, func(*RxQueue) {}, func() {
				if n := uncached(pool); n != count {
					t.Errorf("the pool has %d mbufs of %d", n, count)
				}
			}
		}},
		{"cache", 2048, func(t *testing.T, pool *mbuf.Pool) (Memory, func(*RxQueue), func()) {
			cache, want := pool.NewCache(64), 0
			t.Cleanup(cache.Close)
			return cache, func(q *RxQueue) { want = uncached(pool) + q.held() }, func() {
				if n := uncached(pool); n != want || n == count {
					t.Errorf("the pool has %d mbufs of %d, want %d: the cache is the poller's", n, count, want)
				}
			}
		}},
		{"chains of another's", 500, func(t *testing.T, pool *mbuf.Pool) (Memory, func(*RxQueue), func()) {
			l := &owed{Pool: pool}
			return l, func(*RxQueue) {}, func() {
				if l.out != 0 {
					t.Errorf("%d mbufs are out", l.out)
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachEngine(t, func(t *testing.T, e Engine) {
				pool := newPool(t, mbuf.Config{Name: "stopped", Count: count, DataRoom: c.room})
				memory, before, check := c.of(t, pool)
				p := openPort(t, Config{Engine: e})
				p.setUp(1, RxConfig{Memory: memory})
				for range 3 {
					q := p.RxQueue(0)
					for range 100 {
						p.inject(frame(1500, 1))
					}
					p.receiveWith(memory, 100)
					q.Burst(p.bufs(32)) // finds nothing, and keeps what it has looked with
					if q.held() == 0 {
						t.Fatal("the running queue holds no mbufs: nothing is shown here")
					}
					before(q)
					must(t, p.Stop())
					wantInUse(t, pool, 0)
					check()
					if q.held() != 0 || q.stats.window.Load() != 1 {
						t.Errorf("the stopped queue holds %d mbufs, and will look for %d packets", q.held(), q.stats.window.Load())
					}
					must(t, p.Device.Start())
				}
				p.inject(frame(60, 1))
				p.receiveWith(memory, 1)
				before(p.RxQueue(0))
				must(t, p.conn.Delete(p.index))
				must(t, p.Stop())
				wantInUse(t, pool, 0)
				check()
			})
		})
	}
}

// uncached is how many mbufs a pool has, past all caches.
func uncached(pool *mbuf.Pool) int {
	bufs := make([]*mbuf.Mbuf, pool.Count())
	n := pool.AllocBulk(bufs)
	mbuf.FreeBulk(bufs)
	return n
}

// receiveWith takes n packets from queue 0 and gives them back to memory.
func (p *port) receiveWith(memory Memory, n int) {
	p.t.Helper()
	for _, m := range p.burst(0, n) {
		memory.FreeBulk([]*mbuf.Mbuf{m})
	}
}
