// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"math/bits"
	"testing"
	"testing/quick"
)

// TestFlagValues: DPDK's, by rte_mbuf_core.h and rte_mbuf_ptype.h of 22.11.
func TestFlagValues(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want uint64
	}{
		{"RX_VLAN", RxVLAN, 0x1}, {"RX_RSS_HASH", RxRSSHash, 0x2},
		{"RX_L4_CKSUM_BAD", RxL4CksumBad, 0x8}, {"RX_IP_CKSUM_BAD", RxIPCksumBad, 0x10},
		{"RX_VLAN_STRIPPED", RxVLANStripped, 0x40}, {"RX_IP_CKSUM_GOOD", RxIPCksumGood, 0x80},
		{"RX_L4_CKSUM_GOOD", RxL4CksumGood, 0x100}, {"RX_L4_CKSUM_NONE", RxL4CksumNone, 0x108},
		{"RX_QINQ_STRIPPED", RxQinQStripped, 0x8000}, {"RX_LRO", RxLRO, 0x10000}, {"RX_QINQ", RxQinQ, 0x100000},
		{"RX_OUTER_L4_CKSUM_GOOD", RxOuterL4CksumGood, 0x400000}, {"RX_OUTER_L4_CKSUM_INVALID", RxOuterL4CksumInvalid, 0x600000},
		{"TX_OUTER_UDP_CKSUM", TxOuterUDPCksum, 1 << 41}, {"TX_UDP_SEG", TxUDPSeg, 1 << 42},
		{"TX_TUNNEL_VXLAN", TxTunnelVXLAN, 1 << 45}, {"TX_TUNNEL_GENEVE", TxTunnelGENEVE, 4 << 45}, {"TX_TUNNEL_MASK", TxTunnelMask, 15 << 45},
		{"TX_QINQ", TxQinQ, 1 << 49}, {"TX_TCP_SEG", TxTCPSeg, 1 << 50}, {"TX_TCP_CKSUM", TxTCPCksum, 1 << 52},
		{"TX_SCTP_CKSUM", TxSCTPCksum, 2 << 52}, {"TX_UDP_CKSUM", TxUDPCksum, 3 << 52}, {"TX_IP_CKSUM", TxIPCksum, 1 << 54},
		{"TX_IPV4", TxIPv4, 1 << 55}, {"TX_IPV6", TxIPv6, 1 << 56}, {"TX_VLAN", TxVLAN, 1 << 57},
		{"TX_OUTER_IP_CKSUM", TxOuterIPCksum, 1 << 58}, {"TX_OUTER_IPV4", TxOuterIPv4, 1 << 59}, {"TX_OUTER_IPV6", TxOuterIPv6, 1 << 60},
		{"PTYPE_L2_ETHER_QINQ", uint64(PTypeL2EtherQinQ), 7}, {"PTYPE_L3_IPV6_EXT", uint64(PTypeL3IPv6Ext), 0xc0},
		{"PTYPE_L4_SCTP", uint64(PTypeL4SCTP), 0x400}, {"PTYPE_TUNNEL_GENEVE", uint64(PTypeTunnelGENEVE), 0x5000},
		{"PTYPE_TUNNEL_GRENAT", uint64(PTypeTunnelGRENAT), 0x6000},
		{"PTYPE_INNER_L2_ETHER_VLAN", uint64(PTypeInnerL2EtherVLAN), 0x20000}, {"PTYPE_INNER_L3_IPV6_EXT", uint64(PTypeInnerL3IPv6Ext), 0x500000},
		{"PTYPE_INNER_L4_NONFRAG", uint64(PTypeInnerL4Nonfrag), 0x6000000},
	} {
		if c.got != c.want {
			t.Errorf("RTE_MBUF_F_%s is %#x, want %#x", c.name, c.got, c.want)
		}
	}
	if rx := RxVLAN | RxRSSHash | RxL4CksumNone | RxIPCksumMask | RxVLANStripped | RxQinQStripped | RxLRO | RxQinQ | RxOuterL4CksumMask; rx&TxOffloadMask != 0 {
		t.Error("Rx and Tx bits overlap")
	}
}

// TestLengths: TxOffload has the bit fields of struct rte_mbuf on little-endian
// machines, and gives back what was stored; what does not fit is refused.
func TestLengths(t *testing.T) {
	l := Lengths{L2: 14, L3: 20, L4: 32, OuterL2: 18, OuterL3: 40, TSOSegSize: 1448}
	if v, ok := PackLengths(l); !ok || v != 14|20<<7|32<<16|1448<<24|40<<40|18<<49 {
		t.Errorf("packed %#x, %v", v, ok)
	}
	if l.IPStart() != 72 || l.L4Start() != 92 || l.Headers() != 124 {
		t.Errorf("the inner IP header is at %d, the next at %d, data at %d", l.IPStart(), l.L4Start(), l.Headers())
	}
	round := func(l2, outerL2 uint8, l3, outerL3 uint16, l4 uint8, seg uint16) bool {
		want := Lengths{int(l2 & 127), int(l3 & 511), int(l4), int(outerL2 & 127), int(outerL3 & 511), int(seg)}
		var m Mbuf
		return m.SetLengths(want) && m.Lengths() == want
	}
	if err := quick.Check(round, nil); err != nil {
		t.Error(err)
	}
	for _, bad := range []Lengths{{L2: 128}, {L3: 512}, {L4: 256}, {OuterL2: 128}, {OuterL3: 512}, {TSOSegSize: 65536}, {L2: -1}} {
		m := Mbuf{TxOffload: 5}
		if m.SetLengths(bad) || m.TxOffload != 5 {
			t.Errorf("%+v was stored", bad)
		}
	}
}

