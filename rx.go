// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/internal/uring"
	"github.com/rtap-project/rtap/mbuf"
)

// maxSegs is the most mbufs of one packet: what readv(2) and writev(2) take
// (UIO_MAXIOV), less one for the virtio-net header.
const maxSegs = 1023

// RxQueue receives. It belongs to one goroutine at a time.
//
// Empty mbufs wait in a window of slots, each of which can take the longest
// frame. A burst fills as many slots as it expects packets, has the engine read
// into them, and hands out those that got one; the others stay for the next
// burst.
type RxQueue struct {
	gate   gate
	dev    *Device
	port   uint16
	index  int
	depth  int
	memory Memory
	cache  *mbuf.Cache // the driver's own cache of memory, if that is a pool
	alloc  mbuf.Allocator
	reader pktio.Reader

	// An mbuf of memory has room bytes for data, and front bytes before them for
	// the header: none if the headroom is too small, the header then comes first
	// in the data. The data otherwise starts where the program expects it.
	room, front, headroom int

	// The shape of a slot, which follows the MTU and the offloads.
	hdrLen   int   // bytes of the virtio-net header
	segs     int   // mbufs
	capacity int32 // bytes, header included; always more than a frame has

	offloads uint64 // RxOffload*
	layer2   *layer2

	// Slots 0 to filled-1 have mbufs: slot i has window[i*segs:(i+1)*segs],
	// described by descs[i], and by the iovecs of the same numbers if segs > 1.
	window []*mbuf.Mbuf
	filled int
	descs  []pktio.Desc
	vec    *uring.Vectors
	done   []pktio.Completion

	// Mbufs that a slot had and its packet did not need, or too few for a slot.
	spare []*mbuf.Mbuf

	expect int // packets that the next burst will look for
	idle   int // bursts in a row that found none

	rejected [1]*mbuf.Mbuf
	peek     [peekLen]byte // headers of a chain in one piece

	count pending
	stats *rxCounters
	intr  rxIntr
}

func (d *Device) newRxQueue(i, fd int, cfg RxConfig) (*RxQueue, error) {
	q := &RxQueue{dev: d, port: d.cfg.Port, index: i, depth: cfg.Ring, memory: cfg.Memory, alloc: cfg.Memory, expect: 1,
		layer2: d.layer2(), stats: d.counters[i].rx, intr: rxIntr{fd: fd}}
	q.count.group = q.layer2.group
	if q.room = cfg.Memory.DataRoom(); q.room < minDataRoom {
		return nil, &ConfigError{"RxConfig.Memory.DataRoom", q.room, fmt.Sprintf("at least %d", minDataRoom)}
	}
	q.headroom = cfg.Memory.Headroom()
	if pool, ok := cfg.Memory.(*mbuf.Pool); ok {
		q.cache = pool.NewCache(min(cfg.Ring, mbuf.DefaultCacheSize))
		q.alloc = q.cache
	}
	var err error
	if q.reader, err = d.engine.NewReader(fd, cfg.Ring, pktioRegions(cfg.Memory.Regions()), &q.count.io); err != nil {
		return nil, errors.Join(err, q.close())
	}
	q.done = make([]pktio.Completion, cfg.Ring)
	q.descs = make([]pktio.Desc, cfg.Ring)
	if err := q.fit(d.rxShape(DefaultMTU)); err != nil {
		return nil, errors.Join(err, q.close())
	}
	q.showWindow()
	return q, nil
}

// rxShape is what a slot must be able to take, and what is to be done to it.
type rxShape struct {
	mtu      int
	lro      int // bytes of the longest LRO frame asked for, 0: none
	offloads uint64
	hdrLen   int
}

// rxShape is that of an interface with this MTU as the port is configured.
func (d *Device) rxShape(mtu int) rxShape {
	s := rxShape{mtu: mtu, offloads: d.conf.RxOffloads, hdrLen: d.conf.hdrLen()}
	if d.conf.lro() {
		s.lro = cmp.Or(d.conf.MaxLROPktSize, MaxLROPktSize)
	}
	return s
}

// fit makes every slot large enough for s. The gate is shut.
func (q *RxQueue) fit(s rxShape) error {
	q.offloads = s.offloads
	segs, front := q.slotFor(s)
	if q.segs == segs && q.hdrLen == s.hdrLen {
		return nil
	}
	return q.shape(segs, s.hdrLen, front)
}

// slotFor is how many mbufs a slot needs, and how much of the header goes in front of
// the first one's data.
func (q *RxQueue) slotFor(s rxShape) (segs, front int) {
	if q.headroom >= s.hdrLen {
		front = s.hdrLen
	}
	frame := s.mtu + q.layer2.overhead()
	if s.offloads&RxOffloadScatter != 0 {
		frame = max(frame, s.lro)
	}
	// One byte more than the longest frame, so that a full slot means that the
	// frame was cut.
	bytes := s.hdrLen - front + frame + 1
	return (bytes + q.room - 1) / q.room, front
}

