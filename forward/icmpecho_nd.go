// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"bytes"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// Neighbour discovery (RFC 4861).
const (
	ndSolicit   = 135
	ndAdvertise = 136
	ndLen       = 24 // type, code, checksum, flags, target
	ndOptionLen = 8  // the unit of options, and the length of one with an Ethernet address
	ndHopLimit  = 255

	ndSourceLinkAddr = 1
	ndTargetLinkAddr = 2

	ndSolicited = 0x40
	ndOverride  = 0x20
)

var (
	allNodes      = [16]byte{0: 0xff, 1: 0x02, 15: 1}
	allNodesEther = [6]byte{0x33, 0x33, 5: 1}
	// solicitedNode begins every solicited-node multicast address; three bytes of the target follow.
	solicitedNode = []byte{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff}
)

// solicit answers a neighbour solicitation of plen bytes with an advertisement of the port's MAC address.
//
// A host that has no address yet asks whether the one it wants is taken (RFC 4862, 5.4): who answers for every
// address there is must keep silent then, or no host would ever get one. An owned address is defended.
func (e *icmpEcho) solicit(m *mbuf.Mbuf, win []byte, l3, plen int) verdict {
	b := win[l3:]
	if len(b) < ipv6Len+plen {
		return malformed // longer than the window
	}
	if !validSolicit(b[:ipv6Len], b[ipv6Len:ipv6Len+plen]) {
		return malformed
	}
	src, target := [16]byte(b[8:24]), [16]byte(b[ipv6Len+8:])
	probe := src == [16]byte{}
	if !e.owned.has6(target) || (probe && e.owned.any) {
		return ignored
	}
	return e.advertise(m, win[:l3], src, target, probe)
}

// validSolicit checks what RFC 4861, 7.1.1 asks of a solicitation.
func validSolicit(ip, ns []byte) bool {
	if ip[7] != ndHopLimit || len(ns) < ndLen || len(ns)%ndOptionLen != 0 || ns[1] != 0 || ns[8] == 0xff {
		return false
	}
	if sumICMPv6(ip, ns) != 0xffff {
		return false
	}
	source, ok := ndOptions(ns[ndLen:])
	if !ok {
		return false
	}
	if src := [16]byte(ip[8:24]); src == [16]byte{} {
		return !source && bytes.HasPrefix(ip[24:40], solicitedNode)
	}
	return true
}

// sumICMPv6 is the sum over message b in a packet with header ip, pseudo-header included (RFC 4443, 2.3).
func sumICMPv6(ip, b []byte) uint16 {
	return header.Add(header.PseudoSum(ip, protoICMPv6, len(b)), header.Sum(b))
}

// ndOptions walks the options, a multiple of 8 bytes: whether they are in order, and whether a source link-layer
// address is among them.
func ndOptions(opts []byte) (source, ok bool) {
	for len(opts) > 0 {
		n := int(opts[1]) * ndOptionLen
		if n == 0 || n > len(opts) {
			return false, false
		}
		source = source || opts[0] == ndSourceLinkAddr
		opts = opts[n:]
	}
	return source, true
}

// advertise writes the advertisement over m, which may have been longer or shorter. link is the request's
// Ethernet header with its tags.
func (e *icmpEcho) advertise(m *mbuf.Mbuf, link []byte, src, target [16]byte, probe bool) verdict {
	var out [etherLen + maxTags*vlanLen + ipv6Len + ndLen + ndOptionLen]byte
	l3 := copy(out[:], link)
	dst, flags := src, byte(ndSolicited|ndOverride)
	copy(out[0:6], link[6:12])
	if probe { // the asker has no address to send to
		dst, flags = allNodes, ndOverride
		copy(out[0:6], allNodesEther[:])
	}
	copy(out[6:12], e.mac[:])

	ip, na := out[l3:l3+ipv6Len], out[l3+ipv6Len:l3+ipv6Len+ndLen+ndOptionLen]
	ip[0], ip[6], ip[7] = 6<<4, protoICMPv6, ndHopLimit
	be.PutUint16(ip[4:], uint16(len(na)))
	copy(ip[8:], target[:])
	copy(ip[24:], dst[:])

	na[0], na[4] = ndAdvertise, flags
	copy(na[8:], target[:])
	na[ndLen], na[ndLen+1] = ndTargetLinkAddr, 1
	copy(na[ndLen+2:], e.mac[:])
	be.PutUint16(na[2:], ^sumICMPv6(ip, na))

	n := l3 + ipv6Len + len(na)
	if !resize(m, n) {
		return noRoom
	}
	scatter(m, 0, out[:n])
	return replaced
}
