// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// TestTx: a sent frame of any size reaches the kernel byte for byte. Long ones
// are chains of mbufs.
func TestTx(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		p := w.start(t, Config{MTU: MaxMTU}, 1, RxConfig{})
		sizes := edges(14, longestFrame, mbuf.DefaultDataRoom)
		p.checkTx(sizes, 16, p.mbufOf)
		total := 0
		for _, n := range sizes {
			total += n
		}
		wantInUse(t, p.pool, 0)
		p.wantStats(Stats{QueueStats: QueueStats{OPackets: uint64(len(sizes)), OBytes: uint64(total)}})
	})
}

// TestTxOneSegment: the longest data that one mbuf can hold.
func TestTxOneSegment(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		pool := newPool(t, mbuf.Config{Name: "large", Count: 16, DataRoom: 65407})
		tight := newPool(t, mbuf.Config{Name: "tight", Count: 16, DataRoom: 65525, Headroom: 10})
		p := w.start(t, Config{MTU: MaxMTU}, 1, RxConfig{})
		p.checkTx([]int{65407, 65406}, 2, func(f []byte) *mbuf.Mbuf { return mbufFrom(t, pool, f) })
		p.checkTx([]int{65525, 65524}, 2, func(f []byte) *mbuf.Mbuf { return mbufFrom(t, tight, f) })
		wantInUse(t, pool, 0)
		wantInUse(t, tight, 0)
	})
}

func mbufFrom(t testing.TB, pool *mbuf.Pool, frame []byte) *mbuf.Mbuf {
	t.Helper()
	m := pool.Alloc()
	if m == nil {
		t.Fatalf("pool %s is exhausted", pool.Name())
	}
	must(t, m.CopyIn(frame, pool))
	return m
}

// TestTxVLAN: tagged frames of the largest size that the MTU allows.
func TestTxVLAN(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		for _, mtu := range []int{DefaultMTU, MaxMTU} {
			p := w.start(t, Config{MTU: mtu}, 1, RxConfig{})
			p.capturer()
			for _, size := range []int{60, mtu + 14, mtu + 18} {
				f := tagged(size)
				p.send(0, f)
				if err := sameBytes(p.captured(1)[0], f); err != nil {
					t.Fatalf("MTU %d, frame of %d bytes: %v", mtu, size, err)
				}
			}
		}
	})
}

// TestTxBurstLength: a burst may be longer than the ring.
func TestTxBurstLength(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		p := w.open(t, Config{})
		must(t, p.Configure(PortConfig{RxQueues: 1, TxQueues: 1}))
		must(t, p.SetupRxQueue(0, RxConfig{}))
		must(t, p.SetupTxQueue(0, TxConfig{Ring: 8}))
		must(t, p.Device.Start())
		q := p.TxQueue(0)
		if n := q.Burst(nil) + q.Burst([]*mbuf.Mbuf{}); n != 0 {
			t.Fatalf("Burst of nothing took %d packets", n)
		}
		for _, n := range []int{1, 7, 8, 9, 16, 100} {
			sizes := make([]int, n)
			for i := range sizes {
				sizes[i] = 60 + i
			}
			p.checkTx(sizes, n, p.mbufOf)
		}
		wantInUse(t, p.pool, 0)
	})
}

// TestTxRefused: packets that cannot be sent are taken, freed and counted; those
// around them are sent.
func TestTxRefused(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		p := w.start(t, Config{}, 1, RxConfig{})
		p.capturer()
		short := func() *mbuf.Mbuf { // no Ethernet header
			m := p.mbufOf(frame(60, 0))
			m.Trim(47)
			return m
		}
		lies := func(segs int) *mbuf.Mbuf { // says that it has segs segments, has two
			m := chain(t, p.pool, frame(60, 0), 30, 30)
			m.NbSegs = uint16(segs)
			return m
		}
		good := func(i int) *mbuf.Mbuf { return p.mbufOf(frame(60+i, i)) }
		bufs := []*mbuf.Mbuf{short(), good(0), lies(0), nil, good(1), short(), short(), good(2), lies(2000), good(3), nil}
		if n := p.TxQueue(0).Burst(bufs); n != len(bufs) {
			t.Fatalf("Burst took %d packets of %d", n, len(bufs))
		}
		if n := p.TxQueue(0).Burst([]*mbuf.Mbuf{short()}); n != 1 {
			t.Fatalf("Burst took %d packets of 1", n)
		}
		for i, got := range p.captured(4) {
			if err := sameBytes(got, frame(60+i, i)); err != nil {
				t.Fatalf("packet %d: %v", i, err)
			}
		}
		wantInUse(t, p.pool, 0)
		p.wantStats(Stats{QueueStats: QueueStats{OPackets: 4, OBytes: 60 + 61 + 62 + 63, OErrors: 8}})
	})
}

