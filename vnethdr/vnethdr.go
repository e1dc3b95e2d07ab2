// SPDX-License-Identifier: BSD-3-Clause

// Package vnethdr encodes and decodes the virtio header that goes before every frame of a TAP interface
// with IFF_VNET_HDR, of a packet(7) socket with PACKET_VNET_HDR, and of virtio-net itself: struct
// virtio_net_hdr and its longer forms, of uapi linux/virtio_net.h.
//
// The header says what is left to do for the frame: a checksum to complete ([FlagNeedsCsum]), a large
// frame to cut into packets (GSOType, GSOSize). Which form is in use is agreed upon beforehand
// (TUNSETVNETHDRSZ), and so is the byte order, which is little-endian here (TUNSETVNETLE).
//
// Nothing here allocates, locks or looks at the frame.
package vnethdr

import (
	"encoding/binary"
	"errors"
)

// Sizes of the header in bytes. Each form begins with the one before it.
const (
	Size       = 10 // struct virtio_net_hdr
	SizeV1     = 12 // struct virtio_net_hdr_v1: with NumBuffers
	SizeHash   = 20 // struct virtio_net_hdr_v1_hash: with HashValue and HashReport
	SizeTunnel = 24 // struct virtio_net_hdr_v1_hash_tunnel: with OuterTransport and InnerNetwork; Linux 6.17
)

// Bits of [Header].Flags.
const (
	// FlagNeedsCsum: the checksum is partial. At CsumStart+CsumOffset is the sum of the pseudo-header,
	// not complemented; what belongs there is the complemented sum from CsumStart to the frame's end.
	FlagNeedsCsum uint8 = 1
	// FlagDataValid: the checksums in the frame were found right. A TAP says so and does not listen
	// when it is told.
	FlagDataValid uint8 = 2
	// FlagRSCInfo: CsumStart and CsumOffset count coalesced packets instead. Only between a virtio-net
	// device and its driver.
	FlagRSCInfo uint8 = 4
	// FlagUDPTunnelCsum: the outer UDP header has a checksum too. In the frame is the sum of its
	// pseudo-header.
	FlagUDPTunnelCsum uint8 = 8
)

// Values of [Header].GSOType, and the bits that go with them.
const (
	GSONone  uint8 = 0 // one packet
	GSOTCPv4 uint8 = 1 // to be cut into TCP segments
	GSOUDP   uint8 = 3 // to be cut into IP fragments (UFO)
	GSOTCPv6 uint8 = 4
	GSOUDPL4 uint8 = 5 // to be cut into UDP datagrams, IPv4 or IPv6 (USO); Linux 6.2

	GSOUDPTunnelIPv4 uint8 = 0x20 // what is cut is inside a UDP tunnel over IPv4; Linux 6.17
	GSOUDPTunnelIPv6 uint8 = 0x40 // the same over IPv6
	// GSOECN: only the first TCP segment gets the flag CWR.
	GSOECN uint8 = 0x80

	gsoTunnel = GSOUDPTunnelIPv4 | GSOUDPTunnelIPv6
)

// Header is the longest form. Lengths are in bytes, and places in bytes from the start of the frame.
type Header struct {
	Flags   uint8
	GSOType uint8
	// HdrLen is a hint at how much of the frame had better lie in one piece. The kernel gives
	// whatever does in its own buffer, which may be more or less than the headers.
	HdrLen     uint16
	GSOSize    uint16 // payload of each packet of a large frame, the last perhaps less
	CsumStart  uint16 // where the layer-4 header begins, the inner one in a tunnel
	CsumOffset uint16 // where the checksum is, from CsumStart: 16 for TCP, 6 for UDP

	NumBuffers uint16 // of virtio-net only: a TAP has no use for it

	HashValue  uint32
	HashReport uint16 // which hash that is, or 0

	OuterTransport uint16 // where the tunnel's UDP header begins
	InnerNetwork   uint16 // where the IP header in the tunnel begins
}

