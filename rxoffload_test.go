// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/vnethdr"
)

// deliver puts a frame and the kernel's header into slot i of q, as a read does, and
// returns what the read says.
func deliver(q *RxQueue, i int, hdr *vnethdr.Header, frame []byte) pktio.Completion {
	rest := frame
	for s, m := range q.slot(i) {
		at := m.DataOff
		if s == 0 && q.front == 0 {
			m.DataOff += uint16(q.hdrLen)
		}
		m.DataLen = uint16(min(len(rest), int(m.BufLen-m.DataOff)))
		rest = rest[copy(m.Bytes(), rest):]
		if s == 0 {
			hdr.Encode(m.Front(q.hdrLen))
		}
		m.DataOff, m.DataLen = at, 0
	}
	return pktio.Completion{Index: uint32(i), Res: int32(q.hdrLen + len(frame))}
}

// fakeReceive is what a queue with these offloads makes of a frame that the kernel
// hands over with hdr: nil if it is counted as an error. The caller frees it.
func fakeReceive(t *testing.T, pool *mbuf.Pool, c PortConfig, hdr vnethdr.Header, frame []byte) *mbuf.Mbuf {
	t.Helper()
	return fakeReceiveFrom(t, ethernet, pool, c, hdr, frame)
}

// fakeReceiveFrom is fakeReceive of a port whose packets have that layer 2.
func fakeReceiveFrom(t *testing.T, l2 *layer2, pool *mbuf.Pool, c PortConfig, hdr vnethdr.Header, frame []byte) *mbuf.Mbuf {
	t.Helper()
	var q *RxQueue
	e := &fakeEngine{read: func(_ []pktio.Desc, done []pktio.Completion) int {
		done[0] = deliver(q, 0, &hdr, frame)
		return 1
	}}
	q = fakeRx(t, e, RxConfig{Memory: pool, Ring: 1}, 9000)
	q.layer2 = l2
	d := &Device{conf: c}
	must(t, q.fit(d.rxShape(9000)))
	var bufs [1]*mbuf.Mbuf
	n := q.Burst(bufs[:])
	want := QueueStats{IPackets: uint64(n), IBytes: uint64(n * len(frame)), IErrors: uint64(1 - n)}
	if got := q.counted(); got != want {
		t.Fatalf("%d packets: %+v, want %+v", n, got, want)
	}
	return bufs[0]
}

const everyRx = RxOffloadChecksum | RxOffloadTCPLRO | RxOffloadUDPLRO | RxOffloadTunnelLRO

// rxCase is a frame, what the kernel says of it, and what the mbuf must say.
type rxCase struct {
	name     string
	offloads uint64
	hdr      vnethdr.Header
	frame    []byte

	flags    uint64
	ptype    uint32
	lengths  mbuf.Lengths
	data     []byte // nil: the frame as it was
	tci, out uint16
	refused  bool
}

const (
	etherIP  = mbuf.PTypeL2Ether | mbuf.PTypeL3IPv4
	etherIP6 = mbuf.PTypeL2Ether | mbuf.PTypeL3IPv6
)

// needsCsum is the kernel's header of a packet whose checksum is partial.
func needsCsum(s spec) vnethdr.Header {
	start := s.lengths().L4Start()
	return vnethdr.Header{Flags: vnethdr.FlagNeedsCsum, CsumStart: uint16(start), CsumOffset: uint16(s.cksumAt() - start)}
}

// large is that of a frame that is several packets.
func large(s spec, gso uint8, size int) vnethdr.Header {
	h := needsCsum(s)
	h.GSOType, h.GSOSize, h.HdrLen = gso, uint16(size), uint16(s.lengths().Headers())
	if s.vxlan != nil {
		l := s.lengths()
		h.OuterTransport, h.InnerNetwork = uint16(l.OuterL2+l.OuterL3), uint16(l.IPStart())
	}
	return h
}

func withSeg(l mbuf.Lengths, size int) mbuf.Lengths {
	l.TSOSegSize = size
	return l
}

