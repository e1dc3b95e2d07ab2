// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// hookRx calls f in every burst and receives nothing unless f says so.
type hookRx struct{ f func(bufs []*mbuf.Mbuf) int }

func (q hookRx) Burst(bufs []*mbuf.Mbuf) int { return q.f(bufs) }

// runBounded runs f and fails when it does not end after ctx does.
func runBounded(t *testing.T, f *Forwarder, ctx context.Context) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(nettest.Bound(30 * time.Second)):
		t.Fatal("Run did not end")
	}
}

// TestStopWithinBurst: after the burst in which the stop came there is no other, on any stream of the worker.
func TestStopWithinBurst(t *testing.T) {
	for stopAt := 1; stopAt <= 7; stopAt++ {
		ctx, cancel := context.WithCancel(context.Background())
		var bursts int
		rx := hookRx{func([]*mbuf.Mbuf) int {
			if bursts++; bursts == stopAt {
				cancel()
			}
			return 0
		}}
		f, err := New(Config{}, NewPort(portMAC, []hookRx{rx, rx, rx}, make([]fakeTxRef, 3)))
		if err != nil {
			t.Fatal(err)
		}
		runBounded(t, f, ctx)
		if bursts != stopAt {
			t.Errorf("%d bursts with a stop in number %d", bursts, stopAt)
		}
	}
}

// TestRoundRobin: a worker polls its streams in turn, none twice before the others.
func TestRoundRobin(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var order []int
	rx := make([]hookRx, 3)
	for i := range rx {
		rx[i].f = func([]*mbuf.Mbuf) int {
			if order = append(order, i); len(order) == 7 {
				cancel()
			}
			return 0
		}
	}
	f, err := New(Config{}, NewPort(portMAC, rx, make([]fakeTxRef, 3)))
	if err != nil {
		t.Fatal(err)
	}
	runBounded(t, f, ctx)
	if want := []int{0, 1, 2, 0, 1, 2, 0}; !reflect.DeepEqual(order, want) {
		t.Errorf("order of bursts %v, want %v", order, want)
	}
}

