// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"math/bits"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Processes other than the pool's maker may be killed between any two
// instructions, and the maker must then find what they held: exactly that, no
// more and no less. Its own death ends the pool, so it keeps no books of itself.
//
// Each of them has a seat: a number, and operation records in the pool's memory.
// What it takes it marks as held by its number, in the link word that a free
// element needs and one in use does not. Marks are made one after the other, so
// whoever takes or returns mbufs says in a record beforehand what it is about
// to do:
//
//   - expect is the head that its compare-and-swap is going to replace,
//   - arg is what is to be taken or returned. 0: no operation.
//
// The operation has succeeded if head has been replaced. That shows in head
// itself, which names the record, until the next update; and whoever makes
// that one first notes the tag in the record (done), for everybody. An attempt
// that has failed stays failed while expect is set anew: arg is not cleared in
// between, because a push has made links of marks already.
//
// A pop marks from the last element to the first, a push makes links of marks
// from the first element to the last. So at any moment those without a mark are
// a chain from the first: [header.markUnmarked] walks it.
type operation struct {
	expect atomic.Uint64
	arg    atomic.Uint64
	done   atomic.Uint64 // tag of the last update by this record that was followed by another
	owner  atomic.Uint64 // in the first record of a seat: who has it (self)
	_      [32]byte
}

const (
	// MaxProcs is the number of processes besides its maker that can use a pool
	// at the same time: their numbers are 1 to MaxProcs.
	MaxProcs = 31

	seats      = MaxProcs + 1 // that of the maker is never used
	opsPerSeat = 32
)

// The parts of operation.arg, from the top: kind, count, index of the first element.
const (
	opPop  = 1 << 62
	opPush = 2 << 62

	opKindMask   = 3 << 62
	opCountShift = 32
	opCountMask  = 1<<30 - 1
)

func pack(kind uint64, n int, first uint32) uint64 {
	return kind | uint64(n)<<opCountShift | uint64(first)
}

// Go has no 64-bit alignment on 32-bit machines but that of the memory; a record
// is a cache line of its own.
var _ = [1]struct{}{}[unsafe.Sizeof(operation{})^64]

// self tells this process from others in a pool's memory.
var self = rand.Uint64() | 1

// op returns operation record who, as it is called in head.
func (h *header) op(who uint64) *operation {
	return (*operation)(unsafe.Add(unsafe.Pointer(h), uintptr(h.opsOff)+uintptr(who)*unsafe.Sizeof(operation{})))
}

// noTag is no value of a tag: operation.done of a record that was never used.
const noTag = 1 << 63

// initOps makes the records ready.
func (h *header) initOps() {
	for who := range uint64(seats * opsPerSeat) {
		h.op(who).done.Store(noTag)
	}
}

// help puts on record that the update that made head has succeeded, and reports
// whether head is still that. Called before head is replaced, by whoever does.
//
// That head has not changed since done was read makes it certain that nobody has
// replaced it, so nobody has reused the record either: a late helper's
// compare-and-swap fails.
func (h *header) help(head uint64) bool {
	op, tag := h.op(head&whoMask>>whoShift), head>>tagShift
	done := op.done.Load()
	if done == tag {
		return true
	}
	if h.head.Load() != head {
		return false
	}
	op.done.CompareAndSwap(done, tag)
	return true
}

// seat is this process's part in the pool of another one.
type seat struct {
	h    *header
	proc uint32
	busy atomic.Uint32 // records in use
}

// attached are the seats of this process. The slice is never changed, only
// replaced.
var (
	attached   atomic.Pointer[[]*seat]
	attachedMu sync.Mutex
)

// seatOf returns this process's seat at h. There is one, or the memory would not
// be mapped.
func seatOf(h *header) *seat {
	if all := attached.Load(); all != nil {
		for _, s := range *all {
			if s.h == h {
				return s
			}
		}
	}
	panic("mbuf: mbuf of a pool that is closed")
}

// sit takes the seat, unless another process has it or nobody has reclaimed what
// the last one left.
func (s *seat) sit() bool {
	if !s.h.owner(int(s.proc)).CompareAndSwap(0, self) {
		return false
	}
	attachedMu.Lock()
	defer attachedMu.Unlock()
	var all []*seat
	if old := attached.Load(); old != nil {
		all = slices.Clone(*old)
	}
	all = append(all, s)
	attached.Store(&all)
	return true
}

// leave is the opposite of sit.
func (s *seat) leave() {
	attachedMu.Lock()
	defer attachedMu.Unlock()
	all := slices.DeleteFunc(slices.Clone(*attached.Load()), func(other *seat) bool { return other == s })
	attached.Store(&all)
	s.h.owner(int(s.proc)).Store(0)
}

// owner is who has a seat.
func (h *header) owner(proc int) *atomic.Uint64 { return &h.op(uint64(proc) * opsPerSeat).owner }

// begin takes an operation record, and returns it with its number. There are
// more than threads that could run at the same time; if not, one waits.
func (s *seat) begin() (*operation, uint64) {
	for {
		busy := s.busy.Load()
		free := bits.TrailingZeros32(^busy)
		if free == opsPerSeat {
			runtime.Gosched()
			continue
		}
		if s.busy.CompareAndSwap(busy, busy|1<<free) {
			who := uint64(s.proc)*opsPerSeat + uint64(free)
			return s.h.op(who), who
		}
	}
}

func (s *seat) end(op *operation, who uint64) {
	op.arg.Store(0)
	s.busy.And(^(1 << (who % opsPerSeat)))
}

// held is the link of an element that holder has.
func held(holder uint32) uint64 { return heldBit | uint64(holder) }

// pop is that of the header.
func (s *seat) pop(dst []*Mbuf) int {
	h := s.h
	op, who := s.begin()
	n := 0
	for {
		head := h.head.Load()
		var i uint32
		if i, n = h.walk(head, dst); n == 0 {
			break
		}
		op.expect.Store(head)
		op.arg.Store(pack(opPop, n, indexOf(head)))
		if h.swap(head, nextHead(head, who, i)) {
			break
		}
	}
	for i := n - 1; i >= 0; i-- {
		h.link(h.index(dst[i])).Store(held(s.proc))
	}
	s.end(op, who)
	return n
}

// push is that of the header.
func (s *seat) push(src []*Mbuf) {
	h := s.h
	op, who := s.begin()
	first := h.index(src[len(src)-1])
	for {
		head := h.head.Load()
		op.expect.Store(head)
		op.arg.Store(pack(opPush, len(src), first))
		h.chain(src, head)
		if h.swap(head, nextHead(head, who, first)) {
			break
		}
	}
	s.end(op, who)
}

// chain links src as header.push does, from the element that will be the first
// one downwards.
func (h *header) chain(src []*Mbuf, head uint64) {
	bottom, depth := h.top(head)
	i := h.index(src[len(src)-1])
	for k := len(src) - 1; k >= 0; k-- {
		next := bottom
		if k > 0 {
			next = h.index(src[k-1])
		}
		h.link(i).Store((depth+uint64(k)+1)<<32 | uint64(next))
		i = next
	}
}
