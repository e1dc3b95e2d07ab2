// SPDX-License-Identifier: BSD-3-Clause

package header

import (
	"encoding/binary"

	"github.com/rtap-project/rtap/mbuf"
)

// Lengths in bytes, and types, of the Ethernet header.
const (
	etherLen = 14
	tagLen   = 4

	etherIPv4  = 0x0800
	etherARP   = 0x0806
	etherVLAN  = 0x8100 // IEEE 802.1Q
	etherQinQ  = 0x88a8 // IEEE 802.1ad
	etherIPv6  = 0x86dd
	etherEther = 0x6558 // transparent Ethernet bridging, in GRE and GENEVE
)

var be = binary.BigEndian

// Parse says what the headers of a frame are, inside a tunnel too: VXLAN (UDP
// ports 4789 and 8472), GENEVE (6081), GRE, NVGRE, IP in IP; one level of them. b
// is the start of the frame, as much of it as is in one piece: headers that do not
// lie in b wholly are not recognised. If there is no IP header inside a tunnel's,
// the result is that of [ParseOuter].
//
// At most two VLAN tags (0x8100, 0x88a8) belong to an Ethernet header. Lengths
// that IP and UDP state may exceed b, not fall short of the headers.
//
// The driver, which wants the result in an mbuf, uses [ParsePacked].
func Parse(b []byte) (l Layout) {
	l.parse(b)
	return l
}

// parse is Parse, which is kept small enough to be inlined: l is then stored once,
// where the caller has it. l is 0 before.
func (l *Layout) parse(b []byte) {
	if ptype, l3, l4 := common(b); ptype != 0 {
		l.PacketType, l.L2, l.L3, l.L4 = ptype, etherLen, l3, l4
		return
	}
	l.walk(b)
}

// ParseOuter says what the headers of a frame are as [Parse] does, without looking
// into tunnels: VXLAN is UDP then, GRE something else behind IP.
func ParseOuter(b []byte) Layout {
	ptype, l2, typ := ethernet(b)
	h := network(b[l2:], typ)
	return Layout{PacketType: ptype | h.ptype, L2: uint16(l2), L3: h.l3, L4: h.l4}
}

// ParsePacked is [Parse] for the fields Mbuf.PacketType and Mbuf.TxOffload, in less
// time. Where a length does not fit into the latter, the result is that of
// [ParseOuter], and if that does not fit either, of the Ethernet header alone.
func ParsePacked(b []byte) (packetType uint32, txOffload uint64) {
	if ptype, l3, l4 := common(b); ptype != 0 {
		return ptype, etherLen | uint64(l3)<<l3Shift | uint64(l4)<<l4Shift
	}
	var l Layout
	l.walk(b)
	if l.fits() {
		return l.PacketType, l.packed()
	}
	if l = ParseOuter(b); l.fits() {
		return l.PacketType, l.packed()
	}
	return l.PacketType & mbuf.PTypeL2Mask, uint64(l.L2)
}

// walk is Parse from header to header, which does for all frames. l is 0 before.
func (l *Layout) walk(b []byte) {
	ptype, l2, typ := ethernet(b)
	l.walkFrom(b, ptype, l2, typ)
}

// walkFrom is walk behind l2 bytes of layer 2, which is of type ptype and says that typ follows.
func (l *Layout) walkFrom(b []byte, ptype uint32, l2 int, typ uint16) {
	h := network(b[l2:], typ)
	if h.mayCarry() && l.parseTunnel(b[l2:], h) {
		l.PacketType |= ptype
		l.OuterL2 = uint16(l2)
		return
	}
	l.PacketType, l.L2, l.L3, l.L4 = ptype|h.ptype, uint16(l2), h.l3, h.l4
}

// ethernet reads the header at the start of b: its type and length with the tags,
// and the type of what follows. A third tag is what follows, as is one that is cut
// short.
func ethernet(b []byte) (ptype uint32, l2 int, typ uint16) {
	if len(b) < etherLen {
		return 0, 0, 0
	}
	switch typ = be.Uint16(b[12:]); typ {
	case etherVLAN, etherQinQ:
		return tagged(b, typ)
	case etherARP:
		return mbuf.PTypeL2EtherARP, etherLen, typ
	}
	return mbuf.PTypeL2Ether, etherLen, typ
}

// tagged is ethernet for a frame whose type is a tag's.
func tagged(b []byte, typ uint16) (uint32, int, uint16) {
	ptype, l2 := mbuf.PTypeL2Ether, etherLen
	for _, with := range [...]uint32{mbuf.PTypeL2EtherVLAN, mbuf.PTypeL2EtherQinQ} {
		if typ != etherVLAN && typ != etherQinQ || len(b) < l2+tagLen {
			break
		}
		ptype, typ = with, be.Uint16(b[l2+2:])
		l2 += tagLen
	}
	return ptype, l2, typ
}