// tunnelCases are large frames in tunnels in UDP that package header does not know: inner and outer packets of both
// versions, TCP and UDP, with and without an outer checksum.
func tunnelCases() (cases []rxCase) {
	const offloads = RxOffloadTCPLRO | RxOffloadUDPLRO | RxOffloadTunnelLRO
	for i, k := range unknownKinds {
		for n := range 16 {
			v6, in6, udp, sum := n&1 != 0, n&2 != 0, n&4 != 0, n&8 != 0
			in := spec{payload: 3000, v6: in6, udp: udp}
			s := spec{udp: true, v6: v6, vxlan: &in, kind: k}
			ptype, gso, flags := etherIP, vnethdr.GSOUDPTunnelIPv4, mbuf.RxLRO|mbuf.RxL4CksumNone
			if v6 {
				ptype, gso = etherIP6, vnethdr.GSOUDPTunnelIPv6
			}
			ptype |= mbuf.PTypeL4UDP | mbuf.PTypeTunnelGRENAT | mbuf.PTypeInnerL3IPv4 | mbuf.PTypeInnerL4TCP
			kind := vnethdr.GSOTCPv4
			if in6 {
				ptype = ptype&^mbuf.PTypeInnerL3Mask | mbuf.PTypeInnerL3IPv6
				kind = vnethdr.GSOTCPv6
			}
			if udp {
				ptype = ptype&^mbuf.PTypeInnerL4Mask | mbuf.PTypeInnerL4UDP
				kind = vnethdr.GSOUDPL4
			}
			hdr := large(s, gso|kind, 1000)
			if sum {
				hdr.Flags |= vnethdr.FlagUDPTunnelCsum
				flags |= mbuf.RxOuterL4CksumInvalid
			}
			cases = append(cases, rxCase{name: fmt.Sprintf("LRO in a tunnel of unknown kind %d, %d", i, n), offloads: offloads, hdr: hdr, frame: s.partial(),
				flags: flags, ptype: ptype, lengths: withSeg(s.lengths(), 1000)})
		}
	}
	return cases
}

// hostileCases are headers that say of a tunnel what is not there.
func hostileCases() (cases []rxCase) {
	inner, no := spec{payload: 3000}, spec{payload: 3000, udp: true}
	for _, k := range append(unknownKinds, vxlanKind) {
		s := spec{udp: true, vxlan: &inner, kind: k}
		good := large(s, vnethdr.GSOTCPv4|vnethdr.GSOUDPTunnelIPv4, 1000)
		refuse := func(name string, frame []byte, change func(h *vnethdr.Header)) {
			h := good
			change(&h)
			cases = append(cases, rxCase{name: fmt.Sprintf("hostile, port %d: %s", k.port, name),
				offloads: RxOffloadTCPLRO | RxOffloadTunnelLRO, hdr: h, frame: frame, refused: true})
		}
		f := s.partial()
		for _, at := range []uint16{0, 1, good.OuterTransport - 1, good.OuterTransport + 1, good.OuterTransport + 4, good.InnerNetwork, good.CsumStart, uint16(len(f)), 65535} {
			refuse(fmt.Sprintf("outer place %d", at), f, func(h *vnethdr.Header) { h.OuterTransport = at })
		}
		for _, at := range []uint16{0, 1, good.OuterTransport, good.OuterTransport + 7, good.InnerNetwork - 1, good.InnerNetwork + 1, good.CsumStart - 1, good.CsumStart,
			uint16(len(f)) - 1, uint16(len(f)), uint16(len(f)) + 1, 65535} {
			refuse(fmt.Sprintf("inner place %d", at), f, func(h *vnethdr.Header) { h.InnerNetwork = at })
		}
		for _, at := range []uint16{0, good.OuterTransport, good.InnerNetwork, good.CsumStart - 1, good.CsumStart + 1, uint16(len(f)), 65535} {
			refuse(fmt.Sprintf("csum_start %d", at), f, func(h *vnethdr.Header) { h.CsumStart = at })
		}
		refuse("both places", f, func(h *vnethdr.Header) { h.OuterTransport -= 8; h.InnerNetwork -= 8 })
		refuse("csum_offset", f, func(h *vnethdr.Header) { h.CsumOffset = 6 })
		refuse("no partial checksum", f, func(h *vnethdr.Header) { h.Flags = 0 })
		refuse("no size", f, func(h *vnethdr.Header) { h.GSOSize = 0 })
		refuse("nothing to cut", f, func(h *vnethdr.Header) { h.GSOType = vnethdr.GSOUDPTunnelIPv4 })
		refuse("UDP", f, func(h *vnethdr.Header) { h.GSOType = vnethdr.GSOUDPL4 | vnethdr.GSOUDPTunnelIPv4 })
		same := func(*vnethdr.Header) {}
		for _, at := range []int{int(good.InnerNetwork), int(good.InnerNetwork) + 9, int(good.OuterTransport) - 20, int(good.OuterTransport) - 11} {
			b := s.partial()
			b[at] ^= 0x30 // neither IP, TCP nor UDP any more
			refuse(fmt.Sprintf("byte %d", at), b, same)
		}
		refuse("cut in the inner TCP header", f[:good.CsumStart+19], same)
		refuse("cut in the inner IP header", f[:good.InnerNetwork+19], same)
		refuse("cut in the outer UDP header", f[:good.OuterTransport+7], same)
		refuse("UDP inside", spec{udp: true, vxlan: &no, kind: k}.partial(), same)
	}
	return cases
}

