// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"fmt"
	"math/bits"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/rtap-project/rtap/internal/shm"
)

// MaxRing is the largest size of a [Ring].
const MaxRing = 1 << 16

// End is one of the two ends of a [Ring].
type End int

// The ends of a ring.
const (
	Producing End = iota
	Consuming
)

func (e End) String() string {
	if e == Producing {
		return "producer"
	}
	return "consumer"
}

// Ring hands packets of one pool from a process to another, or within one: a
// single producer puts them in, a single consumer takes them out, in the same
// order (rte_ring with RING_F_SP_ENQ and RING_F_SC_DEQ). The pool's maker makes
// it, and assigns the ends; the others get its descriptor and [AttachRing].
type Ring struct {
	pool *Pool
	hdr  *ringHeader // nil once closed; set under the pool's mu
	mem  *shm.Memory
	name string
	shut atomic.Bool // nobody works at an end here any more
	prod Producer
	cons Consumer
}

// ringHeader is the start of a ring's memory. Behind it are the slots: indices
// of the packets' first segments.
type ringHeader struct {
	magic   uint64
	layout  uint32
	size    uint32 // slots, a power of two
	poolID  uint64
	number  uint32 // among the pool's rings
	nameLen uint32
	name    [maxName]byte
	holders [2]atomic.Uint64 // of each end: proc+1, or 0
	_       [16]byte

	tail atomic.Uint64 // packets put in, ever; the producer's
	_    [120]byte
	head atomic.Uint64 // packets taken out, ever; the consumer's
	_    [120]byte
}

const ringMagic = 0x676e697270617472 // "rtapring"

var _ = [1]struct{}{}[unsafe.Offsetof(ringHeader{}.tail)%128|
	unsafe.Offsetof(ringHeader{}.head)%128|
	unsafe.Sizeof(ringHeader{})%128]

// NewRing makes a ring for packets of a pool, in the process that made that. It
// holds size packets, rounded up to a power of two; at most MaxRing. name is for
// messages and /proc/PID/maps, at most 64 bytes. Errors: ErrConfig, and as
// [NewPool]. Close the ring before the pool.
func NewRing(name string, size int, pool *Pool) (*Ring, error) {
	fail := func(err error) (*Ring, error) {
		return nil, fmt.Errorf("mbuf: ring %q of %d packets of pool %q: %w", name, size, pool.Name(), err)
	}
	switch {
	case len(name) > maxName:
		return fail(fmt.Errorf("%w: name: must be 64 bytes or less", ErrConfig))
	case size < 1 || size > MaxRing:
		return fail(fmt.Errorf("%w: size: must be 1 to %d", ErrConfig, MaxRing))
	}
	pool.mu.Lock()
	defer pool.mu.Unlock()
	if pool.hdr == nil || pool.proc != 0 {
		return fail(fmt.Errorf("%w: the pool must be open, and made by this process", ErrConfig))
	}
	size = 1 << bits.Len(uint(size-1))
	mem, err := shm.New(name, uint64(unsafe.Sizeof(ringHeader{}))+uint64(size)*4, false)
	if err != nil {
		return fail(err)
	}
	h := (*ringHeader)(unsafe.Pointer(unsafe.SliceData(mem.Bytes())))
	h.magic, h.layout, h.poolID = ringMagic, layoutVersion, pool.hdr.id
	h.size, h.number = uint32(size), pool.ringNumber()
	h.nameLen = uint32(copy(h.name[:], name))
	return newRing(h, mem, pool), nil
}

// newRing adds a ring to those of the pool, whose mu is held.
func newRing(h *ringHeader, mem *shm.Memory, pool *Pool) *Ring {
	r := &Ring{pool: pool, hdr: h, mem: mem, name: string(h.name[:h.nameLen])}
	r.prod.ring, r.cons.ring = r, r
	pool.rings[r] = struct{}{}
	return r
}

// ringNumber returns the smallest that no ring has.
func (p *Pool) ringNumber() uint32 {
	taken := make(map[uint32]bool)
	for r := range p.rings {
		taken[r.hdr.number] = true
	}
	n := uint32(0)
	for taken[n] {
		n++
	}
	return n
}

