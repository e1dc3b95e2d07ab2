// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/rtap-project/rtap/forward"
	"github.com/rtap-project/rtap/mbuf"
)

// What a port receives and sends can be seen by a process of its own, rtap capture (DPDK's pdump and dumpcap). Each
// process that forwards has a ring on each port for what it moves there. Only while somebody reads the ring do its
// workers copy packets into it, of a pool that is for nothing else, so that a slow reader costs forwarding no mbuf.
// What finds no room is counted, and the reader is told.

// captureRing is the name of the ring of a port for what process number id moves.
func captureRing(id int) string { return fmt.Sprintf("capture.%d", id) }

const (
	captureRingSize = 1024 // packets
	capturePool     = "rtap capture"
	captureMbufs    = 2 * captureRingSize // for all ports of all processes
)

// captureMemory is the pool of what is copied, nil where nobody can capture.
type captureMemory struct{ pool *mbuf.Pool }

func (m *captureMemory) close() error {
	if m.pool == nil {
		return nil
	}
	return m.pool.Close()
}

// openCapture makes the rings of a port, and takes the end of this process's.
func (s *session) openCapture(p *port) error {
	if s.cfg.filePrefix == "" {
		return nil
	}
	if s.capture.pool == nil {
		var err error
		if s.capture.pool, err = mbuf.NewPool(mbuf.Config{Name: capturePool, Count: captureMbufs}); err != nil {
			return err
		}
	}
	for id := range s.cfg.forward.NumProcs {
		if err := p.dev.MakeRing(captureRing(id), captureRingSize, s.capture.pool); err != nil {
			return err
		}
	}
	ring, err := p.dev.Producer(captureRing(s.cfg.forward.ProcID))
	if err != nil {
		return err
	}
	p.captured = &captured{ring: ring, pool: ring.Pool()}
	return nil
}

// captureRecord is in front of each packet in the ring.
type captureRecord struct {
	at      int64  // nanoseconds of Unix time
	dropped uint64 // packets that found no room in the ring before this one, since the process began
	length  uint32 // of the packet, bytes
	queue   uint16
	sent    bool // else received
}

const captureRecordLen = 24

func (r *captureRecord) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b, uint64(r.at))
	le.PutUint64(b[8:], r.dropped)
	le.PutUint32(b[16:], r.length)
	le.PutUint16(b[20:], r.queue)
	b[22], b[23] = 0, 0
	if r.sent {
		b[22] = 1
	}
}

// takeCaptureRecord takes the record from the packet's front. It is false if there is none.
func takeCaptureRecord(m *mbuf.Mbuf) (r captureRecord, ok bool) {
	b := m.Bytes()
	if len(b) < captureRecordLen {
		return r, false
	}
	le := binary.LittleEndian
	r = captureRecord{int64(le.Uint64(b)), le.Uint64(b[8:]), le.Uint32(b[16:]), le.Uint16(b[20:]), b[22] == 1}
	return r, m.Adj(captureRecordLen)
}

// captureProducer is a ring's producing end: *mbuf.Producer. While a goroutine is at it, another one is told that nobody
// reads, and nothing is taken from it.
type captureProducer interface {
	Consumed() bool
	Enqueue(bufs []*mbuf.Mbuf) int
}

// captured is a port's ring, which several workers of this process write to.
type captured struct {
	ring    captureProducer
	pool    mbuf.Allocator
	busy    atomic.Bool // a worker is at ring
	on      atomic.Bool // somebody reads, as whoever was at ring last has seen
	dropped atomic.Uint64
}

// wanted reports whether packets are to be copied at all. Workers ask once a burst, and do not wait for each other.
func (c *captured) wanted() bool {
	if !c.busy.Load() && c.busy.CompareAndSwap(false, true) {
		if on := c.ring.Consumed(); on != c.on.Load() {
			c.on.Store(on)
		}
		c.busy.Store(false)
	}
	return c.on.Load()
}

// Workers wait for each other for a short time only.
func (c *captured) lock() bool {
	for range 100 {
		if c.busy.CompareAndSwap(false, true) {
			return true
		}
		runtime.Gosched()
	}
	return false
}

// put hands bufs to the reader. What there is no room for it frees and counts.
func (c *captured) put(bufs []*mbuf.Mbuf) {
	n := 0
	if c.lock() {
		n = c.ring.Enqueue(bufs)
		c.busy.Store(false)
	}
	if n < len(bufs) {
		c.dropped.Add(uint64(len(bufs) - n))
		mbuf.FreeBulk(bufs[n:])
	}
}

// capturedQueue is one queue's part in it. It belongs to the queue's worker.
type capturedQueue struct {
	port   *captured
	record captureRecord
	copies []*mbuf.Mbuf
}

// rx is queue number q as the forwarder is to poll it: as it is if c is nil.
func (c *captured) rx(rx forward.RxQueue, q int) forward.RxQueue {
	if c == nil {
		return rx
	}
	return capturedRx{rx, c.queue(q, false)}
}

// tx is rx for a queue that sends.
func (c *captured) tx(tx forward.TxQueue, q int) forward.TxQueue {
	if c == nil {
		return tx
	}
	return capturedTx{tx, c.queue(q, true)}
}

func (c *captured) queue(q int, sent bool) *capturedQueue {
	return &capturedQueue{c, captureRecord{queue: uint16(q), sent: sent}, make([]*mbuf.Mbuf, forward.MaxBurst)}
}

// copy copies packets, before they are gone. A nil copy is one that there was no mbuf for.
func (q *capturedQueue) copy(bufs []*mbuf.Mbuf) []*mbuf.Mbuf {
	q.record.at = time.Now().UnixNano()
	q.record.dropped = q.port.dropped.Load()
	bufs = bufs[:min(len(bufs), len(q.copies))]
	for i, m := range bufs {
		q.copies[i] = q.copyOf(m)
	}
	return q.copies[:len(bufs)]
}

func (q *capturedQueue) copyOf(m *mbuf.Mbuf) *mbuf.Mbuf {
	c := mbuf.Copy(m, q.port.pool, 0, -1)
	if c == nil {
		return nil
	}
	b := c.Prepend(captureRecordLen)
	if b == nil {
		c.Free()
		return nil
	}
	q.record.length = m.PktLen
	q.record.put(b)
	return c
}

// put hands on the first n copies, of packets that were in fact received or sent. The others are freed.
func (q *capturedQueue) put(copies []*mbuf.Mbuf, n int) {
	n = min(n, len(copies))
	mbuf.FreeBulk(copies[n:])
	whole := copies[:0]
	for _, c := range copies[:n] {
		if c != nil {
			whole = append(whole, c)
		}
	}
	q.port.dropped.Add(uint64(n - len(whole)))
	q.port.put(whole)
}

// capturedRx is an Rx queue that may be looked at.
type capturedRx struct {
	forward.RxQueue
	seen *capturedQueue
}

func (q capturedRx) Burst(bufs []*mbuf.Mbuf) int {
	n := q.RxQueue.Burst(bufs)
	if n > 0 && q.seen.port.wanted() {
		q.seen.put(q.seen.copy(bufs[:n]), n)
	}
	return n
}

// capturedTx is a Tx queue that may be looked at: at what the queue takes.
type capturedTx struct {
	forward.TxQueue
	seen *capturedQueue
}

func (q capturedTx) Burst(bufs []*mbuf.Mbuf) int {
	if !q.seen.port.wanted() {
		return q.TxQueue.Burst(bufs)
	}
	copies := q.seen.copy(bufs) // the queue may free what it takes
	n := q.TxQueue.Burst(bufs)
	q.seen.put(copies, n)
	return n
}