func rxCases() []rxCase {
	tcp4, tcp6 := spec{payload: 100}, spec{v6: true, payload: 100}
	udp4, udp6 := spec{udp: true, payload: 100}, spec{udp: true, v6: true, payload: 100}
	vlan := spec{tags: []uint32{0x8100<<16 | 0x6005}, payload: 100}
	qinq := spec{tags: []uint32{0x88a8<<16 | 7, 0x8100<<16 | 0x2005}, payload: 100}
	twice := spec{tags: []uint32{0x8100<<16 | 7, 0x8100<<16 | 8}, payload: 100}
	inner := spec{payload: 3000}
	tunnel := spec{udp: true, vxlan: &inner}
	vxlanTCP := etherIP | mbuf.PTypeL4UDP | mbuf.PTypeTunnelVXLAN | mbuf.PTypeInnerL2Ether | mbuf.PTypeInnerL3IPv4 | mbuf.PTypeInnerL4TCP
	badIP := tcp4.build()
	badIP[24]++
	experimental := frame(60, 1)
	tunnelHdr := large(tunnel, vnethdr.GSOTCPv4|vnethdr.GSOUDPTunnelIPv4, 1000)
	tunnelCsum := tunnelHdr
	tunnelCsum.Flags |= vnethdr.FlagUDPTunnelCsum
	taggedTunnel := spec{udp: true, vxlan: &inner, tags: vlan.tags}
	taggedHdr := tunnelHdr // the kernel forgets the tag, but in csum_start
	taggedHdr.CsumStart += 4
	gpe, untagged := spec{udp: true, vxlan: &inner, kind: vxlanGPE, tags: vlan.tags}, spec{udp: true, vxlan: &inner, kind: vxlanGPE}
	gpeHdr := large(untagged, vnethdr.GSOTCPv4|vnethdr.GSOUDPTunnelIPv4, 1000)
	gpeHdr.CsumStart += 4
	unknownTCP := vxlanTCP&^(mbuf.PTypeTunnelMask|mbuf.PTypeInnerL2Mask) | mbuf.PTypeTunnelGRENAT
	outerUDP := spec{udp: true, vxlan: &spec{payload: 100}} // what is to be completed is the outer checksum
	outerCsum := vnethdr.Header{Flags: vnethdr.FlagNeedsCsum, CsumStart: 34, CsumOffset: 6}
	return slices.Concat(tunnelCases(), hostileCases(), []rxCase{
		{name: "nothing known", frame: tcp4.build(), ptype: etherIP | mbuf.PTypeL4TCP, lengths: tcp4.lengths()},
		{name: "no IP", frame: experimental, ptype: mbuf.PTypeL2Ether, lengths: mbuf.Lengths{L2: 14}},
		{name: "good", hdr: vnethdr.Header{Flags: vnethdr.FlagDataValid}, frame: udp6.build(),
			flags: mbuf.RxL4CksumGood, ptype: etherIP6 | mbuf.PTypeL4UDP, lengths: udp6.lengths()},
		{name: "good, of no layer 4", hdr: vnethdr.Header{Flags: vnethdr.FlagDataValid}, frame: experimental,
			ptype: mbuf.PTypeL2Ether, lengths: mbuf.Lengths{L2: 14}},
		{name: "IPv4 header good", offloads: RxOffloadIPv4Cksum, frame: tcp4.build(), flags: mbuf.RxIPCksumGood, ptype: etherIP | mbuf.PTypeL4TCP, lengths: tcp4.lengths()},
		{name: "IPv4 header bad", offloads: RxOffloadIPv4Cksum, frame: badIP, flags: mbuf.RxIPCksumBad, ptype: etherIP | mbuf.PTypeL4TCP, lengths: tcp4.lengths()},
		{name: "IPv4 header not looked at", frame: badIP, ptype: etherIP | mbuf.PTypeL4TCP, lengths: tcp4.lengths()},
		{name: "IPv6 has none", offloads: RxOffloadIPv4Cksum, frame: tcp6.build(), ptype: etherIP6 | mbuf.PTypeL4TCP, lengths: tcp6.lengths()},

		{name: "partial TCP v4", offloads: everyRx, hdr: needsCsum(tcp4), frame: tcp4.partial(),
			flags: mbuf.RxL4CksumNone | mbuf.RxIPCksumGood, ptype: etherIP | mbuf.PTypeL4TCP, lengths: tcp4.lengths()},
		{name: "partial UDP v6", offloads: everyRx, hdr: needsCsum(udp6), frame: udp6.partial(),
			flags: mbuf.RxL4CksumNone, ptype: etherIP6 | mbuf.PTypeL4UDP, lengths: udp6.lengths()},
		{name: "partial in VXLAN", offloads: RxOffloadTCPCksum, hdr: needsCsum(tunnel), frame: tunnel.partial(),
			flags: mbuf.RxL4CksumNone, ptype: vxlanTCP, lengths: tunnel.lengths()},
		{name: "partial around VXLAN", offloads: RxOffloadTCPCksum, hdr: outerCsum, frame: outerUDP.build(),
			flags: mbuf.RxL4CksumNone, ptype: etherIP | mbuf.PTypeL4UDP, lengths: mbuf.Lengths{L2: 14, L3: 20, L4: 8}},

		{name: "LRO v4", offloads: everyRx, hdr: large(inner, vnethdr.GSOTCPv4, 1448), frame: inner.partial(),
			flags: mbuf.RxLRO | mbuf.RxL4CksumNone | mbuf.RxIPCksumGood, ptype: etherIP | mbuf.PTypeL4TCP, lengths: withSeg(inner.lengths(), 1448)},
		{name: "LRO v6 with ECN", offloads: everyRx, hdr: large(spec{v6: true}, vnethdr.GSOTCPv6|vnethdr.GSOECN, 1428), frame: spec{v6: true, payload: 5000, flags: tcpCWR}.partial(),
			flags: mbuf.RxLRO | mbuf.RxL4CksumNone, ptype: etherIP6 | mbuf.PTypeL4TCP, lengths: withSeg(tcp6.lengths(), 1428)},
		{name: "LRO of UDP", offloads: everyRx, hdr: large(udp4, vnethdr.GSOUDPL4, 10), frame: udp4.partial(),
			flags: mbuf.RxLRO | mbuf.RxL4CksumNone | mbuf.RxIPCksumGood, ptype: etherIP | mbuf.PTypeL4UDP, lengths: withSeg(udp4.lengths(), 10)},
		{name: "LRO in VXLAN", offloads: RxOffloadTCPLRO | RxOffloadTunnelLRO, hdr: tunnelHdr, frame: tunnel.partial(),
			flags: mbuf.RxLRO | mbuf.RxL4CksumNone, ptype: vxlanTCP, lengths: withSeg(tunnel.lengths(), 1000)},
		{name: "LRO in VXLAN with checksum", offloads: RxOffloadTCPLRO | RxOffloadTunnelLRO, hdr: tunnelCsum, frame: tunnel.partial(),
			flags: mbuf.RxLRO | mbuf.RxL4CksumNone | mbuf.RxOuterL4CksumInvalid, ptype: vxlanTCP, lengths: withSeg(tunnel.lengths(), 1000)},
		{name: "LRO in VXLAN behind a tag", offloads: RxOffloadTCPLRO | RxOffloadTunnelLRO, hdr: taggedHdr, frame: taggedTunnel.partial(),
			flags: mbuf.RxLRO | mbuf.RxL4CksumNone, ptype: vxlanTCP ^ mbuf.PTypeL2Ether ^ mbuf.PTypeL2EtherVLAN, lengths: withSeg(taggedTunnel.lengths(), 1000)},
		{name: "LRO in VXLAN behind a tag that is stripped", offloads: RxOffloadTCPLRO | RxOffloadTunnelLRO | RxOffloadVLANStrip, hdr: taggedHdr, frame: taggedTunnel.partial(), data: tunnel.partial(), tci: 0x6005,
			flags: mbuf.RxLRO | mbuf.RxL4CksumNone | mbuf.RxVLAN | mbuf.RxVLANStripped, ptype: vxlanTCP, lengths: withSeg(tunnel.lengths(), 1000)},
		{name: "LRO in VXLAN-GPE behind a tag", offloads: RxOffloadTCPLRO | RxOffloadTunnelLRO, hdr: gpeHdr, frame: gpe.partial(),
			flags: mbuf.RxLRO | mbuf.RxL4CksumNone, ptype: unknownTCP ^ mbuf.PTypeL2Ether ^ mbuf.PTypeL2EtherVLAN, lengths: withSeg(gpe.lengths(), 1000)},
		{name: "LRO in VXLAN-GPE behind a tag that is stripped", offloads: RxOffloadTCPLRO | RxOffloadTunnelLRO | RxOffloadVLANStrip, hdr: gpeHdr, frame: gpe.partial(), data: untagged.partial(), tci: 0x6005,
			flags: mbuf.RxLRO | mbuf.RxL4CksumNone | mbuf.RxVLAN | mbuf.RxVLANStripped, ptype: unknownTCP, lengths: withSeg(untagged.lengths(), 1000)},
		{name: "LRO of what is no TCP", offloads: everyRx, hdr: large(udp4, vnethdr.GSOTCPv4, 10), frame: udp4.partial(), refused: true},
		{name: "LRO of unknown kind", offloads: everyRx, hdr: large(udp4, 2, 10), frame: udp4.partial(), refused: true},
		{name: "LRO of size 0", offloads: everyRx, hdr: large(udp4, vnethdr.GSOUDPL4, 0), frame: udp4.partial(), refused: true},

		{name: "VLAN kept", hdr: needsCsum(vlan), frame: vlan.partial(),
			flags: mbuf.RxL4CksumNone, ptype: mbuf.PTypeL2EtherVLAN | mbuf.PTypeL3IPv4 | mbuf.PTypeL4TCP, lengths: vlan.lengths()},
		{name: "VLAN stripped", offloads: RxOffloadVLANStrip, hdr: needsCsum(vlan), frame: vlan.partial(), data: tcp4.partial(), tci: 0x6005,
			flags: mbuf.RxVLAN | mbuf.RxVLANStripped | mbuf.RxL4CksumNone, ptype: etherIP | mbuf.PTypeL4TCP, lengths: tcp4.lengths()},
		{name: "VLAN not stripped by QinQ", offloads: RxOffloadQinQStrip, frame: vlan.build(),
			ptype: mbuf.PTypeL2EtherVLAN | mbuf.PTypeL3IPv4 | mbuf.PTypeL4TCP, lengths: vlan.lengths()},
		{name: "one of two tags stripped", offloads: RxOffloadVLANStrip | RxOffloadQinQStrip, frame: twice.build(), data: spec{tags: twice.tags[1:], payload: 100}.build(), tci: 7,
			flags: mbuf.RxVLAN | mbuf.RxVLANStripped, ptype: mbuf.PTypeL2EtherVLAN | mbuf.PTypeL3IPv4 | mbuf.PTypeL4TCP, lengths: vlan.lengths()},
		{name: "QinQ stripped", offloads: RxOffloadVLANStrip | RxOffloadQinQStrip, hdr: needsCsum(qinq), frame: qinq.partial(), data: tcp4.partial(), tci: 0x2005, out: 7,
			flags: mbuf.RxVLAN | mbuf.RxVLANStripped | mbuf.RxQinQ | mbuf.RxQinQStripped | mbuf.RxL4CksumNone, ptype: etherIP | mbuf.PTypeL4TCP, lengths: tcp4.lengths()},
		{name: "QinQ not stripped by VLAN", offloads: RxOffloadVLANStrip, frame: qinq.build(),
			ptype: mbuf.PTypeL2EtherQinQ | mbuf.PTypeL3IPv4 | mbuf.PTypeL4TCP, lengths: qinq.lengths()},
	})
}

