// SPDX-License-Identifier: BSD-3-Clause

package header

import "github.com/rtap-project/rtap/mbuf"

// UDP destination ports of tunnels.
const (
	portVXLAN      = 4789
	portVXLANLinux = 8472 // what Linux used before the number was assigned, and still takes by default
	portGENEVE     = 6081
)

func isTunnelPort(port uint16) bool {
	return port == portVXLAN || port == portVXLANLinux || port == portGENEVE
}

// Lengths in bytes of tunnel headers without their options.
const (
	vxlanLen  = 8
	geneveLen = 8
	greLen    = 4
)

// mayCarry reports whether a tunnel may follow: of UDP, a header is there.
func (h ipHeaders) mayCarry() bool {
	switch h.proto {
	case protoUDP:
		return h.l4 != 0
	case protoGRE, protoIPv4, protoIPv6:
		return true
	}
	return false
}

// parseTunnel stores the headers inside the tunnel in IP packet p, whose own are
// outer and may carry one. The outer layer 2 is left to the caller. It is false, and
// nothing is changed, if there is no tunnel, or no IP packet in it.
func (l *Layout) parseTunnel(p []byte, outer ipHeaders) bool {
	p = p[:min(len(p), IPLength(p))]
	kind, n, typ := encapsulation(p[outer.l3:], outer.proto)
	if kind == 0 {
		return false
	}
	ptype, at := outer.ptype|kind, int(outer.l3)+n
	if outer.proto != protoUDP {
		ptype &^= mbuf.PTypeL4Mask
	}
	if typ == etherEther {
		l2type, l2, next := ethernet(p[at:])
		ptype |= innerL2[l2type&mbuf.PTypeL2Mask]
		at += l2
		typ = next
	}
	return l.carry(p, ptype, outer.l3, at, typ)
}

// carry stores the headers at offset at of IP packet p, which are of EtherType typ and in a tunnel; ptype is what is
// known so far. It is false, and nothing is changed, if they are not IP's.
func (l *Layout) carry(p []byte, ptype uint32, outerL3 uint16, at int, typ uint16) bool {
	inner := network(p[at:], typ)
	if inner.ptype == 0 {
		return false
	}
	l.PacketType, l.OuterL3 = ptype|inner.innerType(), outerL3
	l.L2, l.L3, l.L4 = uint16(at)-outerL3, inner.l3, inner.l4
	return true
}

// InUDPTunnel says what the headers of a frame are that is known to be in a tunnel in UDP, of whatever kind: outer is
// what [ParseOuter] or [ParseOuterIP] says of b, and the inner IP header is at offset ip of b. What is between UDP's header and
// that, the tunnel's header and perhaps an Ethernet header, is part of L2 and not looked at, so the type is
// mbuf.PTypeTunnelGRENAT without an inner layer 2. (DPDK has no type for "some tunnel in UDP"; this is its type for tunnels
// that a driver cannot tell apart. That it is in UDP the layer 4 says.)
//
// The result is outer, and false, if that is not UDP, or if at ip, behind it and in the same packet, there is no IP header.
func InUDPTunnel(b []byte, outer Layout, ip int) (Layout, bool) {
	if outer.PacketType&(mbuf.PTypeL4Mask|mbuf.PTypeTunnelMask) != mbuf.PTypeL4UDP || ip < outer.Headers() || ip > len(b) {
		return outer, false
	}
	p := b[outer.L2:]
	p = p[:min(len(p), IPLength(p))]
	at := ip - int(outer.L2)
	l := Layout{OuterL2: outer.L2}
	if at > len(p) || !l.carry(p, outer.PacketType|mbuf.PTypeTunnelGRENAT, outer.L3, at, etherType(p[at:])) {
		return outer, false
	}
	return l, true
}

