// SPDX-License-Identifier: BSD-3-Clause

package mbuf

// Bits of Mbuf.OlFlags that a driver sets on receiving, with DPDK's values
// (RTE_MBUF_F_RX_*).
const (
	RxVLAN         uint64 = 1 << 0 // VlanTCI is valid
	RxRSSHash      uint64 = 1 << 1 // Hash[0] is valid
	RxL4CksumBad   uint64 = 1 << 3
	RxIPCksumBad   uint64 = 1 << 4
	RxVLANStripped uint64 = 1 << 6 // the tag in VlanTCI is not in the data any more
	RxIPCksumGood  uint64 = 1 << 7
	RxL4CksumGood  uint64 = 1 << 8
	// RxQinQStripped: two tags are not in the data any more; the inner one is in
	// VlanTCI, the outer one in VlanTCIOuter. With RxVLAN, RxVLANStripped and RxQinQ.
	RxQinQStripped uint64 = 1 << 15
	// RxLRO: the packet is several of one flow in one, each with TSOSegSize bytes of
	// payload, the last perhaps with less.
	RxLRO              uint64 = 1 << 16
	RxQinQ             uint64 = 1 << 20 // VlanTCIOuter is valid
	RxOuterL4CksumBad  uint64 = 1 << 21
	RxOuterL4CksumGood uint64 = 1 << 22

	// RxL4CksumNone: the layer-4 checksum is not in the packet, only the sum of the
	// pseudo-header, but the data is what was sent. Whoever passes the packet on
	// completes it (header.Complete) or has it completed ([PassThrough]).
	RxL4CksumNone = RxL4CksumBad | RxL4CksumGood
	RxL4CksumMask = RxL4CksumNone // 0: nobody looked
	RxIPCksumMask = RxIPCksumBad | RxIPCksumGood

	// RxOuterL4CksumInvalid: likewise of the outer UDP header of a tunnel.
	RxOuterL4CksumInvalid = RxOuterL4CksumBad | RxOuterL4CksumGood
	RxOuterL4CksumMask    = RxOuterL4CksumInvalid
)

// Bits of Mbuf.OlFlags that ask for something on sending, with DPDK's values
// (RTE_MBUF_F_TX_*). They go with the lengths of the headers; see [Lengths].
const (
	TxOuterUDPCksum uint64 = 1 << 41
	// TxUDPSeg asks for packets with TSOSegSize bytes of payload each; with TxUDPCksum.
	TxUDPSeg uint64 = 1 << 42

	TxTunnelVXLAN  uint64 = 0x1 << 45
	TxTunnelGRE    uint64 = 0x2 << 45
	TxTunnelIPIP   uint64 = 0x3 << 45
	TxTunnelGENEVE uint64 = 0x4 << 45
	TxTunnelIP     uint64 = 0xD << 45
	TxTunnelUDP    uint64 = 0xE << 45
	TxTunnelMask   uint64 = 0xF << 45

	TxQinQ uint64 = 1 << 49 // insert VlanTCIOuter (0x88a8) and VlanTCI (0x8100)
	// TxTCPSeg asks for packets with TSOSegSize bytes of payload each. It implies TxTCPCksum.
	TxTCPSeg uint64 = 1 << 50

	TxTCPCksum  uint64 = 1 << 52
	TxSCTPCksum uint64 = 2 << 52
	TxUDPCksum  uint64 = 3 << 52
	TxL4Mask    uint64 = 3 << 52 // one of these, or 0

	TxIPCksum      uint64 = 1 << 54 // the IPv4 header's; of the inner one in a tunnel
	TxIPv4         uint64 = 1 << 55 // what the headers are; the inner ones in a tunnel
	TxIPv6         uint64 = 1 << 56
	TxVLAN         uint64 = 1 << 57 // insert VlanTCI (0x8100)
	TxOuterIPCksum uint64 = 1 << 58
	TxOuterIPv4    uint64 = 1 << 59
	TxOuterIPv6    uint64 = 1 << 60

	// TxOffloadMask is every bit that asks for something (RTE_MBUF_F_TX_OFFLOAD_MASK,
	// of what is listed here).
	TxOffloadMask = TxOuterUDPCksum | TxUDPSeg | TxTunnelMask | TxQinQ | TxTCPSeg | TxL4Mask | TxIPCksum |
		TxIPv4 | TxIPv6 | TxVLAN | TxOuterIPCksum | TxOuterIPv4 | TxOuterIPv6
)

// Lengths are the header lengths in bytes and the segment size that
// Mbuf.TxOffload holds (struct rte_mbuf, tx_offload). A driver fills them in on
// receiving, as far as it recognised the packet; on sending they say where the
// headers are that the flags speak of.
//
// Of a packet in a tunnel, OuterL2 and OuterL3 are those of the outer Ethernet and
// IP headers, and L2 is everything from there up to the inner IP header: the outer
// UDP header, the tunnel's, the inner Ethernet header. Otherwise OuterL2 and
// OuterL3 are 0.
type Lengths struct {
	L2, L3, L4       int // at most 127, 511, 255
	OuterL2, OuterL3 int // at most 127, 511
	TSOSegSize       int // payload of each packet, at most 65535
}

// Widths and places in TxOffload, those of little-endian machines.
const (
	l2Bits, l3Bits, l4Bits, segBits = 7, 9, 8, 16

	l3Shift      = l2Bits
	l4Shift      = l3Shift + l3Bits
	segShift     = l4Shift + l4Bits
	outerL3Shift = segShift + segBits
	outerL2Shift = outerL3Shift + l3Bits
)

// PackLengths is what TxOffload is for l. It is false when a length does not fit.
func PackLengths(l Lengths) (v uint64, ok bool) {
	if uint(l.L2)>>l2Bits|uint(l.L3)>>l3Bits|uint(l.L4)>>l4Bits|uint(l.TSOSegSize)>>segBits|
		uint(l.OuterL3)>>l3Bits|uint(l.OuterL2)>>l2Bits != 0 {
		return 0, false
	}
	return uint64(l.L2) | uint64(l.L3)<<l3Shift | uint64(l.L4)<<l4Shift | uint64(l.TSOSegSize)<<segShift |
		uint64(l.OuterL3)<<outerL3Shift | uint64(l.OuterL2)<<outerL2Shift, true
}

// SetLengths stores l in TxOffload. It is false, and nothing is changed, when a
// length does not fit.
func (m *Mbuf) SetLengths(l Lengths) bool {
	v, ok := PackLengths(l)
	if ok {
		m.TxOffload = v
	}
	return ok
}

// Lengths reads TxOffload.
func (m *Mbuf) Lengths() Lengths {
	field := func(shift, bits uint) int { return int(m.TxOffload >> shift & (1<<bits - 1)) }
	return Lengths{
		L2: field(0, l2Bits), L3: field(l3Shift, l3Bits), L4: field(l4Shift, l4Bits),
		OuterL2: field(outerL2Shift, l2Bits), OuterL3: field(outerL3Shift, l3Bits),
		TSOSegSize: field(segShift, segBits),
	}
}

// IPStart is where the IP header is that the flags speak of, in bytes from the
// start of the packet: the inner one in a tunnel.
func (l Lengths) IPStart() int { return l.OuterL2 + l.OuterL3 + l.L2 }

// L4Start is where the layer-4 header behind it is.
func (l Lengths) L4Start() int { return l.IPStart() + l.L3 }

// Headers is the length of all headers.
func (l Lengths) Headers() int { return l.L4Start() + l.L4 }
