// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"errors"
	"testing"
)

// Every offset and length of a packet with odd segment sizes, an empty
// segment among them.
func TestCopyOut(t *testing.T) {
	p := newPool(t, Config{Count: 16, DataRoom: 20})
	data := pattern(27, 3)
	m := packet(t, p, data[:7])
	at := 7
	for _, n := range []int{1, 0, 13, 6} {
		if err := Chain(m, packet(t, p, data[at:at+n])); err != nil {
			t.Fatal(err)
		}
		at += n
	}
	expect(t, m, data)
	for off := range 30 {
		for size := range 30 {
			want := data[min(off, 27):min(off+size, 27)]
			dst := make([]byte, size)
			if n := m.CopyOut(dst, off); n != len(want) || string(dst[:n]) != string(want) {
				t.Fatalf("%d from %d: got %d, %x", size, off, n, dst[:n])
			}
			c := Copy(m, p, off, size)
			if off >= 27 {
				if c != nil {
					t.Fatalf("a copy from beyond the end, %d", off)
				}
				continue
			}
			expect(t, c, want)
			c.Free()
		}
	}
	if m.CopyOut(make([]byte, 1), -1) != 0 || Copy(m, p, -1, 5) != nil {
		t.Error("an offset in front of the packet")
	}
	if got := m.AppendTo([]byte("x")); string(got) != "x"+string(data) {
		t.Errorf("AppendTo: %x", got)
	}
	m.Free()
}

func TestCopyIn(t *testing.T) {
	p := newPool(t, Config{Count: 12, DataRoom: 20})
	m := p.Alloc()
	for _, n := range []int{0, 1, 20, 21, 100, 60, 240, 5, 41, 0, 240} {
		if err := m.CopyIn(pattern(n, byte(n)), p); err != nil {
			t.Fatal(err)
		}
		expect(t, m, pattern(n, byte(n)))
		if want := max((n+19)/20, 1); int(m.NbSegs) != want || p.InUseCount() != want {
			t.Fatalf("%d bytes: %d segments, %d in use, want %d", n, m.NbSegs, p.InUseCount(), want)
		}
	}
	for range 2 {
		if err := m.CopyIn(pattern(241, 1), p); !errors.Is(err, ErrExhausted) {
			t.Fatalf("no mbufs: %v", err)
		}
	}
	expect(t, m, pattern(240, 240))
	if err := m.CopyIn(pattern(241, 1), nil); !errors.Is(err, ErrNoRoom) {
		t.Fatalf("no allocator: %v", err)
	}
	if err := m.CopyIn(pattern(3, 1), nil); err != nil || m.NbSegs != 12 {
		t.Fatalf("no allocator: %v, %d segments", err, m.NbSegs)
	}
	expect(t, m, pattern(3, 1))
	m.LastSeg().RefUpdate(1)
	if err := m.CopyIn(pattern(2, 1), p); !errors.Is(err, ErrShared) {
		t.Fatalf("shared: %v", err)
	}
	m.LastSeg().RefUpdate(-1)
	m.Free()
}

// A frame of 66 000 bytes, with the largest mbufs and with small ones.
func TestLargestFrames(t *testing.T) {
	for _, cfg := range []Config{{Count: 4, DataRoom: 65535 - 128}, {Count: 100}} {
		p := newPool(t, cfg)
		m := packet(t, p, pattern(66000, 9))
		expect(t, m, pattern(66000, 9))
		c := Copy(m, p, 0, -1)
		expect(t, c, pattern(66000, 9))
		FreeBulk([]*Mbuf{m, c})
	}
}

func TestCopyFields(t *testing.T) {
	p := newPool(t, Config{Count: 8, DataRoom: 10})
	m := packet(t, p, pattern(15, 0))
	m.Port, m.VlanTCI, m.OlFlags, m.TxOffload = 3, 4, 1<<5, 6
	c := Clone(m, p)
	d := Copy(c, p, 1, 12)
	expect(t, d, pattern(15, 0)[1:13])
	if d.Port != 3 || d.VlanTCI != 4 || d.OlFlags != 1<<5 || d.TxOffload != 6 || !d.IsWritable() {
		t.Errorf("copy of a clone: %+v", *d)
	}
	if x := Copy(m, p, 0, -1); x == nil || Copy(m, p, 0, -1) != nil {
		t.Error("8 mbufs serve one copy more")
	} else {
		x.Free()
	}
	if p.InUseCount() != 6 {
		t.Errorf("in use %d: a failed copy lost mbufs", p.InUseCount())
	}
	FreeBulk([]*Mbuf{m, c, d})
}

// What an allocator hands out may hold no data at all.
func TestGrowWithoutRoom(t *testing.T) {
	p := newPool(t, Config{Count: 8, DataRoom: 10})
	m := p.Alloc()
	if err := m.CopyIn(pattern(50, 0), roomless{p}); !errors.Is(err, ErrNoRoom) {
		t.Errorf("segments without room: %v", err)
	}
	if p.InUseCount() != 1 {
		t.Errorf("in use %d", p.InUseCount())
	}
	m.Free()
}

type roomless struct{ *Pool }

func (r roomless) AllocBulk(bufs []*Mbuf) int {
	n := r.Pool.AllocBulk(bufs)
	for _, m := range bufs[:n] {
		m.DataOff = m.BufLen
	}
	return n
}
