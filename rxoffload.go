// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"encoding/binary"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/vnethdr"
)

// What the kernel says of a packet in its virtio-net header (virtio_net_hdr_from_skb
// in include/linux/virtio_net.h), and what the packet's own headers say, goes into
// the mbuf here.

const (
	etherAddrs = 12 // the two addresses in front of the type or the first tag
	tpidVLAN   = 0x8100
	tpidQinQ   = 0x88a8

	tcpCksumOffset = 16
	udpCksumOffset = 6
)

// inspect fills in what the mbuf of a packet just received says of it. It is false
// for a packet that cannot be described and therefore not be passed on.
func (q *RxQueue) inspect(m *mbuf.Mbuf) bool {
	h := m.Front(q.hdrLen)
	if h == nil {
		return false
	}
	stripped := 0
	if q.offloads&(RxOffloadVLANStrip|RxOffloadQinQStrip) != 0 {
		stripped = q.strip(m)
	}
	b := firstBytes(m, q.peek[:])
	if h[0]|h[1] == 0 { // flags, gso_type
		m.PacketType, m.TxOffload = q.layer2.parsePacked(b)
	} else {
		var hdr vnethdr.Header
		hdr.Decode(h)
		hdr.CsumStart -= uint16(stripped)
		hdr.OuterTransport -= uint16(stripped)
		hdr.InnerNetwork -= uint16(stripped)
		if !q.layer2.describe(m, &hdr, b) {
			return false
		}
	}
	if q.offloads&RxOffloadIPv4Cksum != 0 {
		checkIPv4(m, b)
	}
	return true
}

// firstBytes are a packet's first bytes in one piece, all of its headers among them: in
// its first mbuf, or copied to peek if that is short.
func firstBytes(m *mbuf.Mbuf, peek []byte) []byte {
	b := m.Bytes()
	if m.Next != nil && len(b) < len(peek) {
		b = peek[:m.CopyOut(peek, 0)]
	}
	return b
}

// peekLen is longer than the headers of any packet that can be described.
const peekLen = 512

// strip takes VLAN tags out of the data. What it takes can be put back exactly: the
// tags' types are those that Tx inserts.
func (q *RxQueue) strip(m *mbuf.Mbuf) (bytes int) {
	b := m.Bytes()
	if len(b) < etherAddrs+2*vlanLen+2 {
		return 0
	}
	tpid, tci := binary.BigEndian.Uint16(b[etherAddrs:]), binary.BigEndian.Uint16(b[etherAddrs+2:])
	switch {
	case tpid == tpidVLAN && q.offloads&RxOffloadVLANStrip != 0:
		bytes = vlanLen
		m.VlanTCI = tci
		m.OlFlags |= mbuf.RxVLAN | mbuf.RxVLANStripped
	case tpid == tpidQinQ && q.offloads&RxOffloadQinQStrip != 0 && binary.BigEndian.Uint16(b[etherAddrs+vlanLen:]) == tpidVLAN:
		bytes = 2 * vlanLen
		m.VlanTCIOuter, m.VlanTCI = tci, binary.BigEndian.Uint16(b[etherAddrs+vlanLen+2:])
		m.OlFlags |= mbuf.RxVLAN | mbuf.RxVLANStripped | mbuf.RxQinQ | mbuf.RxQinQStripped
	default:
		return 0
	}
	copy(b[bytes:], b[:etherAddrs])
	m.DataOff += uint16(bytes)
	m.DataLen -= uint16(bytes)
	m.PktLen -= uint32(bytes)
	return bytes
}

// describe fills in what hdr and the packet's headers, which are in b, say.
func (l2 *layer2) describe(m *mbuf.Mbuf, hdr *vnethdr.Header, b []byte) bool {
	l, known := l2.parse(b), true
	switch {
	case hdr.GSOType&tunnelGSO != 0:
		l, known = l2.tunnel(b, hdr, l)
	case hdr.Flags&vnethdr.FlagNeedsCsum != 0:
		l, known = l2.partial(b, hdr, l)
	}
	lengths, fit := l.Pack()
	m.PacketType, m.TxOffload = l.PacketType, lengths
	if !fit {
		m.PacketType, m.TxOffload = l2.parsePacked(b)
	}
	if hdr.GSOType != vnethdr.GSONone {
		return known && fit && describeLRO(m, hdr, l)
	}
	switch {
	case hdr.Flags&vnethdr.FlagNeedsCsum != 0 && known && fit:
		m.OlFlags |= mbuf.RxL4CksumNone
	case hdr.Flags&vnethdr.FlagNeedsCsum != 0:
		// No words for where it is, so that nobody else could complete it.
		return header.CompleteAt(m, int(hdr.CsumStart), int(hdr.CsumOffset))
	case hdr.Flags&vnethdr.FlagDataValid != 0 && fit && cksumOffset(l) != 0:
		m.OlFlags |= mbuf.RxL4CksumGood
	}
	return true
}

