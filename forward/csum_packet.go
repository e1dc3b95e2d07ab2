// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// software is for packets whose lengths do not fit into an mbuf: nothing can be asked for.
var software CsumConfig

// csumPacket is a packet on its way through mode csum.
type csumPacket struct {
	m   *mbuf.Mbuf
	rx  uint64 // the flags it was received with
	win []byte // its first bytes, to read: where they are, or a copy
	c   *CsumConfig
	ip  bool // it begins with its IP header

	l  header.Layout
	l4 uint32 // PTypeL4TCP, UDP or SCTP, of the inner packet in a tunnel; 0: none whose checksum can be told
	n  int    // length of what that covers, in bytes
	// whole: it covers everything up to the packet's end. A driver that completes a checksum goes so far.
	whole bool

	tx      uint64 // what the driver is asked for
	seg     int    // bytes of payload that each packet has which this one is to be cut into; 0: not to be cut
	partial uint16 // the pseudo-header's sum, if the driver is to complete the layer-4 checksum
}

func (p *csumPacket) inTunnel() bool { return p.l.PacketType&mbuf.PTypeTunnelMask != 0 }

// l4Open: the layer-4 checksum is for the sender to complete.
func (p *csumPacket) l4Open() bool {
	return p.rx&mbuf.RxLRO != 0 || p.rx&mbuf.RxL4CksumMask == mbuf.RxL4CksumNone
}

func (p *csumPacket) outerOpen() bool {
	return p.rx&mbuf.RxOuterL4CksumMask == mbuf.RxOuterL4CksumInvalid
}

// parse finds out what the packet is. It is false if that contradicts what the driver said so that the packet
// cannot be sent right.
func (p *csumPacket) parse() bool {
	open := p.l4Open() || p.outerOpen()
	deep := p.c.ParseTunnel
	if open {
		deep = p.m.PacketType&mbuf.PTypeTunnelMask != 0 // the driver knows which checksum it means
	}
	parse, parseOuter := header.Parse, header.ParseOuter
	if p.ip {
		parse, parseOuter = header.ParseIP, header.ParseOuterIP
	}
	if deep {
		p.l = parse(p.win)
		if said := p.m.Lengths(); open && said.OuterL3 != 0 && said.IPStart() != p.l.IPStart() {
			var ok bool // a kind that does not show
			if p.l, ok = header.InUDPTunnel(p.win, parseOuter(p.win), said.IPStart()); !ok {
				return false
			}
		}
	}
	if !deep || !open && (!p.measure() || p.sealed()) {
		p.l = parseOuter(p.win)
	}
	if !p.measure() {
		p.onlyEther()
	}
	if _, fits := p.l.Pack(); !fits {
		p.c = &software
	}
	return (p.l4 != 0 || !p.l4Open()) && (p.udpTunnel() || !p.outerOpen())
}

// onlyEther forgets all but the Ethernet header.
func (p *csumPacket) onlyEther() {
	l2 := p.l.L2
	if p.inTunnel() {
		l2 = p.l.OuterL2
	}
	p.l, p.l4 = header.Layout{PacketType: p.l.PacketType & mbuf.PTypeL2Mask, L2: l2}, 0
}

// sealed: a GRE header with a checksum of its own covers what is inside. It is left as it is.
func (p *csumPacket) sealed() bool {
	switch p.l.PacketType & mbuf.PTypeTunnelMask {
	case mbuf.PTypeTunnelGRE, mbuf.PTypeTunnelNVGRE:
		return p.win[p.outerL4()]&0x80 != 0
	}
	return false
}

// udpTunnel: the packet is in a tunnel in UDP.
func (p *csumPacket) udpTunnel() bool {
	return p.inTunnel() && p.l.PacketType&mbuf.PTypeL4Mask == mbuf.PTypeL4UDP
}

func (p *csumPacket) outerL4() int { return int(p.l.OuterL2) + int(p.l.OuterL3) }

// measure sets l4, n and whole. It is false when there is no IP header or what a header states is longer than what
// it is in.
func (p *csumPacket) measure() bool {
	p.l4, p.n, p.whole = 0, 0, false
	limit, ok := int(p.m.PktLen), p.l.L3 != 0
	if ok && p.inTunnel() {
		limit, ok = p.outerEnd(limit)
	}
	if !ok {
		return false
	}
	ip, start := p.l.IPStart(), p.l.L4Start()
	end := ip + header.IPLength(p.win[ip:])
	if end > limit {
		return false
	}
	p.l4, p.n = p.covered(start, end-start)
	p.whole = start+p.n == int(p.m.PktLen)
	return true
}