// AttachRing joins a ring of another process: fd is its descriptor ([Ring.FD]),
// pool what [AttachPool] gave for the memory of the ring's pool. It takes fd
// over, and closes it if it fails. Close the ring before the pool.
//
// Errors: ErrLayout if the memory is not a ring of that pool; ErrConfig if this
// process made the pool.
func AttachRing(fd int, pool *Pool) (*Ring, error) {
	mem, err := shm.Attach(fd, 0)
	if err != nil {
		return nil, fmt.Errorf("mbuf: attach to ring of pool %q: %w", pool.Name(), err)
	}
	pool.mu.Lock()
	defer pool.mu.Unlock()
	if err := checkRing(mem, pool); err != nil {
		mem.Close()
		return nil, fmt.Errorf("mbuf: attach to ring of pool %q: %w", pool.Name(), err)
	}
	return newRing((*ringHeader)(unsafe.Pointer(unsafe.SliceData(mem.Bytes()))), mem, pool), nil
}

func checkRing(mem *shm.Memory, pool *Pool) error {
	b := mem.Bytes()
	h := (*ringHeader)(unsafe.Pointer(unsafe.SliceData(b)))
	wrong := func(what string, got, want any) error {
		return fmt.Errorf("%w: %s is %v, not %v", ErrLayout, what, got, want)
	}
	switch {
	case pool.hdr == nil || pool.proc == 0:
		return fmt.Errorf("%w: the pool must be open, and made by another process", ErrConfig)
	case uintptr(len(b)) < unsafe.Sizeof(*h):
		return wrong("its size in bytes", len(b), "that of a ring")
	case h.magic != ringMagic:
		return wrong("its first word", fmt.Sprintf("%#x", h.magic), "that of a ring")
	case h.layout != layoutVersion:
		return wrong("its layout", fmt.Sprintf("%#x", h.layout), fmt.Sprintf("%#x", layoutVersion))
	case h.poolID != pool.hdr.id:
		return wrong("its pool", "another", pool.cfg.Name)
	case bits.OnesCount32(h.size) != 1 || uint64(len(b)) < uint64(unsafe.Sizeof(*h))+uint64(h.size)*4:
		return wrong("its number of slots", h.size, fmt.Sprintf("one that fits %d bytes", len(b)))
	case h.nameLen > maxName:
		return wrong("the length of its name", h.nameLen, "64 or less")
	}
	return nil
}

// Name returns the ring's name.
func (r *Ring) Name() string { return r.name }

// FD returns the descriptor of the ring's memory, -1 once closed. It belongs to
// the ring.
func (r *Ring) FD() int { return r.mem.FD() }

// Cap returns how many packets the ring holds at most, 0 once closed.
func (r *Ring) Cap() int {
	if r.hdr == nil {
		return 0
	}
	return int(r.hdr.size)
}

// Len returns how many packets are in the ring, 0 once closed. Others may be at
// work on it.
func (r *Ring) Len() int {
	if r.hdr == nil {
		return 0
	}
	head := r.hdr.head.Load() // first: it never passes the tail
	return int(min(r.hdr.tail.Load()-head, uint64(r.hdr.size)))
}

// Assign gives an end to a process, 0 being the pool's maker, which is the one
// to call it. Without it, bursts of that end take nothing. The error is ErrTaken,
// naming the holder, if the end is assigned already, be it to the same process.
func (r *Ring) Assign(e End, proc int) error {
	end := r.end(e)
	switch {
	case end == nil || proc < 0 || proc > MaxProcs:
		return fmt.Errorf("mbuf: ring %q: %v end to process %d: %w: must be an open ring, 0 to %d",
			r.name, e, proc, ErrConfig, MaxProcs)
	case end.CompareAndSwap(0, uint64(proc)+1):
		return nil
	}
	holder, _ := r.Holder(e)
	return fmt.Errorf("mbuf: ring %q: %v end: process %d has it: %w", r.name, e, holder, ErrTaken)
}

// Vacate takes an end back from a process that uses it no more; if another one
// has it, nothing happens. What is in the ring stays there. For the pool's maker.
func (r *Ring) Vacate(e End, proc int) {
	if end := r.end(e); end != nil {
		end.CompareAndSwap(uint64(proc)+1, 0)
	}
}

// end returns who has an end, nil if there is no such end.
func (r *Ring) end(e End) *atomic.Uint64 {
	if r.hdr == nil || e < 0 || int(e) >= len(r.hdr.holders) {
		return nil
	}
	return &r.hdr.holders[e]
}

func (q *ringHeader) vacate(proc int) {
	for e := range q.holders {
		q.holders[e].CompareAndSwap(uint64(proc)+1, 0)
	}
}

