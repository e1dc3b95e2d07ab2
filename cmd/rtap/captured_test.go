// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rtap-project/rtap/forward"
	"github.com/rtap-project/rtap/mbuf"
)

// fakeRing takes what it has room for while it is consumed. As with the real one, a second goroutine at the same moment
// is told that it is not; to enqueue then is a failure here.
type fakeRing struct {
	consumed bool
	busy     atomic.Bool
	room     int
	got      []*mbuf.Mbuf
}

func (r *fakeRing) Consumed() bool {
	if !r.busy.CompareAndSwap(false, true) {
		return false
	}
	defer r.busy.Store(false)
	runtime.Gosched()
	return r.consumed
}

func (r *fakeRing) Enqueue(bufs []*mbuf.Mbuf) int {
	if !r.busy.CompareAndSwap(false, true) {
		return 0
	}
	defer r.busy.Store(false)
	n := min(len(bufs), r.room)
	r.room -= n
	r.got = append(r.got, bufs[:n]...)
	return n
}

// source is an Rx queue with packets in it, and sink a Tx queue that takes and frees as many as it has room for.
type source struct{ waiting []*mbuf.Mbuf }

func (q *source) Burst(bufs []*mbuf.Mbuf) int {
	n := copy(bufs, q.waiting)
	q.waiting = q.waiting[n:]
	return n
}

type sink struct{ room int }

func (q *sink) Burst(bufs []*mbuf.Mbuf) int {
	n := min(len(bufs), q.room)
	q.room -= n
	mbuf.FreeBulk(bufs[:n])
	return n
}

// take is a packet of the ring, which has become the test's.
func (r *fakeRing) take(t *testing.T) (captureRecord, []byte) {
	t.Helper()
	if len(r.got) == 0 {
		t.Fatal("there is no packet in the ring")
	}
	m := r.got[0]
	r.got = r.got[1:]
	defer m.Free()
	if err := m.Check(); err != nil {
		t.Error(err)
	}
	rec, ok := takeCaptureRecord(m)
	if !ok {
		t.Fatalf("a packet of %d bytes without a record", m.PktLen)
	}
	return rec, m.AppendTo(nil)
}

// TestCaptured: what is received and sent is copied while somebody wants it, each packet once and only if it was in
// fact received or sent, with a record that says what it is.
func TestCaptured(t *testing.T) {
	pool := newPool(t, mbuf.Config{Count: 64, DataRoom: 512})
	copies := newPool(t, mbuf.Config{Count: 64, DataRoom: 256})
	ring := &fakeRing{room: 100}
	port := &captured{ring: ring, pool: copies}
	rx, tx := &source{}, &sink{room: 3}
	in, out := capturedRx{rx, port.queue(5, false)}, capturedTx{tx, port.queue(6, true)}
	lens := []int{60, 1500, 61, 62}
	pass := func() {
		t.Helper()
		for _, n := range lens {
			rx.waiting = append(rx.waiting, packetOf(t, pool, numbered(n)))
		}
		tx.room = 3
		bufs := make([]*mbuf.Mbuf, 8)
		if n := in.Burst(bufs); n != 4 {
			t.Fatalf("%d packets received", n)
		}
		if n := out.Burst(bufs[:4]); n != 3 {
			t.Fatalf("%d packets sent", n)
		}
		tx.room = 1 // as forward.Stream.send does: the rest again
		if n := out.Burst(bufs[3:4]); n != 1 {
			t.Fatalf("%d packets sent", n)
		}
	}
	pass()
	if len(ring.got) > 0 {
		t.Errorf("%d packets copied for nobody", len(ring.got))
	}
	ring.consumed = true
	before := time.Now().UnixNano()
	pass()
	after := time.Now().UnixNano()
	if len(ring.got) != 8 {
		t.Fatalf("%d packets captured, want 4 received and 4 sent", len(ring.got))
	}
	for i, n := range slices.Concat(lens, lens) {
		rec, data := ring.take(t)
		if rec.at < before || rec.at > after {
			t.Errorf("packet %d is of %d, not from %d to %d", i, rec.at, before, after)
		}
		rec.at = 0
		want := captureRecord{length: uint32(n), queue: 5}
		if i >= 4 {
			want.queue, want.sent = 6, true
		}
		if rec != want || !bytes.Equal(data, numbered(n)) {
			t.Errorf("packet %d: %+v and %d bytes, want %+v", i, rec, len(data), want)
		}
	}
}