// TestRxDescribe: the mbuf says what the kernel and the packet say, whatever the
// mbufs' size and headroom.
func TestRxDescribe(t *testing.T) {
	for _, cfg := range []mbuf.Config{{DataRoom: 9200}, {DataRoom: 9200, Headroom: -1}, {DataRoom: 512}, {DataRoom: 300, Headroom: 12}, {DataRoom: minDataRoom, Headroom: -1}} {
		cfg.Name, cfg.Count = "describe", 4096
		pool := newPool(t, cfg)
		for _, c := range rxCases() {
			t.Run(c.name, func(t *testing.T) {
				m := fakeReceive(t, pool, PortConfig{RxOffloads: c.offloads}, c.hdr, c.frame)
				defer m.Free()
				if c.refused != (m == nil) {
					t.Fatalf("refused: %v, want %v", m == nil, c.refused)
				}
				if m != nil {
					c.check(t, m)
				}
			})
		}
	}
}

// bare is the same without the Ethernet header, as a TUN's packets are. It is false where there is no such case.
func (c rxCase) bare() (rxCase, bool) {
	if typ := binary.BigEndian.Uint16(c.frame[12:]); typ != 0x0800 && typ != 0x86dd {
		return c, false
	}
	c.frame, c.hdr = c.frame[14:], minus14(c.hdr)
	c.ptype &^= mbuf.PTypeL2Mask
	if !c.refused {
		c.lengths = bareLengths(c.lengths)
	}
	return c, true
}