const (
	tcp4 = PTypeL2Ether | PTypeL3IPv4 | PTypeL4TCP
	udp6 = PTypeL2EtherVLAN | PTypeL3IPv6Ext | PTypeL4UDP
	vx46 = PTypeL2Ether | PTypeL3IPv4 | PTypeL4UDP | PTypeTunnelVXLAN | PTypeInnerL2Ether | PTypeInnerL3IPv6 | PTypeInnerL4TCP
	ge64 = PTypeL2Ether | PTypeL3IPv6 | PTypeL4UDP | PTypeTunnelGENEVE | PTypeInnerL2Ether | PTypeInnerL3IPv4Ext | PTypeInnerL4UDP
	any4 = PTypeL2Ether | PTypeL3IPv4 | PTypeL4UDP | PTypeTunnelGRENAT | PTypeInnerL3IPv4 | PTypeInnerL4TCP
	gre4 = PTypeL2Ether | PTypeL3IPv4 | PTypeTunnelGRE | PTypeInnerL3IPv4 | PTypeInnerL4TCP
	ipip = PTypeL2Ether | PTypeL3IPv6 | PTypeTunnelIP | PTypeInnerL3IPv4 | PTypeInnerL4UDP
)

// TestPassThrough: of each thing said, the request that undoes it; of a packet that
// needs nothing, nothing.
func TestPassThrough(t *testing.T) {
	for _, c := range []struct {
		name     string
		rx, want uint64
		ptype    uint32
	}{
		{"nothing known", 0, 0, tcp4},
		{"a hash", RxRSSHash, RxRSSHash, tcp4},
		{"a tag that is in the data", RxVLAN, RxVLAN, udp6},
		{"good", RxL4CksumGood | RxIPCksumGood, RxL4CksumGood | RxIPCksumGood, tcp4},
		{"partial TCP", RxL4CksumNone | RxIPCksumGood, RxIPCksumGood | TxTCPCksum | TxIPv4, tcp4},
		{"partial UDP", RxL4CksumNone, TxUDPCksum | TxIPv6, udp6},
		{"LRO", RxLRO | RxL4CksumNone | RxRSSHash, RxRSSHash | TxTCPSeg | TxTCPCksum | TxIPv4, tcp4},
		{"LRO with a good checksum", RxLRO | RxL4CksumGood, TxTCPSeg | TxTCPCksum | TxIPv4, tcp4},
		{"LRO of UDP", RxLRO | RxL4CksumNone, TxUDPSeg | TxUDPCksum | TxIPv6, udp6},
		{"partial in VXLAN", RxL4CksumNone, TxTunnelVXLAN | TxOuterIPv4 | TxTCPCksum | TxIPv6, vx46},
		{"LRO in VXLAN", RxLRO | RxL4CksumNone | RxOuterL4CksumInvalid, TxTunnelVXLAN | TxOuterIPv4 | TxOuterUDPCksum | TxTCPSeg | TxTCPCksum | TxIPv6, vx46},
		{"LRO in GENEVE", RxLRO | RxL4CksumNone, TxTunnelGENEVE | TxOuterIPv6 | TxUDPSeg | TxUDPCksum | TxIPv4, ge64},
		{"LRO in some tunnel", RxLRO | RxL4CksumNone | RxOuterL4CksumInvalid, TxTunnelUDP | TxOuterIPv4 | TxOuterUDPCksum | TxTCPSeg | TxTCPCksum | TxIPv4, any4},
		{"partial in GRE", RxL4CksumNone, TxTunnelGRE | TxOuterIPv4 | TxTCPCksum | TxIPv4, gre4},
		{"partial in IP", RxL4CksumNone, TxTunnelIPIP | TxOuterIPv6 | TxUDPCksum | TxIPv4, ipip},
		{"a tag", RxVLAN | RxVLANStripped, TxVLAN, tcp4},
		{"two tags", RxVLAN | RxVLANStripped | RxQinQ | RxQinQStripped | RxL4CksumNone, TxQinQ | TxTCPCksum | TxIPv4, tcp4},
	} {
		m := Mbuf{OlFlags: c.rx | Indirect, PacketType: c.ptype, TxOffload: 123}
		PassThrough([]*Mbuf{{}, &m})
		if got := m.OlFlags &^ Indirect; got != c.want || m.OlFlags&Indirect == 0 {
			t.Errorf("%s: flags %#x, want %#x (differ in bits %v)", c.name, got, c.want, bits.TrailingZeros64(got^c.want))
		}
		if m.TxOffload != 123 || m.PacketType != c.ptype {
			t.Errorf("%s: lengths or type changed", c.name)
		}
		again := m.OlFlags
		if PassThrough([]*Mbuf{&m}); m.OlFlags != again {
			t.Errorf("%s: a second call changed flags %#x to %#x", c.name, again, m.OlFlags)
		}
	}
}
