// SPDX-License-Identifier: BSD-3-Clause

package header

import "github.com/rtap-project/rtap/mbuf"

// ParseIP is [Parse] for a packet that begins with its IP header, as those of a TUN do: the length of layer 2
// is 0, and of a tunnel the outer one, and so is layer 2 in the type.
func ParseIP(b []byte) (l Layout) {
	l.walkIP(b)
	return l
}

// ParseOuterIP is [ParseOuter] for such a packet.
func ParseOuterIP(b []byte) Layout {
	h := network(b, etherType(b))
	return Layout{PacketType: h.ptype, L3: h.l3, L4: h.l4}
}

// ParseIPPacked is [ParsePacked] for such a packet. Where not even the IP header's length fits, both are 0.
func ParseIPPacked(b []byte) (packetType uint32, txOffload uint64) {
	if ptype, l3, l4 := commonIP(b); ptype != 0 {
		return ptype, uint64(l3)<<l3Shift | uint64(l4)<<l4Shift
	}
	var l Layout
	l.walkIP(b)
	if l.fits() {
		return l.PacketType, l.packed()
	}
	if l = ParseOuterIP(b); l.fits() {
		return l.PacketType, l.packed()
	}
	return 0, 0
}

// walkIP is walk for such a packet.
func (l *Layout) walkIP(b []byte) { l.walkFrom(b, 0, 0, etherType(b)) }

// etherType is what an Ethernet header in front of packet b would say: 0 if b is not IP.
func etherType(b []byte) uint16 {
	if len(b) == 0 {
		return 0
	}
	return etherTypes[b[0]>>4]
}

// etherTypes are those of the IP versions.
var etherTypes = [16]uint16{4: etherIPv4, 6: etherIPv6}

// commonIP is common for such a packet.
func commonIP(b []byte) (ptype uint32, l3, l4 uint16) {
	if len(b) < ipv4Len+udpLen {
		return 0, 0, 0
	}
	h := (*[ipv4Len + udpLen]byte)(b)
	switch {
	case h[0] == 0x45 && be.Uint16(h[6:])&0x3fff == 0:
		return commonL4(b[ipv4Len:], mbuf.PTypeL3IPv4, ipv4Len, h[9], int(be.Uint16(h[2:]))-ipv4Len)
	case h[0]>>4 == 6 && len(b) >= ipv6Len:
		return commonL4(b[ipv6Len:], mbuf.PTypeL3IPv6, ipv6Len, h[6], int(be.Uint16(h[4:])))
	}
	return 0, 0, 0
}
