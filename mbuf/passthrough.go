// SPDX-License-Identifier: BSD-3-Clause

package mbuf

// rxSpent are the bits that are no longer true of a packet whose treatment is asked
// for.
const rxSpent = RxL4CksumMask | RxLRO | RxVLANStripped | RxQinQStripped | RxVLAN | RxQinQ | RxOuterL4CksumMask

// PassThrough turns what the driver said of received packets into what it is to do
// when they are sent: a checksum that is not complete is to be completed, a frame
// that was several packets is to be cut again, a stripped VLAN tag is to be
// inserted again. A forwarder that leaves layers 3 and 4 as they are calls it
// between receiving and sending; packets that need nothing are left alone. The
// sending port must have the offloads enabled that are asked for.
//
// The lengths must still be those that the driver stored: whoever changed the
// headers' lengths since corrects them ([Mbuf.SetLengths]). Nothing in the data
// is read.
func PassThrough(bufs []*Mbuf) {
	for _, m := range bufs {
		if m.OlFlags&RxL4CksumMask == RxL4CksumNone || m.OlFlags&(RxLRO|RxVLANStripped|RxQinQStripped) != 0 {
			m.OlFlags = m.OlFlags&^rxSpent | m.txRequest()
		}
	}
}

// txRequest is what has to be asked for so that a received packet goes out as it
// was sent.
func (m *Mbuf) txRequest() uint64 {
	var tx uint64
	if m.OlFlags&RxLRO != 0 || m.OlFlags&RxL4CksumMask == RxL4CksumNone {
		tx = m.l4Request()
	}
	switch {
	case m.OlFlags&RxQinQStripped != 0:
		tx |= TxQinQ
	case m.OlFlags&RxVLANStripped != 0:
		tx |= TxVLAN
	}
	return tx
}

func (m *Mbuf) l4Request() uint64 {
	l3, l4 := m.PacketType&PTypeL3Mask, m.PacketType&PTypeL4Mask
	var tx uint64
	if tunnel := m.PacketType & PTypeTunnelMask; tunnel != 0 {
		tx = tunnelRequest(tunnel, l3)
		if m.OlFlags&RxOuterL4CksumMask == RxOuterL4CksumInvalid {
			tx |= TxOuterUDPCksum
		}
		l3, l4 = innerL3[m.PacketType&PTypeInnerL3Mask>>20], m.PacketType&PTypeInnerL4Mask>>16
	}
	tx |= pick(isIPv6(l3), TxIPv6, TxIPv4)
	seg := m.OlFlags&RxLRO != 0
	switch l4 {
	case PTypeL4TCP:
		return tx | TxTCPCksum | pick(seg, TxTCPSeg, 0)
	case PTypeL4UDP:
		return tx | TxUDPCksum | pick(seg, TxUDPSeg, 0)
	}
	return tx
}

// innerL3 is the outer type for each inner one.
var innerL3 = [16]uint32{
	PTypeInnerL3IPv4 >> 20:    PTypeL3IPv4,
	PTypeInnerL3IPv4Ext >> 20: PTypeL3IPv4Ext,
	PTypeInnerL3IPv6 >> 20:    PTypeL3IPv6,
	PTypeInnerL3IPv6Ext >> 20: PTypeL3IPv6Ext,
}

func isIPv6(l3 uint32) bool { return l3 == PTypeL3IPv6 || l3 == PTypeL3IPv6Ext }

// tunnelRequest names a tunnel whose outer IP header is of type l3.
func tunnelRequest(tunnel, l3 uint32) uint64 {
	tx := pick(isIPv6(l3), TxOuterIPv6, TxOuterIPv4)
	switch tunnel {
	case PTypeTunnelVXLAN:
		return tx | TxTunnelVXLAN
	case PTypeTunnelGENEVE:
		return tx | TxTunnelGENEVE
	case PTypeTunnelGRE, PTypeTunnelNVGRE:
		return tx | TxTunnelGRE
	case PTypeTunnelIP:
		return tx | TxTunnelIPIP
	}
	return tx | TxTunnelUDP
}

func pick(cond bool, a, b uint64) uint64 {
	if cond {
		return a
	}
	return b
}