// Holder returns which process has an end, and whether one has.
func (r *Ring) Holder(e End) (proc int, ok bool) {
	end := r.end(e)
	if end == nil {
		return 0, false
	}
	holder := end.Load()
	return int(max(holder, 1) - 1), holder != 0
}

// Close gives the ring up. In the process that made it, it refuses with ErrInUse
// while an end is assigned; what is in the ring goes back to the pool. In others
// it unmaps the memory, and that is all: the maker vacates what was assigned.
// It waits for those who work at an end; later they move nothing. Closing twice
// does nothing.
func (r *Ring) Close() error {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	if r.hdr == nil {
		return nil
	}
	if r.pool.proc == 0 {
		for e := Producing; e <= Consuming; e++ {
			if proc, ok := r.Holder(e); ok {
				return fmt.Errorf("mbuf: ring %q: process %d has the %v end: %w", r.name, proc, e, ErrInUse)
			}
		}
		r.pool.hdr.takeHome(r.hdr.mark())
	}
	r.Shut()
	delete(r.pool.rings, r)
	r.hdr = nil
	return r.mem.Close()
}

// Shut ends the use of the ring in this process: it waits for those who work at
// an end, which is not for long, and has the ends move nothing from then on.
func (r *Ring) Shut() {
	r.shut.Store(true)
	for r.prod.busy.Load() || r.cons.busy.Load() {
		runtime.Gosched()
	}
}

// mark is the link of an element that is in the ring.
func (q *ringHeader) mark() uint64 { return held(ringHolder + q.number) }

// Producer returns the end that packets are put in at. It works while the end is
// assigned to this process.
func (r *Ring) Producer() *Producer { return &r.prod }

// Consumer returns the end that packets are taken out at. It works while the end
// is assigned to this process.
func (r *Ring) Consumer() *Consumer { return &r.cons }

// Producer puts packets into a [Ring].
type Producer struct {
	ring *Ring
	busy atomic.Bool
}

// Consumed reports whether a process has the consuming end, so that packets need not
// be made for a ring that nobody reads. It is false while another goroutine is at this
// end.
func (p *Producer) Consumed() bool {
	if !p.ring.enter(Producing, &p.busy) {
		return false
	}
	defer p.busy.Store(false)
	return p.ring.hdr.holders[Consuming].Load() != 0
}

// Pool returns the pool that the ring's packets are of.
func (p *Producer) Pool() *Pool { return p.ring.pool }

// Consumer takes packets out of a [Ring].
type Consumer struct {
	ring *Ring
	busy atomic.Bool
}

// enter reports whether the caller may work at an end: it is ours and nobody is
// at it. It sets busy then.
func (r *Ring) enter(e End, busy *atomic.Bool) bool {
	if !busy.CompareAndSwap(false, true) {
		return false
	}
	if r.shut.Load() || r.hdr.holders[e].Load() != uint64(r.pool.proc)+1 {
		busy.Store(false)
		return false
	}
	return true
}

func (q *ringHeader) slot(n uint64) *uint32 {
	i := uintptr(uint32(n) & (q.size - 1))
	return (*uint32)(unsafe.Add(unsafe.Pointer(q), unsafe.Sizeof(*q)+i*4))
}

// Enqueue puts packets into the ring, in order, and returns how many were taken:
// those belong to whoever takes them out. It takes fewer when the ring is full.
// Nil entries are taken as nothing.
//
// A packet of which another one shares a buffer, or that is not wholly made of
// mbufs of the ring's pool, cannot go to another process: it is copied into the
// pool, without its private area, and freed. If there is no room for the copy,
// it is not taken.
//
// One goroutine at a time: what a second one brings meanwhile is not taken. Nor
// is anything while the end is not assigned to this process.
func (p *Producer) Enqueue(bufs []*Mbuf) int {
	if !p.ring.enter(Producing, &p.busy) {
		return 0
	}
	defer p.busy.Store(false) // also if a broken mbuf makes us panic: Shut would wait for ever
	return p.ring.put(bufs)
}

func (r *Ring) put(bufs []*Mbuf) int {
	q, h := r.hdr, r.pool.hdr
	tail := q.tail.Load()
	end := q.head.Load() + uint64(q.size)
	n := 0
	for _, m := range bufs {
		if m != nil {
			if tail == end {
				break
			}
			if m = r.own(m); m == nil {
				break
			}
			if debug {
				debugHolder(h, h.index(m))
			}
			h.mark(m, q.mark())
			*q.slot(tail) = h.index(m)
			tail++
		}
		n++
	}
	q.tail.Store(tail)
	return n
}

