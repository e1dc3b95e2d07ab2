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
// Of a tunnelled packet that is not cut, the outer UDP checksum is completed, because
// the kernel completes only one.
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
	before := m.OlFlags
	outer := before&mbuf.TxOuterUDPCksum != 0 && before&txSeg == 0
	if outer {
		if err := q.allow.check(before); err != nil {
			return err
		}
		m.OlFlags &^= mbuf.TxOuterUDPCksum
	}
	p, err := q.plan(m)
	if err == nil && p.cksum != 0 {
		err = p.putPseudo(m)
	}
	if err == nil && outer {
		err = p.putOuterUDP(m)
	}
	if err != nil {
		m.OlFlags = before
	}
	return err
}

// put writes a checksum field of the packet, unless that is what it holds.
func (p *txPlan) put(m *mbuf.Mbuf, at int, sum uint16) error {
	if binary.BigEndian.Uint16(p.headers[at:]) == sum {
		return nil
	}
	b := m.Bytes()
	switch {
	case at+2 > len(b):
		return ErrTxFlags
	case !m.IsWritable():
		return ErrTxShared
	}
	binary.BigEndian.PutUint16(b[at:], sum)
	binary.BigEndian.PutUint16(p.headers[at:], sum)
	return nil
}

// putPseudo begins the layer-4 checksum.
func (p *txPlan) putPseudo(m *mbuf.Mbuf) error {
	proto := byte(protoTCP)
	if p.cksum == udpCksumOffset {
		proto = protoUDP
	}
	start := p.lengths.L4Start()
	return p.put(m, start+p.cksum, header.PseudoSum(p.headers[p.lengths.IPStart():], proto, int(m.PktLen)-start))
}

// putOuterUDP completes the outer UDP checksum. What is behind the place where the
// inner one begins need not be read: with its checksum completed, its sum is the
// complement of what that began with (local checksum offload, as lco_csum in
// include/linux/skbuff.h).
func (p *txPlan) putOuterUDP(m *mbuf.Mbuf) error {
	ip, udp := p.lengths.OuterL2, p.lengths.OuterL2+p.lengths.OuterL3
	if len(p.headers) < udp+minUDP || p.lengths.L2 < minUDP {
		return ErrTxFlags
	}
	if p.has(mbuf.TxIPCksum) { // it is covered, so it comes first
		at := p.lengths.IPStart()
		if err := p.put(m, at+ipv4CksumOffset, header.IPv4Checksum(p.headers[at:p.lengths.L4Start()])); err != nil {
			return err
		}
	}
	total := int(m.PktLen) - udp
	sum := header.PseudoSum(p.headers[ip:], protoUDP, total)
	if p.cksum != 0 {
		inner := p.lengths.L4Start()
		sum = header.Add(sum, header.Add(header.SumChain(m, udp, inner-udp), ^binary.BigEndian.Uint16(p.headers[inner+p.cksum:])))
	} else {
		sum = header.Add(sum, header.SumChain(m, udp, total))
	}
	// The field itself was summed up too.
	sum = ^header.Add(sum, ^binary.BigEndian.Uint16(p.headers[udp+udpCksumOffset:]))
	if sum == 0 {
		sum = 0xffff
	}
	return p.put(m, udp+udpCksumOffset, sum)
}
