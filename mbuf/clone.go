// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import "unsafe"

// Attach makes mi an indirect mbuf: its data becomes that of segment m, in
// m's buffer, and the mbuf owning that buffer gets one more reference, as
// rte_pktmbuf_attach. mi must be direct and unshared; what its own buffer
// held is lost. If m is itself indirect, mi is attached to the mbuf m is
// attached to. mi takes over m's packet fields and becomes a packet of one
// segment. Nothing copies the private area.
//
// Errors: ErrShared, ErrExternal, ErrTooManyRefs. The caller owns both mbufs.
func Attach(mi, m *Mbuf) error {
	if !mi.IsWritable() || mi == m {
		return ErrShared
	}
	if m.OlFlags&External != 0 {
		return ErrExternal
	}
	d := m
	if m.OlFlags&Indirect != 0 {
		d = m.direct()
	}
	if d == mi {
		return ErrShared
	}
	if d.RefUpdate(1) > maxRefs {
		d.RefUpdate(-1)
		return ErrTooManyRefs
	}
	mi.copyHeader(m)
	mi.OlFlags = m.OlFlags | Indirect
	mi.bufAddr, mi.BufIOVA, mi.BufLen = m.bufAddr, m.BufIOVA, m.BufLen
	mi.PrivSize = m.PrivSize
	mi.DataOff, mi.DataLen, mi.PktLen = m.DataOff, m.DataLen, uint32(m.DataLen)
	mi.NbSegs, mi.Next = 1, nil
	return nil
}

// Detach makes an indirect or external mbuf direct again, with its own empty
// buffer, and gives up its reference, as rte_pktmbuf_detach. A direct mbuf is
// left alone. For mbufs of this package's pools only.
func (m *Mbuf) Detach() {
	if m.IsDirect() {
		return
	}
	if d := m.detach(); d != nil {
		var b batch
		b.add(d)
		b.flush()
	}
}

// detach restores m's own buffer and returns the mbuf it was attached to if
// that has lost its last reference.
func (m *Mbuf) detach() *Mbuf {
	var d *Mbuf
	if m.OlFlags&Indirect != 0 {
		d = m.direct()
	}
	h := m.home()
	m.ownBuffer(h)
	m.DataOff, m.DataLen, m.OlFlags = h.headroom, 0, 0
	if d == nil || d.RefUpdate(-1) != 0 {
		return nil
	}
	return d
}

// direct returns the mbuf that owns an indirect mbuf's buffer, which lies
// just behind it and its private area (rte_mbuf_from_indirect).
func (m *Mbuf) direct() *Mbuf {
	return (*Mbuf)(unsafe.Add(m.bufAddr, -Size-int(m.PrivSize)))
}

// ownBuffer points m at the buffer in its element.
func (m *Mbuf) ownBuffer(h *header) {
	m.setBuffer(unsafe.Add(unsafe.Pointer(m), Size+int(h.privSize)))
	m.BufLen = h.bufLen
	m.PrivSize = h.privSize
}

// copyHeader takes over the packet fields that do not say where data lies
// (__rte_pktmbuf_copy_hdr).
func (m *Mbuf) copyHeader(from *Mbuf) {
	m.Port = from.Port
	m.VlanTCI, m.VlanTCIOuter = from.VlanTCI, from.VlanTCIOuter
	m.TxOffload = from.TxOffload
	m.Hash = from.Hash
	m.PacketType = from.PacketType
	m.dynfield1 = from.dynfield1
}

// Clone returns a packet of indirect mbufs from a, attached segment by
// segment to those of m, as rte_pktmbuf_clone: a second packet with the same
// data, without copying it. Either may be freed first, by any goroutine. Both
// see what is written to the data, so write to neither.
//
// It returns nil when a is exhausted or a segment cannot be attached to
// ([Attach]). The caller owns m and the clone.
func Clone(m *Mbuf, a Allocator) *Mbuf {
	var head, last *Mbuf
	for s := m; s != nil; s = s.Next {
		mi := allocOne(a)
		if mi == nil || Attach(mi, s) != nil {
			freeOne(a, mi)
			freeOne(a, head)
			return nil
		}
		if head == nil {
			head = mi
		} else {
			last.Next = mi
		}
		last = mi
	}
	if head != nil {
		head.NbSegs, head.PktLen = m.NbSegs, m.PktLen
	}
	return head
}