// own returns the packet, or a copy of it that may change hands.
func (r *Ring) own(m *Mbuf) *Mbuf {
	h := r.pool.hdr
	for s := m; s != nil; s = s.Next {
		if s.pool != unsafe.Pointer(h) || !s.IsWritable() {
			return r.copy(m)
		}
	}
	return m
}

func (r *Ring) copy(m *Mbuf) *Mbuf {
	c := Copy(m, r.pool, 0, -1)
	if c == nil && m.PktLen == 0 {
		if c = r.pool.Alloc(); c != nil {
			c.copyHeader(m)
			c.OlFlags = m.OlFlags &^ (Indirect | External)
		}
	}
	if c != nil {
		m.Free()
	}
	return c
}

// mark says of all segments of a packet who holds them, of the first one first.
func (h *header) mark(m *Mbuf, mark uint64) {
	for s := m; s != nil; s = s.Next {
		h.link(h.index(s)).Store(mark)
	}
}

// Dequeue takes packets out of the ring, in the order they were put in, and
// returns how many: bufs[:n] belong to the caller. One goroutine at a time: a
// second one gets none meanwhile. Nor does anybody while the end is not assigned
// to this process.
func (c *Consumer) Dequeue(bufs []*Mbuf) int {
	if !c.ring.enter(Consuming, &c.busy) {
		return 0
	}
	defer c.busy.Store(false) // as in Enqueue
	return c.ring.take(bufs)
}

// take marks the first segment of each packet first: that says whose the packet
// is while head has not moved yet.
func (r *Ring) take(bufs []*Mbuf) int {
	q, h := r.hdr, r.pool.hdr
	head := q.head.Load()
	n := int(min(q.tail.Load()-head, uint64(len(bufs))))
	for k := range n {
		m := h.mbuf(*q.slot(head + uint64(k)))
		h.mark(m, held(uint32(r.pool.proc)))
		bufs[k] = m
	}
	if n > 0 {
		q.head.Store(head + uint64(n))
	}
	return n
}

// settleRings brings the rings of which proc, which is dead, had an end into a
// state that one can go on from, and marks what was in its hands.
func (p *Pool) settleRings(proc int) {
	mine := make(map[uint64]bool) // marks of the rings that proc was the producer of
	published := make([]uint64, p.cfg.Count/64+1)
	for r := range p.rings {
		if r.hdr.holders[Consuming].Load() == uint64(proc)+1 {
			r.settleConsumer(held(uint32(proc)))
		}
		if r.hdr.holders[Producing].Load() == uint64(proc)+1 {
			mine[r.hdr.mark()] = true
			r.addPublished(published)
		}
	}
	if len(mine) == 0 {
		return
	}
	for i := range p.hdr.count {
		if l := p.hdr.link(i); published[i/64]>>(i%64)&1 == 0 && mine[l.Load()] {
			l.Store(held(uint32(proc)))
		}
	}
}

// settleConsumer moves head past the packets that the consumer had taken.
func (r *Ring) settleConsumer(mark uint64) {
	q, h := r.hdr, r.pool.hdr
	head, tail := q.head.Load(), q.tail.Load()
	for ; head != tail; head++ {
		i := *q.slot(head)
		if i >= h.count || h.link(i).Load() != mark {
			break
		}
		h.segments(i, func(i uint32) { h.link(i).Store(mark) })
	}
	q.head.Store(head)
}

// addPublished adds all segments of the packets in the ring to a set. A consumer
// may be at work: it marks what it takes before it moves head, so that what is
// missed here is not the ring's any more.
func (r *Ring) addPublished(set []uint64) {
	q, h := r.hdr, r.pool.hdr
	tail := q.tail.Load() // the producer is dead
	for head := q.head.Load(); head != tail; head++ {
		h.segments(*q.slot(head), func(i uint32) { set[i/64] |= 1 << (i % 64) })
	}
}

// segments calls f for the elements of a packet whose first one is i. What it
// follows was written by a process that has died, or that is changing it: it
// ends where the chain leaves the pool.
func (h *header) segments(i uint32, f func(i uint32)) {
	for n := 0; i < h.count && n < MaxSegs; n++ {
		f(i)
		next := h.mbuf(i).Next
		if next == nil {
			return
		}
		if i = h.index(next); i >= h.count || h.mbuf(i) != next {
			return
		}
	}
}
