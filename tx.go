// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"errors"
	"math"

	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/internal/uring"
	"github.com/rtap-project/rtap/mbuf"
)

// TxQueue sends. It belongs to one goroutine at a time.
type TxQueue struct {
	gate    gate
	dev     *Device
	free    mbuf.Allocator // nil: mbuf.FreeBulk
	regions []mbuf.Region  // registered with writer
	writer  pktio.Writer

	layer2 *layer2
	hdrLen int           // bytes of the virtio-net header
	allow  txAllow       // what packets may ask for
	peek   [peekLen]byte // headers of a chain in one piece

	// The packets of one system call: descs[i] is sent[i] bytes long. Packets
	// that are not one piece of memory with room for the header in front are
	// described by iovecs. The first of these is packet i's part of the scratch
	// memory: the header, and whatever of the packet the driver rewrote.
	descs  []pktio.Desc
	sent   []uint32
	failed []pktio.Completion
	vec    *uring.Vectors
	iovs   int // used by the packets described so far

	count pending
	stats *txCounters
}

// notSent takes the place of a packet's length that the kernel refused.
const notSent = math.MaxUint32

// iovecsPerPacket is how many iovecs a Tx queue has for each packet of its ring,
// and at least those of the longest chain. If a burst needs more, it takes more
// system calls.
const iovecsPerPacket = 4

func (d *Device) newTxQueue(i, fd int, cfg TxConfig) (*TxQueue, error) {
	q := &TxQueue{
		dev:     d,
		layer2:  d.layer2(),
		stats:   d.counters[i].tx,
		free:    cfg.Free,
		regions: cfg.Regions,
		descs:   make([]pktio.Desc, cfg.Ring),
		sent:    make([]uint32, cfg.Ring),
		failed:  make([]pktio.Completion, cfg.Ring),
	}
	var err error
	if q.vec, err = uring.NewVectors(max(maxSegs+1, cfg.Ring*iovecsPerPacket), cfg.Ring*txScratch); err != nil {
		return nil, err
	}
	q.count.group = q.layer2.group
	q.fit(&d.conf)
	if q.writer, err = d.engine.NewWriter(fd, cfg.Ring, pktioRegions(cfg.Regions), &q.count.io); err != nil {
		return nil, errors.Join(err, q.close())
	}
	return q, nil
}

// fit prepares the queue for a configuration. The gate is shut.
func (q *TxQueue) fit(c *PortConfig) {
	q.hdrLen = c.hdrLen()
	q.allow = newTxAllow(c)
}

// register changes the memory that is registered, by another writer.
func (q *TxQueue) register(fd int, regions []mbuf.Region) error {
	w, err := q.dev.engine.NewWriter(fd, len(q.descs), pktioRegions(regions), &q.count.io)
	if err != nil {
		return err
	}
	open := q.gate.isOpen()
	q.gate.shut()
	old := q.writer
	q.writer, q.regions = w, regions
	if open {
		q.gate.open()
	}
	return old.Close()
}

func (q *TxQueue) close() error {
	var err error
	if q.writer != nil {
		err = q.writer.Close()
	}
	return errors.Join(err, q.vec.Close())
}

// Burst sends packets in order and returns how many it took: bufs[:n] are the
// driver's and freed, the rest stay the caller's. Fewer than len(bufs) means
// that the kernel was short of memory, that the port is stopped or gone (see
// Device.Err), or that another goroutine is in a burst on this queue. A packet that
// the kernel refuses (link down, no Ethernet header, of a TUN neither IPv4 nor IPv6, more than
// 1023 segments) is taken, freed and counted in oerrors, and so are nil and a packet whose flags
// contradict it or ask for an offload that is not enabled: see Prepare.
//
// The bytes in front of the data of a packet's first mbuf may be overwritten,
// unless that buffer is shared. One system call for as many packets as the ring
// has with the uring engine, one per packet with the syscall engine. Nothing is
// allocated. (rte_eth_tx_burst)
func (q *TxQueue) Burst(bufs []*mbuf.Mbuf) int {
	if len(bufs) == 0 || !q.gate.enter() {
		return 0
	}
	defer q.gate.leave() // also if a broken mbuf makes us panic: Close would wait for ever
	return q.burst(bufs)
}

