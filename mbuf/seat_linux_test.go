// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/internal/nettest"
)

// A helper that was asleep while the record was used again changes nothing: what
// is on record is what counts when the process dies now.
func TestLateHelper(t *testing.T) {
	p := newPool(t, Config{Count: 8, DataRoom: 1})
	h, s := p.hdr, &seat{h: p.hdr, proc: 1}
	var a, b, c [1]*Mbuf
	s.pop(a[:])
	old := h.head.Load() // somebody goes to sleep with this
	s.pop(b[:])
	p.Alloc().Free()
	op, tag := h.op(opsPerSeat), h.op(opsPerSeat).done.Load()
	if tag != old>>tagShift+1 {
		t.Fatalf("tag %x on record, want %x", tag, old>>tagShift+1)
	}
	if h.help(old) || op.done.Load() != tag {
		t.Errorf("a late helper has set the record to tag %x from %x", op.done.Load(), tag)
	}
	if h.swap(old, nextHead(old, 0, 3)) {
		t.Error("a late update succeeded")
	}
	// And one that saw the head as it is.
	s.pop(c[:])
	for range 2 {
		if head := h.head.Load(); !h.help(head) || op.done.Load() != head>>tagShift {
			t.Errorf("tag %x on record", op.done.Load())
		}
	}
	for _, m := range [][]*Mbuf{a[:], b[:], c[:]} {
		s.push(m)
	}
}

// An operation at the wrap of the tag is no more done than another, and a record
// that was never used has done none.
func TestReclaimAtWrap(t *testing.T) {
	p := newPool(t, Config{Count: 8, DataRoom: 1})
	h := p.hdr
	h.head.Store(0xfffffff<<tagShift | h.head.Load()&none)
	op := h.op(opsPerSeat)
	op.expect.Store(h.head.Load())
	op.arg.Store(pack(opPop, 2, indexOf(h.head.Load())))
	if n := p.Reclaim(1); n != 0 {
		t.Errorf("%d mbufs came back of an operation that was not done", n)
	}
	s := &seat{h: h, proc: 1}
	var bufs [3]*Mbuf
	h.head.Store(0xfffffff<<tagShift | h.head.Load()&none)
	s.pop(bufs[:])
	if n := p.Reclaim(1); n != 3 {
		t.Errorf("%d mbufs came back of 3", n)
	}
}

// More goroutines than records wait for each other.
func TestManyOperations(t *testing.T) {
	p := attachedPool(t, Config{Count: 300, DataRoom: 1})
	s := seatOf(p.hdr)
	s.busy.Store(1<<31 - 1)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range nettest.Scale(300) {
				p.Alloc().Free()
			}
		})
	}
	wg.Wait()
	if s.busy.Load() != 1<<31-1 {
		t.Errorf("records %x are in use", s.busy.Load())
	}
	for who := range uint64(seats * opsPerSeat) {
		if a := p.hdr.op(who).arg.Load(); a != 0 {
			t.Errorf("record %d: %x is going on", who, a)
		}
	}
}

// Nobody loses anything to the reclaim of others' things: clones, chains and
// whatever the dead have written into theirs.
func TestReclaimRestores(t *testing.T) {
	p := newPool(t, Config{Count: 40, DataRoom: 32, PrivSize: 8})
	s := &seat{h: p.hdr, proc: 4}
	bufs := make([]*Mbuf, 10)
	s.pop(bufs)
	for i, m := range bufs {
		m.RefCnt, m.NbSegs, m.Next, m.OlFlags = uint16(i), 77, bufs[9-i], Indirect|1
		m.bufAddr, m.BufLen, m.PrivSize, m.DataOff, m.pool = nil, 1, 2, 3, nil
	}
	mine := packet(t, p, pattern(100, 1))
	if p.Held(4) != 10 || p.Held(0) != 4 || p.InUseCount() != 14 {
		t.Errorf("held %d and %d, in use %d", p.Held(4), p.Held(0), p.InUseCount())
	}
	for proc := -1; proc <= MaxProcs+1; proc++ {
		want := 0
		if proc == 4 {
			want = 10
		}
		if n := p.Reclaim(proc); n != want {
			t.Errorf("process %d: %d mbufs, want %d", proc, n, want)
		}
	}
	expect(t, mine, pattern(100, 1))
	mine.Free()
	checkFree(t, p)
}

