// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
)

// flow is a packet that a program sends: what its headers say, and what the driver is asked to do.
type flow struct {
	name    string
	v6      bool
	udp     bool
	options bool // in the IP header (IPv4), the TCP header
	data    []layers.Dot1Q
	insert  []layers.Dot1Q // by the driver
	payload int
	segment int // 0: not cut
	room    int // bytes in an mbuf
	id      uint16
}

// source is an address of the flow's own, by which its packets are known.
func (f *flow) source() net.HardwareAddr {
	return binary.BigEndian.AppendUint16([]byte{2, 0, 0, 0}, f.id)
}

const firstID, firstSeq, ttl, tos, window = 0xfffd, 0xfffff000, 61, 0x4a, 4321 // identifications and numbers wrap

var (
	dst     = net.HardwareAddr{2, 0, 0, 0, 0xff, 0xbb}
	ports   = [2]uint16{54321, 9999}
	ip4     = [2]net.IP{net.IPv4(10, 1, 2, 3).To4(), net.IPv4(10, 3, 2, 1).To4()}
	ip6     = [2]net.IP{net.ParseIP("fd00::1:2:3"), net.ParseIP("fd00::3:2:1")}
	tagQ    = layers.Dot1Q{VLANIdentifier: 100, Priority: 5}
	tagQinQ = layers.Dot1Q{VLANIdentifier: 4000, Priority: 2}
)

func (f *flow) content() []byte {
	b := make([]byte, f.payload)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + 1)
	}
	return b
}

// encode is the packet as the program makes it, with the lengths of its headers and what it asks for. The
// checksum fields are left wrong: Prepare and the driver are to see to them.
func (f *flow) encode(t testing.TB) (frame []byte, l mbuf.Lengths, flags uint64) {
	t.Helper()
	proto := layers.IPProtocolTCP
	l.L4, flags = 20, mbuf.TxTCPCksum
	if f.udp {
		proto, l.L4, flags = layers.IPProtocolUDP, 8, mbuf.TxUDPCksum
	}
	var stack []gopacket.SerializableLayer
	typ := layers.EthernetTypeIPv4
	if f.v6 {
		typ = layers.EthernetTypeIPv6
		stack = append(stack, &layers.IPv6{Version: 6, TrafficClass: tos, FlowLabel: 0x12345, HopLimit: ttl, NextHeader: proto, SrcIP: ip6[0], DstIP: ip6[1]})
		l.L3 = 40
		flags |= mbuf.TxIPv6
	} else {
		ip := &layers.IPv4{Version: 4, TTL: ttl, TOS: tos, Id: firstID, Protocol: proto, SrcIP: ip4[0], DstIP: ip4[1]}
		l.L3 = 20
		if f.options {
			ip.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
			l.L3 += 4
		}
		stack = append(stack, ip)
		flags |= mbuf.TxIPv4 | mbuf.TxIPCksum
	}
	if f.udp {
		stack = append(stack, &layers.UDP{SrcPort: layers.UDPPort(ports[0]), DstPort: layers.UDPPort(ports[1])})
	} else {
		tcp := &layers.TCP{SrcPort: layers.TCPPort(ports[0]), DstPort: layers.TCPPort(ports[1]), Seq: firstSeq, Ack: 77, Window: window,
			ACK: true, PSH: true, FIN: true, CWR: true}
		if f.options {
			tcp.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte("12345678")}}
			l.L4 += 12
		}
		stack = append(stack, tcp)
	}
	stack = append(f.ethernet(typ), append(stack, gopacket.Payload(f.content()))...)
	l.L2 = 14 + 4*len(f.data)
	if f.segment > 0 {
		l.TSOSegSize = f.segment
		flags |= mbuf.TxTCPSeg
		if f.udp {
			flags = flags&^mbuf.TxTCPSeg | mbuf.TxUDPSeg
		}
	}
	switch len(f.insert) {
	case 1:
		flags |= mbuf.TxVLAN
	case 2:
		flags |= mbuf.TxQinQ
	}
	buf := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, stack...))
	return buf.Bytes(), l, flags
}

