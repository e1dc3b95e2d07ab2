// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"bytes"
	"encoding/binary"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// packet is where things are in a TCP or UDP packet.
type packet struct {
	ip, l4  int // offsets
	length  int // bytes of headers
	payload int // bytes
	size    int // of the frame, by the IP header
	v6, tcp bool
	flags   byte // TCP
}

// kind is what the Coalescer has to do with a packet.
type kind uint8

const (
	// other: neither TCP nor UDP.
	other kind = iota
	// unclear: of which flow cannot be told, or not without more work. It must not be
	// overtaken by any.
	unclear
	// flowing: TCP or UDP, of the flow that the headers say.
	flowing
)

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	etherVLAN = 0x8100
	etherQinQ = 0x88a8
)

// parse finds the headers in the first segment b of a packet, which begins with that of IP or of Ethernet.
func (p *packet) parse(b []byte, ip bool) kind {
	if ip {
		return p.parseIP(b)
	}
	return p.parseEther(b)
}

func (p *packet) parseIP(b []byte) kind {
	switch {
	case len(b) == 0:
		return unclear
	case b[0]>>4 == 4:
		return p.parse4(b)
	case b[0]>>4 == 6:
		return p.parse6(b)
	}
	return other
}

func (p *packet) parseEther(b []byte) kind {
	at := 12
	if len(b) < at+2 { // cut into pieces in its headers
		return unclear
	}
	typ := be.Uint16(b[at:])
	for tags := 0; typ == etherVLAN || typ == etherQinQ; tags++ {
		if at += 4; tags == 2 || len(b) < at+2 {
			return unclear
		}
		typ = be.Uint16(b[at:])
	}
	p.ip = at + 2
	switch typ {
	case etherIPv4:
		return p.parse4(b[p.ip:])
	case etherIPv6:
		return p.parse6(b[p.ip:])
	}
	return other
}

func (p *packet) parse4(b []byte) kind {
	if len(b) < ipv4Len {
		return unclear
	}
	proto := b[9]
	if proto != protoTCP && proto != protoUDP {
		return other
	}
	if b[0] != 0x45 || be.Uint16(b[6:])&0x3fff != 0 { // options; a fragment
		return unclear
	}
	p.l4 = p.ip + ipv4Len
	p.size = p.ip + int(be.Uint16(b[2:]))
	return p.parseL4(b[ipv4Len:], proto)
}

func (p *packet) parse6(b []byte) kind {
	if len(b) < ipv6Len || b[0]>>4 != 6 {
		return unclear
	}
	proto := b[6]
	switch proto {
	case protoTCP, protoUDP:
	case 0, 43, 44, 51, 60: // extension headers; what is behind them does not matter
		return unclear
	default:
		return other
	}
	p.v6 = true
	p.l4 = p.ip + ipv6Len
	p.size = p.l4 + int(be.Uint16(b[4:]))
	return p.parseL4(b[ipv6Len:], proto)
}

func (p *packet) parseL4(b []byte, proto byte) kind {
	p.length = p.l4 + udpLen
	if len(b) < udpLen {
		return unclear
	}
	if p.tcp = proto == protoTCP; p.tcp {
		if len(b) < tcpLen {
			return unclear
		}
		p.flags = b[13]
		p.length = p.l4 + int(b[12]>>4)*4
	}
	p.payload = p.size - p.length
	return flowing
}

func (p *packet) proto() byte {
	if p.tcp {
		return protoTCP
	}
	return protoUDP
}

// hash mixes addresses and ports.
func (p *packet) hash(b []byte) uint32 {
	const k1, k2 = 0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f // odd, of no pattern
	le := binary.LittleEndian
	ports := uint64(le.Uint32(b[p.l4:]))
	var h uint64
	if p.v6 {
		a := b[p.ip+8 : p.ip+40]
		h = (le.Uint64(a)^le.Uint64(a[16:]))*k1 ^ (le.Uint64(a[8:])+le.Uint64(a[24:])*k2)*k1
	} else {
		h = le.Uint64(b[p.ip+12:]) * k1
	}
	h = (h ^ h>>32 ^ ports) * k2
	return uint32(h >> 32)
}