func TestAttachRing(t *testing.T) {
	p := attachedPool(t, Config{Name: "theirs", Count: 16, DataRoom: 8})
	// The maker's handle, for what only it may do.
	maker := poolOf(p.hdr, p.cfg, 0)
	theirs := newTestRing(t, maker, 4)
	assign(t, theirs, 0, p.Proc())
	r, err := AttachRing(dup(t, theirs.FD()), p)
	if err != nil {
		t.Fatal(err)
	}
	if r.Name() != "ring" || r.Cap() != 4 {
		t.Errorf("ring %q of %d", r.Name(), r.Cap())
	}
	m := p.Alloc()
	number(m, 7)
	var got [1]*Mbuf
	if theirs.Producer().Enqueue([]*Mbuf{m}) != 1 || p.Held(3) != 0 || r.Producer().Enqueue([]*Mbuf{m}) != 0 {
		t.Error("not taken, or by the wrong end")
	}
	if r.Consumer().Dequeue(got[:]) != 1 || got[0] != m || p.Held(3) != 1 {
		t.Errorf("came out %p, want %p; %d held", got[0], m, p.Held(3))
	}
	m.Free()
	if err := p.Close(); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "1 rings") {
		t.Errorf("pool closed under a ring: %v", err)
	}
	if _, err := NewRing("r", 4, p); !errors.Is(err, ErrConfig) {
		t.Errorf("a ring of another's pool: %v", err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if holder, ok := theirs.Holder(Consuming); !ok || holder != 3 {
		t.Error("the end was vacated by another than the maker")
	}
	for name, c := range map[string]struct {
		fd   int
		pool *Pool
		want error
		text string
	}{
		"maker":        {dup(t, theirs.FD()), maker, ErrConfig, "made by another process"},
		"no ring":      {dup(t, p.FD()), p, ErrLayout, "first word"},
		"another pool": {dup(t, newTestRing(t, newPool(t, Config{Count: 1}), 4).FD()), p, ErrLayout, "its pool"},
		"layout":       {spoiltRing(t, maker, func(h *ringHeader) { h.layout++ }), p, ErrLayout, "layout"},
		"slots":        {spoiltRing(t, maker, func(h *ringHeader) { h.size = 3 }), p, ErrLayout, "slots"},
		"many slots":   {spoiltRing(t, maker, func(h *ringHeader) { h.size = 1 << 20 }), p, ErrLayout, "slots"},
		"no slots":     {spoiltRing(t, maker, func(h *ringHeader) { h.size = 0 }), p, ErrLayout, "slots"},
		"name":         {spoiltRing(t, maker, func(h *ringHeader) { h.nameLen = 65 }), p, ErrLayout, "name"},
		"closed":       {12345, p, unix.EBADF, "descriptor"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := AttachRing(c.fd, c.pool)
			if r != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v, want %v, %q", err, c.want, c.text)
			}
			if _, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFD, 0); err != unix.EBADF {
				t.Errorf("the descriptor is still open: %v", err)
			}
		})
	}
}

func spoiltRing(t *testing.T, maker *Pool, spoil func(h *ringHeader)) int {
	r := newTestRing(t, maker, 4)
	fd := dup(t, r.FD())
	spoil(r.hdr)
	return fd
}

// A pool of another process works as any other.
func TestModelAttached(t *testing.T) {
	testModel(t, func(cfg Config) *Pool {
		fd, base := orphan(t, cfg, nil)
		p, err := AttachPool(fd, base, 1)
		if err != nil {
			t.Fatal(err)
		}
		return p
	})
}

func TestNoAllocationsAttached(t *testing.T) {
	p := attachedPool(t, Config{Count: 256, DataRoom: 256})
	theirs := newTestRing(t, poolOf(p.hdr, p.cfg, 0), 64)
	assign(t, theirs, p.Proc(), p.Proc())
	r, err := AttachRing(dup(t, theirs.FD()), p)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := p.NewCache(32)
	defer c.Close()
	bufs := make([]*Mbuf, 40)
	for name, a := range map[string]Allocator{"pool": p, "cache": c} {
		if n := testing.AllocsPerRun(200, func() {
			n := a.AllocBulk(bufs)
			bufs[3].RefUpdate(1) // is copied
			shared := bufs[3]
			if r.Producer().Enqueue(bufs[:n]) != n || r.Consumer().Dequeue(bufs) != n {
				t.Error("a packet is lost")
			}
			a.FreeBulk(bufs[:n])
			shared.Free()
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkReclaim takes back a large pool all of which a dead process had.
func BenchmarkReclaim(b *testing.B) {
	p := newPool(b, Config{Count: 1 << 16})
	s := &seat{h: p.hdr, proc: 1}
	bufs := make([]*Mbuf, p.Count())
	for b.Loop() {
		b.StopTimer()
		if n := s.pop(bufs); n != len(bufs) {
			b.Fatalf("%d mbufs", n)
		}
		b.StartTimer()
		if n := p.Reclaim(1); n != len(bufs) {
			b.Fatalf("%d of %d mbufs came back", n, len(bufs))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/op")
}

func BenchmarkAttached(b *testing.B) {
	p := attachedPool(b, Config{})
	b.Run("pool/32", func(b *testing.B) { benchAllocFree(b, p, 32) })
	b.Run("cache/32", func(b *testing.B) {
		c := p.NewCache(0)
		defer c.Close()
		benchAllocFree(b, c, 32)
	})
}

func BenchmarkRing(b *testing.B) {
	p := newPool(b, Config{})
	r := ownRing(b, p, 512)
	bufs := make([]*Mbuf, 32)
	p.AllocBulk(bufs)
	b.ReportAllocs()
	for b.Loop() {
		if r.Producer().Enqueue(bufs) != len(bufs) || r.Consumer().Dequeue(bufs) != len(bufs) {
			b.Fatal("lost")
		}
	}
	perMbuf(b, len(bufs))
	p.FreeBulk(bufs)
}
