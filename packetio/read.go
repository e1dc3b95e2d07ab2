// SPDX-License-Identifier: BSD-3-Clause

package packetio

import (
	"cmp"
	"io"
	"sync"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
)

// reader is a Conn's receiving half.
type reader struct {
	mu    sync.Mutex // held while reading, also while that waits
	port  *port
	queue *rtap.RxQueue
	mem   memory
	batch []*mbuf.Mbuf
	next  int // batch[next:end] is still to be read
	end   int
}

func (r *reader) setUp(p *port, i int, cfg *rtap.Config) (err error) {
	ring := cmp.Or(cfg.RxRing, rtap.DefaultRingSize)
	r.port, r.batch = p, make([]*mbuf.Mbuf, ring)
	// What the queue has read into, what waits in batch, and what the cache may keep.
	if r.mem, err = newMemory("packetio-rx", max(4*ring, minMbufs), min(ring, mbuf.DefaultCacheSize), cfg); err != nil {
		return err
	}
	if err = p.dev.SetupRxQueue(i, rtap.RxConfig{Ring: ring, Memory: r.mem.cache}); err != nil {
		return err
	}
	r.queue = p.dev.RxQueue(i)
	return nil
}

// ReadPackets reads one packet or more, as many as are there, up to len(bufs) or Config.RxRing; it waits for the first.
// Packet i is in bufs[i], whose length becomes the packet's:
//
//	n, err := conn.ReadPackets(bufs)
//	for _, packet := range bufs[:n] {
//
// What a buffer has room for is its capacity, not its length, so the same bufs can be passed again. Buffers that were cut
// out of one array must not reach into each other (array[i:j:j]): [Buffers] makes such.
//
// With an error n is 0. A packet longer than its buffer is dropped, never cut; it is the error io.ErrShortBuffer, which
// is returned when the packets before it have been. An interface's packets are as long as its MTU says, and a TAP's up
// to 22 bytes longer: Ethernet header and VLAN tags. 0 and nil if bufs is empty. Nothing is allocated.
func (c *Conn) ReadPackets(bufs [][]byte) (n int, err error) {
	if len(bufs) == 0 {
		return 0, nil
	}
	r := &c.rx
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fill(len(bufs)); err != nil {
		return 0, r.port.failed("read", err)
	}
	for _, m := range r.batch[r.next:min(r.end, r.next+len(bufs))] {
		b := bufs[n][:cap(bufs[n])]
		size := m.CopyOut(b, 0)
		if size < int(m.PktLen) {
			break
		}
		bufs[n] = b[:size]
		n++
	}
	if n == 0 {
		return 0, r.short()
	}
	r.next += n
	return n, nil
}

// Read reads one packet into b and returns its length. Packets that wait are fetched from the kernel many at a time, so
// most calls make no system call. It waits if there is none. A packet longer than b is dropped, never cut; the error is
// io.ErrShortBuffer. 0 and nil if b is empty: no packet is touched.
func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	r := &c.rx
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fill(rtap.DefaultBurst); err != nil {
		return 0, r.port.failed("read", err)
	}
	m := r.batch[r.next]
	if len(b) < int(m.PktLen) {
		return 0, r.short()
	}
	r.next++
	return m.CopyOut(b, 0), nil
}

// fill makes sure that there is a packet, and waits for one. It looks for as many as want.
func (r *reader) fill(want int) error {
	if r.next < r.end && r.port.ctx.Err() == nil {
		return nil
	}
	r.free()
	for {
		if err := r.port.ctx.Err(); err != nil {
			return err
		}
		r.end = r.queue.Burst(r.batch[:min(want, len(r.batch))])
		if r.end > 0 {
			return nil
		}
		if err := r.queue.Wait(r.port.ctx); err != nil {
			return err
		}
	}
}

// free gives the batch up.
func (r *reader) free() {
	if r.end > 0 {
		r.mem.cache.FreeBulk(r.batch[:r.end])
	}
	r.next, r.end = 0, 0
}

// short drops the next packet.
func (r *reader) short() error {
	r.next++
	return r.port.failed("read", io.ErrShortBuffer)
}