// Decode reads the header at the start of b, whose length is one of the sizes; what is beyond is 0. Of
// fewer than [Size] bytes the result is zero.
func Decode(b []byte) (h Header) {
	h.Decode(b)
	return h
}

// Decode is the function of that name for a Header that is there already: faster, because nothing is copied.
func (h *Header) Decode(b []byte) {
	*h = Header{}
	if len(b) < Size {
		return
	}
	v := binary.LittleEndian.Uint64(b)
	h.Flags = uint8(v)
	h.GSOType = uint8(v >> 8)
	h.HdrLen = uint16(v >> 16)
	h.GSOSize = uint16(v >> 32)
	h.CsumStart = uint16(v >> 48)
	h.CsumOffset = binary.LittleEndian.Uint16(b[8:])
	if len(b) >= SizeV1 {
		h.NumBuffers = binary.LittleEndian.Uint16(b[10:])
	}
	if len(b) >= SizeHash {
		h.HashValue = binary.LittleEndian.Uint32(b[12:])
		h.HashReport = binary.LittleEndian.Uint16(b[16:])
	}
	if len(b) >= SizeTunnel {
		h.OuterTransport = binary.LittleEndian.Uint16(b[20:])
		h.InnerNetwork = binary.LittleEndian.Uint16(b[22:])
	}
}

// Encode writes all of b, whose length is one of the sizes; fields that have no place there are left
// out. Fewer than [Size] bytes are left as they are.
func (h *Header) Encode(b []byte) {
	if len(b) < Size {
		return
	}
	binary.LittleEndian.PutUint64(b, uint64(h.Flags)|uint64(h.GSOType)<<8|uint64(h.HdrLen)<<16|
		uint64(h.GSOSize)<<32|uint64(h.CsumStart)<<48)
	binary.LittleEndian.PutUint16(b[8:], h.CsumOffset)
	if len(b) > Size {
		h.encodeRest(b)
	}
}

func (h *Header) encodeRest(b []byte) {
	clear(b[Size:])
	if len(b) >= SizeV1 {
		binary.LittleEndian.PutUint16(b[10:], h.NumBuffers)
	}
	if len(b) >= SizeHash {
		binary.LittleEndian.PutUint32(b[12:], h.HashValue)
		binary.LittleEndian.PutUint16(b[16:], h.HashReport)
	}
	if len(b) >= SizeTunnel {
		binary.LittleEndian.PutUint16(b[20:], h.OuterTransport)
		binary.LittleEndian.PutUint16(b[22:], h.InnerNetwork)
	}
}

// What [Header.Check] finds.
var (
	ErrHdrLen   = errors.New("vnethdr: header length beyond the frame")
	ErrCsum     = errors.New("vnethdr: checksum place beyond the frame or within its first headers")
	ErrGSOType  = errors.New("vnethdr: unknown or contradictory kind of segmentation")
	ErrGSOSize  = errors.New("vnethdr: segment size 0 or 65535")
	ErrGSOCsum  = errors.New("vnethdr: segmentation without the checksum that it needs")
	ErrSegments = errors.New("vnethdr: more than 128 datagrams")
	ErrShort    = errors.New("vnethdr: frame too short for the headers that it is said to have")
	ErrTunnel   = errors.New("vnethdr: places of a tunnel's headers out of order")
)

const (
	etherLen  = 14
	ipv4Len   = 20 // at least
	ipv6Len   = 40
	tcpLen    = 20 // at least
	udpLen    = 8
	tcpOffset = 16 // of the checksum
	udpOffset = 6

	// SegmentsMax is how many datagrams a frame of [GSOUDPL4] may hold: UDP_MAX_SEGMENTS of
	// include/linux/udp.h, which 6.12 to 7.2 have so; it was 64 once.
	SegmentsMax = 128

	gsoByFrags = 0xffff // means something else to the kernel: GSO_BY_FRAGS
)