// minus14 is the kernel's header for a packet without an Ethernet header.
func minus14(h vnethdr.Header) vnethdr.Header {
	for _, at := range []*uint16{&h.HdrLen, &h.CsumStart, &h.OuterTransport, &h.InnerNetwork} {
		if *at != 0 {
			*at -= 14
		}
	}
	return h
}

func bareLengths(l mbuf.Lengths) mbuf.Lengths {
	if l.OuterL3 != 0 {
		l.OuterL2 -= 14
	} else {
		l.L2 -= 14
	}
	return l
}

// TestTUNDescribe is TestRxDescribe for packets without an Ethernet header.
func TestTUNDescribe(t *testing.T) {
	cases := 0
	for _, cfg := range []mbuf.Config{{DataRoom: 9200}, {DataRoom: minDataRoom, Headroom: -1}} {
		cfg.Name, cfg.Count = "describe", 4096
		pool := newPool(t, cfg)
		for _, c := range rxCases() {
			c, ok := c.bare()
			if !ok {
				continue
			}
			cases++
			t.Run(c.name, func(t *testing.T) {
				m := fakeReceiveFrom(t, noLayer2, pool, PortConfig{RxOffloads: c.offloads}, c.hdr, c.frame)
				defer m.Free()
				if c.refused != (m == nil) {
					t.Fatalf("refused: %v, want %v", m == nil, c.refused)
				}
				if m != nil {
					c.check(t, m)
				}
			})
		}
	}
	if cases < 30 {
		t.Errorf("only %d cases", cases)
	}
}

