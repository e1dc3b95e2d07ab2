// SPDX-License-Identifier: BSD-3-Clause

package mbuf

// LastSeg returns the last segment of the packet.
func (m *Mbuf) LastSeg() *Mbuf {
	for m.Next != nil {
		m = m.Next
	}
	return m
}

// Prepend makes n bytes of the first segment's headroom data and returns
// them, or nil if there are not that many, as rte_pktmbuf_prepend. What they
// hold is unspecified. As in DPDK it does not ask whether the buffer is
// shared: see [Mbuf.IsWritable].
func (m *Mbuf) Prepend(n int) []byte {
	if n < 0 || n > int(m.DataOff) || int(m.DataLen)+n > int(m.BufLen) {
		return nil
	}
	m.DataOff -= uint16(n)
	m.DataLen += uint16(n)
	m.PktLen += uint32(n)
	return m.window(int(m.DataOff), n)
}

// Append makes n bytes of the last segment's tailroom data and returns them,
// or nil if there are not that many, as rte_pktmbuf_append. What they hold is
// unspecified. As in DPDK it does not ask whether the buffer is shared: see
// [Mbuf.IsWritable].
func (m *Mbuf) Append(n int) []byte {
	last := m.LastSeg()
	if n < 0 || n > last.Tailroom() {
		return nil
	}
	end := int(last.DataOff) + int(last.DataLen)
	last.DataLen += uint16(n)
	m.PktLen += uint32(n)
	return last.window(end, n)
}

// Adj removes n bytes from the packet's start, rte_pktmbuf_adj. They must lie
// in the first segment; if not, nothing changes and Adj returns false.
func (m *Mbuf) Adj(n int) bool {
	if n < 0 || n > int(m.DataLen) {
		return false
	}
	m.DataOff += uint16(n)
	m.DataLen -= uint16(n)
	m.PktLen -= uint32(n)
	return true
}

// Trim removes n bytes from the packet's end, rte_pktmbuf_trim. They must lie
// in the last segment; if not, nothing changes and Trim returns false.
func (m *Mbuf) Trim(n int) bool {
	last := m.LastSeg()
	if n < 0 || n > int(last.DataLen) {
		return false
	}
	last.DataLen -= uint16(n)
	m.PktLen -= uint32(n)
	return true
}

// Chain appends packet tail to packet head, rte_pktmbuf_chain. Head owns the
// segments of both afterwards. If the sum is more than MaxSegs segments
// neither changes and the error is ErrTooManySegs.
func Chain(head, tail *Mbuf) error {
	if int(head.NbSegs)+int(tail.NbSegs) > MaxSegs ||
		uint64(head.PktLen)+uint64(tail.PktLen) > 0xffffffff {
		return ErrTooManySegs
	}
	head.LastSeg().Next = tail
	head.NbSegs += tail.NbSegs
	head.PktLen += tail.PktLen
	// A segment that leads no packet keeps what a single one has.
	tail.NbSegs, tail.PktLen = 1, uint32(tail.DataLen)
	return nil
}

// Linearize moves the whole packet into its first segment and frees the
// others, rte_pktmbuf_linearize. Errors, packet unchanged: ErrNoRoom if the
// first segment's tailroom is too small, ErrShared if that buffer is shared.
// For mbufs of this package's pools only.
func (m *Mbuf) Linearize() error {
	if m.Next == nil {
		return nil
	}
	rest := int(m.PktLen) - int(m.DataLen)
	if rest < 0 || rest > m.Tailroom() {
		return ErrNoRoom
	}
	if !m.IsWritable() {
		return ErrShared
	}
	end := int(m.DataOff) + int(m.DataLen)
	m.Next.CopyOut(m.window(end, rest), 0)
	m.Next.Free()
	m.DataLen = uint16(m.PktLen)
	m.NbSegs, m.Next = 1, nil
	return nil
}
