// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package wire

import (
	"fmt"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// tunnelled is a flow in a VXLAN tunnel.
type tunnelled struct {
	flow
	outer6   bool
	checksum bool // of the outer UDP header
}

// TestTunnel: a frame in a VXLAN tunnel is cut into packets whose headers, outer and inner, are all right.
func TestTunnel(t *testing.T) {
	capa := capabilities(t)
	if capa.TxOffloads&rtap.TxOffloadVXLANTnlTSO == 0 {
		nettest.NeedSince(t, 6, 17, "tunnel segmentation for TAPs")
	}
	s := newStation(t, rtap.Config{TxOffloads: capa.TxOffloads, RxOffloads: rxAll | rtap.RxOffloadTunnelLRO})
	var all []tunnelled
	for i := range 64 {
		bit := func(n int) bool { return i>>n&1 != 0 }
		f := tunnelled{flow{v6: bit(0), udp: bit(1), payload: 1200, id: uint16(i)}, bit(2), bit(3)}
		if bit(4) {
			f.payload, f.segment = 20001, 1200
		}
		if bit(5) {
			f.insert = []layers.Dot1Q{tagQ}
		}
		all = append(all, f)
	}
	for _, f := range all {
		name := fmt.Sprintf("v6=%t/udp=%t/outer6=%t/checksum=%t/%d_by_%d/tags=%d", f.v6, f.udp, f.outer6, f.checksum, f.payload, f.segment, len(f.insert))
		t.Run(name, func(t *testing.T) { f.run(t, s) })
	}
	clean(t, s.Device)
}

// mbufOf is the flow's packet in its tunnel.
func (f *tunnelled) mbufOf(t testing.TB, pool *mbuf.Pool) *mbuf.Mbuf {
	t.Helper()
	inner, l, flags := f.encode(t)
	l.OuterL2, l.OuterL3, l.L2 = 14, 20, 8+8+14
	flags |= mbuf.TxTunnelVXLAN
	eth := &layers.Ethernet{SrcMAC: f.source(), DstMAC: dst, EthernetType: layers.EthernetTypeIPv4}
	var ip gopacket.SerializableLayer = &layers.IPv4{Version: 4, TTL: ttl, Id: 5, Protocol: layers.IPProtocolUDP, SrcIP: ip4[1], DstIP: ip4[0]}
	if f.outer6 {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip = &layers.IPv6{Version: 6, HopLimit: ttl, NextHeader: layers.IPProtocolUDP, SrcIP: ip6[1], DstIP: ip6[0]}
		l.OuterL3 = 40
		flags |= mbuf.TxOuterIPv6
	} else {
		flags |= mbuf.TxOuterIPv4 | mbuf.TxOuterIPCksum
	}
	if f.checksum {
		flags |= mbuf.TxOuterUDPCksum
	}
	buf := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, eth, ip,
		&layers.UDP{SrcPort: 40000, DstPort: 4789}, &layers.VXLAN{ValidIDFlag: true, VNI: uint32(f.id)}, gopacket.Payload(inner)))
	m := pool.Alloc()
	must(t, m.CopyIn(buf.Bytes(), pool))
	m.OlFlags |= flags
	if len(f.insert) > 0 {
		m.VlanTCI = tci(f.insert[0])
	}
	if !m.SetLengths(l) {
		t.Fatalf("lengths %+v do not fit", l)
	}
	return m
}

func (f *tunnelled) run(t *testing.T, s *station) {
	pool := newPool(t, mbuf.Config{Name: "flow", DataRoom: 65407, Count: 8})
	f.send(t, s, f.mbufOf(t, pool))
	inner := f.flow
	inner.insert = nil
	inner.receive(t, s, func(p gopacket.Packet) gopacket.Packet {
		v, ok := p.Layer(layers.LayerTypeVXLAN).(*layers.VXLAN)
		if !ok || v.VNI != uint32(f.id) {
			return nil
		}
		udp := p.TransportLayer().(*layers.UDP)
		if (udp.Checksum != 0) != f.checksum || int(udp.Length) != len(udp.Payload)+8 {
			t.Errorf("outer UDP header: %+v", udp)
		}
		if tags := p.Layer(layers.LayerTypeDot1Q) != nil; tags != (len(f.insert) > 0) {
			t.Errorf("tagged: %t", tags)
		}
		return gopacket.NewPacket(v.Payload, layers.LayerTypeEthernet, gopacket.Default)
	})
}