func (c *rxCase) check(t *testing.T, m *mbuf.Mbuf) {
	t.Helper()
	want := c.data
	if want == nil {
		want = c.frame
	}
	if got := m.AppendTo(nil); !bytes.Equal(got, want) || m.Check() != nil {
		t.Errorf("data is\n% x, want\n% x (%v)", got, want, m.Check())
	}
	if m.OlFlags != c.flags || m.PacketType != c.ptype {
		t.Errorf("flags %#x, type %#x: want %#x, %#x", m.OlFlags, m.PacketType, c.flags, c.ptype)
	}
	if got := m.Lengths(); got != c.lengths {
		t.Errorf("lengths %+v, want %+v", got, c.lengths)
	}
	if m.VlanTCI != c.tci || m.VlanTCIOuter != c.out {
		t.Errorf("tags %#x, %#x: want %#x, %#x", m.VlanTCIOuter, m.VlanTCI, c.out, c.tci)
	}
}

// TestTunnelPassThrough: what came in a tunnel is sent as it came: Prepare has nothing to add, and the kernel is told what
// it said.
func TestTunnelPassThrough(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "through", Count: 64, DataRoom: 4000})
	for _, c := range tunnelCases() {
		t.Run(c.name, func(t *testing.T) {
			udp := header.ParseOuter(c.frame).L4Start()
			if c.hdr.Flags&vnethdr.FlagUDPTunnelCsum != 0 { // the sum of the pseudo-header, as the kernel leaves it
				binary.BigEndian.PutUint16(c.frame[udp+6:], header.PseudoSum(c.frame[14:], protoUDP, len(c.frame)-udp))
			}
			m := fakeReceive(t, pool, PortConfig{RxOffloads: c.offloads}, c.hdr, c.frame)
			if m == nil {
				t.Fatal("refused")
			}
			mbuf.PassThrough([]*mbuf.Mbuf{m})
			if m.OlFlags&mbuf.TxTunnelMask != mbuf.TxTunnelUDP {
				t.Fatalf("flags %#x", m.OlFlags)
			}
			q := fakeTx(t, &fakeEngine{}, TxConfig{Ring: 1})
			q.fit(&PortConfig{TxOffloads: everyTx &^ TxOffloadUDPTnlTSO})
			if _, err := q.Prepare([]*mbuf.Mbuf{m}); err != ErrTxDisabled {
				t.Errorf("Prepare where it is not enabled: %v", err)
			}
			q.fit(&PortConfig{TxOffloads: everyTx})
			if _, err := q.Prepare([]*mbuf.Mbuf{m}); err != nil {
				t.Error(err)
			}
			hdr, data, ok := txWire(t, ethernet, PortConfig{TxOffloads: everyTx, RxOffloads: c.offloads}, m)
			if !ok || hdr != c.hdr {
				t.Errorf("header\n%+v, want\n%+v", hdr, c.hdr)
			}
			must(t, sameBytes(data, c.frame))
			must(t, hdr.Check(len(data)))
		})
	}
}