// ethernet is the Ethernet header, with the tags that are in the data.
func (f *flow) ethernet(typ layers.EthernetType) []gopacket.SerializableLayer {
	eth := &layers.Ethernet{SrcMAC: f.source(), DstMAC: dst, EthernetType: typ}
	stack := []gopacket.SerializableLayer{eth}
	next := &eth.EthernetType
	for i := range f.data {
		*next = tagType(i, len(f.data))
		tag := f.data[i]
		tag.Type = typ
		next = &tag.Type
		stack = append(stack, &tag)
	}
	return stack
}

// tagType is that of tag i of n.
func tagType(i, n int) layers.EthernetType {
	if n == 2 && i == 0 {
		return layers.EthernetTypeQinQ
	}
	return layers.EthernetTypeDot1Q
}

// tci is a tag's content.
func tci(d layers.Dot1Q) uint16 { return uint16(d.Priority)<<13 | d.VLANIdentifier }

// mbufOf is the packet as the driver gets it.
func (f *flow) mbufOf(t testing.TB, pool *mbuf.Pool) *mbuf.Mbuf {
	t.Helper()
	frame, l, flags := f.encode(t)
	m := pool.Alloc()
	if m == nil {
		t.Fatal("the pool is exhausted")
	}
	must(t, m.CopyIn(frame, pool))
	m.OlFlags |= flags
	if !m.SetLengths(l) {
		t.Fatalf("lengths %+v do not fit", l)
	}
	switch len(f.insert) {
	case 1:
		m.VlanTCI = tci(f.insert[0])
	case 2:
		m.VlanTCIOuter, m.VlanTCI = tci(f.insert[0]), tci(f.insert[1])
	}
	return m
}

// TestTx: every packet that comes out is what was asked for.
func TestTx(t *testing.T) {
	capa := capabilities(t)
	const tunnels = rtap.TxOffloadVXLANTnlTSO | rtap.TxOffloadGENEVETnlTSO | rtap.TxOffloadUDPTnlTSO
	for _, engine := range []rtap.Engine{rtap.EngineUring, rtap.EngineSyscall} {
		t.Run(string(engine), func(t *testing.T) {
			s := newStation(t, rtap.Config{Engine: engine, TxOffloads: capa.TxOffloads &^ tunnels})
			for _, f := range flows(capa.TxOffloads&rtap.TxOffloadUDPTSO != 0) {
				t.Run(f.name, func(t *testing.T) { f.run(t, s) })
			}
			clean(t, s.Device)
		})
	}
}

// flows are all combinations of what may matter.
func flows(uso bool) (all []flow) {
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			for _, tags := range [][2][]layers.Dot1Q{{}, {{tagQ}}, {{tagQinQ, tagQ}}, {nil, {tagQ}}, {nil, {tagQinQ, tagQ}}} {
				for _, c := range []struct {
					payload, segment, room int
					options                bool
				}{
					{100, 0, 0, false}, {101, 0, 0, true}, {1401, 0, 333, false}, {0, 0, 0, false}, {1, 0, 0, false},
					{20001, 1400, 0, false}, {20001, 1399, 1999, true}, {1400, 1400, 0, false}, {1401, 1400, 0, false},
					{2800, 1400, 2048, false}, {60001, 1401, 65407, true}, {999, 16, 0, false}, {3000, 1000, 129, false},
				} {
					f := flow{v6: v6, udp: udp, data: tags[0], insert: tags[1], payload: c.payload, segment: c.segment, room: c.room, options: c.options, id: uint16(len(all))}
					f.name = fmt.Sprintf("v6=%t/udp=%t/tags=%d+%d/%d_by_%d/room=%d", v6, udp, len(f.data), len(f.insert), c.payload, c.segment, c.room)
					if c.segment == 0 || !udp || uso && c.payload > c.segment {
						all = append(all, f)
					}
				}
			}
		}
	}
	return all
}

func (f *flow) run(t *testing.T, s *station) {
	room := f.room
	if room == 0 {
		room = 65407
	}
	pool := newPool(t, mbuf.Config{Name: "flow", DataRoom: room, Count: 8 + 66000/room})
	f.send(t, s, f.mbufOf(t, pool))
	f.receive(t, s, func(p gopacket.Packet) gopacket.Packet {
		if eth, ok := p.LinkLayer().(*layers.Ethernet); ok && bytes.Equal(eth.SrcMAC, f.source()) {
			return p
		}
		return nil
	})
}

