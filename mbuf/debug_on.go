// SPDX-License-Identifier: BSD-3-Clause

//go:build mbufdebug

package mbuf

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

const debug = true

// States of an mbuf in a debug build.
const (
	stateFree = iota
	stateInUse
)

func (h *header) state(i uint32) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Add(unsafe.Pointer(h), uintptr(h.stateOff)+uintptr(i)*4))
}

// debugAlloc looks at a free mbuf that is about to be handed out.
func debugAlloc(h *header, m *Mbuf) {
	i := h.index(m)
	if m.RefCnt != 1 || m.Next != nil || m.NbSegs != 1 || m.home() != h ||
		m.bufAddr != unsafe.Add(unsafe.Pointer(m), Size+int(h.privSize)) {
		panic(fmt.Sprintf("mbuf: mbuf %d of pool %q was written to after it was freed", i, h.poolName()))
	}
	if !h.state(i).CompareAndSwap(stateFree, stateInUse) {
		panic(fmt.Sprintf("mbuf: mbuf %d of pool %q is in the free list and in use", i, h.poolName()))
	}
}

// debugFree looks at an mbuf whose owner gives it up.
func debugFree(m *Mbuf) {
	h := m.home()
	if h == nil || h.magic != poolMagic {
		panic(fmt.Sprintf("mbuf: foreign mbuf %p freed: it belongs to no pool", m))
	}
	i := h.index(m)
	if i >= h.count || h.mbuf(i) != m {
		panic(fmt.Sprintf("mbuf: foreign mbuf %p freed: it is not in its pool %q", m, h.poolName()))
	}
	if h.state(i).Load() != stateInUse || m.RefCount() == 0 {
		panic(fmt.Sprintf("mbuf: double free of mbuf %d of pool %q", i, h.poolName()))
	}
	debugHolder(h, i)
}

// debugHolder looks whether this process may free an mbuf, or hand it over.
func debugHolder(h *header, i uint32) {
	link, me := h.link(i).Load(), uint32(0)
	if h.maker != self {
		me = seatOf(h).proc
	}
	switch holder := uint32(link); {
	case link&heldBit == 0 || holder == me:
	case holder >= ringHolder:
		panic(fmt.Sprintf("mbuf: mbuf %d of pool %q is in a ring, and used by process %d", i, h.poolName(), me))
	default:
		panic(fmt.Sprintf("mbuf: mbuf %d of pool %q is that of process %d, and used by process %d",
			i, h.poolName(), holder, me))
	}
}

// debugHome notes that m, without references now, is free.
func debugHome(h *header, m *Mbuf) {
	i := h.index(m)
	if !h.state(i).CompareAndSwap(stateInUse, stateFree) {
		panic(fmt.Sprintf("mbuf: double free of mbuf %d of pool %q", i, h.poolName()))
	}
}

// debugReclaim makes an mbuf that a dead process held, whatever it was doing
// with it, one that is about to be freed.
func debugReclaim(h *header, i uint32) { h.state(i).Store(stateInUse) }

func (h *header) poolName() string { return string(h.name[:h.nameLen]) }
