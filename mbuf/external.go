// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import "unsafe"

// AttachExternal makes m an empty packet of one segment whose buffer is b, with the
// data headroom bytes behind its start: b can then be received into, or sent, without a
// copy (rte_pktmbuf_attach_extbuf, without shared info: there is nobody to tell). m must be
// direct and unshared; what its own buffer held is lost. It has that again when it is freed
// or detached.
//
// The caller keeps b until then: Go's garbage collector does not look into mbufs, so a
// reference to b must be somewhere else, such as in a slice of the program's. It also knows who else
// writes to b: IsWritable is false. Such an mbuf cannot be attached to, nor
// cloned, and is copied by a [Ring].
//
// m must not be the head of a chain, whose other mbufs it would lose.
//
// Errors: ErrShared; ErrNoRoom if headroom is outside b, or b empty or longer than MaxBufLen.
// m is unchanged then. Nothing is allocated. For mbufs of this package's pools only.
func AttachExternal(m *Mbuf, b []byte, headroom int) error {
	if !m.IsWritable() {
		return ErrShared
	}
	if len(b) == 0 || len(b) > MaxBufLen || headroom < 0 || headroom > len(b) {
		return ErrNoRoom
	}
	m.bufAddr = unsafe.Pointer(unsafe.SliceData(b)) // as a pointer, so that b is not on a stack, which moves
	m.BufIOVA = uint64(uintptr(m.bufAddr))
	m.OlFlags |= External
	m.DataOff, m.BufLen = uint16(headroom), uint16(len(b))
	m.DataLen, m.PktLen, m.NbSegs, m.Next = 0, 0, 1, nil
	return nil
}

// setBuffer points m at its own buffer again. It is stored as a number: with a pointer, the garbage
// collector's write barrier would look at what was there before, and an external buffer may have
// been collected meanwhile.
func (m *Mbuf) setBuffer(p unsafe.Pointer) {
	*(*uintptr)(unsafe.Pointer(&m.bufAddr)) = uintptr(p)
	m.BufIOVA = uint64(uintptr(p))
}
