// SPDX-License-Identifier: BSD-3-Clause

package packetio

import (
	"sync"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
)

// writer is a Conn's sending half.
type writer struct {
	mu    sync.Mutex
	port  *port
	queue *rtap.TxQueue
	mem   memory
	batch [rtap.DefaultBurst]*mbuf.Mbuf
	one   [1][]byte // of Write
}

func (w *writer) setUp(p *port, i int, cfg *rtap.Config) (err error) {
	w.port = p
	if w.mem, err = newMemory("packetio-tx", minMbufs, rtap.DefaultBurst, cfg); err != nil {
		return err
	}
	err = p.dev.SetupTxQueue(i, rtap.TxConfig{Ring: cfg.TxRing, Free: w.mem.cache, Regions: w.mem.pool.Regions()})
	w.queue = p.dev.TxQueue(i)
	return err
}

// WritePackets sends packets in order, 64 in one system call, and returns how many the kernel has been given. It does not
// wait, keeps nothing and changes nothing. If that is not all, err says why. Nothing is allocated.
func (c *Conn) WritePackets(packets [][]byte) (n int, err error) {
	w := &c.tx
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err = w.write(packets)
	return n, w.port.failed("write", err)
}

// Write sends one packet, with a system call. Where several are at hand, WritePackets is cheaper.
func (c *Conn) Write(packet []byte) (int, error) {
	w := &c.tx
	w.mu.Lock()
	defer w.mu.Unlock()
	w.one[0] = packet
	_, err := w.write(w.one[:])
	w.one[0] = nil
	if err != nil {
		return 0, w.port.failed("write", err)
	}
	return len(packet), nil
}

func (w *writer) write(packets [][]byte) (done int, err error) {
	for done < len(packets) && err == nil {
		if err := w.port.ctx.Err(); err != nil {
			return done, err
		}
		var staged int
		staged, err = w.stage(packets[done:])
		sent := w.queue.Burst(w.batch[:staged])
		done += sent
		if sent < staged {
			w.mem.cache.FreeBulk(w.batch[sent:staged])
			err = w.port.why()
		}
	}
	return done, err
}

// stage copies packets into mbufs and returns how many, less than there are if the batch is full or the next is in
// error.
func (w *writer) stage(packets [][]byte) (int, error) {
	n := w.mem.cache.AllocBulk(w.batch[:min(len(packets), len(w.batch))])
	for i, m := range w.batch[:n] {
		if err := w.copy(m, packets[i]); err != nil {
			w.mem.cache.FreeBulk(w.batch[i:n])
			if i > 0 && err == mbuf.ErrExhausted {
				err = nil // when these have been sent there is room again
			}
			return i, err
		}
	}
	return n, nil
}

func (w *writer) copy(m *mbuf.Mbuf, packet []byte) error {
	if len(packet) > rtap.MaxLROPktSize {
		return tooLong(len(packet))
	}
	if b := m.Append(len(packet)); b != nil {
		copy(b, packet)
		return nil
	}
	return m.CopyIn(packet, w.mem.cache)
}
