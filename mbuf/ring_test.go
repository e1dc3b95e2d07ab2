// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

// ownRing returns a ring both ends of which are ours.
func ownRing(t testing.TB, p *Pool, size int) *Ring {
	t.Helper()
	r := newTestRing(t, p, size)
	assign(t, r, 0, 0)
	return r
}

// newTestRing makes a ring that is closed when the test ends, whoever has its ends.
func newTestRing(t testing.TB, p *Pool, size int) *Ring {
	t.Helper()
	r, err := NewRing("ring", size, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for proc := range seats {
			r.Vacate(Producing, proc)
			r.Vacate(Consuming, proc)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func assign(t testing.TB, r *Ring, producer, consumer int) {
	t.Helper()
	for e, proc := range []int{producer, consumer} {
		if err := r.Assign(End(e), proc); err != nil {
			t.Fatal(err)
		}
	}
}

// numbered makes packets with the numbers from first on, of one to three segments.
func numbered(t testing.TB, p *Pool, first, n int) []*Mbuf {
	t.Helper()
	bufs := make([]*Mbuf, n)
	for i := range bufs {
		bufs[i] = p.Alloc()
		for range (first + i) % 3 {
			if err := Chain(bufs[i], p.Alloc()); err != nil {
				t.Fatal(err)
			}
		}
		number(bufs[i], uint64(first+i))
	}
	return bufs
}

// receive takes packets out, which must have the numbers from first on, and frees
// them.
func receive(t testing.TB, r *Ring, first, n int) {
	t.Helper()
	bufs := make([]*Mbuf, n+1)
	got := r.Consumer().Dequeue(bufs)
	if got != n {
		t.Fatalf("%d packets, want %d", got, n)
	}
	for i, m := range bufs[:got] {
		if k, err := numberOf(m); err != nil || k != uint64(first+i) || int(m.NbSegs) != 1+(first+i)%3 {
			t.Fatalf("packet %d of %d segments, want %d: %v", k, m.NbSegs, first+i, err)
		}
	}
	FreeBulk(bufs[:got])
}

// In order, intact, as many as fit, round and round.
func TestRing(t *testing.T) {
	p := newPool(t, Config{Count: 64, DataRoom: 8})
	r := ownRing(t, p, 5)
	if r.Cap() != 8 || r.Len() != 0 || r.Name() != "ring" || r.FD() < 0 {
		t.Errorf("ring %q holds %d of %d, descriptor %d", r.Name(), r.Len(), r.Cap(), r.FD())
	}
	receive(t, r, 0, 0)
	for round := range 20 {
		first := round * 11
		bufs := numbered(t, p, first, 11)
		if n := r.Producer().Enqueue(bufs[:3]); n != 3 || r.Len() != 3 {
			t.Fatalf("%d of 3 packets taken, %d in the ring", n, r.Len())
		}
		// Nil entries take no room.
		if n := r.Producer().Enqueue(append([]*Mbuf{nil, nil}, bufs[3:]...)); n != 2+5 || r.Len() != 8 {
			t.Fatalf("%d taken, want 2 of nothing and 5; %d in the ring", n, r.Len())
		}
		if n := r.Producer().Enqueue(append([]*Mbuf{nil}, bufs[8:]...)); n != 1 {
			t.Fatalf("%d taken by a full ring", n)
		}
		receive(t, r, first, 8)
		if n := r.Producer().Enqueue(bufs[8:]); n != 3 {
			t.Fatalf("%d of the last 3", n)
		}
		receive(t, r, first+8, 3)
	}
	if p.InUseCount() != 0 {
		t.Errorf("%d mbufs lost", p.InUseCount())
	}
}

// What another process could not own is copied, and the original freed.
func TestRingCopies(t *testing.T) {
	p := newPool(t, Config{Name: "own", Count: 16, DataRoom: 40, PrivSize: 8})
	foreign := newPool(t, Config{Name: "foreign", Count: 4, DataRoom: 100})
	r := ownRing(t, p, 8)
	data := pattern(70, 1)
	t.Run("of another pool", func(t *testing.T) { copied(t, r, packet(t, foreign, data), nil, data) })
	t.Run("clone", func(t *testing.T) {
		m := packet(t, p, data)
		copied(t, r, Clone(m, p), m, data)
	})
	t.Run("original of a clone", func(t *testing.T) {
		m := packet(t, p, data)
		copied(t, r, m, Clone(m, p), data)
	})
	t.Run("clone by another pool's mbufs", func(t *testing.T) {
		m := packet(t, p, data)
		copied(t, r, Clone(m, foreign), m, data)
	})
	t.Run("shared behind the first segment", func(t *testing.T) {
		m, tail := packet(t, p, data[:10]), packet(t, p, data[10:])
		c := Clone(tail, p)
		if err := Chain(m, tail); err != nil {
			t.Fatal(err)
		}
		copied(t, r, m, c, data)
	})
	t.Run("empty", func(t *testing.T) {
		m := foreign.Alloc()
		copied(t, r, m, nil, nil)
	})
	t.Run("own", func(t *testing.T) {
		m := packet(t, p, data)
		var got [2]*Mbuf
		if r.Producer().Enqueue([]*Mbuf{m}) != 1 || r.Consumer().Dequeue(got[:]) != 1 || got[0] != m {
			t.Error("a packet that is nobody else's was copied")
		}
		m.Free()
	})
}

// copied sends m and looks at what comes out. other is freed at the end.
func copied(t *testing.T, r *Ring, m, other *Mbuf, data []byte) {
	t.Helper()
	m.Port, m.VlanTCI, m.TxOffload, m.Hash = 7, 8, 9, [2]uint32{10, 11}
	m.OlFlags |= TxVLAN
	var got [2]*Mbuf
	if n := r.Producer().Enqueue([]*Mbuf{m}); n != 1 {
		t.Fatalf("%d taken", n)
	}
	if n := r.Consumer().Dequeue(got[:]); n != 1 {
		t.Fatalf("%d came out", n)
	}
	c := got[0]
	expect(t, c, data)
	for s := c; s != nil; s = s.Next {
		if !s.IsWritable() || s.home() != r.pool.hdr {
			t.Errorf("a segment with %d references, flags %x, of pool %s", s.RefCount(), s.OlFlags, s.home().name[:8])
		}
	}
	if c == m || c.Port != 7 || c.VlanTCI != 8 || c.TxOffload != 9 || c.Hash != [2]uint32{10, 11} || c.OlFlags != TxVLAN {
		t.Errorf("packet %p is not a copy: %+v", c, *c)
	}
	if other != nil {
		expect(t, other, other.AppendTo(nil))
	}
	c.Free()
	other.Free()
	if n := r.pool.InUseCount(); n != 0 {
		t.Errorf("%d mbufs lost", n)
	}
}

// A packet that there is no room to copy stays where it is.
func TestRingNoRoomForCopy(t *testing.T) {
	p := newPool(t, Config{Count: 4, DataRoom: 16})
	foreign := newPool(t, Config{Count: 4, DataRoom: 100})
	r := ownRing(t, p, 8)
	own, data := p.Alloc(), pattern(60, 3) // a copy needs four mbufs, three are there
	bufs := []*Mbuf{own, packet(t, foreign, data), nil}
	if n := r.Producer().Enqueue(bufs); n != 1 || r.Len() != 1 {
		t.Errorf("%d taken, %d in the ring", n, r.Len())
	}
	expect(t, bufs[1], data)
	if p.InUseCount() != 1 {
		t.Errorf("%d in use", p.InUseCount())
	}
	bufs[1].Free()
	r.Consumer().Dequeue(bufs)
	own.Free()
}

func TestRingEnds(t *testing.T) {
	p := newPool(t, Config{Count: 16})
	r := newTestRing(t, p, 4)
	m, bufs := p.Alloc(), make([]*Mbuf, 2)
	none := func(when string) {
		t.Helper()
		if r.Producer().Enqueue([]*Mbuf{m}) != 0 || r.Consumer().Dequeue(bufs) != 0 {
			t.Errorf("%s: packets go through", when)
		}
	}
	none("not assigned")
	assign(t, r, 5, 0)
	if proc, ok := r.Holder(Producing); proc != 5 || !ok {
		t.Errorf("the holder is %d, %v", proc, ok)
	}
	for proc := range 7 {
		err := r.Assign(Producing, proc)
		if !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), `ring "ring": producer end: process 5 has it`) {
			t.Errorf("assigned to %d too: %v", proc, err)
		}
	}
	none("another's")
	r.Vacate(Producing, 4)
	if err := r.Close(); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "process 5 has the producer end") {
		t.Errorf("closed with ends assigned: %v", err)
	}
	r.Vacate(Producing, 5)
	if err := r.Close(); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "process 0 has the consumer end") {
		t.Errorf("closed with ends assigned: %v", err)
	}
	if err := r.Assign(Producing, 0); err != nil {
		t.Fatal(err)
	}
	r.prod.busy.Store(true) // a second goroutine
	r.cons.busy.Store(true)
	none("while somebody is at it")
	r.prod.busy.Store(false)
	r.cons.busy.Store(false)
	for _, bad := range []struct {
		e    End
		proc int
	}{{Producing, -1}, {Consuming, MaxProcs + 1}, {2, 0}, {-1, 0}} {
		if err := r.Assign(bad.e, bad.proc); !errors.Is(err, ErrConfig) {
			t.Errorf("end %d to process %d: %v", bad.e, bad.proc, err)
		}
		r.Vacate(bad.e, bad.proc)
	}
	if err := p.Close(); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "1 of 16 mbufs and 0 caches and 1 rings") {
		t.Errorf("pool closed under a ring: %v", err)
	}
	// What is in the ring goes home with it.
	if r.Producer().Enqueue([]*Mbuf{m}) != 1 || p.InUseCount() != 1 {
		t.Fatal("not taken")
	}
	r.Vacate(Producing, 0)
	r.Vacate(Consuming, 0)
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	none("closed")
	if r.Cap() != 0 || r.Len() != 0 || r.FD() != -1 || !errors.Is(r.Assign(Producing, 0), ErrConfig) {
		t.Error("a closed ring has something left")
	}
	checkFree(t, p)
}

