// SPDX-License-Identifier: BSD-3-Clause

package mbuf

// CopyOut copies packet bytes from offset off to dst and returns how many:
// len(dst), or fewer where the packet ends. It reads the segments from m on
// and trusts DataLen, not PktLen.
func (m *Mbuf) CopyOut(dst []byte, off int) int {
	if off < 0 {
		return 0
	}
	r := reader{m, off}
	return r.read(dst)
}

// reader is a place in a packet: offset off from the start of seg.
type reader struct {
	seg *Mbuf
	off int
}

// read copies bytes to dst, moves on behind them and returns how many.
func (r *reader) read(dst []byte) int {
	n := 0
	for r.seg != nil && n < len(dst) {
		b := r.seg.Bytes()
		if r.off < len(b) {
			k := copy(dst[n:], b[r.off:])
			r.off += k
			n += k
			continue
		}
		r.off -= len(b)
		r.seg = r.seg.Next
	}
	return n
}

// AppendTo appends the packet's bytes to dst and returns the extended slice.
// It allocates only if dst lacks the capacity.
func (m *Mbuf) AppendTo(dst []byte) []byte {
	for s := m; s != nil; s = s.Next {
		dst = append(dst, s.Bytes()...)
	}
	return dst
}

// CopyIn makes src the contents of packet m, from where its data starts now.
// It fills the segments m has, takes more from a where they do not suffice,
// and gives a those it has no use for. Segments are filled one after the
// other, to the end of their buffers.
//
// Errors, packet unchanged: ErrShared if a segment's buffer is shared,
// ErrExhausted if a has no more, ErrNoRoom if more segments are needed and a
// is nil, ErrTooManySegs. With a nil a, no segment is freed: those not needed
// stay in the chain, empty. The caller owns m.
func (m *Mbuf) CopyIn(src []byte, a Allocator) error {
	room := 0
	for s := m; s != nil; s = s.Next {
		if !s.IsWritable() {
			return ErrShared
		}
		room += s.room()
	}
	if len(src) > room {
		if err := m.grow(len(src)-room, a); err != nil {
			return err
		}
	}
	m.fill(src)
	if a != nil {
		m.shrink(a)
	}
	return nil
}

// room is how many bytes fit from where the data starts.
func (m *Mbuf) room() int { return max(int(m.BufLen)-int(m.DataOff), 0) }

// grow appends empty segments from a that hold n bytes, or does nothing.
func (m *Mbuf) grow(n int, a Allocator) error {
	if a == nil {
		return ErrNoRoom
	}
	var head, last *Mbuf
	segs := int(m.NbSegs)
	for n > 0 {
		s := allocOne(a)
		var err error
		switch {
		case s == nil:
			err = ErrExhausted
		case s.room() == 0:
			err = ErrNoRoom
		case segs == MaxSegs:
			err = ErrTooManySegs
		}
		if err != nil {
			freeOne(a, s)
			freeOne(a, head)
			return err
		}
		if head == nil {
			head = s
		} else {
			last.Next = s
		}
		last = s
		segs++
		n -= s.room()
	}
	m.LastSeg().Next = head
	m.NbSegs = uint16(segs)
	return nil
}

// fill spreads src, which fits, over the segments.
func (m *Mbuf) fill(src []byte) {
	m.PktLen = uint32(len(src))
	for s := m; s != nil; s = s.Next {
		n := copy(s.window(int(s.DataOff), s.room()), src)
		s.DataLen = uint16(n)
		src = src[n:]
	}
}

// shrink gives a the empty segments at the end. One in the middle, whose data starts
// where its buffer ends, stays.
func (m *Mbuf) shrink(a Allocator) {
	last, segs := m, 1
	for s, n := m, 1; s != nil; s, n = s.Next, n+1 {
		if s.DataLen > 0 {
			last, segs = s, n
		}
	}
	freeOne(a, last.Next)
	last.Next, m.NbSegs = nil, uint16(segs)
}

// Copy returns a new packet, with mbufs from a, that holds length bytes of m
// from offset off, or those up to its end if there are fewer: rte_pktmbuf_copy.
// A negative length means all of them. The packet fields are copied; the copy
// is direct even if m is not. It returns nil when off is not inside the packet
// or a is exhausted. The caller owns both.
func Copy(m *Mbuf, a Allocator, off, length int) *Mbuf {
	total := int(m.PktLen)
	if off < 0 || off >= total {
		return nil
	}
	if length < 0 || length > total-off {
		length = total - off
	}
	c := allocOne(a)
	if c == nil {
		return nil
	}
	c.copyHeader(m)
	c.OlFlags = m.OlFlags &^ (Indirect | External)
	if short := length - c.room(); short > 0 && c.grow(short, a) != nil {
		freeOne(a, c)
		return nil
	}
	r := reader{m, off}
	for s := c; s != nil; s = s.Next {
		n := r.read(s.window(int(s.DataOff), min(length, s.room())))
		s.DataLen = uint16(n)
		c.PktLen += uint32(n)
		length -= n
	}
	return c
}