// send has the port send the flow's packet.
func (f *flow) send(t *testing.T, s *station, m *mbuf.Mbuf) {
	t.Helper()
	bufs := []*mbuf.Mbuf{m}
	q := s.TxQueue(0)
	if n, err := q.Prepare(bufs); n != 1 {
		mbuf.FreeBulk(bufs)
		t.Fatalf("prepare: %v", err)
	}
	if q.Burst(bufs) != 1 {
		mbuf.FreeBulk(bufs)
		t.Fatal("not sent")
	}
}

// receive captures packets until the flow is complete. find returns what to compare of a packet of the flow,
// and nil for another's.
func (f *flow) receive(t *testing.T, s *station, find func(p gopacket.Packet) gopacket.Packet) {
	t.Helper()
	was := s.t
	s.t = t
	defer func() { s.t = was }()
	want, at, i := f.content(), 0, 0
	for done := false; !done; i++ {
		var got gopacket.Packet
		s.next(func(p gopacket.Packet) bool { got = find(p); return got != nil })
		n := len(want) - at
		if f.segment > 0 {
			n = min(n, f.segment)
		}
		done = at+n == len(want)
		if err := f.compare(got, want[at:at+n], at, i, done); err != nil {
			t.Fatalf("packet %d, at byte %d: %v\n%v", i, at, err, got)
		}
		at += n
	}
}

// compare says how p is not packet i of the flow, with payload want from position at.
func (f *flow) compare(p gopacket.Packet, want []byte, at, i int, last bool) error {
	tags := append(append([]layers.Dot1Q(nil), f.insert...), f.data...)
	eth := p.LinkLayer().(*layers.Ethernet)
	next := eth.EthernetType
	for k, l := range p.Layers()[1:] {
		tag, ok := l.(*layers.Dot1Q)
		if !ok {
			if k != len(tags) {
				return fmt.Errorf("%d tags, want %d", k, len(tags))
			}
			break
		}
		if k >= len(tags) || next != tagType(k, len(tags)) || tci(*tag) != tci(tags[k]) {
			return fmt.Errorf("tag %d is %v %#x", k, next, tci(*tag))
		}
		next = tag.Type
	}
	if err := f.compareIP(p, i); err != nil {
		return err
	}
	var payload []byte
	if udp, ok := p.TransportLayer().(*layers.UDP); ok && f.udp {
		if int(udp.Length) != 8+len(want) || uint16(udp.SrcPort) != ports[0] || uint16(udp.DstPort) != ports[1] {
			return fmt.Errorf("udp %+v", udp)
		}
		payload = udp.Payload
	} else if tcp, ok := p.TransportLayer().(*layers.TCP); ok && !f.udp {
		if tcp.Seq != firstSeq+uint32(at) || tcp.Ack != 77 || !tcp.ACK || tcp.Window != window || (len(tcp.Options) > 0) != f.options {
			return fmt.Errorf("tcp %+v", tcp)
		}
		if first := at == 0; tcp.CWR != first || tcp.PSH != last || tcp.FIN != last {
			return fmt.Errorf("tcp flags, first %t, last %t: %+v", first, last, tcp)
		}
		payload = tcp.Payload
	} else {
		return fmt.Errorf("transport is %v", p.TransportLayer())
	}
	if !bytes.Equal(payload, want) {
		return fmt.Errorf("%d bytes of payload, want %d, or others", len(payload), len(want))
	}
	return nil
}

func (f *flow) compareIP(p gopacket.Packet, i int) error {
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		if f.v6 || ip.Id != firstID+uint16(i) || ip.TTL != ttl || ip.TOS != tos || !ip.SrcIP.Equal(ip4[0]) || !ip.DstIP.Equal(ip4[1]) ||
			(len(ip.Options) > 0) != f.options {
			return fmt.Errorf("%+v", ip)
		}
	case *layers.IPv6:
		if !f.v6 || ip.HopLimit != ttl || ip.TrafficClass != tos || ip.FlowLabel != 0x12345 || !ip.SrcIP.Equal(ip6[0]) || !ip.DstIP.Equal(ip6[1]) {
			return fmt.Errorf("%+v", ip)
		}
	default:
		return fmt.Errorf("no IP but %v", p.NetworkLayer())
	}
	return nil
}
