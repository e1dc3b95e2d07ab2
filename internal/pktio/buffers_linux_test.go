// SPDX-License-Identifier: BSD-3-Clause

package pktio

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/uring"
	"golang.org/x/sys/unix"
)

// TestRegistrationEnds: a registration does not outlive its last queue. Other
// memory at the same addresses is other memory: packets would go to the old.
func TestRegistrationEnds(t *testing.T) {
	for _, engine := range engines(t) {
		t.Run(engine, func(t *testing.T) {
			p := newTap(t)
			e := selectEngine(t, engine, p)
			a := newArena(t, 16, "fixed")
			done := make([]Completion, 16)
			for range 3 {
				r, err := e.NewReader(p.FD(), 16, a.regions("fixed"), &Counts{})
				if err != nil {
					t.Fatal(err)
				}
				p.inject(t, 16, frame(60, 0))
				clear(a.mem)
				if n := r.Read(a.descs, done); n != 16 {
					t.Fatalf("%d packets of 16", n)
				}
				for i := range 16 {
					if got := a.slot(i)[hdrLen : hdrLen+60]; !bytes.Equal(got, frame(60, i)) {
						t.Fatalf("packet %d is not in the memory that is mapped now: % x", i, got[:20])
					}
				}
				check(t, r.Close())
				remap(t, a)
			}
		})
	}
}

// remap puts fresh pages where a's memory is.
func remap(t *testing.T, a *arena) {
	t.Helper()
	got, err := unix.MmapPtr(-1, 0, unsafe.Pointer(&a.mem[0]), uintptr(len(a.mem)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED)
	if err != nil || uintptr(got) != a.base {
		t.Fatal(got, err)
	}
}

// TestRegistrationShared: queues with the same memory share one registration,
// where the kernel can, whatever the order in which they are closed.
func TestRegistrationShared(t *testing.T) {
	nettest.NeedUring(t)
	p := newTap(t)
	e := selectEngine(t, Uring, p).(*uringEngine)
	a, b := newArena(t, 4, "fixed"), newArena(t, 4, "fixed")
	users := func() (list []int) {
		for _, s := range e.shared {
			list = append(list, s.users)
		}
		slices.Sort(list)
		return list
	}
	var queues []interface{ Close() error }
	for _, m := range []*arena{a, a, b, a} {
		r, err := e.NewReader(p.FD(), 4, m.regions("fixed"), &Counts{})
		if err != nil {
			t.Fatal(err)
		}
		w, err := e.NewWriter(p.FD(), 4, m.regions("fixed"), &Counts{})
		if err != nil {
			t.Fatal(err)
		}
		queues = append(queues, r, w)
	}
	shared := slices.ContainsFunc(uring.Probe(), func(f uring.Feature) bool {
		return f.Name == uring.FeatureClone && f.Outcome == uring.Yes
	})
	if shared && !slices.Equal(users(), []int{2, 6}) {
		t.Errorf("the registrations have %v users, want 2 and 6", users())
	}
	check(t, errors.Join(queues[0].Close(), queues[0].Close()))
	if shared && !slices.Equal(users(), []int{2, 5}) {
		t.Errorf("after one was closed, the registrations have %v users, want 2 and 5", users())
	}
	for _, q := range queues {
		check(t, q.Close())
		check(t, q.Close())
	}
	if len(e.shared) != 0 {
		t.Errorf("registrations with %v users are left", users())
	}
}

// TestRegistrationConcurrent: queues come and go in several goroutines.
func TestRegistrationConcurrent(t *testing.T) {
	nettest.NeedUring(t)
	p := newTap(t)
	e := selectEngine(t, Uring, p).(*uringEngine)
	a := newArena(t, 4, "fixed")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				q, err := e.newQueue(p.FD(), 4, a.regions("fixed"))
				if err != nil {
					t.Error(err)
					return
				}
				if len(q.fixed) != 1 {
					t.Errorf("not registered: %s", e.Notes())
				}
				check(t, q.Close())
			}
		})
	}
	wg.Wait()
	if len(e.shared) != 0 {
		t.Errorf("%d registrations are left", len(e.shared))
	}
}

// TestUnregistrable: memory that the kernel cannot pin is used without.
func TestUnregistrable(t *testing.T) {
	nettest.NeedUring(t)
	p := newTap(t)
	e := selectEngine(t, Uring, p)
	nowhere := []Region{{4096, 4096}}
	r, err := e.NewReader(p.FD(), 16, nowhere, &Counts{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { check(t, r.Close()) }()
	w, err := e.NewWriter(p.FD(), 16, nowhere, &Counts{}) // the reader has no ring before Linux 6.4
	if err != nil {
		t.Fatal(err)
	}
	defer func() { check(t, w.Close()) }()
	if !strings.Contains(e.Notes(), "without registered buffers") {
		t.Errorf("the notes say %q", e.Notes())
	}
	a := newArena(t, 16, "flat")
	p.inject(t, 2, frames()...)
	done := make([]Completion, 16)
	if n := r.Read(a.descs, done); n != 2 {
		t.Errorf("%d packets of 2", n)
	}
	if taken, refused := w.Write(a.descs[:2], done); taken != 2 || refused != 0 {
		t.Errorf("Write of 2 took %d, refused %d", taken, refused)
	}
}

func TestSplit(t *testing.T) {
	const max = uring.MaxBufferSize
	for _, c := range []struct {
		in   []Region
		want []fixedBuffer
	}{
		{nil, nil},
		{[]Region{{4096, 0}}, nil},
		{[]Region{{4096, 1}}, []fixedBuffer{{4096, 4097}}},
		{[]Region{{4096, max}, {8, 8}}, []fixedBuffer{{4096, 4096 + max}, {8, 16}}},
		{[]Region{{4096, max + 1}}, []fixedBuffer{{4096, 4096 + max}, {4096 + max, 4097 + max}}},
		{[]Region{{0, math.MaxUint32}}, []fixedBuffer{{0, max}, {max, 2 * max}, {2 * max, 3 * max}, {3 * max, math.MaxUint32}}},
	} {
		if got := split(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.in, got, c.want)
		}
	}
}

func TestLookup(t *testing.T) {
	q := &queue{fixed: []fixedBuffer{{1000, 2000}, {2000, 3000}, {5000, 6000}}}
	for _, c := range []struct {
		d    Desc
		want int // -1: none
	}{
		{Desc{Addr: 1000, Len: 1000}, 0},
		{Desc{Addr: 1999, Len: 1}, 0},
		{Desc{Addr: 1999, Len: 2}, -1}, // in two buffers
		{Desc{Addr: 2000, Len: 1000}, 1},
		{Desc{Addr: 999, Len: 2}, -1},
		{Desc{Addr: 3000, Len: 1}, -1},
		{Desc{Addr: 5500, Len: 500}, 2},
		{Desc{Addr: 5500, Len: 501}, -1},
		{Desc{Addr: math.MaxUint32 - 10, Len: 5000}, -1}, // beyond the end of a 32-bit space
	} {
		buf, ok := q.lookup(&c.d)
		if got := int(buf); ok != (c.want >= 0) || ok && got != c.want {
			t.Errorf("%+v: %d, %v; want %d", c.d, got, ok, c.want)
		}
	}
}