// Check says whether the header goes with a frame of frameLen bytes, so far as can be said without looking
// at the frame: whether every place is within it, and whether Linux 6.18 would take it
// (virtio_net_hdr_tnl_to_skb in include/linux/virtio_net.h, tun_vnet_hdr_get in drivers/net/tun_vnet.h).
// The error is one of those above. What the kernel ignores is ignored: unknown flags, and the fields
// that the flags and the kind of segmentation make no use of.
//
// Not every kernel draws the same lines. Linux 6.1 has neither [GSOUDPL4] nor tunnels, and takes a CsumStart
// within the first headers; 7.2 looks for the headers of a TCP frame that comes without FlagNeedsCsum.
// With it, none notices that the frame is IPv6 where the header says IPv4, or UDP where it says TCP.
func (h *Header) Check(frameLen int) error {
	if int(h.HdrLen) > frameLen {
		return ErrHdrLen
	}
	if h.GSOType != GSONone {
		return h.checkGSO(frameLen)
	}
	return h.checkCsum(frameLen, ipv4Len, 0)
}

// checkCsum is for a network header of at least netLen bytes and a layer-4 header of at least l4Len. The
// kernel compares CsumStart with the network header alone, as if there were no Ethernet header.
func (h *Header) checkCsum(frameLen, netLen, l4Len int) error {
	if h.Flags&FlagNeedsCsum == 0 {
		return nil
	}
	start, end := int(h.CsumStart), int(h.CsumOffset)+2
	if start < netLen || start+max(end, l4Len) > frameLen {
		return ErrCsum
	}
	return nil
}

func (h *Header) checkGSO(frameLen int) error {
	if h.GSOSize == 0 || h.GSOSize == gsoByFrags {
		return ErrGSOSize
	}
	kind, netLen, l4Len, offset := h.GSOType&^(gsoTunnel|GSOECN), ipv4Len, tcpLen, tcpOffset
	switch kind {
	case GSOTCPv4:
	case GSOTCPv6:
		netLen = ipv6Len
	case GSOUDP, GSOUDPL4:
		l4Len, offset = udpLen, udpOffset
	default:
		return ErrGSOType
	}
	if kind == GSOUDPL4 && h.GSOType&GSOECN != 0 {
		return ErrGSOType
	}
	if err := h.checkCsum(frameLen, netLen, l4Len); err != nil {
		return err
	}
	needed := h.Flags&FlagNeedsCsum != 0
	switch {
	case !needed && (kind == GSOUDPL4 || h.GSOType&gsoTunnel != 0),
		needed && kind != GSOUDP && int(h.CsumOffset) != offset:
		return ErrGSOCsum
	case !needed && frameLen < netLen+l4Len:
		return ErrShort
	case kind == GSOUDPL4 && frameLen-int(h.CsumStart)-udpLen > SegmentsMax*int(h.GSOSize):
		return ErrSegments
	case h.GSOType&gsoTunnel != 0:
		return h.checkTunnel(kind)
	}
	return nil
}

// checkTunnel: the places come in order, with room for each header between them. That of an IPv6 header
// with UDP in it is for whoever sees the frame.
func (h *Header) checkTunnel(kind uint8) error {
	if h.GSOType&gsoTunnel == gsoTunnel || kind == GSOUDP {
		return ErrGSOType
	}
	outerNet, innerNet := ipv4Len, ipv4Len
	if h.GSOType&GSOUDPTunnelIPv6 != 0 {
		outerNet = ipv6Len
	}
	if kind == GSOTCPv6 {
		innerNet = ipv6Len
	}
	if int(h.OuterTransport) < etherLen+outerNet ||
		int(h.InnerNetwork) < int(h.OuterTransport)+udpLen ||
		int(h.CsumStart) < int(h.InnerNetwork)+innerNet {
		return ErrTunnel
	}
	return nil
}