// TestCapturedDrops: what finds no room, in the ring or in the pool, is counted and freed, and later packets say so.
func TestCapturedDrops(t *testing.T) {
	pool := newPool(t, mbuf.Config{Count: 64})
	copies := newPool(t, mbuf.Config{Count: 16})
	ring := &fakeRing{consumed: true, room: 4}
	port := &captured{ring: ring, pool: copies}
	rx := &source{}
	in := capturedRx{rx, port.queue(0, false)}
	receive := func(n int) {
		t.Helper()
		for range n {
			rx.waiting = append(rx.waiting, packetOf(t, pool, numbered(60)))
		}
		bufs := make([]*mbuf.Mbuf, n)
		if got := in.Burst(bufs); got != n {
			t.Fatalf("%d packets received", got)
		}
		mbuf.FreeBulk(bufs)
	}
	receive(6) // of which the ring takes 4
	if n := port.dropped.Load(); n != 2 {
		t.Errorf("%d dropped, want 2", n)
	}
	ring.room = 100
	receive(20) // for which there are 12 mbufs
	if n := port.dropped.Load(); n != 10 {
		t.Errorf("%d dropped, want 10", n)
	}
	for i := range 16 {
		want := uint64(0)
		if i >= 4 {
			want = 2
		}
		if rec, _ := ring.take(t); rec.dropped != want {
			t.Errorf("packet %d says that %d were dropped, want %d", i, rec.dropped, want)
		}
	}
	receive(1)
	if rec, _ := ring.take(t); rec.dropped != 10 {
		t.Errorf("%d dropped, want 10", rec.dropped)
	}
}

// TestCapturedWorkers: several workers write into one ring, one at a time, and no packet is lost without being counted.
func TestCapturedWorkers(t *testing.T) {
	const workers, each = 4, 500
	pool := newPool(t, mbuf.Config{Count: 4096})
	copies := newPool(t, mbuf.Config{Count: 4096})
	ring := &fakeRing{consumed: true, room: 1 << 20} // much
	port := &captured{ring: ring, pool: copies}
	var running sync.WaitGroup
	begin := make(chan struct{})
	for w := range workers {
		rx := &source{}
		for range each {
			rx.waiting = append(rx.waiting, packetOf(t, pool, numbered(60)))
		}
		in := capturedRx{rx, port.queue(w, false)}
		running.Go(func() {
			bufs := make([]*mbuf.Mbuf, 7)
			<-begin
			for n := in.Burst(bufs); n > 0; n = in.Burst(bufs) {
				mbuf.FreeBulk(bufs[:n])
				runtime.Gosched()
			}
		})
	}
	if !port.wanted() { // a worker that does not get to ask goes by what others were told before
		t.Error("not wanted")
	}
	close(begin)
	running.Wait()
	got := len(ring.got)
	for len(ring.got) > 0 {
		ring.take(t)
	}
	if uint64(got)+port.dropped.Load() != workers*each || got == 0 {
		t.Errorf("%d packets and %d dropped, want %d in all", got, port.dropped.Load(), workers*each)
	}
}

// TestNotCaptured: without anybody who wants packets nothing is allocated, nor is it while packets are copied.
func TestNotCaptured(t *testing.T) {
	pool := newPool(t, mbuf.Config{Count: 64})
	ring := &fakeRing{got: make([]*mbuf.Mbuf, 0, 64), room: 1 << 20}
	port := &captured{ring: ring, pool: pool}
	m := packetOf(t, pool, numbered(60))
	defer m.Free()
	rx := &source{}
	bufs, waiting := make([]*mbuf.Mbuf, 4), []*mbuf.Mbuf{m}
	for _, in := range []forward.RxQueue{(*captured)(nil).rx(rx, 0), port.rx(rx, 0)} {
		for _, ring.consumed = range []bool{false, true} {
			n := testing.AllocsPerRun(100, func() {
				rx.waiting = waiting
				in.Burst(bufs)
				mbuf.FreeBulk(ring.got)
				ring.got = ring.got[:0]
			})
			if n != 0 {
				t.Errorf("wanted: %v: %v allocations", ring.consumed, n)
			}
		}
	}
}

// TestCaptureRecord: a packet without a record is none.
func TestCaptureRecord(t *testing.T) {
	pool := newPool(t, mbuf.Config{Count: 8})
	m := packetOf(t, pool, numbered(captureRecordLen-1))
	defer m.Free()
	if rec, ok := takeCaptureRecord(m); ok {
		t.Errorf("%+v", rec)
	}
}
