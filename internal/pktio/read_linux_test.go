// SPDX-License-Identifier: BSD-3-Clause

package pktio

import (
	"context"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

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
	floods := map[string]func(ctx context.Context, p *tap) (traffic.FloodResult, error){
		"flood": func(ctx context.Context, p *tap) (traffic.FloodResult, error) {
			return p.in.Flood(ctx, traffic.FloodConfig{Frames: frames(), Count: nettest.Scale(100000), Stamp: numberAt})
		},
		"sparse": func(ctx context.Context, p *tap) (r traffic.FloodResult, err error) {
			for n := nettest.Scale(20000); r.Sent < n && ctx.Err() == nil && err == nil; r.Sent++ {
				err = p.in.Inject(frame(sizes[r.Sent%len(sizes)], r.Sent))
				if r.Sent%64 == 63 {
					runtime.Gosched()
				}
			}
			return r, err
		},
	}
	each(t, func(t *testing.T, engine, form string) {
		for name, flood := range floods {
			t.Run(name, func(t *testing.T) { readFlood(t, engine, form, flood) })
		}
	})
}

func readFlood(t *testing.T, engine, form string, flood func(context.Context, *tap) (traffic.FloodResult, error)) {
	p := newTap(t)
	r := newReader(t, p, selectEngine(t, engine, p), 64, form)
	ctx, cancel := context.WithTimeout(context.Background(), 3*bound())
	defer cancel()
	result := make(chan traffic.FloodResult, 1)
	go func() {
		res, err := flood(ctx, p)
		check(t, err)
		result <- res
	}()
	rnd := rand.New(rand.NewPCG(3, 4))
	last, received, sent := -1, 0, -1
	for sent < 0 || received < sent {
		if ctx.Err() != nil {
			t.Fatalf("%d of %d packets came", received, sent)
		}
		got := r.read(t, rnd.IntN(64)+1)
		for _, number := range got {
			if number <= last {
				t.Fatalf("frame %d comes after %d", number, last)
			}
			last = number
		}
		received += len(got)
		select {
		case res := <-result:
			sent = res.Sent
			t.Logf("%d sent, %d refused by the full queue", res.Sent, res.Dropped)
		default:
		}
	}
	if received != sent {
		t.Errorf("%d packets came of %d", received, sent)
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
			count := nettest.Scale(4000)
			turn := make(chan int) // the number that comes next
			done := make(chan struct{})
			for range 2 {
				go func() {
					runtime.LockOSThread() // and end it with the goroutine
					defer func() { done <- struct{}{} }()
					for next := range turn {
						for _, number := range r.read(t, 17) {
							if number != next {
								t.Errorf("frame %d comes where %d should", number, next)
							}
							next++
						}
						if next >= count {
							close(turn)
							return
						}
						turn <- next
					}
				}()
			}
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for i := range count {
					check(t, p.in.Inject(frame(sizes[i%len(sizes)], i)))
				}
			}()
			turn <- 0
			for range 2 {
				select {
				case <-done:
				case <-time.After(bound()):
					t.Fatal("not done in time")
				}
			}
			<-sent
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
			for _, n := range []int{0, 1, 2, 3, 32, 64} {
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
		r := newReader(t, p, selectEngine(t, engine, p), 4, form)
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
		r := newReader(t, p, selectEngine(t, engine, p), 8, "flat")
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
		r := newReader(t, p, selectEngine(t, engine, p), 8, form)
		r.read(t, 8)
		deleted := make(chan error, 1)
		go func() { deleted <- p.conn.Delete(p.index) }()
		nettest.Eventually(t, bound(), "EBADFD", func() bool {
			n := r.Read(r.descs, r.done)
			for i, c := range r.done[:n] {
				if c.Errno() != syscall.EBADFD {
					t.Fatalf("completion %d of %d: %+v (%v)", i, n, c, c.Errno())
				}
			}
			return n == 8
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
		if n := testing.AllocsPerRun(50, func() { r.Read(r.descs[:17], r.done) }); n != 0 {
			t.Errorf("%v allocations with packets", n)
		}
		for r.Read(r.descs, r.done) > 0 {
		}
		if n := testing.AllocsPerRun(50, func() { r.Read(r.descs[:2], r.done) }); n != 0 {
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

// TestPosted: where the kernel has RWF_NOWAIT on TAP, the engine uses it, and
// the other way can be had.
func TestPosted(t *testing.T) {
	if !uring.Supported() {
		t.Skip("no io_uring here")
	}
	p := newTap(t)
	has := uring.ProbeNoWait(p.FD()).Outcome == uring.Yes
	for name, want := range map[string]bool{Uring: has, UringPosted: false} {
		e := selectEngine(t, name, p)
		if got := e.(*uringEngine).rwFlags == uring.RWFNoWait; got != want || e.Name() != Uring {
			t.Errorf("%s: RWF_NOWAIT is %v, want %v; %s", name, got, want, e.Notes())
		}
	}
}