// FuzzRx: whatever the kernel says of whatever packet, it is refused, or described so that it can be sent on; and places
// are within the packet.
func FuzzRx(f *testing.F) {
	var h [vnethdr.SizeTunnel]byte
	for _, c := range rxCases() {
		c.frame = c.frame[:min(len(c.frame), 200)] // all headers
		c.hdr.Encode(h[:])
		f.Add(h[:], c.frame, false)
		if c, ok := c.bare(); ok {
			c.hdr.Encode(h[:])
			f.Add(h[:], c.frame, true)
		}
	}
	pool := newPool(f, mbuf.Config{Name: "fuzz", Count: 256, DataRoom: 512})
	f.Fuzz(func(t *testing.T, h, frame []byte, bare bool) {
		l2, conf := ethernet, PortConfig{RxOffloads: everyRx, TxOffloads: everyTx}
		if bare {
			l2 = noLayer2
		}
		if len(frame) == 0 || len(frame) > 8000 {
			return
		}
		hdr := vnethdr.Decode(h)
		m := fakeReceiveFrom(t, l2, pool, conf, hdr, frame)
		if m == nil {
			return
		}
		l := m.Lengths()
		if l.Headers() > len(frame) && l.L3 != 0 {
			t.Errorf("%+v in %d bytes", l, len(frame))
		}
		if m.OlFlags&mbuf.RxLRO == 0 {
			m.Free()
			return
		}
		if int(hdr.CsumStart) != l.L4Start() || frame[l.IPStart()]>>4 != 4 && frame[l.IPStart()]>>4 != 6 {
			t.Fatalf("%+v of %+v", l, hdr)
		}
		mbuf.PassThrough([]*mbuf.Mbuf{m})
		got, data, ok := txWire(t, l2, conf, m)
		if !ok || got.CsumStart != hdr.CsumStart && got.GSOType != 0 {
			t.Fatalf("sent: %v, as %+v, was %+v", ok, got, hdr)
		}
		must(t, sameBytes(data, frame))
	})
}

// TestRxUnnameable: a partial checksum that the mbuf has no words for is completed.
func TestRxUnnameable(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "unnameable", Count: 64})
	f := frame(101, 3) // of no protocol that is known
	hdr := vnethdr.Header{Flags: vnethdr.FlagNeedsCsum, CsumStart: 20, CsumOffset: 8}
	m := fakeReceive(t, pool, PortConfig{RxOffloads: RxOffloadTCPCksum}, hdr, f)
	defer m.Free()
	sum := checksum(append(bytes.Clone(f[20:]), 0))
	f[28], f[29] = byte(sum>>8), byte(sum)
	if err := sameBytes(m.AppendTo(nil), f); err != nil || m.OlFlags != 0 {
		t.Fatalf("flags %#x, %v", m.OlFlags, err)
	}
	hdr.CsumStart = 100
	if m := fakeReceive(t, pool, PortConfig{RxOffloads: RxOffloadTCPCksum}, hdr, f); m != nil {
		m.Free()
		t.Fatal("a checksum outside the packet is no error")
	}
}
