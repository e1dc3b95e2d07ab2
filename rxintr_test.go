// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// bounded is a context that ends what should have ended long ago.
func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(wait))
	t.Cleanup(cancel)
	return ctx
}

// start runs f and returns how it went.
func start(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// ended waits for what start started.
func ended(t testing.TB, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(nettest.Bound(wait)):
		t.Fatal("nothing ended the wait")
		return nil
	}
}

// parked waits until a goroutine is parked in Go's poller, in function f.
func parked(t testing.TB, f string) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	nettest.Eventually(t, wait, "a goroutine to park in "+f, func() bool {
		for s := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if strings.Contains(s, "[IO wait") && strings.Contains(s, f) {
				return true
			}
		}
		return false
	})
}

const inWait = "rtap.(*RxWaiter).Wait"

// TestWait: a packet that is there ends the wait at once, one that comes later does when it comes; without one it
// lasts until the context is done.
func TestWait(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e})
		q := p.RxQueue(0)
		p.inject(frame(64, 1))
		must(t, q.Wait(bounded(t)))
		p.receive(1)
		for i := range 20 {
			done := start(func() error { return q.Wait(bounded(t)) })
			parked(t, inWait)
			p.inject(frame(64, i))
			must(t, ended(t, done))
			p.receive(1)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := start(func() error { return q.Wait(ctx) })
		parked(t, inWait)
		cancel()
		wantIs(t, ended(t, done), context.Canceled)
		wantIs(t, q.Wait(ctx), context.Canceled)
		p.inject(frame(64, 1))
		must(t, q.Wait(context.Background()))
		p.receive(1)
	})
}

// TestWaiting: a queue says that a packet waits while one does and only then, without taking it: not those of other
// queues, of a stopped port, or of a released queue.
func TestWaiting(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e, Queues: 2})
		p.capturer()
		p.send(1, flow(1, 64)) // the kernel answers a flow where it came from
		p.captured(1)
		for i := range 3 {
			wantWaiting(t, p, false, false)
			p.inject(flow(1, 64), flow(1, 64))
			wantWaiting(t, p, false, true)
			wantWaiting(t, p, false, true)
			if got := p.receive(2); got[0].queue != 1 {
				t.Fatalf("round %d: packets for queue 1 came on queue %d", i, got[0].queue)
			}
		}
		p.inject(flow(1, 64))
		q := p.RxQueue(1)
		wantNoAllocs(t, "Waiting", 100, func() { q.Waiting() })
		must(t, p.Stop())
		wantWaiting(t, p, false, false)
		must(t, p.ReleaseRxQueue(1))
		if q.Waiting() {
			t.Error("a packet waits in a queue that is released")
		}
	})
}

func wantWaiting(t testing.TB, p *port, want ...bool) {
	t.Helper()
	for i, w := range want {
		if got := p.RxQueue(i).Waiting(); got != w {
			t.Fatalf("queue %d: a packet waits: %v, want %v", i, got, w)
		}
	}
}

// TestWaitingRacesRelease: asking while the queue is stopped, released and set up anew harms nothing.
func TestWaitingRacesRelease(t *testing.T) {
	p := startPort(t, Config{})
	var done atomic.Bool
	asked := start(func() error {
		for !done.Load() {
			if q := p.RxQueue(0); q != nil {
				q.Waiting()
			}
		}
		return nil
	})
	for range nettest.Scale(20) {
		must(t, p.Stop())
		must(t, p.ReleaseRxQueue(0))
		must(t, p.SetupRxQueue(0, RxConfig{}))
		must(t, p.Device.Start())
	}
	done.Store(true)
	must(t, ended(t, asked))
	p.exchange()
}

// waitPacket waits until there is a packet in one of p's queues, and takes it. A wait may end for nothing.
func waitPacket(t testing.TB, w *RxWaiter, p *port) received {
	t.Helper()
	for ctx := bounded(t); ; {
		must(t, w.Wait(ctx))
		if got := p.poll(); len(got) > 0 {
			if len(got) != 1 {
				t.Fatalf("%d packets, want 1", len(got))
			}
			return got[0]
		}
	}
}

