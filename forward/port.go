// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"sync/atomic"

	"github.com/rtap-project/rtap/mbuf"
)

// RxQueue is where a stream receives. Burst fills the front of bufs with received packets, which then belong
// to the caller, and returns how many (rte_eth_rx_burst). One goroutine at a time calls it.
type RxQueue interface {
	Burst(bufs []*mbuf.Mbuf) int
}

// TxQueue is where a stream sends. Burst takes the first n packets of bufs, which then belong to the queue,
// and returns n; the others still belong to the caller (rte_eth_tx_burst). One goroutine at a time calls it.
type TxQueue interface {
	Burst(bufs []*mbuf.Mbuf) int
}

// Port is what the streams need of a port. Its number is its place in the list given to [New].
type Port struct {
	rx  []RxQueue
	tx  []TxQueue
	ip  bool // packets begin with their IP header
	mac atomic.Uint64
}

// NewPort describes a port by its MAC address and its queues. The queues stay the caller's: they must be
// usable until the workers have stopped, and nobody else may call them meanwhile.
//
// The type parameters let lists of concrete queues be passed as they are.
func NewPort[R RxQueue, T TxQueue](mac [6]byte, rx []R, tx []T) *Port {
	p := &Port{rx: make([]RxQueue, len(rx)), tx: make([]TxQueue, len(tx))}
	for i, q := range rx {
		p.rx[i] = q
	}
	for i, q := range tx {
		p.tx[i] = q
	}
	p.SetMAC(mac)
	return p
}

// NewIPPort is [NewPort] for a port whose packets begin with their IP header, such as a TUN: it has no MAC address.
func NewIPPort[R RxQueue, T TxQueue](rx []R, tx []T) *Port {
	p := NewPort([6]byte{}, rx, tx)
	p.ip = true
	return p
}

// etherLen is how long the Ethernet header is.
func (p *Port) etherLen() int {
	if p.ip {
		return 0
	}
	return etherLen
}

// MAC returns the port's address as the streams know it. Any goroutine may call it.
func (p *Port) MAC() [6]byte {
	v := p.mac.Load()
	return [6]byte{byte(v >> 40), byte(v >> 32), byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
}

// SetMAC tells the streams that the port's address has changed; they use it from their next burst on. It
// does not change the interface. Any goroutine may call it, while workers run too.
func (p *Port) SetMAC(mac [6]byte) {
	var v uint64
	for _, b := range mac {
		v = v<<8 | uint64(b)
	}
	p.mac.Store(v)
}
