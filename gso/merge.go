// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"bytes"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// ipDF is the flag "don't fragment" in the word with the fragment offset.
const ipDF = 0x4000

// continues reports whether the headers in b, of a packet of the same flow, are
// what must follow the frame f, whose headers are h.
func (f *flow) continues(h, b []byte, p *packet) bool {
	if f.p.length != p.length || p.payload > f.p.payload ||
		!bytes.Equal(h[:p.ip], b[:p.ip]) {
		return false
	}
	if p.v6 {
		// Traffic class and flow label, hop limit.
		if be.Uint32(h[p.ip:]) != be.Uint32(b[p.ip:]) || h[p.ip+7] != b[p.ip+7] {
			return false
		}
	} else if !f.continues4(h[p.ip:], b[p.ip:]) {
		return false
	}
	return !p.tcp || f.continuesTCP(h[p.l4:p.length], b[p.l4:p.length])
}

// continues4 is inet_gro_flush in include/net/gro.h.
func (f *flow) continues4(h, b []byte) bool {
	df := be.Uint16(b[6:]) & ipDF
	if h[1] != b[1] || h[8] != b[8] || be.Uint16(h[6:])&ipDF != df { // TOS, TTL
		return false
	}
	step := be.Uint16(b[4:]) - be.Uint16(h[4:])
	if f.count == 1 && df != 0 && step == 0 {
		f.sameID = true
	}
	if f.sameID {
		return step == 0
	}
	return step == uint16(f.count)
}

// continuesTCP is tcp_gro_receive in net/ipv4/tcp_offload.c.
func (f *flow) continuesTCP(h, b []byte) bool {
	const may = tcpFIN | tcpPSH | tcpCWR
	// Header length, flags and window are one word in the kernel.
	return b[13]&tcpCWR == 0 && be.Uint32(b[4:]) == f.seq &&
		(be.Uint32(h[12:])^be.Uint32(b[12:]))&^(may<<16) == 0 &&
		be.Uint32(h[8:]) == be.Uint32(b[8:]) && // ACK
		bytes.Equal(h[tcpLen:], b[tcpLen:])
}

// link makes the payload of m part of the frame.
func (f *flow) link(m *mbuf.Mbuf, p *packet) {
	f.flags |= p.flags & (tcpFIN | tcpPSH)
	m.Adj(p.length)
	f.last.Next = m
	f.last = m.LastSeg()
	f.head.NbSegs += m.NbSegs
	f.head.PktLen += m.PktLen
	m.NbSegs, m.PktLen = 1, uint32(m.DataLen) // no longer the first of a packet
	f.count++
	f.ipLen += p.payload
	f.seq += uint32(p.payload)
}

// ends reports whether nothing may follow p, the last packet.
func (f *flow) ends(p *packet) bool {
	return p.payload < f.p.payload || !p.opens() || !p.tcp && f.count >= maxDatagrams
}

// complete makes the first packet's headers those of the frame.
func (f *flow) complete() {
	if f.count < 2 {
		return
	}
	p, m := &f.p, f.head
	b := m.Bytes()
	ip, l4 := b[p.ip:p.l4], b[p.l4:p.length]
	l4Size := f.ipLen - (p.l4 - p.ip)
	pseudo := header.PseudoSum(ip, p.proto(), l4Size)
	var ask uint64
	if p.v6 {
		be.PutUint16(ip[4:], uint16(l4Size))
		ask = mbuf.TxIPv6
	} else {
		be.PutUint16(ip[2:], uint16(f.ipLen))
		be.PutUint16(ip[10:], header.IPv4Checksum(ip))
		ask = mbuf.TxIPv4
	}
	if p.tcp {
		l4[13] |= f.flags
		be.PutUint16(l4[16:], pseudo)
		ask |= mbuf.TxTCPSeg | mbuf.TxTCPCksum
	} else {
		be.PutUint16(l4[4:], uint16(l4Size))
		be.PutUint16(l4[6:], pseudo)
		ask |= mbuf.TxUDPSeg | mbuf.TxUDPCksum
	}
	f.describe(ask)
}

// describe says of the frame what it is, and asks for its treatment.
func (f *flow) describe(ask uint64) {
	p, m := &f.p, f.head
	m.OlFlags = m.OlFlags&^(mbuf.RxL4CksumMask|mbuf.RxIPCksumMask) | ask
	m.SetLengths(mbuf.Lengths{L2: p.ip, L3: p.l4 - p.ip, L4: p.length - p.l4, TSOSegSize: p.payload})
	m.PacketType = p.packetType()
}

func (p *packet) packetType() uint32 {
	t := uint32(0)
	if p.ip > 0 {
		t = [...]uint32{mbuf.PTypeL2Ether, mbuf.PTypeL2EtherVLAN, mbuf.PTypeL2EtherQinQ}[(p.ip-etherLen)/4]
	}
	if p.v6 {
		t |= mbuf.PTypeL3IPv6
	} else {
		t |= mbuf.PTypeL3IPv4
	}
	if p.tcp {
		return t | mbuf.PTypeL4TCP
	}
	return t | mbuf.PTypeL4UDP
}
