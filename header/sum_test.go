// SPDX-License-Identifier: BSD-3-Clause

package header

import (
	"bytes"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

// TestSum compares all lengths up to some rounds of the unrolled loop, at all
// alignments, of bytes that carry much, not at all, and at random.
func TestSum(t *testing.T) {
	r := newRand()
	random := make([]byte, 600)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	sparse := make([]byte, 600)
	sparse[1], sparse[300], sparse[599] = 1, 0xff, 0x80
	for _, data := range [][]byte{bytes.Repeat([]byte{0xff}, 600), make([]byte, 600), sparse, random} {
		for from := range 9 {
			for n := range 500 {
				b := data[from : from+n : from+n]
				if got, want := Sum(b), naiveSum(b); got != want {
					t.Fatalf("%d bytes from %d: %#04x, want %#04x, of %x", n, from, got, want, b)
				}
			}
		}
	}
	large := bytes.Repeat([]byte{0xff}, 1<<20+1)
	if got, want := Sum(large), naiveSum(large); got != want {
		t.Errorf("%d bytes: %#04x, want %#04x", len(large), got, want)
	}
}

// TestSumRFC is the example of RFC 1071, section 3.
func TestSumRFC(t *testing.T) {
	if got := Sum(unhex("0001 f203 f4f5 f6f7")); got != 0xddf2 {
		t.Errorf("got %#04x, want 0xddf2", got)
	}
}

// TestSumCarries sets words to all ones and to all ones but one in every place of
// the loop, which is where a carry gets lost.
func TestSumCarries(t *testing.T) {
	for i := range 64 {
		for j := range 64 {
			b := make([]byte, 512)
			copy(b[8*i:], unhex("ffff ffff ffff ffff"))
			copy(b[8*j:], unhex("0100 0000 0000 0000"))
			if got, want := Sum(b), naiveSum(b); got != want {
				t.Fatalf("words %d and %d: %#04x, want %#04x", i, j, got, want)
			}
			b = bytes.Repeat([]byte{0xff}, 512)
			b[8*i], b[8*j+7] = 0xfe, 0
			if got, want := Sum(b), naiveSum(b); got != want {
				t.Fatalf("all but words %d and %d: %#04x, want %#04x", i, j, got, want)
			}
		}
	}
}

// TestSumFold goes through what can carry, or just not, when a sum is brought from
// 64 bits to 16.
func TestSumFold(t *testing.T) {
	words := []uint16{0, 1, 0x0100, 0x7fff, 0x8000, 0xfeff, 0xfffe, 0xffff}
	for i := range 8 * 8 * 8 * 8 {
		var b []byte
		for range 4 {
			b = be.AppendUint16(b, words[i%8])
			i /= 8
		}
		if got, want := Sum(b), naiveSum(b); got != want {
			t.Fatalf("%x: %#04x, want %#04x", b, got, want)
		}
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(bytes.Repeat([]byte{0xff}, 300))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := Sum(b), naiveSum(b); got != want {
			t.Errorf("%#04x, want %#04x", got, want)
		}
	})
}

func TestAdd(t *testing.T) {
	for _, c := range [][3]uint16{
		{0, 0, 0}, {0, 0xffff, 0xffff}, {1, 0xffff, 1}, {0xffff, 0xffff, 0xffff}, {0x8000, 0x8000, 1}, {0x1234, 0x4321, 0x5555},
	} {
		if got := Add(c[0], c[1]); got != c[2] {
			t.Errorf("%#x + %#x: %#x, want %#x", c[0], c[1], got, c[2])
		}
	}
}

func TestSumChain(t *testing.T) {
	pool, r := newPool(t), newRand()
	data := make([]byte, 3000)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	for range nettest.Scale(300) {
		m := packet(t, pool, data, randomCuts(r)...)
		for range 20 {
			off, n := r.IntN(len(data)+10), r.IntN(len(data)+10)
			want := naiveSum(data[min(off, len(data)):min(off+n, len(data))])
			if got := SumChain(m, off, n); got != want {
				t.Errorf("%d bytes from %d of %d segments: %#04x, want %#04x", n, off, m.NbSegs, got, want)
			}
		}
		for _, c := range [][2]int{{-1, 5}, {0, -1}, {0, 0}, {5, 0}, {3000, 1}, {-3, -3}} {
			if got := SumChain(m, c[0], c[1]); got != 0 {
				t.Errorf("%d bytes from %d: %#04x, want 0", c[1], c[0], got)
			}
		}
		m.Free()
	}
}

func TestSumChainAll(t *testing.T) {
	const maxInt = int(^uint(0) >> 1)
	m := packet(t, newPool(t), []byte{1, 2, 3}, 1)
	defer m.Free()
	if got := SumChain(m, 1, maxInt); got != 0x0203 {
		t.Errorf("got %#04x, want 0x0203", got)
	}
	if got := SumChain(m, maxInt, maxInt); got != 0 {
		t.Errorf("got %#04x, want 0", got)
	}
}