// partial finds the header whose checksum is not complete: it is the innermost one,
// or the outer one of what only looks like a tunnel.
func (l2 *layer2) partial(b []byte, hdr *vnethdr.Header, l header.Layout) (header.Layout, bool) {
	if is(hdr, l) {
		return l, true
	}
	outer := l2.parseOuter(b)
	return outer, is(hdr, outer)
}

const tunnelGSO = vnethdr.GSOUDPTunnelIPv4 | vnethdr.GSOUDPTunnelIPv6

// tunnel finds the headers of a large frame in a tunnel in UDP where hdr says that they are. The kind of the tunnel need not
// be known: it is if l, which is what the packet looks like, agrees.
func (l2 *layer2) tunnel(b []byte, hdr *vnethdr.Header, l header.Layout) (header.Layout, bool) {
	outer := l2.parseOuter(b)
	// Of a tag that the kernel kept beside the packet csum_start takes account, the places of the tunnel's headers do
	// not (seen on 6.18).
	tag := outer.L4Start() - int(hdr.OuterTransport)
	if tag != 0 && tag != l2.tag {
		return outer, false
	}
	there, ok := header.InUDPTunnel(b, outer, int(hdr.InnerNetwork)+tag)
	if there.Lengths() == l.Lengths() {
		there = l
	}
	return there, ok && is(hdr, there)
}

// is reports whether hdr speaks of the innermost layer-4 checksum of l.
func is(hdr *vnethdr.Header, l header.Layout) bool {
	return int(hdr.CsumStart) == l.L4Start() && int(hdr.CsumOffset) == cksumOffset(l) && hdr.CsumOffset != 0
}

// cksumOffset is where the checksum is in the innermost layer-4 header of l, 0 if
// that is neither TCP nor UDP.
func cksumOffset(l header.Layout) int {
	switch innerL4(l.PacketType) {
	case mbuf.PTypeL4TCP:
		return tcpCksumOffset
	case mbuf.PTypeL4UDP:
		return udpCksumOffset
	}
	return 0
}

// innerL4 is the type of the innermost layer-4 header, as that of a packet without
// a tunnel.
func innerL4(ptype uint32) uint32 {
	if ptype&mbuf.PTypeTunnelMask != 0 {
		return ptype & mbuf.PTypeInnerL4Mask >> 16
	}
	return ptype & mbuf.PTypeL4Mask
}

// describeLRO is describe for a frame that is several packets in one. Its checksum
// is never complete.
func describeLRO(m *mbuf.Mbuf, hdr *vnethdr.Header, l header.Layout) bool {
	want := mbuf.PTypeL4TCP
	switch hdr.GSOType &^ (vnethdr.GSOECN | tunnelGSO) {
	case vnethdr.GSOTCPv4, vnethdr.GSOTCPv6:
	case vnethdr.GSOUDPL4:
		want = mbuf.PTypeL4UDP
	default:
		return false
	}
	if hdr.Flags&vnethdr.FlagNeedsCsum == 0 || innerL4(l.PacketType) != want || hdr.GSOSize == 0 {
		return false
	}
	tunnel := hdr.GSOType&tunnelGSO != 0
	if tunnel != (l.PacketType&mbuf.PTypeTunnelMask != 0) {
		return false // what is to be cut is not what was recognised
	}
	if tunnel && hdr.Flags&vnethdr.FlagUDPTunnelCsum != 0 {
		m.OlFlags |= mbuf.RxOuterL4CksumInvalid
	}
	lengths := l.Lengths()
	lengths.TSOSegSize = int(hdr.GSOSize)
	m.OlFlags |= mbuf.RxLRO | mbuf.RxL4CksumNone
	return m.SetLengths(lengths)
}

// checkIPv4 looks at the checksum of the IPv4 header, the inner one in a tunnel.
func checkIPv4(m *mbuf.Mbuf, b []byte) {
	l := m.Lengths()
	start, end := l.IPStart(), l.L4Start()
	if l.L3 < minIPv4 || end > len(b) || b[start]>>4 != 4 {
		return
	}
	if header.Sum(b[start:end]) == 0xffff {
		m.OlFlags |= mbuf.RxIPCksumGood
	} else {
		m.OlFlags |= mbuf.RxIPCksumBad
	}
}
