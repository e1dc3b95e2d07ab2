// SPDX-License-Identifier: BSD-3-Clause

package forward

import "github.com/rtap-project/rtap/mbuf"

// ICMPv6 (RFC 4443), and where IPv6 carries it (RFC 8200).
const (
	protoICMPv6     = 58
	protoIPv6Frag   = 44
	icmp6EchoType   = 128
	icmp6EchoReply  = 129
	icmp6HeaderLen  = 4
	icmp6EchoHdrLen = 8
)

// ipv6 answers an echo request or a neighbour solicitation. Extension headers are not looked through: neither
// comes with any, and a fragment header is refused. total is the length of the packet from l3 on.
func (e *icmpEcho) ipv6(m *mbuf.Mbuf, win []byte, l3, total int) verdict {
	b := win[l3:]
	if len(b) < ipv6Len || b[0]>>4 != 6 {
		return malformed
	}
	plen := int(be.Uint16(b[4:]))
	if ipv6Len+plen > total || b[6] == protoIPv6Frag || b[8] == 0xff {
		return malformed
	}
	if b[6] != protoICMPv6 {
		return ignored
	}
	if plen < icmp6HeaderLen || len(b) < ipv6Len+icmp6HeaderLen {
		return malformed
	}
	switch b[ipv6Len] {
	case icmp6EchoType:
		return e.echo6(win, b, plen)
	case ndSolicit:
		if !e.s.rxPort.ip { // a link without addresses has no neighbours to discover
			return e.solicit(m, win, l3, plen)
		}
	}
	return ignored
}

// echo6 answers an echo request; b is the packet from its IPv6 header on.
func (e *icmpEcho) echo6(win, b []byte, plen int) verdict {
	ip, icmp := b[:ipv6Len], b[ipv6Len:]
	src, dst := [16]byte(ip[8:24]), [16]byte(ip[24:40])
	if plen < icmp6EchoHdrLen || src == [16]byte{} {
		return malformed
	}
	if icmp[1] != 0 {
		return ignored
	}
	from, ok := e.source6(dst)
	if !ok {
		return ignored
	}
	updateSum(icmp[2:4], dst[:], from[:]) // they are in the pseudo-header
	updateSum(icmp[2:4], []byte{icmp6EchoType, 0}, []byte{icmp6EchoReply, 0})
	icmp[0] = icmp6EchoReply
	ip[7] = defaultTTL
	copy(ip[8:24], from[:])
	copy(ip[24:40], src[:])
	e.turnEther(win)
	return answered
}

// source6 is the address to answer from when dst was asked. A group cannot be a source: it is answered from
// the first owned address, or from the link-local one that belongs to the port's MAC address, 0 where it has none.
func (e *icmpEcho) source6(dst [16]byte) (from [16]byte, ok bool) {
	switch {
	case dst == [16]byte{}:
		return dst, false
	case dst[0] != 0xff:
		return dst, e.owned.has6(dst)
	case !e.owned.any:
		return e.owned.first6()
	}
	return linkLocal(e.mac), true
}

// linkLocal is the address that a host with this MAC address gives itself (RFC 4291, appendix A).
func linkLocal(mac [6]byte) [16]byte {
	return [16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff,
		12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}
}
