// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"hash/crc32"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// Where checksums are, in bytes from the start of the header.
const (
	ipv4Cksum = 10
	tcpCksum  = 16
	udpCksum  = 6
	sctpCksum = 8
)

const (
	protoTCP = 6
	protoUDP = 17
)

// checksums makes those of the IP header and of layer 4 right, or asks for it; in a tunnel the inner ones.
func (p *csumPacket) checksums() {
	if p.l.L3 == 0 {
		return
	}
	ip := p.l.IPStart()
	if h := p.win[ip:p.l.L4Start()]; h[0]>>4 == 4 {
		// An outer checksum that is computed here covers this one.
		if p.c.IPv4 && p.outerUDP() != cksumHere {
			p.tx |= mbuf.TxIPCksum
		} else {
			storeIPv4(p.m, ip, h)
		}
	}
	switch p.l4 {
	case mbuf.PTypeL4TCP:
		p.inet(protoTCP, tcpCksum, p.c.TCP, mbuf.TxTCPCksum, mbuf.TxTCPSeg)
	case mbuf.PTypeL4UDP:
		if be.Uint16(p.win[p.l.L4Start()+udpCksum:]) != 0 || p.l4Open() { // 0: the sender made none
			p.inet(protoUDP, udpCksum, p.c.UDP, mbuf.TxUDPCksum, mbuf.TxUDPSeg)
		}
	case mbuf.PTypeL4SCTP:
		p.sctp()
	}
}

// inet is the Internet checksum of layer 4, with the pseudo-header.
func (p *csumPacket) inet(proto uint8, field int, byDriver bool, cksum, seg uint64) {
	start := p.l.L4Start()
	pseudo := header.PseudoSum(p.win[p.l.IPStart():], proto, p.n)
	switch {
	case p.seg > 0:
		p.tx |= cksum | seg
	case byDriver && p.whole:
		p.tx |= cksum
	default:
		store16(p.m, start+field, 0)
		store16(p.m, start+field, complement(header.Add(pseudo, header.SumChain(p.m, start, p.n))))
		return
	}
	p.partial = pseudo
	store16(p.m, start+field, pseudo)
}

// complement is a checksum of sum s. Instead of 0, which in UDP means that there is none, it is 0xffff, which says
// the same; in TCP too, as Linux does it (skb_checksum_help).
func complement(s uint16) uint16 {
	if s == 0xffff {
		return s
	}
	return ^s
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sctp is the CRC32c of SCTP (RFC 9260, appendix A), which no Linux does for a TAP. It is stored with the least
// significant byte first.
func (p *csumPacket) sctp() {
	field, b := p.l.L4Start()+sctpCksum, [4]byte{}
	scatter(p.m, field, b[:])
	crc, off, n := uint32(0), p.l.L4Start(), p.n
	for m := p.m; m != nil && n > 0; m = m.Next {
		data := m.Bytes()
		if off >= len(data) {
			off -= len(data)
			continue
		}
		data = data[off:]
		data = data[:min(len(data), n)]
		crc = crc32.Update(crc, castagnoli, data)
		off, n = 0, n-len(data)
	}
	b = [4]byte{byte(crc), byte(crc >> 8), byte(crc >> 16), byte(crc >> 24)}
	scatter(p.m, field, b[:])
}

// outerChecksums makes those of the outer headers of a tunnel right, or asks for it.
func (p *csumPacket) outerChecksums() {
	if !p.inTunnel() {
		return
	}
	ip, udp := int(p.l.OuterL2), p.outerL4()
	if h := p.win[ip:udp]; h[0]>>4 == 4 {
		if p.c.OuterIPv4 {
			p.tx |= mbuf.TxOuterIPCksum
		} else {
			storeIPv4(p.m, ip, h)
		}
	}
	how := p.outerUDP()
	if how == cksumNone {
		return
	}
	field, n := udp+udpCksum, int(be.Uint16(p.win[udp+4:]))
	pseudo := header.PseudoSum(p.win[ip:], protoUDP, n)
	switch how {
	case cksumByDriver:
		p.tx |= mbuf.TxOuterUDPCksum
		store16(p.m, field, pseudo)
	case cksumLeftOut:
		store16(p.m, field, 0)
	case cksumHere:
		store16(p.m, field, 0)
		store16(p.m, field, complement(header.Add(pseudo, p.sumOuter(udp, n))))
	}
}

// outerCksum is what becomes of the outer UDP checksum.
type outerCksum uint8

const (
	cksumNone     outerCksum = iota // there is none
	cksumHere                       // it is computed here
	cksumByDriver                   // the driver is asked for it
	cksumLeftOut                    // it is removed: each of the parts that the driver makes will need another
)

func (p *csumPacket) outerUDP() outerCksum {
	udp := p.outerL4()
	switch {
	case !p.udpTunnel() || be.Uint16(p.win[udp+udpCksum:]) == 0 && !p.outerOpen():
		return cksumNone
	case p.c.OuterUDP && udp+int(be.Uint16(p.win[udp+4:])) == int(p.m.PktLen):
		return cksumByDriver
	case p.seg > 0:
		return cksumLeftOut
	}
	return cksumHere
}

// sumOuter is the sum over the n bytes of the outer UDP header and what follows it, as they will be when the
// driver has completed the inner checksum. From the inner layer-4 header on that sum is the complement of the
// partial checksum, whatever the data are (Linux's local checksum offload, lco_csum).
func (p *csumPacket) sumOuter(udp, n int) uint16 {
	if p.tx&mbuf.TxL4Mask == 0 {
		return header.SumChain(p.m, udp, n)
	}
	return header.Add(header.SumChain(p.m, udp, p.l.L4Start()-udp), ^p.partial)
}

// store16 writes v at offset off of a packet.
func store16(m *mbuf.Mbuf, off int, v uint16) {
	var b [2]byte
	be.PutUint16(b[:], v)
	scatter(m, off, b[:])
}

// storeIPv4 makes the checksum of the IPv4 header h, which is at offset off of m, right.
func storeIPv4(m *mbuf.Mbuf, off int, h []byte) {
	store16(m, off+ipv4Cksum, header.IPv4Checksum(h))
}
