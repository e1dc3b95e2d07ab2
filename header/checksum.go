// SPDX-License-Identifier: BSD-3-Clause

package header

import "github.com/rtap-project/rtap/mbuf"

// Where checksums are, in bytes from the start of the header.
const (
	ipv4Cksum = 10
	tcpCksum  = 16
	udpCksum  = 6
)

// PseudoSum is the sum, not complemented, of the pseudo-header of an upper layer
// of protocol proto and l4len bytes, header and payload, in the IP packet whose
// header ip starts with. It is what a partial checksum has in its field. The
// destination is taken from the fixed header: a routing header (IPv6) or source
// route (IPv4) that has stops left is not followed. The result is 0 where
// [IPLength] is.
func PseudoSum(ip []byte, proto uint8, l4len int) uint16 {
	s := Add(uint16(l4len>>16), Add(uint16(l4len), uint16(proto)))
	switch {
	case len(ip) >= ipv4Len && ip[0]>>4 == 4:
		return Add(s, Sum(ip[12:20]))
	case len(ip) >= ipv6Len && ip[0]>>4 == 6:
		return Add(s, Sum(ip[8:40]))
	}
	return 0
}

// IPv4Checksum is what belongs into the bytes 10 and 11 of IPv4 header h, options
// included; what they hold does not count. It is 0 for less than 20 bytes.
func IPv4Checksum(h []byte) uint16 {
	if len(h) < ipv4Len {
		return 0
	}
	return ^Add(Sum(h[:ipv4Cksum]), Sum(h[ipv4Cksum+2:]))
}

// CompleteAt completes a partial checksum as virtio's VIRTIO_NET_HDR_F_NEEDS_CSUM
// asks for: the sum of all from offset start of the packet to its end,
// complemented, goes into the two bytes at start+offset, which hold the sum of the
// pseudo-header until then. A checksum of 0 is stored as 0xffff, as Linux does
// (skb_checksum_help). It is false, and nothing is changed, when there are no such
// bytes. The caller owns m, and its data.
func CompleteAt(m *mbuf.Mbuf, start, offset int) bool {
	return completeN(m, start, int(m.PktLen)-start, offset)
}

// completeN is CompleteAt for a checksum of n bytes, or of those that there are.
func completeN(m *mbuf.Mbuf, start, n, offset int) bool {
	if start < 0 || offset < 0 || offset > n-2 {
		return false
	}
	sum := ^SumChain(m, start, n)
	if sum == 0 {
		sum = 0xffff
	}
	return put16(m, start+offset, sum)
}

// put16 stores v at offset off of the packet. It is false, and nothing is changed,
// when that is beyond its end.
func put16(m *mbuf.Mbuf, off int, v uint16) bool {
	hi, i := at(m, off)
	lo, j := at(hi, i+1)
	if lo == nil {
		return false
	}
	hi.Bytes()[i], lo.Bytes()[j] = byte(v>>8), byte(v)
	return true
}

// at finds the byte at offset off of the packet: its segment, nil if there is none,
// and the offset in there.
func at(m *mbuf.Mbuf, off int) (*mbuf.Mbuf, int) {
	for ; m != nil; m = m.Next {
		n := len(m.Bytes())
		if off < n {
			break
		}
		off -= n
	}
	return m, off
}

// Complete completes the layer-4 checksum of a received packet whose flags say
// that it is not in there (mbuf.RxL4CksumNone), the inner one in a tunnel, and
// then marks it mbuf.RxL4CksumGood. It does the same with a tunnel's outer UDP
// checksum (mbuf.RxOuterL4CksumInvalid). It goes by PacketType and the lengths that
// the driver stored, and by the length in the IP header: padding is left out. Other
// packets need nothing: the result is true.
//
// It is false when the packet is not what its type and lengths say, or not TCP or
// UDP: the checksum and its flags are as they were then. The caller owns m, and its
// data.
//
// What an mbuf.RxLRO packet gets is the checksum of the large packet. The partial
// one must be back before it is sent to be cut.
func Complete(m *mbuf.Mbuf) bool {
	if m.OlFlags&mbuf.RxL4CksumMask == mbuf.RxL4CksumNone {
		l := m.Lengths()
		if !completeL4(m, l.IPStart(), l.L3, innermost(m.PacketType)) {
			return false
		}
		m.OlFlags = m.OlFlags&^mbuf.RxL4CksumMask | mbuf.RxL4CksumGood
	}
	if m.OlFlags&mbuf.RxOuterL4CksumMask == mbuf.RxOuterL4CksumInvalid {
		return completeOuter(m)
	}
	return true
}