// TestWaitQueues: one wait for 1, 4 and 128 queues, whichever the packet comes to.
func TestWaitQueues(t *testing.T) {
	eachEngineIfFast(t, func(t *testing.T, e Engine) {
		for _, n := range []int{1, 4, MaxQueues} {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				p := startPort(t, Config{Engine: e, Queues: n, RxRing: 4, TxRing: 4})
				w := waiterFor(t, p)
				p.capturer()
				for i := 0; i < n; i += max(1, n/nettest.Scale(n)) { // on a slow machine, some of them
					p.send(i, flow(i, 64)) // the kernel answers a flow where it came from
					p.captured(1)
					done := start(func() error {
						return w.Wait(bounded(t))
					})
					parked(t, inWait)
					p.inject(flow(i, 64))
					must(t, ended(t, done))
					if got := p.poll(); len(got) != 1 || got[0].queue != i {
						t.Fatalf("queue %d: received %v", i, got)
					}
				}
			})
		}
	})
}

func waiterFor(t testing.TB, ports ...*port) *RxWaiter {
	t.Helper()
	var queues []*RxQueue
	for _, p := range ports {
		for i := range p.queues() {
			queues = append(queues, p.RxQueue(i))
		}
	}
	w, err := NewRxWaiter(queues...)
	must(t, err)
	t.Cleanup(func() { must(t, w.Close()) })
	return w
}

// TestWaitHoldsNoThread: many goroutines wait, and the process has as many threads as before, or about.
func TestWaitHoldsNoThread(t *testing.T) {
	p := startPort(t, Config{Queues: 64, RxRing: 4, TxRing: 4})
	threads := func() int {
		d, err := os.ReadDir("/proc/self/task")
		must(t, err)
		return len(d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	before := threads()
	var done []<-chan error
	for i := range p.queues() {
		done = append(done, start(func() error { return p.RxQueue(i).Wait(ctx) }))
	}
	stacks := make([]byte, 4<<20)
	nettest.Eventually(t, wait, "all goroutines to park", func() bool {
		return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), inWait) == len(done)
	})
	if now := threads(); now > before+len(done)/4 {
		t.Errorf("%d threads before, %d while %d goroutines wait", before, now, len(done))
	}
	cancel()
	for _, d := range done {
		wantIs(t, ended(t, d), context.Canceled)
	}
}

// TestInterruptFD: the descriptor is readable exactly while packets wait and the interrupt is enabled, or the port
// does not run.
func TestInterruptFD(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e})
		q := p.RxQueue(0)
		fd, err := q.InterruptFD()
		must(t, err)
		want := func(readable bool, when string) {
			t.Helper()
			if got := pollFD(t, fd, 0); got != readable {
				t.Errorf("%s: readable %t, want %t", when, got, readable)
			}
		}
		want(false, "at first")
		p.inject(frame(64, 1))
		want(false, "disabled, with a packet")
		must(t, q.EnableInterrupt())
		want(true, "enabled, with a packet that came before")
		must(t, q.EnableInterrupt())
		p.receive(1)
		want(false, "drained")
		p.inject(frame(64, 2), frame(64, 3))
		want(true, "two packets")
		want(true, "asked again")
		must(t, q.DisableInterrupt())
		want(false, "disabled")
		must(t, q.DisableInterrupt())
		p.receive(2)
		must(t, q.EnableInterrupt())
		want(false, "enabled, empty")
		done := start(func() error { pollFD(t, fd, int(nettest.Bound(wait).Milliseconds())); return nil })
		must(t, p.Stop())
		must(t, ended(t, done))
		want(true, "stopped")
		must(t, p.Device.Start())
		want(false, "started again")
		p.inject(frame(64, 4))
		want(true, "a packet after the start")
		p.receive(1)
		must(t, p.conn.Delete(p.index))
		want(true, "gone")
	})
}

// pollFD waits milliseconds until fd is readable.
func pollFD(t testing.TB, fd, milliseconds int) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, milliseconds)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Error(err)
		}
		return n > 0
	}
}

