// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"encoding/binary"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// maxHeaders is more than mbuf.Lengths can say.
const maxHeaders = 1536

const (
	protoTCP = 6
	protoUDP = 17

	etherLen = 14
	ipv4Len  = 20
	ipv6Len  = 40
	udpLen   = 8
	tcpLen   = 20
)

// Flags in byte 13 of a TCP header.
const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpPSH = 0x08
	tcpURG = 0x20
	tcpCWR = 0x80
)

var be = binary.BigEndian

// kept are the flags of a frame that hold for its packets too.
const kept = mbuf.RxVLAN | mbuf.RxRSSHash | mbuf.RxVLANStripped | mbuf.RxQinQStripped | mbuf.RxQinQ |
	mbuf.TxVLAN | mbuf.TxQinQ

// plan is what is the same for all packets of a frame. The headers themselves are
// in Segmenter.headers, with zeros wherever a packet has its own value; sums are
// those of what is left.
type plan struct {
	n       int // packets
	seg     int // bytes of payload each, but the last
	payload int // bytes of payload in all
	length  int // bytes of headers

	ip    network
	outer network // of a tunnel
	udp   int     // where the outer UDP header is; 0 without a tunnel

	l4    int  // where the TCP or UDP header is
	tcp   bool // otherwise UDP
	flags byte // TCP
	seq   uint32
	l4Sum uint64 // with the pseudo-header, without the length in it
	// outerSum is the same of the outer UDP header up to l4, and less the inner
	// pseudo-header. The rest of the datagram, checksum included, adds up to the
	// complement of that: local checksum offload, as in Documentation/networking/
	// checksum-offloads.rst. 0: the datagram has no checksum.
	outerSum uint64

	olFlags    uint64
	packetType uint32
	lengths    uint64 // Mbuf.TxOffload
}

// network is an IP header.
type network struct {
	at  int
	v6  bool
	id  uint16 // IPv4
	sum uint64 // IPv4, of the header without length, ID and checksum
}

// prepare makes the plan for m.
func (s *Segmenter) prepare(m *mbuf.Mbuf) error {
	if m == nil || m.OlFlags&large == 0 {
		return ErrNotLarge
	}
	if m.OlFlags&mbuf.RxLRO != 0 && m.OlFlags&mbuf.RxL4CksumMask == mbuf.RxL4CksumBad {
		return ErrMalformed // its packets would get checksums that are right
	}
	p := &s.plan
	*p = plan{}
	have := s.headers[:m.CopyOut(s.headers[:min(maxHeaders, int(m.PktLen))], 0)]
	l, err := p.locate(m, have, s.cfg.IP)
	if err != nil {
		return err
	}
	total := min(int(m.PktLen), dataLen(m))
	if end := p.ip.at + ipLen(have[p.ip.at:], total-p.ip.at); end <= total {
		p.payload = end - p.length
	} else {
		return ErrMalformed
	}
	if p.payload < 0 || !p.size(l.TSOSegSize, s.cfg.SegSize) {
		return ErrMalformed
	}
	p.template(m, have[:p.length])
	return nil
}

// dataLen is how many bytes the segments of m really have.
func dataLen(m *mbuf.Mbuf) int {
	n := 0
	for segs := m.NbSegs; m != nil && segs > 0; segs-- {
		n += len(m.Bytes())
		m = m.Next
	}
	return n
}

// ipLen is the length of the IP packet at b, of which there are n bytes. Frames of
// more than 64 KB, whose headers cannot say how long they are, say 0.
func ipLen(b []byte, n int) int {
	if b[0]>>4 == 4 {
		if l := int(be.Uint16(b[2:])); l != 0 {
			return l
		}
		return n
	}
	if l := int(be.Uint16(b[4:])); l != 0 {
		return l + ipv6Len
	}
	return n
}

// size settles how large the packets are and how many.
func (p *plan) size(frame, config int) bool {
	p.seg = frame
	if p.tcp && config > 0 && (frame == 0 || config < frame) {
		p.seg = config
	}
	// The largest IPv4 packet; an IPv6 packet may be 40 bytes larger.
	p.seg = min(p.seg, 0xffff-(p.length-p.first().at))
	if p.seg <= 0 {
		return false
	}
	p.n = max((p.payload+p.seg-1)/p.seg, 1)
	return true
}

