// SPDX-License-Identifier: BSD-3-Clause

package wireguard

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/gso"
	"github.com/rtap-project/rtap/mbuf"
)

// readBurst is how many packets are taken from the queue at once. wireguard-go encrypts what one Read gives on one CPU, and
// sends it as one message of UDP segmentation, of at most 64: more would leave other CPUs without work. Of large frames there
// are fewer, so that each is still in the CPU's cache when it is cut.
const (
	readBurst  = 64
	largeBurst = 4
)

// Memory for what is received: what the queue holds and what has not been read. All of it passes through a small
// cache, last in, first out, so that the kernel writes to memory that the CPU's caches have.
const (
	readBufs  = 256
	readRoom  = mbuf.MaxBufLen - mbuf.DefaultHeadroom // a whole large frame
	readCache = 32
)

// reader is the receiving half: what the queue has handed over and Read has not.
type reader struct {
	mu      sync.Mutex
	queue   *rtap.RxQueue
	pool    *mbuf.Pool
	cache   *mbuf.Cache
	waiter  *rtap.RxWaiter // made beforehand: Read must not fail for want of a descriptor
	cutter  gso.Segmenter
	burst   int // how many packets to take from the queue next
	bufs    [readBurst]*mbuf.Mbuf
	waiting []*mbuf.Mbuf // of bufs
}

// open gives the reader its memory and sets up the queue.
func (r *reader) open(port *rtap.Device) (err error) {
	if r.pool, err = mbuf.NewPool(mbuf.Config{Name: "wireguard-read", Count: readBufs, DataRoom: readRoom}); err != nil {
		return err
	}
	r.cache, r.burst = r.pool.NewCache(readCache), readBurst
	if err := port.SetupRxQueue(0, rtap.RxConfig{Ring: readBurst, Memory: r.cache}); err != nil {
		return err
	}
	r.queue = port.RxQueue(0)
	r.waiter, err = rtap.NewRxWaiter(r.queue)
	return err
}

// Read waits for packets and puts up to len(bufs) of them into bufs, from offset on, and their lengths in bytes into
// sizes. It returns how many: a large frame of the kernel's is many packets, and what does not fit comes with the next
// Read. Every packet is as it would be on a wire, its checksums complete. One that a buffer is too short for is lost.
//
// The error wraps os.ErrClosed when the device is closed or its interface was deleted; the latter wraps rtap.ErrGone
// as well. There are no others, unless the kernel has no memory to wait with. Nothing is allocated.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	r := &d.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(bufs) == 0 {
		return 0, nil
	}
	for {
		for len(r.waiting) > 0 {
			if n := r.take(bufs, sizes, offset); n > 0 {
				return n, nil
			}
		}
		n := r.queue.Burst(r.bufs[:r.burst])
		r.waiting = r.bufs[:n]
		if n > 0 {
			continue
		}
		if err := r.waiter.Wait(context.Background()); err != nil {
			return 0, d.ended(err)
		}
	}
}

// take hands over packets that wait, up to the first large frame and all of that, which is a batch by itself.
func (r *reader) take(bufs [][]byte, sizes []int, offset int) int {
	front := slices.IndexFunc(r.waiting, isLarge) + 1
	r.burst = largeBurst
	if front == 0 {
		front, r.burst = len(r.waiting), readBurst
	}
	taken, n := r.cutter.BurstTo(r.waiting[:front], r.cache, bufs, sizes, offset)
	r.waiting = r.waiting[taken:]
	return n
}

func isLarge(m *mbuf.Mbuf) bool { return m.OlFlags&mbuf.RxLRO != 0 }

// drop gives back what nobody has read. The port is stopped.
func (r *reader) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	mbuf.FreeBulk(r.waiting)
	r.waiting = nil
}

// close gives the memory back. The port is closed.
func (r *reader) close() (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pool == nil {
		return nil
	}
	r.cache.Close()
	if r.waiter != nil {
		err = r.waiter.Close()
	}
	return errors.Join(err, r.pool.Close())
}
