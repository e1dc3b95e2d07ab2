// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// BurstTo is [Segmenter.Burst] for a program that wants the packets in memory of its own: packet i of those
// it makes of in is written to bufs[i] from offset on, and its length to sizes[i]. It returns how many of in it took,
// and how many of bufs it filled. sizes must not be shorter than bufs.
//
// What it took is given back to a, whole packets and frames alike: nothing of it is used any more. What it did not take
// is the caller's. If bufs are full inside a frame, that frame must be the first of the next BurstTo, which goes on
// where this one ended. A packet that does not fit its buffer is lost, and with it the rest of its frame: see [Stats].
func (s *Segmenter) BurstTo(in []*mbuf.Mbuf, a mbuf.Allocator, bufs [][]byte, sizes []int, offset int) (taken, n int) {
	sizes = sizes[:len(bufs)]
	for taken < len(in) && n < len(bufs) {
		m := in[taken]
		k, done := 0, true
		switch {
		case m == nil:
		case m.OlFlags&large != 0:
			k, done = s.write(m, bufs[n:], sizes[n:], offset)
		default:
			k = s.writeWhole(m, bufs[n:], sizes[n:], offset)
		}
		n += k
		if !done {
			break
		}
		taken++
	}
	a.FreeBulk(in[:taken])
	return taken, n
}

// write cuts m into as many of bufs as it needs, or there are.
func (s *Segmenter) write(m *mbuf.Mbuf, bufs [][]byte, sizes []int, offset int) (n int, done bool) {
	first, ok := s.resume(m)
	if !ok {
		return 0, true
	}
	p := &s.plan
	src := cursor{seg: m}
	src.skip(p.length + first*p.seg)
	want := min(p.n-first, len(bufs))
	for n < want {
		i := first + n
		payload := min(p.seg, p.payload-i*p.seg)
		h := room(bufs[n], offset, p.length+payload)
		if h == nil {
			s.stats.Short += uint64(p.n - i)
			break
		}
		copy(h, s.headers[:p.length])
		p.patch(h, i, payload, src.copySum(h[p.length:]))
		sizes[n] = len(h)
		n++
	}
	s.stats.Packets += uint64(n)
	return n, s.pause(m, first+n, n < want)
}

// writeWhole copies a packet that is not to be cut, its checksum completed.
func (s *Segmenter) writeWhole(m *mbuf.Mbuf, bufs [][]byte, sizes []int, offset int) (n int) {
	if m.OlFlags&mbuf.RxL4CksumMask == mbuf.RxL4CksumNone && writable(m) {
		header.Complete(m)
	}
	b := room(bufs[0], offset, int(m.PktLen))
	if b == nil {
		s.stats.Short++
		return 0
	}
	sizes[0] = m.CopyOut(b, 0)
	return 1
}

// room is n bytes of b from offset on, or nil if there are not that many.
func room(b []byte, offset, n int) []byte {
	if offset < 0 || offset > len(b) || n > len(b)-offset {
		return nil
	}
	return b[offset : offset+n]
}