func (q *TxQueue) burst(bufs []*mbuf.Mbuf) int {
	if q.dev.gone.Load() {
		return 0
	}
	n := q.transmit(bufs)
	q.stats.burst(&q.count, n)
	return n
}

func (q *TxQueue) transmit(bufs []*mbuf.Mbuf) int {
	n := 0
	for n < len(bufs) && !q.dev.gone.Load() {
		k := q.describe(bufs[n:])
		if k == 0 { // the next packet cannot be sent in any way
			q.count.add(cntUnsent, 1)
			q.release(bufs[n : n+1])
			n++
			continue
		}
		taken := q.send(bufs[n : n+k])
		q.release(bufs[n : n+taken])
		n += taken
		if taken < k {
			break
		}
	}
	return n
}

// describe tells the engine where the first packets of bufs are, and returns how
// many fit the ring. It stops in front of one that cannot be sent.
func (q *TxQueue) describe(bufs []*mbuf.Mbuf) int {
	q.iovs = 0
	n := min(len(bufs), len(q.descs))
	for i, m := range bufs[:n] {
		if m == nil {
			return i
		}
		if m.OlFlags&mbuf.TxOffloadMask != 0 {
			if !q.request(i, m) {
				return i
			}
			continue
		}
		if h := q.inFront(i, m); h != nil {
			clear(h)
			continue
		}
		h := q.scratch(i)[:q.hdrLen]
		clear(h)
		if !q.gather(i, m, len(h), 0) {
			return i
		}
	}
	return n
}

// inFront describes packet m with the header in front of its data, and returns
// where that goes. It is nil if m must be described by iovecs.
func (q *TxQueue) inFront(i int, m *mbuf.Mbuf) []byte {
	if m.NbSegs != 1 || !m.IsWritable() {
		return nil
	}
	h := m.Front(q.hdrLen)
	if h != nil {
		q.descs[i] = pktio.Desc{Addr: m.DataAddr() - uintptr(q.hdrLen), Len: uint32(m.DataLen) + uint32(q.hdrLen)}
		q.sent[i] = uint32(m.DataLen)
	}
	return h
}

// scratch is packet i's.
func (q *TxQueue) scratch(i int) []byte { return q.vec.Scratch[i*txScratch : (i+1)*txScratch] }

// gather describes packet m by iovecs: head bytes of scratch memory, which stand for
// the header and the first skip bytes of the packet, and the rest of it. It is
// false if the iovecs do not suffice.
func (q *TxQueue) gather(i int, m *mbuf.Mbuf, head, skip int) bool {
	iov := q.vec.Iov[q.iovs:]
	if len(iov) < 2 || int(m.NbSegs) > min(maxSegs, len(iov)-1) {
		return false
	}
	iov[0] = uring.Iovec{Base: q.vec.ScratchAddr(i * txScratch), Len: uintptr(head)}
	n, bytes := 1, head-q.hdrLen
	for s, left := m, int(m.NbSegs); s != nil; s, left = s.Next, left-1 {
		if left == 0 { // longer than it says
			return false
		}
		size := int(s.DataLen)
		cut := min(skip, size)
		if skip -= cut; cut == size && size > 0 {
			continue
		}
		iov[n] = uring.Iovec{Base: s.DataAddr() + uintptr(cut), Len: uintptr(size - cut)}
		bytes += size - cut
		n++
	}
	q.descs[i] = pktio.Desc{Addr: q.vec.Addr(q.iovs), NIov: uint32(n)}
	q.sent[i] = uint32(bytes)
	q.iovs += n
	return true
}

// send writes packets, which are described, and counts those that the kernel took.
func (q *TxQueue) send(bufs []*mbuf.Mbuf) (taken int) {
	taken, refused := q.writer.Write(q.descs[:len(bufs)], q.failed)
	for _, c := range q.failed[:refused] {
		q.refused(c)
	}
	q.count.sent(bufs[:taken], q.sent)
	return taken
}

// refused counts a packet that the kernel refused.
func (q *TxQueue) refused(c pktio.Completion) {
	q.sent[c.Index] = notSent
	q.count.add(errnoOf(txErrnos, c.Errno()), 1)
	if c.Errno() == tuntap.Gone {
		q.dev.gone.Store(true)
	}
}

func (q *TxQueue) release(bufs []*mbuf.Mbuf) {
	if q.free != nil {
		q.free.FreeBulk(bufs)
		return
	}
	mbuf.FreeBulk(bufs)
}
