// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"encoding/binary"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// Prepare makes packets fit to be sent whose flags ask for offloads, and returns
// how many: the first that is not, if any, is bufs[n], and the error says why. It
// stays the caller's, as they all do (rte_eth_tx_prepare).
//
// What it does is what the program may leave undone: a TCP or UDP checksum that
// the kernel is to complete, or to complete in each packet that it cuts, must begin
// as the sum of the pseudo-header, with the length of all that follows. Packets that were
// received so, with mbuf.RxL4CksumNone, are as they should be and need no Prepare.
//
// What it checks is what Burst checks again: that the port has enabled what is asked
// for, that flags and lengths agree with the packet, and that there is something to
// cut. Headers may be spread over segments, except where a checksum must be written.
//
// It is for the goroutine that sends. Nothing is allocated; the error is ErrTxDisabled,
// ErrTxFlags or ErrTxShared.
func (q *TxQueue) Prepare(bufs []*mbuf.Mbuf) (n int, err error) {
	for i, m := range bufs {
		if m == nil {
			return i, ErrTxFlags
		}
		if m.OlFlags&mbuf.TxOffloadMask == 0 {
			continue
		}
		if err := q.prepare(m); err != nil {
			return i, err
		}
	}
	return len(bufs), nil
}

func (q *TxQueue) prepare(m *mbuf.Mbuf) error {
	p, err := q.plan(m)
	if err != nil || p.cksum == 0 {
		return err
	}
	return p.putPseudo(m)
}

// putPseudo begins the layer-4 checksum, unless that is done.
func (p *txPlan) putPseudo(m *mbuf.Mbuf) error {
	proto := byte(protoTCP)
	if p.cksum == udpCksumOffset {
		proto = protoUDP
	}
	start := p.lengths.L4Start()
	at, length := start+p.cksum, int(m.PktLen)-start
	ip := p.headers[p.lengths.IPStart():]
	if n := header.IPLength(ip) - p.lengths.L3; n > 0 && n < length {
		length = n // what follows is padding
	}
	sum := header.PseudoSum(ip, proto, length)
	b := m.Bytes()
	switch {
	case binary.BigEndian.Uint16(p.headers[at:]) == sum:
		return nil
	case at+2 > len(b):
		return ErrTxFlags
	case !m.IsWritable():
		return ErrTxShared
	}
	binary.BigEndian.PutUint16(b[at:], sum)
	return nil
}
