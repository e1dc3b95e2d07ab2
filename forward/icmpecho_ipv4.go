// SPDX-License-Identifier: BSD-3-Clause

package forward

import "github.com/rtap-project/rtap/header"

// ICMP (RFC 792).
const (
	protoICMP    = 1
	icmpLen      = 8
	icmpCksum    = 2 // where the checksum is, in ICMPv6 too
	icmpEchoType = 8

	fragmentBits = 0x3fff // more fragments, and the offset (RFC 791)
)

// ipv4 answers an echo request. total is the length of the packet from l3 on, padding included.
//
// The ICMP checksum is changed by what changes in the packet, so that damage to the data, which is not looked
// at, still shows at the other end.
func (e *icmpEcho) ipv4(win []byte, l3, total int) verdict {
	ip, icmp, v := parseIPv4(win[l3:], total)
	if v != answered {
		return v
	}
	if icmp[0] != icmpEchoType || icmp[1] != 0 {
		return ignored
	}
	from, ok := e.source4([4]byte(ip[12:16]), [4]byte(ip[16:20]))
	if !ok {
		return ignored
	}
	turnIPv4(ip, from)
	updateSum(icmp[2:4], []byte{icmpEchoType, 0}, []byte{0, 0})
	icmp[0] = 0
	if be.Uint32(icmp[4:]) == 0 && be.Uint16(icmp[2:]) == 0 {
		// Equation 3 yields 0 where a packet of nothing but zeros needs 0xffff. Both say the same of any
		// other packet, so there is no need to look further than identifier and sequence number.
		be.PutUint16(icmp[2:], 0xffff)
	}
	e.turnEther(win)
	return answered
}

// parseIPv4 checks the header at b and returns it and the ICMP header behind it, with answered.
func parseIPv4(b []byte, total int) (ip, icmp []byte, v verdict) {
	if len(b) < ipv4Len || b[0]>>4 != 4 {
		return nil, nil, malformed
	}
	hlen, tlen := int(b[0]&15)*4, int(be.Uint16(b[2:]))
	if hlen < ipv4Len || hlen > len(b) || tlen < hlen || tlen > total {
		return nil, nil, malformed
	}
	ip = b[:hlen]
	if header.Sum(ip) != 0xffff || be.Uint16(ip[6:])&fragmentBits != 0 || !isHost4(ip[12:16]) {
		return nil, nil, malformed
	}
	if ip[9] != protoICMP {
		return nil, nil, ignored
	}
	if tlen < hlen+icmpLen || len(b) < hlen+icmpLen {
		return nil, nil, malformed
	}
	return ip, b[hlen : hlen+icmpLen], answered
}

// turnIPv4 sends the packet back to its source, from address from.
func turnIPv4(ip []byte, from [4]byte) {
	var old, new [10]byte
	copy(old[:], ip[8:10])
	copy(old[2:], ip[12:20])
	copy(new[:], []byte{defaultTTL, ip[9]})
	copy(new[2:], from[:])
	copy(new[6:], ip[12:16])
	updateSum(ip[10:12], old[:], new[:])
	ip[8] = defaultTTL
	copy(ip[12:20], new[2:])
}

// source4 is the address to answer src from when it asked dst. A group cannot be a source: it is answered from
// the first owned address, or, like testpmd, from a neighbour of the asker's address.
func (e *icmpEcho) source4(src, dst [4]byte) (from [4]byte, ok bool) {
	if isHost4(dst[:]) {
		return dst, e.owned.has4(dst)
	}
	if !e.owned.any {
		return e.owned.first4()
	}
	from = src
	from[3] = src[3]&^3 | 1
	if from == src {
		from[3] ^= 3
	}
	return from, true
}

// isHost4 is true for an address that one host can have: not "this network", multicast, reserved or broadcast.
func isHost4(a []byte) bool { return a[0] != 0 && a[0] < 224 }
