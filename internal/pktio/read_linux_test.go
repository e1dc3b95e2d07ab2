// SPDX-License-Identifier: BSD-3-Clause

package pktio

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/internal/uring"
)

// TestReadOrder drains queues of all lengths by bursts of all sizes.
func TestReadOrder(t *testing.T) {
	each(t, func(t *testing.T, engine, form string) {
		p := newTap(t)
		r := newReader(t, p, selectEngine(t, engine, p), 64, form)
		rnd := rand.New(rand.NewPCG(1, 2))
		for total := nettest.Scale(4000); total > 0; {
			queued := rnd.IntN(queueLen)
			p.inject(t, queued, frames()...)
			for next := 0; next < queued; {
				n := rnd.IntN(64) + 1
				got := r.read(t, n)
				if len(got) != min(n, queued-next) {
					t.Fatalf("a Read of %d gave %d of the %d that are queued", n, len(got), queued-next)
				}
				for _, number := range got {
					if number != next {
						t.Fatalf("frame %d comes where %d should", number, next)
					}
					next++
				}
			}
			total -= queued
		}
		r.idle(t, p)
	})
}

// TestReadFlood reads while packets come: at full speed, where the queue
// overflows, and one by one, where most reads find nothing.
func TestReadFlood(t *testing.T) {
	floods := map[string]flood{
		"flood": func(ctx context.Context, p *tap, _ *atomic.Int64) (traffic.FloodResult, error) {
			return p.in.Flood(ctx, traffic.FloodConfig{Frames: frames(), Count: nettest.Scale(100000), Stamp: numberAt})
		},
		"sparse": func(ctx context.Context, p *tap, received *atomic.Int64) (r traffic.FloodResult, err error) {
			r.Sent, err = sendPaced(ctx, p, nettest.Scale(20000), received)
			return r, err
		},
	}
	each(t, func(t *testing.T, engine, form string) {
		for name, flood := range floods {
			t.Run(name, func(t *testing.T) { readFlood(t, engine, form, flood) })
		}
	})
}

// flood sends numbered frames; it may look at how many were received.
type flood func(ctx context.Context, p *tap, received *atomic.Int64) (traffic.FloodResult, error)

// sendPaced sends count frames one by one, never so many that the queue is full.
func sendPaced(ctx context.Context, p *tap, count int, received *atomic.Int64) (sent int, err error) {
	for ; sent < count && err == nil; sent++ {
		for sent-int(received.Load()) > queueLen/2 {
			if ctx.Err() != nil {
				return sent, ctx.Err()
			}
			runtime.Gosched()
		}
		err = p.in.Inject(frame(sizes[sent%len(sizes)], sent))
	}
	return sent, err
}

func readFlood(t *testing.T, engine, form string, flood flood) {
	p := newTap(t)
	r := newReader(t, p, selectEngine(t, engine, p), 64, form)
	ctx, cancel := context.WithTimeout(context.Background(), 3*bound())
	defer cancel()
	var received atomic.Int64
	result := make(chan traffic.FloodResult, 1)
	go func() {
		res, err := flood(ctx, p, &received)
		check(t, err)
		result <- res
	}()
	rnd := rand.New(rand.NewPCG(3, 4))
	last, sent := -1, -1
	for sent < 0 || int(received.Load()) < sent {
		if ctx.Err() != nil {
			<-result
			t.Fatalf("%d of %d packets came", received.Load(), sent)
		}
		got := r.read(t, rnd.IntN(64)+1)
		for _, number := range got {
			if number <= last {
				t.Fatalf("frame %d comes after %d", number, last)
			}
			last = number
		}
		received.Add(int64(len(got)))
		select {
		case res := <-result:
			sent = res.Sent
			t.Logf("%d sent, %d refused by the full queue", res.Sent, res.Dropped)
		default:
		}
	}
	if int(received.Load()) != sent {
		t.Errorf("%d packets came of %d", received.Load(), sent)
	}
	r.idle(t, p)
}

// TestReadThreads hands the reader from one thread to another and back while
// packets come, as Go's scheduler may at any time.
func TestReadThreads(t *testing.T) {
	for _, engine := range engines(t) {
		t.Run(engine, func(t *testing.T) {
			p := newTap(t)
			r := newReader(t, p, selectEngine(t, engine, p), 32, "fixed")
			ctx, cancel := context.WithTimeout(context.Background(), bound())
			defer cancel()
			count := nettest.Scale(4000)
			var received atomic.Int64
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := sendPaced(ctx, p, count, &received)
				check(t, err)
			})
			turn := make(chan struct{}, 1)
			for range 2 {
				wg.Go(func() {
					runtime.LockOSThread() // and end it with the goroutine
					for ctx.Err() == nil {
						<-turn
						for _, number := range r.read(t, 17) {
							if next := int(received.Load()); number != next {
								t.Errorf("frame %d comes where %d should", number, next)
							}
							received.Add(1)
						}
						if int(received.Load()) >= count {
							cancel()
						}
						turn <- struct{}{}
					}
				})
			}
			turn <- struct{}{}
			wg.Wait()
			if n := received.Load(); int(n) != count {
				t.Errorf("%d of %d packets came", n, count)
			}
			r.idle(t, p)
		})
	}
}

