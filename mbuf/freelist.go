// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// header is the start of a pool's mapping. The memory behind it is
//
//	header | operations | links [count]uint64 | states (debug builds) | elements
//
// The list is made of offsets and indices. The mbufs themselves hold addresses,
// so processes that share them map the file at the same place.
//
// The free list is a Treiber stack. head is {tag, who, index}; links[i] is
// {depth, index of the next free element}, depth being the number of elements
// from i down to the bottom. A link does not change while its element is in
// the list, so the depth of the first element is the length of the list: a
// separate count would go wrong when a process is killed between the two
// updates. Taking or returning any number of elements is one compare-and-swap
// of head, before which nothing has happened and after which all has: there
// is no state in between for a killed process to leave behind. What such a
// process held is another matter: see seat.go.
//
// The tag changes with every update and keeps a slow goroutine from swapping
// in a successor it read before others took and returned the same element; it
// would have to sleep through a multiple of 2²⁸ updates to be fooled.
type header struct {
	// Written once, by NewPool.
	magic    uint64
	count    uint32 // elements
	dataRoom uint16
	privSize uint16
	elemSize uint64 // bytes from one element to the next
	elemsOff uint64 // of the first element, from the header
	recip    uint64 // ceil(2⁶⁴ / elemSize)
	rearm    uint64 // DataOff, RefCnt, NbSegs and Port of a fresh mbuf
	linksOff uint64
	stateOff uint64 // 0: no debug states
	bufLen   uint16
	headroom uint16
	nameLen  uint32
	name     [maxName]byte
	maker    uint64 // identity of the process that made the pool
	id       uint64 // of the pool
	opsOff   uint64
	base     uint64 // address of the mapping
	layout   uint32 // layoutVersion
	cacheLen uint32 // Config.CacheSize
	_        [80]byte

	// Each on its own pair of cache lines: the adjacent-line prefetcher
	// fetches two.
	head      atomic.Uint64
	_         [120]byte
	exhausted atomic.Uint64 // mbufs asked for in vain
	_         [120]byte
}

const (
	poolMagic = 0x6c6f6f7070617472 // "rtappool"
	maxName   = 64
	// layoutVersion changes with whatever processes must agree on.
	layoutVersion = 1<<8 | uint32(unsafe.Sizeof(uintptr(0)))
)

// The parts of head, from the top: tag, who made the update (0: the pool's maker,
// else an operation record of a seat) and the index of the first element.
const (
	indexBits = 26
	whoBits   = 10
	whoShift  = indexBits
	tagShift  = indexBits + whoBits
	// none is the index that ends the list. It is above any count.
	none     = 1<<indexBits - 1
	whoMask  = (1<<whoBits - 1) << whoShift
	maxCount = none - 1
)

// The parts of a link: depth and next of an element in the list or on the way
// there, or else, with the top bit set, who holds it. The maker does not say so
// of what it takes: its links stay as they were.
const (
	heldBit   = 1 << 63
	depthMask = 1<<31 - 1
	// ringHolder is added to a ring's number.
	ringHolder = 64
)

// The mutable words must be 8-byte aligned on 32-bit machines too, and apart.
var _ = [1]struct{}{}[unsafe.Offsetof(header{}.head)%128|
	unsafe.Offsetof(header{}.exhausted)%128|
	unsafe.Sizeof(header{})%128]

func (h *header) link(i uint32) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Add(unsafe.Pointer(h), uintptr(h.linksOff)+uintptr(i)*8))
}

func (h *header) mbuf(i uint32) *Mbuf {
	return (*Mbuf)(unsafe.Add(unsafe.Pointer(h), uintptr(h.elemsOff)+uintptr(i)*uintptr(h.elemSize)))
}

// index is the inverse of mbuf: a division by elemSize, done as a
// multiplication. Exact because the distance is a multiple of elemSize.
func (h *header) index(m *Mbuf) uint32 { return h.indexAt(uintptr(unsafe.Pointer(m))) }

