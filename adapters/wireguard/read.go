// SPDX-License-Identifier: BSD-3-Clause

package wireguard

import (
	"context"
	"sync"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/gso"
	"github.com/rtap-project/rtap/mbuf"
)

// readBurst is how many packets are taken from the queue at once. wireguard-go encrypts what one Read gives on one CPU, and
// sends it as one message of UDP segmentation, of at most 64: more would leave other CPUs without work.
const readBurst = 64

// reader is the receiving half: what the queue has handed over and Read has not.
type reader struct {
	mu      sync.Mutex
	queue   *rtap.RxQueue
	cutter  gso.Segmenter
	bufs    [readBurst]*mbuf.Mbuf
	waiting []*mbuf.Mbuf // of bufs
}

// Read waits for packets and puts up to len(bufs) of them into bufs, from offset on, and their lengths in bytes into
// sizes. It returns how many: a large frame of the kernel's is many packets, and what does not fit comes with the next
// Read. Every packet is as it would be on a wire, its checksums complete. One that a buffer is too short for is lost.
//
// The error wraps os.ErrClosed when the device is closed or its interface was deleted; the latter wraps rtap.ErrGone
// as well. Nothing is allocated.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	r := &d.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(bufs) == 0 {
		return 0, nil
	}
	for {
		for len(r.waiting) > 0 {
			taken, n := r.cutter.BurstTo(upToLarge(r.waiting), free{}, bufs, sizes, offset)
			r.waiting = r.waiting[taken:]
			if n > 0 {
				return n, nil
			}
		}
		n := r.queue.Burst(r.bufs[:])
		r.waiting = r.bufs[:n]
		if n > 0 {
			continue
		}
		if r.queue.Wait(context.Background()) != nil {
			return 0, closed(d.port)
		}
	}
}

// upToLarge is the front of bufs up to the first frame that is many packets, that one included: such a frame is a batch by
// itself.
func upToLarge(bufs []*mbuf.Mbuf) []*mbuf.Mbuf {
	for i, m := range bufs {
		if m.OlFlags&mbuf.RxLRO != 0 {
			return bufs[:i+1]
		}
	}
	return bufs
}

// close gives back what nobody has read. The port is stopped.
func (r *reader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	mbuf.FreeBulk(r.waiting)
	r.waiting = nil
}

// free is where mbufs go that the port has received: each to its pool.
type free struct{}

func (free) AllocBulk([]*mbuf.Mbuf) int { return 0 }
func (free) FreeBulk(bufs []*mbuf.Mbuf) { mbuf.FreeBulk(bufs) }
