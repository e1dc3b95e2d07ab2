// SPDX-License-Identifier: BSD-3-Clause

package port

import (
	"errors"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
)

// The data plane: no lock, no allocation, one call of the host's a burst. Queues are found by the numbers of port and
// queue, which mean the same in every process.

// table has the places of each port's queues, nil for a port that is not there.
type table []atomic.Pointer[places]

// places are a port's. What bursts find there may be released already: such a queue gives 0 packets.
type places [MaxQueues]place

// place is a queue pair's.
type place struct {
	rx  atomic.Pointer[rtap.RxQueue]
	tx  atomic.Pointer[rtap.TxQueue]
	pen pen
	one [1]*mbuf.Mbuf // of the thread that receives
}

// at is a queue pair's place, nil if there is none.
func (t table) at(port, queue uint16) *place {
	if int(port) >= len(t) || int(queue) >= MaxQueues {
		return nil
	}
	p := t[port].Load()
	if p == nil {
		return nil
	}
	return &p[queue]
}

// show lets bursts find the queues that a port has: a *rtap.Device's.
func (p *places) show(port interface {
	RxQueue(i int) *rtap.RxQueue
	TxQueue(i int) *rtap.TxQueue
}) {
	for i := range p {
		p[i].rx.Store(port.RxQueue(i))
		p[i].tx.Store(port.TxQueue(i))
	}
}

// hide lets bursts find none.
func (p *places) hide() {
	for i := range p {
		p[i].rx.Store(nil)
		p[i].tx.Store(nil)
	}
}

// emptyPens gives back what the port's Rx queues have given up. Each control call ends with it.
func (p *places) emptyPens(host Host) {
	var one [1]*mbuf.Mbuf
	for i := range p {
		if !p[i].pen.isEmpty() {
			p[i].pen.empty(host, &one)
		}
	}
}

// Rx is rte_eth_rx_burst.
func (p *Ports) Rx(port, queue uint16, bufs unsafe.Pointer, n uint16) uint16 {
	at := p.table.at(port, queue)
	if at == nil {
		return 0
	}
	got := 0
	if q := at.rx.Load(); q != nil {
		got = q.Burst(unsafe.Slice((**mbuf.Mbuf)(bufs), int(n)))
	}
	if !at.pen.isEmpty() {
		at.pen.empty(p.host, &at.one)
	}
	return uint16(got)
}

// Tx is rte_eth_tx_burst.
func (p *Ports) Tx(port, queue uint16, bufs unsafe.Pointer, n uint16) uint16 {
	if at := p.table.at(port, queue); at != nil {
		if q := at.tx.Load(); q != nil {
			return uint16(q.Burst(unsafe.Slice((**mbuf.Mbuf)(bufs), int(n))))
		}
	}
	return 0
}

// Prepare is rte_eth_tx_prepare; the error is in the upper half of what it returns.
func (p *Ports) Prepare(port, queue uint16, bufs unsafe.Pointer, n uint16) int32 {
	if at := p.table.at(port, queue); at != nil {
		if q := at.tx.Load(); q != nil {
			ready, err := q.Prepare(unsafe.Slice((**mbuf.Mbuf)(bufs), int(n)))
			return int32(ready) | prepareErrno(err)<<16
		}
	}
	noQueue := syscall.ENODEV // a variable: elsewhere than on Linux the constant does not fit
	return int32(noQueue) << 16
}

func prepareErrno(err error) int32 {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, rtap.ErrTxDisabled):
		return int32(syscall.ENOTSUP)
	}
	return int32(syscall.EINVAL)
}

// Waiting says whether the kernel has a packet for the queue: rte_eth_rx_queue_count is 1 then, and else 0.
func (p *Ports) Waiting(port, queue uint16) bool {
	at := p.table.at(port, queue)
	if at == nil {
		return false
	}
	q := at.rx.Load()
	return q != nil && q.Waiting()
}