func (h *header) indexAt(addr uintptr) uint32 {
	off := uint64(addr - uintptr(unsafe.Pointer(h)) - uintptr(h.elemsOff))
	hi, _ := bits.Mul64(off, h.recip)
	return uint32(hi)
}

func indexOf(head uint64) uint32 { return uint32(head) & none }

// depth is that of a link, 0 of an element that somebody holds.
func depth(link uint64) uint64 {
	if link&heldBit != 0 {
		return 0
	}
	return link >> 32
}

// pop takes up to len(dst) mbufs off the list and returns how many.
func (h *header) pop(dst []*Mbuf) int {
	if h.maker != self {
		return seatOf(h).pop(dst)
	}
	for {
		head := h.head.Load()
		i, n := h.walk(head, dst)
		if n == 0 || h.swap(head, nextHead(head, 0, i)) {
			return n
		}
	}
}

// walk fills dst with the first elements of the list and returns the index
// of the one behind them, and how many there were. Links read after others
// changed the list may be stale; then so is head, and the swap fails.
func (h *header) walk(head uint64, dst []*Mbuf) (uint32, int) {
	i, n := indexOf(head), 0
	for n < len(dst) && i < h.count {
		dst[n] = h.mbuf(i)
		i = uint32(h.link(i).Load())
		n++
	}
	return i, n
}

// push returns mbufs of this pool to the list. The last one will be the
// first to be taken again.
func (h *header) push(src []*Mbuf) {
	if len(src) == 0 {
		return
	}
	if h.maker != self {
		seatOf(h).push(src)
		return
	}
	for {
		head := h.head.Load()
		next, depth := h.top(head)
		for _, m := range src {
			depth++
			i := h.index(m)
			h.link(i).Store(depth<<32 | uint64(next))
			next = i
		}
		if h.swap(head, nextHead(head, 0, next)) {
			return
		}
	}
}

// top returns the index and the depth of the first element, 0 for none.
func (h *header) top(head uint64) (uint32, uint64) {
	i := indexOf(head)
	if i < h.count {
		return i, depth(h.link(i).Load())
	}
	return i, 0
}

// nextHead follows head in an update by who that puts i first.
func nextHead(head, who uint64, i uint32) uint64 {
	return (head>>tagShift+1)<<tagShift | who<<whoShift | uint64(i&none)
}

// swap replaces head, once it is on record who made it.
func (h *header) swap(head, next uint64) bool {
	if head&whoMask != 0 && !h.help(head) {
		return false
	}
	return h.head.CompareAndSwap(head, next)
}

// length returns the number of mbufs in the list. With others at work it is
// the length at some moment during the call; if they leave no quiet moment,
// an estimate.
func (h *header) length() int {
	n := uint64(0)
	for range 1000 {
		head := h.head.Load()
		if _, n = h.top(head); h.head.Load() == head {
			break
		}
	}
	return int(n)
}

// drain empties a list that is complete, so that nobody can take from it any
// more, and reports whether it was.
func (h *header) drain() bool {
	for {
		head := h.head.Load()
		if _, n := h.top(head); n != uint64(h.count) {
			return false
		}
		if h.swap(head, nextHead(head, 0, none)) {
			return true
		}
	}
}

// reset makes a free mbuf a fresh packet without data, as rte_pktmbuf_reset
// does. rearm is the pool's template of DataOff, RefCnt, NbSegs and Port.
func (m *Mbuf) reset(rearm uint64) {
	*(*uint64)(unsafe.Add(unsafe.Pointer(m), refOff)) = rearm
	m.OlFlags = 0
	m.PacketType = 0
	m.PktLen = 0
	m.DataLen = 0
	m.VlanTCI = 0
	m.VlanTCIOuter = 0
	m.TxOffload = 0
}

// resetAll resets mbufs just taken from h.
func (h *header) resetAll(bufs []*Mbuf) {
	rearm := h.rearm
	for _, m := range bufs {
		if debug {
			debugAlloc(h, m)
		}
		m.reset(rearm)
	}
}