func (q *RxQueue) shape(segs, hdrLen, front int) error {
	vec, err := uring.NewVectors(max(1, q.depth*segs), 0)
	if err != nil {
		return err
	}
	q.drain()
	if q.vec != nil {
		err = q.vec.Close()
	}
	q.vec, q.segs, q.hdrLen, q.front = vec, segs, hdrLen, front
	q.capacity = int32(q.front + segs*q.room)
	q.window = make([]*mbuf.Mbuf, q.depth*segs)
	q.spare = make([]*mbuf.Mbuf, 0, q.depth*segs)
	return err
}

// longest is the longest frame that a slot can take.
func (q *RxQueue) longest() int { return int(q.capacity) - q.hdrLen - 1 }

// drain gives every mbuf of the window back. The control plane does this while
// the gate is shut, but not while the goroutine that polls stands still: a cache
// that is that goroutine's is left out.
func (q *RxQueue) drain() {
	free := q.alloc.FreeBulk
	if _, ok := q.alloc.(*mbuf.Cache); ok {
		free = mbuf.FreeBulk
	}
	if q.window != nil {
		free(q.window[:q.filled*q.segs])
		free(q.spare)
	}
	q.filled, q.spare = 0, q.spare[:0]
}

// rest gives everything back while the port is stopped, or another process polls the queue. The gate is shut.
func (q *RxQueue) rest() {
	q.drain()
	if q.cache != nil {
		q.cache.Flush()
	}
	q.expect, q.idle = 1, 0
	q.showWindow()
}

func (q *RxQueue) close() error {
	err := q.intr.release()
	if q.reader != nil {
		err = errors.Join(err, q.reader.Close())
	}
	q.drain()
	if q.cache != nil {
		q.cache.Close()
	}
	if q.vec != nil {
		err = errors.Join(err, q.vec.Close())
	}
	q.stats.window.Store(0)
	return err
}

// Burst receives up to len(bufs) packets, at most the ring size, and returns how
// many; bufs[:n] belong to the caller then. It never waits: 0 means that nothing
// was there, that the port is stopped or gone (see Device.Err), or that another
// goroutine is in a burst on this queue. When mbufs run out, packets stay in the
// kernel until there are some, and the rx_nombuf statistic counts.
//
// One system call with the uring engine, one per packet and one more with the
// syscall engine. Nothing is allocated. (rte_eth_rx_burst)
func (q *RxQueue) Burst(bufs []*mbuf.Mbuf) int {
	if len(bufs) == 0 || !q.gate.enter() {
		return 0
	}
	defer q.gate.leave() // also if a broken mbuf makes us panic: Close would wait for ever
	return q.burst(bufs)
}

func (q *RxQueue) burst(bufs []*mbuf.Mbuf) int {
	if q.dev.gone.Load() {
		return 0
	}
	n := q.receive(bufs)
	q.stats.burst(&q.count, n)
	q.showWindow()
	return n
}

func (q *RxQueue) receive(bufs []*mbuf.Mbuf) int {
	want := q.fill(min(q.expect, len(bufs), q.depth))
	if want == 0 {
		q.giveBack(0) // less than a slot is of no use here, and may be elsewhere
		return 0
	}
	found := q.reader.Read(q.descs[:want], q.done)
	q.predict(found, want)
	if found == 0 {
		if q.idle++; q.idle == idleBursts {
			q.giveBack(1)
		}
		return 0
	}
	q.idle = 0
	n := q.collect(bufs, q.done[:found])
	q.compact(want)
	return n
}

// idleBursts is how many bursts in a row find nothing until a queue gives mbufs
// back: a fraction of a millisecond of polling, so that a stream with pauses pays
// nothing.
const idleBursts = 1024

// giveBack keeps the mbufs of the first slots and returns the others, also the
// cached ones, to the memory, where another queue may be in want of them.
func (q *RxQueue) giveBack(slots int) {
	slots = min(slots, q.filled)
	q.alloc.FreeBulk(q.window[slots*q.segs : q.filled*q.segs])
	q.alloc.FreeBulk(q.spare)
	q.filled, q.spare = slots, q.spare[:0]
	if q.cache != nil {
		q.cache.Flush()
	}
}

// predict sizes the next burst. A read that finds nothing costs the kernel some
// work, so look for one packet more than came; if all looked for came, there
// may be many: half as many again. A few cost nothing to look for.
func (q *RxQueue) predict(found, want int) {
	if found < want {
		q.expect = found + 1
	} else if want == q.expect {
		q.expect = min(max(want+want/2, 4), q.depth)
	}
}

// showWindow lets others see what the next burst will look for.
func (q *RxQueue) showWindow() {
	if n := uint32(q.expect); q.stats.window.Load() != n {
		q.stats.window.Store(n)
	}
}

