// SPDX-License-Identifier: BSD-3-Clause

package header

import "github.com/rtap-project/rtap/mbuf"

// Header lengths in bytes.
const (
	ipv4Len = 20
	ipv6Len = 40
	tcpLen  = 20
	udpLen  = 8
	sctpLen = 12
)

// IP protocol numbers.
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoIGMP     = 2
	protoIPv4     = 4
	protoTCP      = 6
	protoUDP      = 17
	protoIPv6     = 41
	protoRouting  = 43
	protoFragment = 44
	protoGRE      = 47
	protoAH       = 51
	protoICMPv6   = 58
	protoDestOpts = 60
	protoSCTP     = 132

	protoOpaque = 256 // none: stands for what cannot be looked into
)

// maxExtensions bounds the extension headers that are gone through. RFC 8200 (4.1)
// has a use for seven.
const maxExtensions = 8

// ipHeaders are the headers of the layers 3 and 4: the type, 0 when there is no IP
// header, the lengths in bytes, and the protocol of what follows the IP header.
type ipHeaders struct {
	ptype  uint32
	l3, l4 uint16
	proto  uint16
}

// network reads the headers at the start of p, which is of EtherType typ.
func network(p []byte, typ uint16) ipHeaders {
	switch typ {
	case etherIPv4:
		return ipv4(p)
	case etherIPv6:
		return ipv6(p)
	}
	return ipHeaders{proto: protoOpaque}
}

func ipv4(p []byte) ipHeaders {
	none := ipHeaders{proto: protoOpaque}
	if len(p) < ipv4Len || p[0]>>4 != 4 {
		return none
	}
	l3, total := int(p[0]&15)*4, int(be.Uint16(p[2:]))
	if l3 < ipv4Len || total < l3 || len(p) < l3 {
		return none
	}
	h := ipHeaders{ptype: mbuf.PTypeL3IPv4, l3: uint16(l3), proto: uint16(p[9])}
	if l3 > ipv4Len {
		h.ptype = mbuf.PTypeL3IPv4Ext
	}
	if be.Uint16(p[6:])&0x3fff != 0 { // offset, or more fragments
		h.ptype |= mbuf.PTypeL4Frag
		h.proto = protoOpaque
		return h
	}
	return h.with(p[l3:min(len(p), total)], protoICMP)
}

func ipv6(p []byte) ipHeaders {
	if len(p) < ipv6Len || p[0]>>4 != 6 {
		return ipHeaders{proto: protoOpaque}
	}
	p = p[:min(len(p), ipv6Len+int(be.Uint16(p[4:])))]
	h := ipHeaders{ptype: mbuf.PTypeL3IPv6, l3: ipv6Len, proto: uint16(p[6])}
	if isExtension(h.proto) {
		h = extended(p, h.proto)
		if h.proto == protoOpaque {
			return h
		}
	}
	return h.with(p[h.l3:], protoICMPv6)
}

// with adds the layer-4 header at the start of p to that of layer 3. icmp is the
// ICMP that goes with the latter.
func (h ipHeaders) with(p []byte, icmp uint16) ipHeaders {
	ptype, l4 := transport(p, h.proto, icmp)
	h.ptype |= ptype
	h.l4 = l4
	return h
}

// isExtension tells the extension headers that are gone through. ESP is not among
// them: what follows it is encrypted.
func isExtension(proto uint16) bool {
	switch proto {
	case protoHopByHop, protoRouting, protoFragment, protoAH, protoDestOpts:
		return true
	}
	return false
}

// extended goes through the extension headers of IPv6 packet p, the first of which
// is of type proto. They are part of layer 3; if they do not lie in p, or are too
// many, layer 3 is not recognised.
func extended(p []byte, proto uint16) ipHeaders {
	l3 := ipv6Len
	for range maxExtensions {
		if len(p) < l3+8 {
			break
		}
		x, typ := p[l3:], proto
		proto = uint16(x[0])
		l3 += extensionLen(typ, x[1])
		if l3 > len(p) {
			break
		}
		if typ == protoFragment && be.Uint16(x[2:])&0xfff9 != 0 { // offset, or more fragments
			return ipHeaders{ptype: mbuf.PTypeL3IPv6Ext | mbuf.PTypeL4Frag, l3: uint16(l3), proto: protoOpaque}
		}
		if !isExtension(proto) {
			return ipHeaders{ptype: mbuf.PTypeL3IPv6Ext, l3: uint16(l3), proto: proto}
		}
	}
	return ipHeaders{proto: protoOpaque}
}

// extensionLen is the length in bytes of an extension header whose second byte is
// n (RFC 8200, 4; RFC 4302, 2.2 for AH).
func extensionLen(proto uint16, n uint8) int {
	switch proto {
	case protoFragment:
		return 8
	case protoAH:
		return (int(n) + 2) * 4
	}
	return (int(n) + 1) * 8
}

// transport reads the layer-4 header at the start of p: its type, 0 if it is cut
// short or malformed, and its length in bytes. icmp is the ICMP that goes with the
// IP header in front.
func transport(p []byte, proto, icmp uint16) (ptype uint32, l4 uint16) {
	switch proto {
	case protoTCP:
		if len(p) < tcpLen {
			return 0, 0
		}
		n := int(p[12]>>4) * 4
		if n < tcpLen || n > len(p) {
			return 0, 0
		}
		return mbuf.PTypeL4TCP, uint16(n)
	case protoUDP:
		if len(p) < udpLen || be.Uint16(p[4:]) < udpLen {
			return 0, 0
		}
		return mbuf.PTypeL4UDP, udpLen
	case protoSCTP:
		if len(p) < sctpLen {
			return 0, 0
		}
		return mbuf.PTypeL4SCTP, sctpLen
	case icmp:
		return mbuf.PTypeL4ICMP, 0
	case protoIGMP:
		if icmp == protoICMP {
			return mbuf.PTypeL4IGMP, 0
		}
	}
	return mbuf.PTypeL4Nonfrag, 0
}

// IPLength is the length in bytes of the IP packet whose header ip starts with,
// header and payload, as the header states it: what is behind it in a frame is
// padding. It is 0 if ip is not the start of an IPv4 or IPv6 header or shorter than
// 20 or 40 bytes. A jumbogram (RFC 2675) states 40.
func IPLength(ip []byte) int {
	switch {
	case len(ip) >= ipv4Len && ip[0]>>4 == 4:
		return int(be.Uint16(ip[2:]))
	case len(ip) >= ipv6Len && ip[0]>>4 == 6:
		return ipv6Len + int(be.Uint16(ip[4:]))
	}
	return 0
}