// TestReadEmpty: an empty queue is reported as nothing, however often it is
// looked into, and what comes later is not lost to a read left over.
func TestReadEmpty(t *testing.T) {
	each(t, func(t *testing.T, engine, form string) {
		p := newTap(t)
		r := newReader(t, p, selectEngine(t, engine, p), 64, form)
		for range nettest.Scale(100) {
			for _, n := range []int{0, 1, few, few + 1, 64} {
				if got := r.read(t, n); len(got) != 0 {
					t.Fatalf("a Read of %d found %v", n, got)
				}
			}
		}
		r.idle(t, p)
		if !isZero(r.mem[slotSize:]) {
			t.Error("memory was written to")
		}
		p.inject(t, 3, frames()...)
		if got := r.read(t, 64); len(got) != 3 {
			t.Errorf("found %v of 3", got)
		}
	})
}

// TestReadShort: a frame longer than its Desc is cut, and the next is not.
func TestReadShort(t *testing.T) {
	each(t, func(t *testing.T, engine, form string) {
		p := newTap(t)
		r := newReader(t, p, selectEngine(t, engine, p), 32, form)
		p.inject(t, 3, frame(1000, 0))
		r.descs[1] = r.desc(1, 300, form)
		for i, want := range []int32{hdrLen + 1000, 300, hdrLen + 1000} {
			if i == 0 && r.Read(r.descs, r.done) != 3 {
				t.Fatal("not three packets")
			}
			if c := r.done[i]; c.Index != uint32(i) || c.Res != want {
				t.Errorf("packet %d: %+v, want %d bytes", i, c, want)
			}
		}
	})
}

// TestReadMoreThanDepth: a call takes no more than the depth.
func TestReadMoreThanDepth(t *testing.T) {
	for _, engine := range engines(t) {
		p := newTap(t)
		r := newReader(t, p, selectEngine(t, engine, p), 16, "flat")
		a := newArena(t, 100, "flat")
		p.inject(t, 50, frames()...)
		done := make([]Completion, 100)
		total := 0
		for range 50 {
			n := r.Read(a.descs, done)
			if n == 0 {
				break
			}
			total += n
		}
		if total != 50 {
			t.Errorf("%s: %d packets of 50", engine, total)
		}
	}
}

// TestReadDeleted: the interface is deleted, before or during a Read.
func TestReadDeleted(t *testing.T) {
	each(t, func(t *testing.T, engine, form string) {
		p := newTap(t)
		r := newReader(t, p, selectEngine(t, engine, p), 32, form)
		r.read(t, 32)
		deleted := make(chan error, 1)
		go func() { deleted <- p.conn.Delete(p.index) }()
		nettest.Eventually(t, bound(), "EBADFD", func() bool {
			n := r.Read(r.descs, r.done)
			for i, c := range r.done[:n] {
				if c.Errno() != syscall.EBADFD {
					t.Fatalf("completion %d of %d: %+v (%v)", i, n, c, c.Errno())
				}
			}
			return n == 32
		})
		check(t, <-deleted)
		if n := r.Read(r.descs[:1], r.done); n != 1 || r.done[0].Errno() != syscall.EBADFD {
			t.Errorf("%d completions, the first %v", n, r.done[0].Errno())
		}
	})
}

func TestReadAllocations(t *testing.T) {
	each(t, func(t *testing.T, engine, form string) {
		p := newTap(t)
		r := newReader(t, p, selectEngine(t, engine, p), 64, form)
		p.inject(t, 900, frames()...)
		if n := nettest.Allocs(50, func() { r.Read(r.descs[:18], r.done) }); n != 0 {
			t.Errorf("%v allocations with packets", n)
		}
		for r.Read(r.descs, r.done) > 0 {
		}
		if n := nettest.Allocs(50, func() { r.Read(r.descs, r.done) }); n != 0 {
			t.Errorf("%v allocations without", n)
		}
	})
}

// TestReaderClose: a closed reader does not keep the interface.
func TestReaderClose(t *testing.T) {
	for _, engine := range engines(t) {
		p := newTap(t)
		r := newReader(t, p, selectEngine(t, engine, p), 64, "fixed")
		r.read(t, 64)
		check(t, r.Close())
		p.in.Close()
		p.Close()
		if _, err := p.conn.Link(p.index); err == nil {
			t.Errorf("%s: the interface is still there", engine)
		}
	}
}

// TestNoWait: where the kernel has RWF_NOWAIT on TAP, the engine uses it, and
// the other way can be had.
func TestNoWait(t *testing.T) {
	nettest.NeedUring(t)
	p := newTap(t)
	has := uring.ProbeNoWait(p.FD()).Outcome == uring.Yes
	for name, want := range map[string]bool{Uring: has, UringWaiting: false} {
		e := selectEngine(t, name, p).(*uringEngine)
		if got := e.rwFlags == uring.RWFNoWait; got != want || e.Name() != Uring {
			t.Errorf("%s: RWF_NOWAIT is %v, want %v; %s", name, got, want, e.Notes())
		}
	}
}
