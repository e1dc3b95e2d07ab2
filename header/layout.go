// SPDX-License-Identifier: BSD-3-Clause

package header

import "github.com/rtap-project/rtap/mbuf"

// Layout is what the headers of a frame are: PacketType of mbuf.PType* values,
// and their lengths in bytes with the meaning of mbuf.Lengths. A layer that was
// not recognised is 0 in both, and so is all behind it.
//
// In a tunnel (PacketType has one of mbuf.PTypeTunnelMask) OuterL2 and OuterL3
// are the outer Ethernet and IP headers, L2 is all between them and the inner IP
// header, L3 and L4 are the inner ones. The outer layer 4 is UDP in PacketType
// where the tunnel is in UDP, otherwise 0.
type Layout struct {
	PacketType       uint32
	L2, L3, L4       uint16
	OuterL2, OuterL3 uint16
}

// IPStart is where the IP header is, the inner one in a tunnel, in bytes from the
// start of the frame. It means something if layer 3 was recognised.
func (l Layout) IPStart() int { return int(l.OuterL2) + int(l.OuterL3) + int(l.L2) }

// L4Start is where what follows the IP header is.
func (l Layout) L4Start() int { return l.IPStart() + int(l.L3) }

// Headers is the length of all headers that were recognised.
func (l Layout) Headers() int { return l.L4Start() + int(l.L4) }

// Lengths is the lengths as an mbuf has them, with a TSOSegSize of 0.
func (l Layout) Lengths() mbuf.Lengths {
	return mbuf.Lengths{
		L2: int(l.L2), L3: int(l.L3), L4: int(l.L4),
		OuterL2: int(l.OuterL2), OuterL3: int(l.OuterL3),
	}
}

// Widths and places of the lengths in Mbuf.TxOffload.
const (
	l2Bits, l3Bits, l4Bits = 7, 9, 8

	l3Shift      = l2Bits
	l4Shift      = l3Shift + l3Bits
	outerL3Shift = l4Shift + l4Bits + 16
	outerL2Shift = outerL3Shift + l3Bits
)

// Pack is what Mbuf.TxOffload is for these lengths, with a TSOSegSize of 0:
// mbuf.PackLengths, but small enough to be inlined. It is false when a length does
// not fit, as with long GENEVE options or long chains of IPv6 extension headers.
func (l Layout) Pack() (txOffload uint64, ok bool) {
	if !l.fits() {
		return 0, false
	}
	return l.packed(), true
}

func (l *Layout) fits() bool {
	return (l.L2|l.OuterL2)>>l2Bits|(l.L3|l.OuterL3)>>l3Bits|l.L4>>l4Bits == 0
}

func (l *Layout) packed() uint64 {
	return uint64(l.L2) | uint64(l.L3)<<l3Shift | uint64(l.L4)<<l4Shift |
		uint64(l.OuterL3)<<outerL3Shift | uint64(l.OuterL2)<<outerL2Shift
}