// first is the outermost IP header.
func (p *plan) first() *network {
	if p.udp != 0 {
		return &p.outer
	}
	return &p.ip
}

// locate finds the headers, where the mbuf says or, if it does not say, by looking,
// and checks that they are there. ip says where to look: see [Config].
func (p *plan) locate(m *mbuf.Mbuf, b []byte, ip bool) (mbuf.Lengths, error) {
	l := m.Lengths()
	parse, parseOuter := header.Parse, header.ParseOuter
	if beginsWithIP(l, ip) {
		parse, parseOuter = header.ParseIP, header.ParseOuterIP
	}
	p.packetType = m.PacketType
	switch tunnel := p.packetType&mbuf.PTypeTunnelMask != 0; {
	case l.L3 == 0:
		seg, found := l.TSOSegSize, parse(b)
		l, p.packetType = found.Lengths(), found.PacketType
		l.TSOSegSize = seg
	case l.OuterL3 == 0 && (tunnel || p.packetType == 0):
		p.packetType = parseOuter(b).PacketType
	case l.OuterL3 != 0 && !tunnel:
		found := parse(b)
		if found.IPStart() != l.IPStart() { // a kind that does not show
			found, _ = header.InUDPTunnel(b, parseOuter(b), l.IPStart())
		}
		p.packetType = found.PacketType
	}
	if l.OuterL3 != 0 {
		if !p.isUDPTunnel(m.OlFlags & mbuf.TxTunnelMask) {
			return l, ErrTunnel
		}
		if l.L2 < udpLen || !p.outer.locate(b, l.OuterL2, l.OuterL3, protoUDP) {
			return l, ErrMalformed
		}
		p.udp = l.OuterL2 + l.OuterL3
	}
	proto, ok := protocol(m.OlFlags, b, l.IPStart(), l.L3)
	if !ok || !p.ip.locate(b, l.IPStart(), l.L3, proto) {
		return l, ErrMalformed
	}
	p.l4, p.tcp = l.L4Start(), proto == protoTCP
	if l.L4 = l4Len(b, p.l4, p.tcp); l.L4 == 0 {
		return l, ErrMalformed
	}
	p.length = l.Headers()
	l2 := l
	l2.TSOSegSize = 0
	p.lengths, _ = mbuf.PackLengths(l2)
	return l, nil
}

// beginsWithIP reports whether a frame with these lengths has no layer 2, or, if there are none, what is said otherwise.
func beginsWithIP(l mbuf.Lengths, otherwise bool) bool {
	switch {
	case l.L3 == 0:
		return otherwise
	case l.OuterL3 != 0:
		return l.OuterL2 == 0
	}
	return l.L2 == 0
}

// isUDPTunnel reports whether the tunnel is one whose headers do not change from
// packet to packet but for UDP's, or one in UDP of which no more is known: the same is taken for granted of it, as by
// Linux and by DPDK (RTE_MBUF_F_TX_TUNNEL_UDP).
func (p *plan) isUDPTunnel(flags uint64) bool {
	switch flags {
	case 0:
	case mbuf.TxTunnelVXLAN, mbuf.TxTunnelGENEVE, mbuf.TxTunnelUDP:
		return true
	default:
		return false
	}
	switch p.packetType & mbuf.PTypeTunnelMask {
	case mbuf.PTypeTunnelVXLAN, mbuf.PTypeTunnelGENEVE, mbuf.PTypeTunnelGRENAT:
		return true
	}
	return false
}

// protocol is what is behind the IP header of n bytes at off: what the flags ask
// for or, of a received frame, what the header says.
func protocol(flags uint64, b []byte, off, n int) (proto byte, ok bool) {
	switch {
	case flags&mbuf.TxTCPSeg != 0:
		return protoTCP, flags&mbuf.TxUDPSeg == 0
	case flags&mbuf.TxUDPSeg != 0:
		return protoUDP, true
	case off+n > len(b) || n < ipv4Len:
		return 0, false
	case b[off]>>4 == 4:
		proto = b[off+9]
	case n < ipv6Len:
		return 0, false
	default:
		proto = lastNext(b[off : off+n])
	}
	return proto, proto == protoTCP || proto == protoUDP
}

