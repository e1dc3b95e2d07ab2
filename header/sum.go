// SPDX-License-Identifier: BSD-3-Clause

package header

import (
	"encoding/binary"
	"math/bits"

	"github.com/rtap-project/rtap/mbuf"
)

// Sum is the ones' complement sum of the big-endian 16-bit words of b (RFC 1071),
// not complemented. An odd last byte counts as if a zero followed. It is 0 only if
// all bytes are.
func Sum(b []byte) uint16 {
	// Ones' complement addition is the same in either byte order (RFC 1071, 2.B),
	// and in wider words (2.C): the carry out of one addition goes into the next.
	// The two sums do not wait for each other.
	le := binary.LittleEndian
	var s, t, c uint64
	for ; len(b) >= 128; b = b[128:] {
		w := (*[128]byte)(b)
		s, c = bits.Add64(s, le.Uint64(w[0:]), 0)
		s, c = bits.Add64(s, le.Uint64(w[8:]), c)
		s, c = bits.Add64(s, le.Uint64(w[16:]), c)
		s, c = bits.Add64(s, le.Uint64(w[24:]), c)
		s, c = bits.Add64(s, le.Uint64(w[32:]), c)
		s, c = bits.Add64(s, le.Uint64(w[40:]), c)
		s, c = bits.Add64(s, le.Uint64(w[48:]), c)
		s, c = bits.Add64(s, le.Uint64(w[56:]), c)
		s, _ = bits.Add64(s, 0, c)
		t, c = bits.Add64(t, le.Uint64(w[64:]), 0)
		t, c = bits.Add64(t, le.Uint64(w[72:]), c)
		t, c = bits.Add64(t, le.Uint64(w[80:]), c)
		t, c = bits.Add64(t, le.Uint64(w[88:]), c)
		t, c = bits.Add64(t, le.Uint64(w[96:]), c)
		t, c = bits.Add64(t, le.Uint64(w[104:]), c)
		t, c = bits.Add64(t, le.Uint64(w[112:]), c)
		t, c = bits.Add64(t, le.Uint64(w[120:]), c)
		t, _ = bits.Add64(t, 0, c)
	}
	s, c = bits.Add64(s, t, 0)
	s += c
	for ; len(b) >= 16; b = b[16:] {
		w := (*[16]byte)(b)
		s, c = bits.Add64(s, le.Uint64(w[0:]), 0)
		s, c = bits.Add64(s, le.Uint64(w[8:]), c)
		s, _ = bits.Add64(s, 0, c)
	}
	s, c = bits.Add64(s, tail(b), 0)
	return bits.ReverseBytes16(fold(s, c))
}

// tail is the sum of less than 16 bytes, in little-endian words.
func tail(b []byte) uint64 {
	le := binary.LittleEndian
	var s, c uint64
	if len(b) >= 8 {
		s, b = le.Uint64(b), b[8:]
	}
	var t uint64
	if len(b) >= 4 {
		t, b = uint64(le.Uint32(b)), b[4:]
	}
	if len(b) >= 2 {
		t, b = t+uint64(le.Uint16(b)), b[2:]
	}
	if len(b) == 1 {
		t += uint64(b[0])
	}
	s, c = bits.Add64(s, t, 0)
	return s + c
}

// fold brings a sum with a carry to 16 bits.
func fold(s, c uint64) uint16 {
	s += c
	s = s>>32 + s&0xffffffff // 33 bits
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff // 17 bits
	s = s>>16 + s&0xffff
	return uint16(s)
}

// Add is the ones' complement sum of two words or sums.
func Add(a, b uint16) uint16 {
	s := uint32(a) + uint32(b)
	return uint16(s>>16 + s)
}

// SumChain is [Sum] of n bytes of packet m from offset off, wherever they are cut
// into segments, or of those that there are.
func SumChain(m *mbuf.Mbuf, off, n int) uint16 {
	if off < 0 {
		return 0
	}
	var s uint16
	odd := false // an odd number of bytes is in s
	for ; m != nil && n > 0; m = m.Next {
		b := m.Bytes()
		if off >= len(b) {
			off -= len(b)
			continue
		}
		b = b[off:]
		b = b[:min(len(b), n)]
		part := Sum(b)
		if odd {
			part = bits.ReverseBytes16(part)
		}
		s = Add(s, part)
		odd = odd != (len(b)&1 != 0)
		off, n = 0, n-len(b)
	}
	return s
}
