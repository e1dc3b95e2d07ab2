// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// partial is a packet whose checksum is not complete, and what it must become.
func partial(t *testing.T, p *mbuf.Pool, s spec) (*mbuf.Mbuf, []byte) {
	t.Helper()
	s.payload, s.partial = s.payload[:10], false
	whole := s.build()
	s.partial = true
	return received(t, p, s, mbuf.RxL4CksumNone), whole
}

// TestBurstTo: with any number of buffers, and space in front, all packets come in order and nothing else is touched.
func TestBurstTo(t *testing.T) {
	p := newPool(t, 512, 2048)
	for _, places := range []int{1, 2, 3, 7, 64} {
		for _, offset := range []int{0, 16} {
			var in []*mbuf.Mbuf
			var want [][]byte
			for i := range 8 {
				s := base(i&1 == 0, i&2 == 0, 9000+i)
				s.bare = i&4 == 0
				in = append(in, largeOf(t, p, s, 1400))
				want = append(want, s.cutUp(1400)...)
				m, whole := partial(t, p, s)
				in, want = append(in, m), append(want, whole)
			}
			in = append(in, nil, largeOf(t, p, base(false, true, 3000), 0))
			var seg Segmenter
			bufs, sizes := make([][]byte, places), make([]int, places)
			for i := range bufs {
				bufs[i] = make([]byte, 2000)
			}
			got := 0
			for len(in) > 0 {
				for i := range bufs {
					copy(bufs[i], "0123456789abcdef")
				}
				taken, n := seg.BurstTo(in, p, bufs, sizes, offset)
				if taken == 0 && n == 0 {
					t.Fatal("no progress")
				}
				in = in[taken:]
				for i := range n {
					if got == len(want) {
						t.Fatal("too many packets")
					}
					if d := differ(bufs[i][offset:offset+sizes[i]], want[got]); d != "" {
						t.Fatalf("packet %d: %s", got, d)
					}
					if string(bufs[i][:offset]) != "0123456789abcdef"[:offset] {
						t.Fatalf("packet %d: %q in front", got, bufs[i][:offset])
					}
					got++
				}
			}
			if st := seg.Stats(); got != len(want) || st != (Stats{Frames: 8, Packets: uint64(len(want) - 8), Malformed: 1}) {
				t.Errorf("%d of %d packets, %+v", got, len(want), st)
			}
		}
	}
}

// TestBurstToShort: what does not fit is lost and counted, and what comes behind it is not.
func TestBurstToShort(t *testing.T) {
	p := newPool(t, 64, 2048)
	s, lone := base(true, true, 3000), base(false, false, 500)
	bufs, sizes := [][]byte{make([]byte, 1200), make([]byte, 1000)}, make([]int, 2)
	var seg Segmenter
	// Of the frame the first packet fits the first buffer, and the second one not the second.
	in := []*mbuf.Mbuf{largeOf(t, p, s, 1000), received(t, p, lone, good)}
	if taken, n := seg.BurstTo(in, p, bufs, sizes, 4); taken != 2 || n != 2 {
		t.Fatalf("took %d, filled %d with %v", taken, n, sizes)
	}
	for i, want := range [][]byte{s.cutUp(1000)[0], lone.build()} {
		if d := differ(bufs[i][4:4+sizes[i]], want); d != "" {
			t.Error(d)
		}
	}
	if st := seg.Stats(); st != (Stats{Packets: 1, Short: 2}) {
		t.Errorf("%+v", st)
	}
	for _, offset := range []int{-1, 473, 1001, 1 << 30} {
		in := []*mbuf.Mbuf{received(t, p, lone, good)}
		if taken, n := seg.BurstTo(in, p, bufs[1:], sizes, offset); taken != 1 || n != 0 {
			t.Errorf("offset %d: took %d, filled %d", offset, taken, n)
		}
	}
}

func TestBurstToDoesNotAllocate(t *testing.T) {
	p := newPool(t, 64, 2048)
	s := base(false, true, 60000)
	m := largeOf(t, newPool(t, 1, 65000), s, 1400)
	defer m.Free()
	bufs, sizes, in := make([][]byte, 64), make([]int, 64), make([]*mbuf.Mbuf, 1)
	for i := range bufs {
		bufs[i] = make([]byte, 2000)
	}
	var seg Segmenter
	if n := testing.AllocsPerRun(nettest.Scale(100), func() {
		m.RefUpdate(1)
		in[0] = m
		seg.BurstTo(in, p, bufs, sizes, 16)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