// encapsulation reads the tunnel header at the start of p, the payload of an IP
// packet that says true to mayCarry: the kind of tunnel, 0 for none, where in p the
// inner packet starts, and its EtherType, etherEther for a frame.
func encapsulation(p []byte, proto uint16) (kind uint32, n int, typ uint16) {
	switch proto {
	case protoIPv4:
		return mbuf.PTypeTunnelIP, 0, etherIPv4
	case protoIPv6:
		return mbuf.PTypeTunnelIP, 0, etherIPv6
	case protoGRE:
		return gre(p)
	}
	switch be.Uint16(p[2:]) {
	case portVXLAN, portVXLANLinux:
		return vxlan(p)
	case portGENEVE:
		return geneve(p)
	}
	return 0, 0, 0
}

// vxlan reads UDP and VXLAN header (RFC 7348): flags, of which I says that there
// is a network identifier.
func vxlan(p []byte) (uint32, int, uint16) {
	if len(p) < udpLen+vxlanLen || p[udpLen]&0x08 == 0 {
		return 0, 0, 0
	}
	return mbuf.PTypeTunnelVXLAN, udpLen + vxlanLen, etherEther
}

// geneve reads UDP and GENEVE header (RFC 8926): version and length of the
// options in words of 4 bytes, flags, type, network identifier, options.
func geneve(p []byte) (uint32, int, uint16) {
	if len(p) < udpLen+geneveLen || p[udpLen]>>6 != 0 {
		return 0, 0, 0
	}
	n := udpLen + geneveLen + int(p[udpLen]&0x3f)*4
	if len(p) < n {
		return 0, 0, 0
	}
	return mbuf.PTypeTunnelGENEVE, n, be.Uint16(p[udpLen+2:])
}

// gre reads a GRE header (RFC 2784, 2890; RFC 7637 for NVGRE). As in Linux
// (gre_parse_header in net/ipv4/gre_demux.c) neither routing nor another version,
// such as PPTP's, is understood.
func gre(p []byte) (uint32, int, uint16) {
	const (
		checksum, routing, key, sequence = 0x8000, 0x4000, 0x2000, 0x1000
		version                          = 0x0007
	)
	if len(p) < greLen {
		return 0, 0, 0
	}
	flags, typ, n := be.Uint16(p), be.Uint16(p[2:]), greLen
	if flags&(routing|version) != 0 {
		return 0, 0, 0
	}
	for _, f := range [...]uint16{checksum, key, sequence} {
		if flags&f != 0 {
			n += 4
		}
	}
	switch {
	case len(p) < n:
		return 0, 0, 0
	case typ == etherEther:
		return mbuf.PTypeTunnelNVGRE, n, typ
	}
	return mbuf.PTypeTunnelGRE, n, typ
}

// innerL2 is the inner type for each outer one.
var innerL2 = [mbuf.PTypeL2Mask + 1]uint32{
	mbuf.PTypeL2Ether:     mbuf.PTypeInnerL2Ether,
	mbuf.PTypeL2EtherVLAN: mbuf.PTypeInnerL2EtherVLAN,
	mbuf.PTypeL2EtherQinQ: mbuf.PTypeInnerL2EtherQinQ,
}

// innerL3 is the inner type for each outer one.
var innerL3 = [16]uint32{
	mbuf.PTypeL3IPv4 >> 4:    mbuf.PTypeInnerL3IPv4,
	mbuf.PTypeL3IPv4Ext >> 4: mbuf.PTypeInnerL3IPv4Ext,
	mbuf.PTypeL3IPv6 >> 4:    mbuf.PTypeInnerL3IPv6,
	mbuf.PTypeL3IPv6Ext >> 4: mbuf.PTypeInnerL3IPv6Ext,
}

// innerType is the type of these headers inside another packet.
func (h ipHeaders) innerType() uint32 {
	l4 := h.ptype & mbuf.PTypeL4Mask
	if l4 == mbuf.PTypeL4IGMP {
		l4 = mbuf.PTypeL4Nonfrag // there is no inner IGMP
	}
	return innerL3[h.ptype&mbuf.PTypeL3Mask>>4] | l4<<16
}
