// SPDX-License-Identifier: BSD-3-Clause

package pktio

import (
	"slices"
	"testing"
)

// wantCounts fails the test unless c is want, and clears it.
func wantCounts(t *testing.T, what string, c *Counts, want Counts) {
	t.Helper()
	if *c != want {
		t.Errorf("%s: %+v, want %+v", what, *c, want)
	}
	*c = Counts{}
}

// TestReadCounts: what a Read costs is counted to the last call, whether it finds all
// that it looks for, some or nothing.
func TestReadCounts(t *testing.T) {
	each(t, func(t *testing.T, engine, form string) {
		p := newTap(t)
		r := newReader(t, p, selectEngine(t, engine, p), 16, form)
		_, batches := r.Reader.(*uringReader)
		for _, c := range []struct{ queued, ask int }{{0, 1}, {0, 4}, {1, 1}, {2, 4}, {4, 4}, {0, 16}, {7, 16}, {16, 16}} {
			p.inject(t, c.queued, frames()...)
			if got := len(r.read(t, c.ask)); got != c.queued {
				t.Fatalf("%+v: %d packets", c, got)
			}
			want := Counts{Syscalls: uint64(min(c.queued+1, c.ask)), Empty: uint64(min(c.ask-c.queued, 1))}
			if batches && c.ask > few {
				want = Counts{Enters: 1, Empty: uint64(c.ask - c.queued)}
			}
			wantCounts(t, "read", r.counts, want)
		}
	})
}

// TestWriteCounts: likewise of a Write, of refused packets too.
func TestWriteCounts(t *testing.T) {
	each(t, func(t *testing.T, engine, form string) {
		p := newTap(t)
		w := newWriter(t, p, selectEngine(t, engine, p), 16, form)
		_, batches := w.Writer.(*uringWriter)
		for _, n := range []int{1, 2, 16} {
			for i := range n {
				w.descs[i] = w.put(i, frame(60, i), form)
			}
			w.descs[n-1] = w.desc(n-1, 5, form) // is refused
			if taken, refused := w.Write(w.descs[:n], w.failed); taken != n || refused != 1 {
				t.Fatalf("Write of %d took %d, refused %d", n, taken, refused)
			}
			want := Counts{Syscalls: uint64(n)}
			if batches && n > 1 {
				want = Counts{Enters: 1}
			}
			wantCounts(t, "write", w.counts, want)
		}
	})
}

// TestRingFull: more than the ring has room for is taken in part, and counted.
func TestRingFull(t *testing.T) {
	each(t, func(t *testing.T, engine, form string) {
		if engine == Syscall {
			return // it has no ring
		}
		p := newTap(t)
		e := selectEngine(t, engine, p)
		r, w := newReader(t, p, e, 16, form), newWriter(t, p, e, 16, form)
		if _, ok := w.Writer.(*uringWriter); !ok {
			t.Fatalf("the writer is a %T", w.Writer)
		}
		for i := range w.descs {
			w.descs[i] = w.put(i, frame(60, i), form)
		}
		twice := append(slices.Clone(w.descs), w.descs...)
		if taken, refused := w.Write(twice, make([]Completion, len(twice))); taken != 16 || refused != 0 {
			t.Errorf("Write of %d took %d, refused %d", len(twice), taken, refused)
		}
		wantCounts(t, "write", w.counts, Counts{Enters: 1, Full: 1})
		if _, ok := r.Reader.(*uringReader); !ok {
			return
		}
		twice = append(slices.Clone(r.descs), r.descs...)
		if n := r.Read(twice, make([]Completion, len(twice))); n != 0 {
			t.Errorf("%d packets of none", n)
		}
		wantCounts(t, "read", r.counts, Counts{Enters: 1, Empty: 16, Full: 1})
	})
}