// TestTxLinkDown: packets sent while the link is down are taken, freed and
// counted, and the queue works again afterwards.
func TestTxLinkDown(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		p := w.start(t, Config{}, 1, RxConfig{})
		must(t, p.SetLinkDown())
		p.send(0, frame(60, 0), frame(1514, 1), frame(9000, 2)) // the last one is a chain
		p.send(0, frame(60, 0))
		wantInUse(t, p.pool, 0)
		p.wantStats(Stats{QueueStats: QueueStats{OErrors: 4}})
		must(t, p.SetLinkUp())
		p.exchange()
	})
}

// TestTxForeignMemory: mbufs that are not in registered memory, before, between
// and after others.
func TestTxForeignMemory(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		foreign := newPool(t, mbuf.Config{Name: "foreign", Count: 64})
		own := newPool(t, mbuf.Config{Name: "own", Count: 256})
		p := w.start(t, Config{}, 1, RxConfig{Memory: own})
		i := 0
		sizes := []int{60, 61, 62, 63, 64, 65, 1500, 66, 1514, 67}
		p.checkTx(sizes, len(sizes), func(f []byte) *mbuf.Mbuf {
			i++
			return mbufFrom(t, []*mbuf.Pool{foreign, own, own}[i%3], f)
		})
		wantInUse(t, foreign, 0)
	})
}

// TestTxFree: sent mbufs go to TxConfig.Free.
func TestTxFree(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		p := w.open(t, Config{})
		freed := &countingAllocator{Allocator: p.pool}
		must(t, p.Configure(PortConfig{RxQueues: 1, TxQueues: 1}))
		must(t, p.SetupRxQueue(0, RxConfig{}))
		must(t, p.SetupTxQueue(0, TxConfig{Free: freed}))
		must(t, p.Device.Start())
		p.checkTx([]int{60, 61, 62}, 3, p.mbufOf)
		if freed.packets != 3 {
			t.Fatalf("%d packets went to TxConfig.Free, want 3", freed.packets)
		}
		wantInUse(t, p.pool, 0)
	})
}

// countingAllocator counts what is freed through it.
type countingAllocator struct {
	mbuf.Allocator
	packets int
}

func (a *countingAllocator) FreeBulk(bufs []*mbuf.Mbuf) {
	a.packets += len(bufs)
	a.Allocator.FreeBulk(bufs)
}

// TestSetTxRegions: registered memory is changed while packets flow, none of which is lost, and on a queue that is there.
func TestSetTxRegions(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := openPort(t, Config{Engine: e})
		wantIs(t, p.SetTxRegions(0, nil), ErrNotConfigured)
		must(t, p.Configure(PortConfig{RxQueues: 1, TxQueues: 1}))
		wantIs(t, p.SetTxRegions(0, nil), ErrQueueNotSetUp)
		p.setUp(1, RxConfig{})
		regions := [][]mbuf.Region{p.pool.Regions(), nil, {{Base: 4096, Size: 4096}}} // the last is none that can be
		stop := p.hammer()
		for i := range 30 {
			must(t, p.SetTxRegions(0, regions[i%len(regions)]))
		}
		sent, _ := stop()
		if got := p.stats(); got.OPackets != sent || got.OErrors != 0 {
			t.Errorf("%d packets were sent, and counted %+v", sent, got)
		}
		for _, i := range []int{-1, 1} {
			wantIs(t, p.SetTxRegions(i, nil), ErrNotConfigured)
		}
		must(t, p.Close())
		wantIs(t, p.SetTxRegions(0, nil), ErrClosed)
	})
}
