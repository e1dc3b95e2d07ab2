// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

// workers are goroutines that run until stop.
type workers struct {
	wg   sync.WaitGroup
	over atomic.Bool
}

// loop runs f again and again, giving way to others after each time: the machine
// may have one processor.
func (w *workers) loop(f func()) {
	w.wg.Go(func() {
		for !w.over.Load() {
			f()
			runtime.Gosched()
		}
	})
}

func (w *workers) stop() {
	w.over.Store(true)
	w.wg.Wait()
}

// noise injects packets of two flows, whether or not the interface takes them.
func (w *workers) noise(p *port) {
	inj, frames := p.injector(), [][]byte{flow(0, 60), flow(1, 1000)}
	w.loop(func() {
		for _, f := range frames {
			_ = inj.Inject(f) // also while the interface is down, or gone
		}
	})
}

// TestTwoQueues: a goroutine for each of two queues receives and sends on it at
// the same time as the other, on one pool; both have their packets in order.
func TestTwoQueues(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		packets := nettest.Scale(2000)
		pool := newPool(t, mbuf.Config{Name: "two", Count: 2048})
		p := w.start(t, Config{TxQueueLen: 2 * packets}, 2, RxConfig{Memory: pool})
		p.send(0, flow(0, 64)) // directs the flows to the queues
		p.send(1, flow(1, 64))
		p.capturer()
		var back [2]atomic.Int64
		var ws workers
		for i := range 2 {
			bufs := make([]*mbuf.Mbuf, 32)
			ws.loop(func() {
				n := p.RxQueue(i).Burst(bufs)
				for _, m := range bufs[:n] {
					b := m.Bytes()
					if q, seq := b[35], binary.BigEndian.Uint32(b[50:]); int(q) != i+0x10 || int64(seq) != back[i].Load() {
						t.Errorf("queue %d received packet %d of flow %d when %d was due", i, seq, q-0x10, back[i].Load())
					}
					back[i].Add(1)
				}
				if sent := p.TxQueue(i).Burst(bufs[:n]); sent != n {
					t.Errorf("queue %d sent %d packets of %d", i, sent, n)
				}
			})
		}
		defer ws.stop()
		for seq := range packets {
			for i := range 2 {
				f := flow(i, 64)
				f[34], f[35] = 0x27, byte(0x10+i) // source ports 10000 and 10001
				binary.BigEndian.PutUint32(f[50:], uint32(seq))
				p.inject(f)
			}
		}
		var due [2]uint32
		for _, f := range p.captured(2 * packets) {
			i := f[35] - 0x10
			if seq := binary.BigEndian.Uint32(f[50:]); seq != due[i] {
				t.Fatalf("queue %d sent packet %d when %d was due", i, seq, due[i])
			}
			due[i]++
		}
	})
}

// TestOneQueueTwoGoroutines: that is a mistake of the program's, but a harmless
// one: one of the two gets 0, and no packet is lost or seen twice.
func TestOneQueueTwoGoroutines(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		packets := nettest.Scale(3000)
		pool := newPool(t, mbuf.Config{Name: "one", Count: 1024})
		p := w.start(t, Config{TxQueueLen: packets}, 1, RxConfig{Memory: pool})
		seen := make([]atomic.Uint32, packets)
		var sent, refused atomic.Int64
		var ws workers
		defer ws.stop()
		for range 2 {
			bufs := make([]*mbuf.Mbuf, 32)
			ws.loop(func() {
				n := p.RxQueue(0).Burst(bufs)
				for _, m := range bufs[:n] {
					seen[binary.BigEndian.Uint32(m.Bytes()[numberAt:])].Add(1)
				}
				k := p.TxQueue(0).Burst(bufs[:n])
				mbuf.FreeBulk(bufs[k:n])
				sent.Add(int64(k))
				refused.Add(int64(n - k))
			})
		}
		flood := startFlood(p, traffic.FloodConfig{Frames: [][]byte{frame(60, 0)}, Count: packets, Stamp: numberAt})
		taken := flood()
		nettest.Eventually(t, wait, "all packets", func() bool { return sent.Load()+refused.Load() == int64(taken) })
		ws.stop()
		for i := range seen {
			if n := seen[i].Load(); n != 1 {
				t.Fatalf("packet %d was received %d times", i, n)
			}
		}
		p.wantStats(Stats{QueueStats: QueueStats{IPackets: uint64(taken), IBytes: uint64(60 * taken),
			OPackets: uint64(sent.Load()), OBytes: uint64(60 * sent.Load())}})
		wantInUse(t, pool, p.RxQueue(0).held())
	})
}

