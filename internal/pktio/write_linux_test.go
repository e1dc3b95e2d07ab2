// SPDX-License-Identifier: BSD-3-Clause

package pktio

import (
	"bytes"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

type writer struct {
	Writer
	*arena
	form   string
	failed []Completion
	counts *Counts
}

func newWriter(t testing.TB, p *tap, e Engine, depth int, form string) *writer {
	t.Helper()
	a, counts := newArena(t, depth, form), &Counts{}
	w, err := e.NewWriter(p.FD(), depth, a.regions(form), counts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, w.Close()) })
	return &writer{w, a, form, make([]Completion, depth), counts}
}

// TestWriteOrder sends bursts of all sizes and captures what comes.
func TestWriteOrder(t *testing.T) {
	each(t, func(t *testing.T, engine, form string) {
		p := newTap(t)
		c := p.capture(t)
		w := newWriter(t, p, selectEngine(t, engine, p), 64, form)
		rnd := rand.New(rand.NewPCG(5, 6))
		for next, total := 0, nettest.Scale(4000); next < total; {
			n := rnd.IntN(64) + 1
			for i := range n {
				w.descs[i] = w.put(i, frame(sizes[(next+i)%len(sizes)], next+i), form)
			}
			if taken, refused := w.Write(w.descs[:n], w.failed); taken != n || refused != 0 {
				t.Fatalf("Write of %d took %d, refused %d: %v", n, taken, refused, w.failed[0])
			}
			clear(w.mem) // it is ours again
			for range n {
				if got := c.next(t); !bytes.Equal(got, frame(sizes[next%len(sizes)], next)) {
					t.Fatalf("frame %d is not what was sent: %d bytes", next, len(got))
				}
				next++
			}
		}
	})
}

// TestWriteRefused: packets without an Ethernet header, among good ones.
func TestWriteRefused(t *testing.T) {
	each(t, func(t *testing.T, engine, form string) {
		p := newTap(t)
		c := p.capture(t)
		w := newWriter(t, p, selectEngine(t, engine, p), 16, form)
		bad := map[int]int{0: 1, 3: hdrLen, 4: hdrLen + 13, 15: hdrLen - 1} // lengths
		for i := range 16 {
			w.descs[i] = w.put(i, frame(60, i), form)
			if n, ok := bad[i]; ok {
				w.descs[i] = w.desc(i, n, form)
			}
		}
		taken, refused := w.Write(w.descs, w.failed)
		if taken != 16 || refused != len(bad) {
			t.Fatalf("took %d, refused %d", taken, refused)
		}
		for _, f := range w.failed[:refused] {
			if _, ok := bad[int(f.Index)]; !ok || f.Errno() != syscall.EINVAL {
				t.Errorf("refused: %d (%v)", f.Index, f.Errno())
			}
			delete(bad, int(f.Index))
		}
		for i := range 16 {
			if i == 0 || i == 3 || i == 4 || i == 15 {
				continue
			}
			if got := c.next(t); !bytes.Equal(got, frame(60, i)) {
				t.Errorf("frame %d is not what was sent", i)
			}
		}
		single := w.desc(0, 5, form)
		if taken, refused := w.Write([]Desc{single}, w.failed); taken != 1 || refused != 1 || w.failed[0] != (Completion{0, -int32(syscall.EINVAL)}) {
			t.Errorf("alone: took %d, refused %d, %v", taken, refused, w.failed[0])
		}
	})
}

// TestWriteDownAndDeleted: the link goes down, then away.
func TestWriteDownAndDeleted(t *testing.T) {
	each(t, func(t *testing.T, engine, form string) {
		p := newTap(t)
		w := newWriter(t, p, selectEngine(t, engine, p), 8, form)
		expect := func(want syscall.Errno) {
			t.Helper()
			for _, n := range []int{1, 8} {
				for i := range n {
					w.descs[i] = w.put(i, frame(60, i), form)
				}
				taken, refused := w.Write(w.descs[:n], w.failed)
				if want == 0 && refused == 0 && taken == n {
					continue
				}
				if taken != n || refused != n {
					t.Fatalf("Write of %d took %d, refused %d", n, taken, refused)
				}
				seen := make([]bool, n) // in any order: on Linux 6.1 the last comes first
				for _, f := range w.failed[:n] {
					if int(f.Index) >= n || seen[f.Index] || f.Errno() != want {
						t.Fatalf("%d packets refused with %v: %+v", n, want, w.failed[:n])
					}
					seen[f.Index] = true
				}
			}
		}
		expect(0)
		check(t, p.conn.SetDown(p.index))
		expect(syscall.EIO)
		check(t, p.conn.SetUp(p.index))
		expect(0)
		check(t, p.conn.Delete(p.index))
		expect(syscall.EBADFD)
	})
}

func TestWriteNothing(t *testing.T) {
	each(t, func(t *testing.T, engine, form string) {
		p := newTap(t)
		w := newWriter(t, p, selectEngine(t, engine, p), 8, form)
		if taken, refused := w.Write(nil, nil); taken != 0 || refused != 0 {
			t.Errorf("took %d, refused %d of none", taken, refused)
		}
	})
}

func TestWriteAllocations(t *testing.T) {
	each(t, func(t *testing.T, engine, form string) {
		p := newTap(t)
		w := newWriter(t, p, selectEngine(t, engine, p), 32, form)
		for i := range w.descs {
			w.descs[i] = w.put(i, frame(60, i), form)
		}
		w.descs[7] = w.desc(7, 5, form) // is refused
		if n := nettest.Allocs(50, func() { w.Write(w.descs, w.failed) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
