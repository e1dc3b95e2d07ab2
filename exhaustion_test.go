// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"testing"

	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/mbuf"
)

// TestExhaustion: without free mbufs packets wait in the kernel, rx_nombuf
// counts, and the flow goes on when mbufs come back. None is lost track of.
func TestExhaustion(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		const frames, count = 200, 48
		for _, c := range []struct{ room, size, segs int }{
			{2048, 60, 1},
			{700, 600, 1}, // slots of three mbufs, packets that need one
			{700, 1514, 3},
		} {
			pool := newPool(t, mbuf.Config{Name: "small", Count: count, DataRoom: c.room})
			p := w.start(t, Config{}, 1, RxConfig{Memory: pool, Ring: 32})
			q := p.RxQueue(0)
			for i := range frames {
				p.inject(frame(c.size, i))
			}
			var ours []*mbuf.Mbuf
			seq := 0
			for seq < frames {
				got := p.takeAll(q)
				if len(got) == 0 {
					t.Fatalf("no packet came after %d, with %d mbufs free", seq, pool.AvailCount())
				}
				for _, m := range got {
					if err := checkPacket(m, frame(c.size, seq)); err != nil {
						t.Fatalf("packet %d: %v", seq, err)
					}
					seq++
				}
				ours = append(ours, got...)
				wantInUse(t, pool, len(ours)*c.segs+q.held())
				if free := pool.AvailCount(); seq < frames && free >= q.segs {
					t.Fatalf("packets wait and %d mbufs are free, a slot has %d", free, q.segs)
				}
				back := max(1, 2*len(ours)/3)
				mbuf.FreeBulk(ours[:back])
				ours = ours[back:]
			}
			mbuf.FreeBulk(ours)
			s, err := p.Stats()
			must(t, err)
			if s.RxNoMbuf == 0 || s.IMissed != 0 || s.IErrors != 0 || s.IPackets != frames {
				t.Errorf("statistics: %+v", s)
			}
			wantInUse(t, pool, q.held())
			must(t, p.Close())
			wantInUse(t, pool, 0)
		}
	})
}

// takeAll takes what comes until nothing does, and keeps the mbufs.
func (p *port) takeAll(q *RxQueue) (got []*mbuf.Mbuf) {
	for {
		bufs := make([]*mbuf.Mbuf, 64)
		n := q.Burst(bufs)
		if n == 0 {
			return got
		}
		got = append(got, bufs[:n]...)
	}
}

// TestExhaustionIdleQueue: a queue on which much came, and nothing comes any
// more, does not keep the mbufs that another needs.
func TestExhaustionIdleQueue(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		// A slot has 33 mbufs at this MTU: the pool has 15 of them.
		pool := newPool(t, mbuf.Config{Name: "shared", Count: 500, CacheSize: 32})
		p := w.start(t, Config{MTU: MaxMTU}, 2, RxConfig{Memory: pool, Ring: 64})
		for i := range 2 { // the kernel directs a flow to the queue that last sent on it
			p.send(i, flow(i, 64))
		}
		for range 200 {
			p.inject(flow(0, 64))
		}
		mbuf.FreeBulk(p.burst(0, 200))
		p.inject(flow(1, 64))
		for range 2 * idleBursts { // the first goroutine finds nothing, the second a packet
			p.drain(0)
			if got := p.drain(1); len(got) == 1 {
				return
			}
		}
		t.Fatalf("the idle queue holds %d mbufs, and the other cannot receive", p.RxQueue(0).held())
	})
}

// TestExhaustionPartOfSlot: mbufs that do not suffice for a slot are left to
// others.
func TestExhaustionPartOfSlot(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "part", Count: 5, DataRoom: 600}) // slots of three
	e := &fakeEngine{read: func([]pktio.Desc, []pktio.Completion) int { return 0 }}
	first, second := fakeRx(t, e, RxConfig{Ring: 8, Memory: pool}, DefaultMTU), fakeRx(t, e, RxConfig{Ring: 8, Memory: pool}, DefaultMTU)
	bufs := make([]*mbuf.Mbuf, 8)
	for range 3 {
		first.Burst(bufs)
		first.cache.Flush()
		second.Burst(bufs)
	}
	wantInUse(t, pool, 3)
	others := make([]*mbuf.Mbuf, 2)
	if n := pool.AllocBulk(others); n != 2 {
		t.Fatalf("only %d of the 2 mbufs that are free are to be had", n)
	}
	mbuf.FreeBulk(others)
}

// TestExhaustedAtClose: a program-owned pool gets everything back at Close, also
// while all of it is in flight.
func TestExhaustedAtClose(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		pool := newPool(t, mbuf.Config{Name: "small", Count: 100, DataRoom: 500})
		p := w.start(t, Config{}, 2, RxConfig{Memory: pool})
		for i := range 300 {
			p.inject(flow(i, 600))
		}
		var ours []*mbuf.Mbuf
		for i := range 2 {
			ours = append(ours, p.takeAll(p.RxQueue(i))...)
		}
		must(t, p.Close())
		wantInUse(t, pool, 2*len(ours)) // two segments each
		mbuf.FreeBulk(ours)
		wantInUse(t, pool, 0)
	})
}
