// SPDX-License-Identifier: BSD-3-Clause

package header

import "github.com/rtap-project/rtap/mbuf"

// Where layer 4 is behind an Ethernet header without tags, and an IP header
// without options or extensions.
const (
	ipv4L4 = etherLen + ipv4Len
	ipv6L4 = etherLen + ipv6Len
)

// common is Parse for what nearly all frames are: TCP or UDP, not to a tunnel's
// port, in whole IP packets without tags, options and extension headers. The
// results are 0 for all others, and say nothing about them. A driver parses every
// frame, and this takes a fraction of what going from header to header does.
//
// The results are no Layout, as the compiler keeps no structure of more than four
// fields in registers.
func common(b []byte) (ptype uint32, l3, l4 uint16) {
	if len(b) < ipv4L4+udpLen {
		return 0, 0, 0
	}
	// An array has no bounds left to check.
	h := (*[ipv4L4 + udpLen]byte)(b)
	var proto uint8
	var room int
	// EtherType, version and, of IPv4, the header's length.
	switch v := be.Uint32(h[12:]) >> 8; {
	case v == etherIPv4<<8|0x45 && be.Uint16(h[20:])&0x3fff == 0:
		ptype, l3, proto = mbuf.PTypeL2Ether|mbuf.PTypeL3IPv4, ipv4Len, h[23]
		room = int(be.Uint16(h[16:])) - ipv4Len
		b = b[ipv4L4:]
	case v>>4 == etherIPv6<<4|0x6 && len(b) >= ipv6L4:
		ptype, l3, proto = mbuf.PTypeL2Ether|mbuf.PTypeL3IPv6, ipv6Len, h[20]
		room = int(be.Uint16(h[18:]))
		b = b[ipv6L4:]
	default:
		return 0, 0, 0
	}
	return commonL4(b, ptype, l3, proto, room)
}

// commonL4 is common from layer 4 on, whose header, of type proto, b starts with. The IP packet has room bytes of it.
func commonL4(b []byte, ptype uint32, l3 uint16, proto uint8, room int) (uint32, uint16, uint16) {
	room = min(room, len(b))
	switch {
	case proto == protoTCP && room >= tcpLen:
		if n := int(b[12]>>4) * 4; n >= tcpLen && n <= room {
			return ptype | mbuf.PTypeL4TCP, l3, uint16(n)
		}
	case proto == protoUDP && room >= udpLen:
		if be.Uint16(b[4:]) >= udpLen && !isTunnelPort(be.Uint16(b[2:])) {
			return ptype | mbuf.PTypeL4UDP, l3, udpLen
		}
	}
	return 0, 0, 0
}