// mergeable reports whether a packet can be part of a larger frame at all, but for
// its checksum.
func (p *packet) mergeable(m *mbuf.Mbuf, b []byte) bool {
	const not = mbuf.TxOffloadMask | mbuf.RxLRO
	if m.OlFlags&not != 0 || m.OlFlags&mbuf.RxL4CksumMask == mbuf.RxL4CksumBad ||
		m.OlFlags&mbuf.RxIPCksumMask == mbuf.RxIPCksumBad {
		return false
	}
	// There must be payload in the first segment, and nothing behind it.
	if p.length >= len(b) || int(m.PktLen) != p.size || !intact(m) {
		return false
	}
	if !p.v6 && m.OlFlags&mbuf.RxIPCksumMask != mbuf.RxIPCksumGood && header.Sum(b[p.ip:p.l4]) != 0xffff {
		return false
	}
	if p.tcp {
		return p.length >= p.l4+tcpLen && p.flags&(tcpSYN|tcpRST|tcpURG) == 0
	}
	// A length that is not that of the IP packet, or no checksum.
	return int(be.Uint16(b[p.l4+4:])) == p.size-p.l4 && be.Uint16(b[p.l4+6:]) != 0
}

// carriesTunnel reports whether a packet, which is mergeable, is one of VXLAN or GENEVE.
func (p *packet) carriesTunnel(m *mbuf.Mbuf, b []byte) bool {
	return !p.tcp && (m.PacketType&mbuf.PTypeTunnelMask != 0 || isTunnel(be.Uint16(b[p.l4+2:])))
}

// isTunnel reports whether a UDP port is one that header.Parse takes for VXLAN's or
// GENEVE's.
func isTunnel(port uint16) bool { return port == 4789 || port == 8472 || port == 6081 }

// intact reports whether the segments of m are writable and what its first segment
// says of them.
func intact(m *mbuf.Mbuf) bool {
	segs, size := 0, 0
	for s := m; s != nil; s = s.Next {
		n := len(s.Bytes())
		if segs == int(m.NbSegs) || !s.IsWritable() || n != int(s.DataLen) {
			return false
		}
		segs++
		size += n
	}
	return segs == int(m.NbSegs) && size == int(m.PktLen)
}

// opens reports whether more packets may follow this one in a frame.
func (p *packet) opens() bool {
	return !p.tcp || p.flags&(tcpFIN|tcpPSH) == 0
}

// flow is a packet to which others were or may be added.
type flow struct {
	p     packet // the first one
	hash  uint32
	index int // in the table

	head, last *mbuf.Mbuf // first and last segment
	count      int        // packets
	ipLen      int        // bytes of the IP packet
	seq        uint32     // TCP: of the packet that fits
	flags      byte       // TCP: FIN and PSH of the last packet
	sameID     bool       // the IPv4 ID stays the same
	verified   bool       // the first one's checksum is right
}

// begin makes m, which is p, the first packet.
func (f *flow) begin(m *mbuf.Mbuf, p *packet) {
	f.p = *p
	f.head, f.last = m, m.LastSeg()
	f.count, f.ipLen = 1, p.size-p.ip
	f.flags, f.sameID, f.verified = 0, false, false
	if p.tcp {
		f.seq = be.Uint32(m.Bytes()[p.l4+4:]) + uint32(p.payload)
	}
}

// same reports whether the packet with the bytes b has the addresses and ports of f.
func (f *flow) same(b []byte, p *packet) bool {
	if f.p.tcp != p.tcp || f.p.v6 != p.v6 {
		return false
	}
	h := f.head.Bytes()
	from := 12
	if p.v6 {
		from = 8
	}
	return bytes.Equal(h[f.p.ip+from:f.p.l4+4], b[p.ip+from:p.l4+4])
}