// outerEnd is where the payload of a tunnel ends, within limit.
func (p *csumPacket) outerEnd(limit int) (end int, ok bool) {
	ip, l4 := int(p.l.OuterL2), p.outerL4()
	end = ip + header.IPLength(p.win[ip:])
	if end > limit || !p.udpTunnel() {
		return end, end <= limit
	}
	limit, end = end, l4+int(be.Uint16(p.win[l4+4:]))
	return end, end <= limit && !routed(p.win[ip:l4])
}

// covered is the type of the layer-4 header at start and the length of what its checksum covers, n bytes being
// there.
func (p *csumPacket) covered(start, n int) (uint32, int) {
	l4 := p.l.PacketType & mbuf.PTypeL4Mask
	if p.inTunnel() {
		l4 = p.l.PacketType & mbuf.PTypeInnerL4Mask >> 16
	}
	switch l4 {
	case mbuf.PTypeL4SCTP:
		return l4, n
	case mbuf.PTypeL4UDP:
		stated := int(be.Uint16(p.win[start+4:]))
		if stated > n {
			return 0, 0
		}
		n = stated
	case mbuf.PTypeL4TCP:
	default:
		return 0, 0
	}
	if routed(p.win[p.l.IPStart():start]) {
		return 0, 0
	}
	return l4, n
}

// cut decides whether the packet is to be cut by the driver. It is false if it must be and cannot.
func (p *csumPacket) cut() bool {
	lro := p.rx&mbuf.RxLRO != 0
	seg, limit := 0, p.c.TSOSegSize
	if p.inTunnel() {
		limit = p.c.TunnelTSOSegSize
	}
	if lro {
		seg = p.m.Lengths().TSOSegSize
	}
	if p.l4 == mbuf.PTypeL4TCP && limit > 0 && (!lro || limit < seg) {
		seg = limit
	}
	switch {
	case seg > 0 && p.n-int(p.l.L4) <= seg: // there is only one packet's worth
		return true
	case seg > 0 && p.cuttable():
		p.seg = seg
		return true
	}
	return !lro
}

// cuttable: the driver can cut it.
func (p *csumPacket) cuttable() bool {
	can := p.whole
	switch p.l4 {
	case mbuf.PTypeL4TCP:
		can = can && p.c.TCPSeg
	case mbuf.PTypeL4UDP:
		can = can && p.c.UDPSeg
	default:
		return false
	}
	if !p.inTunnel() {
		return can
	}
	can = can && p.c.TunnelSeg && p.udpTunnel()
	// The outer UDP checksum of each part can be left out in IPv4 only.
	return can && (p.c.OuterUDP || p.win[p.l.OuterL2]>>4 == 4 || be.Uint16(p.win[p.outerL4()+udpCksum:]) == 0)
}

// routed reports whether an IP header, with its options or extension headers, names further stops: the last of
// them, not the destination in the fixed header, is then the one in the pseudo-header.
func routed(ip []byte) bool {
	if ip[0]>>4 == 4 {
		return sourceRouted(ip[ipv4Len:])
	}
	const routing, fragment, authentication = 43, 44, 51
	typ, x := ip[6], ip[ipv6Len:]
	for len(x) >= 8 {
		n := (int(x[1]) + 1) * 8
		switch typ {
		case routing:
			return x[3] != 0
		case fragment:
			n = 8
		case authentication:
			n = (int(x[1]) + 2) * 4
		}
		typ, x = x[0], x[min(n, len(x)):]
	}
	return false
}

// sourceRouted looks for a loose or strict source route with stops left among IPv4 options (RFC 791).
func sourceRouted(opts []byte) bool {
	const end, nop, loose, strict = 0, 1, 131, 137
	for len(opts) >= 3 {
		switch opts[0] {
		case end:
			return false
		case nop:
			opts = opts[1:]
			continue
		case loose, strict:
			return opts[2] <= opts[1]
		}
		if opts[1] < 2 {
			return false
		}
		opts = opts[min(int(opts[1]), len(opts)):]
	}
	return false
}