// completeOuter does the outer UDP checksum. The inner one counts in it, and is
// complete.
func completeOuter(m *mbuf.Mbuf) bool {
	l := m.Lengths()
	udp := m.PacketType&mbuf.PTypeTunnelMask != 0 && m.PacketType&mbuf.PTypeL4Mask == mbuf.PTypeL4UDP
	if !udp || !completeL4(m, l.OuterL2, l.OuterL3, mbuf.PTypeL4UDP) {
		return false
	}
	m.OlFlags = m.OlFlags&^mbuf.RxOuterL4CksumMask | mbuf.RxOuterL4CksumGood
	return true
}

// completeL4 completes the checksum in the header of type l4 behind an IP header
// of l3 bytes at offset start of the packet.
func completeL4(m *mbuf.Mbuf, start, l3 int, l4 uint32) bool {
	field := cksumField(l4)
	_, length := ipAt(m, start)
	if field == 0 || l3 < ipv4Len {
		return false
	}
	return completeN(m, start+l3, length-l3, field)
}

// innermost is the layer 4 of a packet type, the inner one in a tunnel, as one of
// mbuf.PTypeL4Mask.
func innermost(ptype uint32) uint32 {
	if ptype&mbuf.PTypeTunnelMask != 0 {
		ptype >>= 16
	}
	return ptype & mbuf.PTypeL4Mask
}

// cksumField is where the checksum is in a header of type l4, 0 if nowhere.
func cksumField(l4 uint32) int {
	switch l4 {
	case mbuf.PTypeL4TCP:
		return tcpCksum
	case mbuf.PTypeL4UDP:
		return udpCksum
	}
	return 0
}

// ipAt reads the IP header at offset off of the packet, and [IPLength] from it.
func ipAt(m *mbuf.Mbuf, off int) (ip [ipv6Len]byte, length int) {
	n := m.CopyOut(ip[:], off)
	return ip, IPLength(ip[:n])
}

// VerifyL4 reports whether the TCP or UDP checksum of packet m is right, the inner
// one in a tunnel. l is what [Parse] made of it. With IPv4 a UDP checksum of 0 is
// right: the sender made none. It is false when there is neither TCP nor UDP, or
// less of the packet than its headers state.
func VerifyL4(m *mbuf.Mbuf, l Layout) bool {
	ip, length := ipAt(m, l.IPStart())
	start, n := l.L4Start(), length-int(l.L3)
	if n < int(l.L4) || start+n > int(m.PktLen) {
		return false
	}
	switch innermost(l.PacketType) {
	case mbuf.PTypeL4TCP:
		return Add(PseudoSum(ip[:], protoTCP, n), SumChain(m, start, n)) == 0xffff
	case mbuf.PTypeL4UDP:
		return verifyUDP(m, ip[:], start, n)
	}
	return false
}

// verifyUDP is VerifyL4 of a UDP header at offset start of the packet, in n bytes of
// payload of the IP packet whose header is ip.
func verifyUDP(m *mbuf.Mbuf, ip []byte, start, n int) bool {
	var h [udpLen]byte
	m.CopyOut(h[:], start)
	if be.Uint16(h[udpCksum:]) == 0 {
		return ip[0]>>4 == 4
	}
	length := int(be.Uint16(h[4:]))
	if length < udpLen || length > n {
		return false
	}
	return Add(PseudoSum(ip, protoUDP, length), SumChain(m, start, length)) == 0xffff
}