// TestWaitEnds: a wait ends when the port is stopped, closed, or loses its interface, and the next one says why.
func TestWaitEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(p *port) error
		then error
	}{
		{"stop", func(p *port) error { return p.Stop() }, ErrStopped},
		{"close", func(p *port) error { return p.Close() }, ErrClosed},
		{"release", func(p *port) error { return errors.Join(p.Stop(), p.ReleaseRxQueue(0)) }, ErrReleased},
		{"delete", func(p *port) error { return p.conn.Delete(p.index) }, ErrGone},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startPort(t, Config{})
			q, other := p.RxQueue(0), waiterFor(t, p)
			one, many := start(func() error { return q.Wait(bounded(t)) }), start(func() error { return other.Wait(bounded(t)) })
			parked(t, "rtap.(*RxQueue).Wait")
			must(t, c.end(p))
			for _, ended := range []error{ended(t, one), ended(t, many)} {
				if ended != nil {
					wantIs(t, ended, c.then)
				}
			}
			if c.then == ErrGone {
				q.Burst(make([]*mbuf.Mbuf, 1)) // which notices
			}
			for _, wait := range []func() error{
				func() error { return q.Wait(bounded(t)) },
				func() error { return other.Wait(bounded(t)) },
				func() error { return q.Idle(bounded(t), 1000) },
			} {
				err := nextWait(wait)
				wantIs(t, err, c.then)
				if op := (*OpError)(nil); !errors.As(err, &op) || op.Queue != 0 || op.Interface == "" {
					t.Errorf("error %#v names no queue", err)
				}
			}
		})
	}
}

// nextWait waits until it has an error: a wake-up may be left from before.
func nextWait(wait func() error) error {
	for range 3 {
		if err := wait(); err != nil {
			return err
		}
	}
	return nil
}

// TestWaitRestart: a wait for two ports goes on with the one that runs, and takes in the other when that is
// started.
func TestWaitRestart(t *testing.T) {
	a, b := startPort(t, Config{}), startPort(t, Config{})
	w := waiterFor(t, a, b)
	must(t, b.Stop())
	a.inject(frame(64, 1))
	waitPacket(t, w, a)
	done := start(func() error { return w.Wait(bounded(t)) })
	parked(t, inWait)
	must(t, b.Device.Start())
	must(t, ended(t, done))
	b.inject(frame(64, 2))
	waitPacket(t, w, b)
}

// TestWaiterErrors: what cannot be waited for is refused, and closing is final.
func TestWaiterErrors(t *testing.T) {
	p := startPort(t, Config{})
	for _, queues := range [][]*RxQueue{nil, {nil}, {p.RxQueue(0), p.RxQueue(1)}, {p.RxQueue(0), p.RxQueue(0)}} {
		if w, err := NewRxWaiter(queues...); !isConfigError(err) {
			t.Errorf("%v: %v, %v", queues, w, err)
		}
	}
	w := waiterFor(t, p)
	done := start(func() error { return w.Wait(bounded(t)) })
	parked(t, inWait)
	must(t, w.Close())
	wantIs(t, ended(t, done), os.ErrClosed)
	wantIs(t, w.Wait(bounded(t)), os.ErrClosed)
	must(t, w.Close())
}

func isConfigError(err error) bool {
	var c *ConfigError
	return errors.As(err, &c)
}

// TestIdle: Idle returns at once for as long as Spin, counted from the first of the empty rounds, and then sleeps.
func TestIdle(t *testing.T) {
	p := startPort(t, Config{})
	w := waiterFor(t, p)
	if w.Spin != DefaultSpin {
		t.Errorf("Spin is %v", w.Spin)
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel() // so that a sleep shows
	w.Spin = time.Hour
	for round := 1; round < 1000; round++ {
		must(t, w.Idle(canceled, round))
	}
	w.Spin = time.Nanosecond
	must(t, w.Idle(canceled, 1))
	wantIs(t, w.Idle(canceled, 2), context.Canceled)
	w.Spin = 0
	wantIs(t, w.Idle(canceled, 1), context.Canceled)
}

// TestWaitAllocatesNothing, also not to arm 4 queues.
func TestWaitAllocatesNothing(t *testing.T) {
	p := startPort(t, Config{Queues: 4})
	w := waiterFor(t, p)
	ctx := bounded(t)
	p.inject(frame(64, 1))
	must(t, w.Wait(ctx))
	wantNoAllocs(t, "a wait for four", nettest.Scale(100), func() { must(t, w.Wait(ctx)) })
	p.receive(1)
}

// TestInterruptsAndEvents: a goroutine that sleeps between packets gets all of them, and a subscriber all events, while
// the interface is changed by others.
func TestInterruptsAndEvents(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e})
		events := p.Events()
		defer events.Close()
		n := nettest.Scale(500)
		changed := start(func() error {
			for i := range n {
				if err := p.conn.SetMTU(p.index, 1400+i%2); err != nil {
					return err
				}
			}
			return nil
		})
		heard := start(func() error {
			for i := range n {
				if ev := <-events.C; ev.Changed != ChangeMTU || ev.After.MTU != 1400+i%2 {
					return fmt.Errorf("event %d is %v, MTU %d", i, ev.Changed, ev.After.MTU)
				}
			}
			return nil
		})
		w := waiterFor(t, p)
		for i := range n {
			p.inject(frame(64, i))
			waitPacket(t, w, p)
		}
		must(t, ended(t, changed))
		must(t, ended(t, heard))
	})
}

