// SPDX-License-Identifier: BSD-3-Clause

package forward

import "bytes"

// arpLen is the length of an ARP packet for IPv4 over Ethernet (RFC 826).
const arpLen = 28

// arpForm is the first half of such a packet's fixed part: hardware Ethernet, protocol IPv4, lengths 6 and 4.
var arpForm = []byte{0, 1, 0x08, 0x00, 6, 4}

const (
	arpRequest = 1
	arpReply   = 2
)

// arp answers any request with the port's MAC address, probes and announcements included, as testpmd does.
func (e *icmpEcho) arp(win []byte, l3 int) verdict {
	a := win[l3:]
	if len(a) < arpLen || !bytes.Equal(a[:6], arpForm) {
		return malformed
	}
	target := [4]byte(a[24:28])
	if be.Uint16(a[6:]) != arpRequest || !e.owned.has4(target) {
		return ignored
	}
	be.PutUint16(a[6:], arpReply)
	copy(a[18:28], a[8:18]) // the asker's MAC and IPv4 address become the target's
	copy(a[8:14], e.mac[:])
	copy(a[14:18], target[:])

	copy(win[0:6], win[6:12])
	copy(win[6:12], e.mac[:])
	return answered
}
