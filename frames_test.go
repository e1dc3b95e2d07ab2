// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"encoding/binary"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// spec describes a frame that a test builds.
type spec struct {
	tags    []uint32 // tpid<<16 | tci, outermost first
	v6      bool
	udp     bool
	payload int
	flags   byte // TCP's
	vxlan   *spec
	kind    *tunnelKind // nil: VXLAN's
	src     byte        // last byte of the source address
}

// tunnelKind is a tunnel in UDP: the port, what follows UDP's header, and whether what is in it has no Ethernet header.
type tunnelKind struct {
	port   uint16
	header []byte
	bare   bool
}

var (
	vxlanKind = &tunnelKind{port: 4789, header: []byte{0x08, 0, 0, 0, 0, 0, 42, 0}}
	// Those that package header does not know.
	vxlanElsewhere  = &tunnelKind{port: 5555, header: vxlanKind.header}
	vxlanGPE        = &tunnelKind{port: 4790, header: []byte{0x0c, 0, 0, 1, 0, 0, 42, 0}, bare: true}
	vxlanGPEAsVXLAN = &tunnelKind{port: 4789, header: vxlanGPE.header, bare: true} // looks like VXLAN with something else in it
	bareUDP         = &tunnelKind{port: 6635, bare: true}
	gue             = &tunnelKind{port: 6080, header: []byte{0, 4, 0, 0}, bare: true}
	unknownKinds    = []*tunnelKind{vxlanElsewhere, vxlanGPE, vxlanGPEAsVXLAN, bareUDP, gue}
)

// tunnel is the kind of tunnel that s is.
func (s spec) tunnel() *tunnelKind {
	if s.kind == nil {
		return vxlanKind
	}
	return s.kind
}

const tcpACK, tcpCWR = 0x10, 0x80

// lengths is where the headers of a spec's frame are.
func (s spec) lengths() mbuf.Lengths {
	l := mbuf.Lengths{L2: 14 + 4*len(s.tags), L3: 20, L4: 20}
	if s.v6 {
		l.L3 = 40
	}
	if s.udp {
		l.L4 = 8
	}
	if s.vxlan != nil {
		in := s.vxlan.lengths()
		k := s.tunnel()
		if k.bare {
			in.L2 = 0
		}
		return mbuf.Lengths{OuterL2: l.L2, OuterL3: l.L3, L2: 8 + len(k.header) + in.L2, L3: in.L3, L4: in.L4}
	}
	return l
}

// build makes the frame, with all checksums right.
func (s spec) build() []byte {
	b := []byte{0x02, 0, 0, 0, 0, 0xbb, 0x02, 0, 0, 0, 0, 0xaa}
	for _, t := range s.tags {
		b = binary.BigEndian.AppendUint32(b, t)
	}
	if s.v6 {
		b = append(b, 0x86, 0xdd)
	} else {
		b = append(b, 0x08, 0x00)
	}
	return append(b, s.ip()...)
}

func (s spec) ip() []byte {
	proto := byte(6)
	if s.udp {
		proto = 17
	}
	l4 := s.l4()
	var h []byte
	if s.v6 {
		h = make([]byte, 40)
		h[0], h[6], h[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(h[4:], uint16(len(l4)))
		copy(h[8:], []byte{0x20, 1, 0xd, 0xb8, 15: s.src})
		copy(h[24:], []byte{0x20, 1, 0xd, 0xb8, 15: 2})
	} else {
		h = make([]byte, 20)
		h[0], h[8], h[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(l4)))
		copy(h[12:], []byte{192, 0, 2, s.src, 198, 51, 100, 1})
		binary.BigEndian.PutUint16(h[10:], header.IPv4Checksum(h))
	}
	at := 16
	if s.udp {
		at = 6
	}
	sum := ^header.Add(header.PseudoSum(h, proto, len(l4)), header.Sum(l4))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(l4[at:], sum)
	return append(h, l4...)
}

func (s spec) l4() []byte {
	data := make([]byte, s.payload)
	for i := range data {
		data[i] = byte(i*7 + i>>8)
	}
	if s.vxlan != nil {
		in := s.vxlan.build()
		if s.tunnel().bare {
			in = s.vxlan.ip()
		}
		data = append(bytes.Clone(s.tunnel().header), in...)
	}
	if s.udp {
		h := binary.BigEndian.AppendUint16([]byte{0x30, 0x39}, s.tunnel().port)
		h = append(h, 0, 0, 0, 0)
		binary.BigEndian.PutUint16(h[4:], uint16(8+len(data)))
		return append(h, data...)
	}
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h, 12345)
	binary.BigEndian.PutUint16(h[2:], 80)
	h[12], h[13], h[14] = 5<<4, s.flags|tcpACK, 0xff
	return append(h, data...)
}

// cksumAt is where the innermost layer-4 checksum is.
func (s spec) cksumAt() int {
	in := &s
	if s.vxlan != nil {
		in = s.vxlan
	}
	if in.udp {
		return s.lengths().L4Start() + 6
	}
	return s.lengths().L4Start() + 16
}

// partial is the frame with a layer-4 checksum that is only begun, as the kernel
// hands it over.
func (s spec) partial() []byte {
	b, l := s.build(), s.lengths()
	proto := b[l.IPStart()+9]
	if b[l.IPStart()]>>4 == 6 {
		proto = b[l.IPStart()+6]
	}
	binary.BigEndian.PutUint16(b[s.cksumAt():], header.PseudoSum(b[l.IPStart():], proto, len(b)-l.L4Start()))
	return b
}