func TestNewRingErrors(t *testing.T) {
	p := newPool(t, Config{Name: "p", Count: 1})
	for _, c := range []struct {
		name string
		size int
	}{{"r", 0}, {"r", -1}, {"r", MaxRing + 1}, {strings.Repeat("r", 65), 1}} {
		if r, err := NewRing(c.name, c.size, p); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), `of pool "p"`) {
			t.Errorf("%q of %d: %v, %v", c.name, c.size, r, err)
		}
	}
	for size, want := range map[int]int{1: 1, 2: 2, 3: 4, MaxRing: MaxRing, MaxRing/2 + 1: MaxRing} {
		if r := newTestRing(t, p, size); r.Cap() != want {
			t.Errorf("%d slots for %d", r.Cap(), size)
		}
	}
	closed := newPool(t, Config{Count: 1})
	closePool(t, closed)
	if _, err := NewRing("r", 1, closed); !errors.Is(err, ErrConfig) {
		t.Errorf("ring of a closed pool: %v", err)
	}
}

// One goroutine sends, one receives, on all the wraps of a small ring.
func TestRingConcurrent(t *testing.T) {
	p := newPool(t, Config{Count: 64, DataRoom: 8})
	r := ownRing(t, p, 4)
	total := nettest.Scale(20000)
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; n < total && !t.Failed(); {
			if p.AvailCount() < 3 {
				runtime.Gosched()
				continue
			}
			bufs := numbered(t, p, n, 1)
			for r.Producer().Enqueue(bufs) == 0 && !t.Failed() {
				runtime.Gosched()
			}
			n++
		}
	})
	defer wg.Wait()
	var bufs [3]*Mbuf
	for n := 0; n < total; {
		got := r.Consumer().Dequeue(bufs[:])
		if got == 0 {
			runtime.Gosched()
		}
		for _, m := range bufs[:got] {
			if k, err := numberOf(m); err != nil || k != uint64(n) {
				t.Fatalf("packet %d, want %d: %v", k, n, err)
			}
			n++
		}
		FreeBulk(bufs[:got])
	}
}