// lastNext is the next header after the extension headers of the IPv6 header h,
// which end where h ends; 0 if they do not.
func lastNext(h []byte) byte {
	next := h[6]
	for at := ipv6Len; at < len(h); {
		if at+8 > len(h) {
			return 0
		}
		n := (int(h[at+1]) + 1) * 8
		switch next {
		case 0, 43, 60: // hop-by-hop, routing, destination options
		case 51: // authentication header
			n = (int(h[at+1]) + 2) * 4
		default: // a fragment among them
			return 0
		}
		next = h[at]
		if at += n; at > len(h) {
			return 0
		}
	}
	return next
}

// locate checks that there is an IP header of size bytes at off with proto behind
// it, and no fragment.
func (n *network) locate(b []byte, off, size int, proto byte) bool {
	if off != 0 && off < etherLen || size < ipv4Len || off+size > len(b) {
		return false
	}
	n.at = off
	b = b[off : off+size]
	switch b[0] >> 4 {
	case 4:
		n.id = be.Uint16(b[4:])
		return int(b[0]&15)*4 == size && b[9] == proto && be.Uint16(b[6:])&0x3fff == 0
	case 6:
		n.v6 = true
		return size >= ipv6Len && lastNext(b) == proto
	}
	return false
}

// l4Len is the length of the TCP or UDP header at off, or 0.
func l4Len(b []byte, off int, tcp bool) int {
	n := udpLen
	if tcp {
		if off+tcpLen > len(b) {
			return 0
		}
		if n = int(b[off+12]>>4) * 4; n < tcpLen {
			return 0
		}
	}
	if off+n > len(b) {
		return 0
	}
	return n
}

// template takes out of the headers what each packet has of its own, and adds up
// the rest.
func (p *plan) template(m *mbuf.Mbuf, h []byte) {
	l4 := h[p.l4:]
	proto := byte(protoUDP)
	partial := m.OlFlags&(mbuf.TxTCPSeg|mbuf.TxUDPSeg) != 0 ||
		m.OlFlags&mbuf.RxL4CksumMask == mbuf.RxL4CksumNone
	ip := h[p.ip.at:p.l4]
	var check uint16
	if p.tcp {
		proto = protoTCP
		p.seq, p.flags = be.Uint32(l4[4:]), l4[13]
		check = be.Uint16(l4[16:])
		clear(l4[4:8])
		l4[13] = 0
		clear(l4[16:18])
	} else {
		check = be.Uint16(l4[6:])
		clear(l4[4:8])
	}
	pseudo := header.PseudoSum(ip, proto, 0)
	if p.ip.v6 && len(ip) > ipv6Len && partial {
		// A routing header makes the destination in the header another than the one
		// in the sum, which the sender knew.
		pseudo = header.Add(check, ^uint16(p.length-p.l4+p.payload))
	}
	p.l4Sum = uint64(header.Sum(l4)) + uint64(pseudo)
	p.ip.template(h)
	p.olFlags = m.OlFlags&kept | mbuf.RxL4CksumGood
	if !p.ip.v6 {
		p.olFlags |= mbuf.RxIPCksumGood
	}
	if p.udp != 0 {
		p.templateOuter(h, pseudo)
	}
}

// templateOuter does the same for the outer headers of a tunnel, after the inner
// ones are done.
func (p *plan) templateOuter(h []byte, innerPseudo uint16) {
	udp := h[p.udp:p.l4]
	sums := be.Uint16(udp[6:]) != 0
	clear(udp[4:8])
	p.outer.template(h)
	if !sums {
		return
	}
	p.olFlags |= mbuf.RxOuterL4CksumGood
	outerPseudo := header.PseudoSum(h[p.outer.at:p.udp], protoUDP, 0)
	if !p.ip.v6 {
		udp = h[p.udp:p.ip.at] // an IPv4 header, checksum included, adds up to nothing
	}
	p.outerSum = uint64(header.Sum(udp)) + uint64(outerPseudo) + uint64(^innerPseudo)
}

// template zeroes the fields of the header in h that differ from packet to packet.
func (n *network) template(h []byte) {
	b := h[n.at:]
	if n.v6 {
		clear(b[4:6])
		return
	}
	clear(b[2:6])
	clear(b[10:12])
	n.sum = uint64(header.Sum(b[:int(b[0]&15)*4]))
}