// fill gives mbufs to slots until want have them, and returns how many have.
func (q *RxQueue) fill(want int) int {
	if q.filled >= want {
		return want
	}
	empty := q.window[q.filled*q.segs : want*q.segs]
	have := q.takeSpare(empty)
	if have < len(empty) {
		have += q.alloc.AllocBulk(empty[have:])
	}
	if have < len(empty) {
		q.count.add(cntNoMbuf, uint64(len(empty)-have))
	}
	whole := have - have%q.segs
	q.spare = append(q.spare, empty[whole:have]...)
	for full := q.filled + whole/q.segs; q.filled < full; q.filled++ {
		q.describe(q.filled)
	}
	return q.filled
}

// takeSpare moves spare mbufs to slots and returns how many.
func (q *RxQueue) takeSpare(slots []*mbuf.Mbuf) int {
	left := max(len(q.spare)-len(slots), 0)
	n := copy(slots, q.spare[left:])
	q.spare = q.spare[:left]
	return n
}

func (q *RxQueue) slot(i int) []*mbuf.Mbuf { return q.window[i*q.segs : (i+1)*q.segs] }

// describe tells the engine where slot i's memory is.
func (q *RxQueue) describe(i int) {
	segs := q.slot(i)
	first, size := segs[0].DataAddr()-uintptr(q.front), q.front+q.room
	if q.segs == 1 {
		q.descs[i] = pktio.Desc{Addr: first, Len: uint32(size)}
		return
	}
	iov := q.vec.Iov[i*q.segs:]
	iov[0] = uring.Iovec{Base: first, Len: uintptr(size)}
	for s := 1; s < q.segs; s++ {
		iov[s] = uring.Iovec{Base: segs[s].DataAddr(), Len: uintptr(q.room)}
	}
	q.descs[i] = pktio.Desc{Addr: q.vec.Addr(i * q.segs), NIov: uint32(q.segs)}
}

// collect turns completions into packets in bufs. Slots whose packet left have a
// nil mbuf first.
func (q *RxQueue) collect(bufs []*mbuf.Mbuf, done []pktio.Completion) int {
	n, bytes := 0, 0
	for _, c := range done {
		if c.Res <= int32(q.hdrLen) || c.Res >= q.capacity {
			q.refused(c)
			continue
		}
		length := int(c.Res) - q.hdrLen
		m := q.take(int(c.Index), length)
		if !q.inspect(m) {
			q.reject(m)
			continue
		}
		bytes += length
		bufs[n] = m
		n++
	}
	if n > 0 {
		q.count.received(bufs[:n])
		q.count.add(cntBytes, uint64(bytes))
	}
	return n
}

// reject gives a packet back that cannot be handed out.
func (q *RxQueue) reject(m *mbuf.Mbuf) {
	q.count.add(cntHeader, 1)
	q.rejected[0] = m
	q.alloc.FreeBulk(q.rejected[:])
}

// refused counts a completion without a packet.
func (q *RxQueue) refused(c pktio.Completion) {
	errno := c.Errno()
	if errno == 0 {
		q.count.add(cntLength, 1)
		return
	}
	q.count.add(errnoOf(rxErrnos, errno), 1)
	if errno == tuntap.Gone {
		q.dev.gone.Store(true)
	}
}

// take makes a packet of length bytes of slot i's mbufs. Those it does not need
// become spare.
func (q *RxQueue) take(i, length int) *mbuf.Mbuf {
	segs := q.slot(i)
	m := segs[0]
	segs[0] = nil
	m.Port = q.port
	m.PktLen = uint32(length)
	if q.segs == 1 {
		m.DataLen = uint16(length)
		if q.front == 0 {
			m.DataOff += uint16(q.hdrLen)
		}
		return m
	}
	q.scatter(m, segs[1:], length)
	return m
}

func (q *RxQueue) scatter(m *mbuf.Mbuf, rest []*mbuf.Mbuf, length int) {
	first := q.room
	if q.front == 0 {
		m.DataOff += uint16(q.hdrLen)
		first -= q.hdrLen
	}
	m.DataLen = uint16(min(length, first))
	length -= int(m.DataLen)
	last, used := m, 0
	for ; length > 0; used++ {
		s := rest[used]
		s.DataLen = uint16(min(length, q.room))
		length -= int(s.DataLen)
		last.Next = s
		last = s
	}
	m.NbSegs = uint16(1 + used)
	q.spare = append(q.spare, rest[used:]...)
}

// compact closes the gaps that collect left in the first slots: the last filled
// ones move there.
func (q *RxQueue) compact(slots int) {
	for i := 0; i < min(slots, q.filled); {
		if q.window[i*q.segs] != nil {
			i++
			continue
		}
		q.filled--
		if q.window[q.filled*q.segs] != nil {
			copy(q.slot(i), q.slot(q.filled))
			q.describe(i)
		}
	}
}
