// SPDX-License-Identifier: BSD-3-Clause

package wireguard

import (
	"fmt"
	"sync"
	"syscall"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/gso"
	"github.com/rtap-project/rtap/mbuf"
)

// writer is the sending half.
type writer struct {
	mu     sync.Mutex
	queue  *rtap.TxQueue
	pool   *mbuf.Pool
	cache  *mbuf.Cache
	merger *gso.Coalescer
	bufs   [batch]*mbuf.Mbuf
}

// open gives the writer its memory and sets up the queue.
func (w *writer) open(port *rtap.Device, offloads uint64) (err error) {
	if w.pool, err = mbuf.NewPool(mbuf.Config{Name: "wireguard-write", Count: writeBufs, DataRoom: writeRoom}); err != nil {
		return err
	}
	w.cache = w.pool.NewCache(batch)
	w.merger = gso.NewCoalescer(gso.CoalescerConfig{IP: true, Tunnels: true,
		NoTCP: offloads&rtap.TxOffloadTCPTSO == 0, NoUDP: offloads&rtap.TxOffloadUDPTSO == 0})
	err = port.SetupTxQueue(0, rtap.TxConfig{Ring: batch, Free: w.cache, Regions: w.pool.Regions()})
	w.queue = port.TxQueue(0)
	return err
}

// close gives the memory back. The port is closed.
func (w *writer) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pool == nil {
		return nil
	}
	w.cache.Close()
	return w.pool.Close()
}

// Write has the kernel receive the packets in bufs, each from offset on, and returns how many it took over. Packets of
// one flow that belong together go as one large frame (see [gso.Coalescer]). bufs is not changed, and not used
// after Write has returned.
//
// The kernel refuses packets while the interface is down, and those that are not IP: they count in the port's oerrors.
// Empty packets and those of more than 65535 bytes are left out. The error wraps os.ErrClosed as Read's does, or
// ENOBUFS when the kernel is short of memory; then some more may have been taken than Write says. Nothing is allocated.
func (d *Device) Write(bufs [][]byte, offset int) (int, error) {
	w := &d.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	sent := 0
	for len(bufs) > 0 {
		if d.down() {
			return sent, closed(d.port)
		}
		taken, n := w.fill(bufs[:min(len(bufs), batch)], offset)
		bufs = bufs[taken:]
		if w.send(n) {
			sent += n
		} else if !d.down() {
			return sent, errMemory
		}
	}
	return sent, nil
}

var errMemory = fmt.Errorf("wireguard: write: %w", syscall.ENOBUFS)

// down reports whether nothing can be sent any more.
func (d *Device) down() bool { return d.closing.Load() || d.port.Err() != nil }

// fill copies packets into w.bufs[:n], and returns how many of bufs that were. It ends early when mbufs do.
func (w *writer) fill(bufs [][]byte, offset int) (taken, n int) {
	got := w.cache.AllocBulk(w.bufs[:len(bufs)])
	for _, b := range bufs {
		if n == got {
			break
		}
		if offset >= 0 && offset < len(b) && len(b)-offset <= gso.MaxIPSize {
			if !w.copyIn(w.bufs[n], b[offset:]) {
				break
			}
			n++
		}
		taken++
	}
	w.cache.FreeBulk(w.bufs[n:got])
	clear(w.bufs[n:got])
	return taken, n
}

// copyIn fills m with a packet. It is false when mbufs have run out.
func (w *writer) copyIn(m *mbuf.Mbuf, b []byte) bool {
	if len(b) <= writeRoom {
		copy(m.Append(len(b)), b)
	} else if m.CopyIn(b, w.cache) != nil {
		return false
	}
	return true
}

// send merges and sends w.bufs[:n]. It is false if the port did not take all.
func (w *writer) send(n int) bool {
	frames := w.merger.Burst(w.bufs[:n])
	taken := w.queue.Burst(w.bufs[:frames])
	w.cache.FreeBulk(w.bufs[taken:frames])
	return taken == frames
}