// TestIdleHook: it is called after empty rounds only, with how many came in a row.
func TestIdleHook(t *testing.T) {
	pool := newPool(t, mbuf.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	received := []int{0, 0, 1, 0, 2, 1, 0, 0, 0}
	var calls [][2]int
	rx := hookRx{func(bufs []*mbuf.Mbuf) int {
		n := received[0]
		if received = received[1:]; len(received) == 0 {
			cancel()
		}
		return pool.AllocBulk(bufs[:n])
	}}
	f, err := New(Config{Mode: "rxonly", Idle: func(_ context.Context, worker, empty int) { calls = append(calls, [2]int{worker, empty}) }},
		NewPort(portMAC, []hookRx{rx}, make([]fakeTxRef, 1)))
	if err != nil {
		t.Fatal(err)
	}
	runBounded(t, f, ctx)
	if want := [][2]int{{0, 1}, {0, 2}, {0, 1}, {0, 1}, {0, 2}, {0, 3}}; !reflect.DeepEqual(calls, want) {
		t.Errorf("idle calls %v, want %v", calls, want)
	}
	wantStats(t, f.Streams()[0], Stats{RxPackets: 4})
}

// TestIdlePolicy: a worker yields only when the workers have all the Ps.
func TestIdlePolicy(t *testing.T) {
	name := func(f IdleFunc) string { return runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name() }
	p := runtime.GOMAXPROCS(0)
	own := func(context.Context, int, int) {}
	for _, tt := range []struct {
		workers    int
		idle, want IdleFunc
	}{{p - 1, nil, Spin}, {p, nil, Yield}, {p + 1, nil, Yield}, {p, own, own}} {
		w := &Worker{workers: tt.workers, idle: tt.idle}
		if got := name(w.idleFunc()); got != name(tt.want) {
			t.Errorf("%d workers on %d: %s, want %s", tt.workers, p, got, name(tt.want))
		}
	}
}

// crossRx and crossTx make a port whose sent packets are received again. They have no lock and no atomics: the
// race detector sees it when a queue has more than one goroutine.
type crossRx struct {
	pool   *mbuf.Pool
	left   int
	bursts int
	last   *sync.WaitGroup
}

func (q *crossRx) Burst(bufs []*mbuf.Mbuf) int {
	q.bursts++
	n := q.pool.AllocBulk(bufs[:min(q.left, len(bufs))])
	for _, m := range bufs[:n] {
		copy(m.Append(len(frame)), frame)
	}
	if q.left -= n; q.left == 0 && n > 0 {
		q.last.Done()
	}
	return n
}

type crossTx struct{ taken, bursts int }

func (q *crossTx) Burst(bufs []*mbuf.Mbuf) int {
	q.bursts++
	n := len(bufs)
	if q.bursts%3 == 0 {
		n-- // the last one is dropped
	}
	mbuf.FreeBulk(bufs[:n])
	q.taken += n
	return n
}

// TestRunWorkers runs four ports of two queues on three workers, twice, with the counters read meanwhile.
func TestRunWorkers(t *testing.T) {
	const perQueue = 1000
	pool := newPool(t, mbuf.Config{Count: 2048})
	var last sync.WaitGroup
	var rxs []*crossRx
	var txs []*crossTx
	ports := make([]*Port, 4)
	for i := range ports {
		rx := []*crossRx{{pool: pool, last: &last}, {pool: pool, last: &last}}
		tx := []*crossTx{{}, {}}
		rxs, txs = append(rxs, rx...), append(txs, tx...)
		ports[i] = NewPort(portMAC, rx, tx)
	}
	f, err := New(Config{Mode: "mac", Cores: 3}, ports...)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		last.Add(len(rxs))
		for _, q := range rxs {
			q.left = perQueue
		}
		runUntil(t, f, &last)
	}
	taken := 0
	for _, q := range txs {
		taken += q.taken
	}
	st := f.Stats()
	if st.RxPackets != 2*8*perQueue || int(st.TxPackets) != taken || st.FwdDropped == 0 || st.TxPackets+st.FwdDropped != st.RxPackets {
		t.Errorf("stats %+v, with %d packets taken of %d", st, taken, 2*8*perQueue)
	}
	var ids, streams int
	for i, w := range f.Workers() {
		ids += w.ID() - i
		streams += len(w.Streams())
	}
	if ids != 0 || streams != 8 || len(f.Workers()) != 3 {
		t.Errorf("%d workers with %d streams", len(f.Workers()), streams)
	}
}

// runUntil runs f until last is done, reading the statistics all the time.
func runUntil(t *testing.T, f *Forwarder, last *sync.WaitGroup) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		last.Wait()
		cancel()
	}()
	var readers sync.WaitGroup
	readers.Go(func() {
		var before Stats
		for ctx.Err() == nil {
			now := f.Stats()
			if now.RxPackets < before.RxPackets || now.TxPackets < before.TxPackets {
				t.Errorf("counters run backwards: %+v after %+v", now, before)
				return
			}
			before = now
			runtime.Gosched()
		}
	})
	runBounded(t, f, ctx)
	readers.Wait()
}

// TestRunTwice: a second Run is refused while the first goes on.
func TestRunTwice(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var f *Forwarder
	var second error
	rx := hookRx{func([]*mbuf.Mbuf) int {
		second = f.Run(ctx)
		cancel()
		return 0
	}}
	f, err := New(Config{}, NewPort(portMAC, []hookRx{rx}, make([]fakeTxRef, 1)))
	if err != nil {
		t.Fatal(err)
	}
	runBounded(t, f, ctx)
	if !errors.Is(second, ErrRunning) {
		t.Errorf("second Run: %v, want ErrRunning", second)
	}
}

// TestRunStopped: a context that is done already means no burst at all.
func TestRunStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	rx := hookRx{func([]*mbuf.Mbuf) int {
		t.Error("a burst after the stop")
		return 0
	}}
	f, err := New(Config{}, NewPort(portMAC, []hookRx{rx}, make([]fakeTxRef, 1)))
	if err != nil {
		t.Fatal(err)
	}
	runBounded(t, f, ctx)
}