// TestQueueIsBusy: a burst during another on the same queue returns 0 and
// touches nothing.
func TestQueueIsBusy(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "busy", Count: 64})
	tx := fakeTx(t, &fakeEngine{}, TxConfig{Ring: 8})
	rx := fakeRx(t, &fakeEngine{}, RxConfig{Ring: 8, Memory: pool}, DefaultMTU)
	for _, g := range []*gate{&tx.gate, &rx.gate} {
		if !g.enter() {
			t.Fatal("the queue is not open")
		}
		defer g.leave()
	}
	bufs := []*mbuf.Mbuf{mbufFrom(t, pool, frame(60, 0))}
	if n := tx.Burst(bufs) + rx.Burst(make([]*mbuf.Mbuf, 1)); n != 0 {
		t.Fatalf("a second burst moved %d packets", n)
	}
	bufs[0].Free()
	wantInUse(t, pool, 0)
}

// TestBurstsDuringControl: bursts against Stop, Start, SetMTU and Configure. In
// the end traffic flows and no mbuf is lost.
func TestBurstsDuringControl(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		pool := newPool(t, mbuf.Config{Name: "control", Count: 2048})
		p := w.start(t, Config{}, 2, RxConfig{Memory: pool})
		var ws workers
		defer ws.stop()
		for i := range 2 {
			rx, tx := p.RxQueue(i), p.TxQueue(i)
			ws.loop(func() { echo(rx, tx, 16) })
		}
		ws.noise(p)
		for i := range nettest.Scale(30) {
			must(t, p.Stop())
			must(t, p.Device.Start())
			must(t, p.SetMTU([]int{1500, 9000, 68}[i%3]))
		}
		ws.stop()
		must(t, p.SetMTU(1500))
		p.poll()
		p.exchange()
		for i := range 2 {
			p.RxQueue(i).cache.Flush()
		}
		wantInUse(t, pool, p.RxQueue(0).held()+p.RxQueue(1).held())
	})
}

// echo sends back what comes, in one burst, and frees what cannot be sent.
func echo(rx *RxQueue, tx *TxQueue, burst int) {
	bufs := make([]*mbuf.Mbuf, burst)
	n := rx.Burst(bufs)
	mbuf.FreeBulk(bufs[tx.Burst(bufs[:n]):n])
}

// TestCloseDuringBursts: Close with everything in flight. Bursts return 0 from
// then on, and all mbufs are back.
func TestCloseDuringBursts(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		for round := range nettest.Scale(10) {
			t.Run(fmt.Sprint(round), func(t *testing.T) {
				pool := newPool(t, mbuf.Config{Name: "close", Count: 1024, DataRoom: 512})
				p := w.start(t, Config{}, 2, RxConfig{Memory: pool})
				var ws workers
				defer ws.stop()
				for i := range 2 {
					rx, tx := p.RxQueue(i), p.TxQueue(i)
					ws.loop(func() { echo(rx, tx, 32) })
					ws.loop(func() { _, _ = p.Stats() })
				}
				ws.noise(p)
				p.burstsUntil(t, 100)
				must(t, p.Close())
				ws.stop()
				wantInUse(t, pool, 0)
			})
		}
	})
}

// burstsUntil waits until n packets were received by others.
func (p *port) burstsUntil(t *testing.T, n int) {
	t.Helper()
	nettest.Eventually(t, wait, "traffic", func() bool {
		s, err := p.Stats()
		return err == nil && s.IPackets >= uint64(n)
	})
}

// TestBurstsDuringDelete: deleting the interface ends bursts, and loses nothing.
func TestBurstsDuringDelete(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		pool := newPool(t, mbuf.Config{Name: "delete", Count: 1024})
		p := w.start(t, Config{}, 2, RxConfig{Memory: pool})
		var ws workers
		defer ws.stop()
		for i := range 2 {
			rx, tx := p.RxQueue(i), p.TxQueue(i)
			ws.loop(func() { echo(rx, tx, 32) })
		}
		for range 100 {
			p.inject(flow(0, 60), flow(1, 60))
		}
		p.burstsUntil(t, 1)
		must(t, p.conn.Delete(p.index))
		nettest.Eventually(t, wait, "the deletion to be noticed", func() bool { return errors.Is(p.Err(), ErrGone) })
		ws.stop()
		must(t, p.Close())
		wantInUse(t, pool, 0)
	})
}

// TestBurstsDuringRename: renaming the interface does not touch the data path.
func TestBurstsDuringRename(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		p := w.start(t, Config{Name: "before"}, 1, RxConfig{})
		p.capturer()
		names := []string{"after", "before"}
		for i := range nettest.Scale(20) {
			f := frame(100, i)
			p.inject(f) // waits through the renaming
			err := p.conn.SetName(p.index, names[i%2])
			if errors.Is(err, syscall.EBUSY) && nettest.IsLinux61() {
				t.Skip("before Linux 6.2 an interface that is up cannot be renamed")
			}
			must(t, err)
			m := p.burst(0, 1)
			must(t, checkPacket(m[0], f))
			if n := p.TxQueue(0).Burst(m); n != 1 {
				t.Fatal("the packet was not sent")
			}
			if got := p.captured(1)[0]; !bytes.Equal(got, f) {
				t.Fatalf("sent % x, captured % x", f, got)
			}
		}
	})
}