// TestInterruptRaces: a packet that comes at the moment when the interrupt is enabled is not overlooked.
func TestInterruptRaces(t *testing.T) { interruptRaces(t, nettest.Scale(50_000)) }

func interruptRaces(t *testing.T, rounds int) {
	eachEngineIfFast(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e})
		q, fd := p.RxQueue(0), 0
		fd, err := q.InterruptFD()
		must(t, err)
		arrive := racer(t, p)
		bufs := make([]*mbuf.Mbuf, 1)
		for i := range rounds {
			arrive(i)
			must(t, q.EnableInterrupt())
			for start := time.Now(); !pollFD(t, fd, 0); {
				if time.Since(start) > nettest.Bound(wait) {
					t.Fatalf("round %d: no wake-up", i)
				}
			}
			must(t, q.DisableInterrupt())
			if n := q.Burst(bufs); n != 1 {
				t.Fatalf("round %d: %d packets", i, n)
			}
			mbuf.FreeBulk(bufs)
		}
	})
}

// TestWaitRaces: the same of waits.
func TestWaitRaces(t *testing.T) { waitRaces(t, nettest.Scale(10_000)) }

func waitRaces(t *testing.T, rounds int) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e})
		q := p.RxQueue(0)
		arrive := racer(t, p)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		bound := time.AfterFunc(nettest.Bound(wait), cancel)
		bufs := make([]*mbuf.Mbuf, 1)
		for i := range rounds {
			bound.Reset(nettest.Bound(wait))
			arrive(i)
			for q.Burst(bufs) == 0 {
				if err := q.Wait(ctx); err != nil {
					t.Fatalf("round %d: %v", i, err)
				}
			}
			mbuf.FreeBulk(bufs)
		}
	})
}

// racer has another goroutine send one packet to p each time it is called, at about that moment: with a delay that
// depends on the round.
func racer(t *testing.T, p *port) func(round int) {
	inj, f := p.injector(), frame(64, 0)
	var round atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for seen := int64(0); ; {
			now := round.Load()
			if now < 0 {
				return
			}
			if now == seen {
				runtime.Gosched()
				continue
			}
			seen = now
			for range now % 1024 { // up to a microsecond or so
				_ = round.Load()
			}
			if err := inj.Inject(f); err != nil {
				t.Error(err)
			}
		}
	}()
	t.Cleanup(func() {
		round.Store(-1)
		<-done
	})
	return func(i int) { round.Store(int64(i) + 1) }
}

// TestQueueWaitAllocatesNothing: nor does the wait of one queue.
func TestQueueWaitAllocatesNothing(t *testing.T) {
	p := startPort(t, Config{})
	q, ctx := p.RxQueue(0), bounded(t)
	p.inject(frame(64, 1))
	must(t, q.Wait(ctx))
	wantNoAllocs(t, "a wait", nettest.Scale(100), func() { must(t, q.Wait(ctx)) })
	p.receive(1)
}

// TestReleaseWhileWaiting: a queue that is released under goroutines that begin to wait for it.
func TestReleaseWhileWaiting(t *testing.T) {
	p := openPort(t, Config{})
	p.setUp(1, RxConfig{})
	var ws workers
	ctx := bounded(t)
	ws.loop(func() {
		if q := p.RxQueue(0); q != nil {
			_ = q.Wait(ctx) // released, stopped, or woken up
		}
	})
	released := start(func() error {
		for range nettest.Scale(300) {
			err := errors.Join(p.Stop(), p.ReleaseRxQueue(0), p.SetupRxQueue(0, RxConfig{}), p.Device.Start())
			if err != nil {
				return err
			}
		}
		return nil
	})
	must(t, ended(t, released))
	must(t, p.Stop())
	ws.stop()
}
