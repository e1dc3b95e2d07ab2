// SPDX-License-Identifier: BSD-3-Clause

package header

import (
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// Short names for the table.
const (
	eth, vlan, qinq = mbuf.PTypeL2Ether, mbuf.PTypeL2EtherVLAN, mbuf.PTypeL2EtherQinQ

	ip4, ip4x = mbuf.PTypeL3IPv4, mbuf.PTypeL3IPv4Ext
	ip6, ip6x = mbuf.PTypeL3IPv6, mbuf.PTypeL3IPv6Ext

	isTCP, isUDP, isSCTP    = mbuf.PTypeL4TCP, mbuf.PTypeL4UDP, mbuf.PTypeL4SCTP
	frag, icmp, igmp, other = mbuf.PTypeL4Frag, mbuf.PTypeL4ICMP, mbuf.PTypeL4IGMP, mbuf.PTypeL4Nonfrag

	inVXLAN, inGENEVE = isUDP | mbuf.PTypeTunnelVXLAN, isUDP | mbuf.PTypeTunnelGENEVE
	inGRE, inNVGRE    = mbuf.PTypeTunnelGRE, mbuf.PTypeTunnelNVGRE
	inIP              = mbuf.PTypeTunnelIP

	iEth, iVLAN, iQinQ = mbuf.PTypeInnerL2Ether, mbuf.PTypeInnerL2EtherVLAN, mbuf.PTypeInnerL2EtherQinQ
	iIP4, iIP4x        = mbuf.PTypeInnerL3IPv4, mbuf.PTypeInnerL3IPv4Ext
	iIP6, iIP6x        = mbuf.PTypeInnerL3IPv6, mbuf.PTypeInnerL3IPv6Ext
	iTCP, iUDP, iSCTP  = mbuf.PTypeInnerL4TCP, mbuf.PTypeInnerL4UDP, mbuf.PTypeInnerL4SCTP
	iFrag, iICMP, iAny = mbuf.PTypeInnerL4Frag, mbuf.PTypeInnerL4ICMP, mbuf.PTypeInnerL4Nonfrag
)

// edit returns b with byte i replaced.
func edit(b []byte, i int, v byte) []byte {
	b[i] = v
	return b
}

func tcp4() []byte   { return v4("", 6, tcp("", "payload")) }
func udp4() []byte   { return v4("", 17, udp(53, []byte("payload"))) }
func tcp6() []byte   { return v6(6, "", tcp("", "payload")) }
func inner() []byte  { return ether("", 0x0800, tcp4()) }
func inner6() []byte { return ether("", 0x86dd, tcp6()) }
func arp() []byte    { return ether("", 0x0806, make([]byte, 28)) }

// greOf is a GRE packet in IPv4 in Ethernet.
func greOf(h string, inner []byte) []byte {
	return ether("", 0x0800, v4("", 47, join(unhex(h), inner)))
}

// over4 and over6 put a UDP datagram into IP into Ethernet.
func over4(u []byte) []byte { return ether("", 0x0800, v4("", 17, u)) }
func over6(u []byte) []byte { return ether("", 0x86dd, v6(17, "", u)) }

// Extension headers, without the type of the next one.
const (
	pad6  = "00 0104 0000 0000"                     // 8 bytes
	pad14 = "01 010c 0000 0000 0000 0000 0000 0000" // 16 bytes
)

// whole are frames with their layout, each of which ends with some payload; more
// packets of the same kinds are cut short in other tests.
var whole = []struct {
	name  string
	frame []byte
	want  Layout
}{
	{"ipv4/tcp", ether("", 0x0800, tcp4()), Layout{eth | ip4 | isTCP, 14, 20, 20, 0, 0}},
	{"ipv4/udp", ether("", 0x0800, udp4()), Layout{eth | ip4 | isUDP, 14, 20, 8, 0, 0}},
	{"ipv6/tcp", ether("", 0x86dd, tcp6()), Layout{eth | ip6 | isTCP, 14, 40, 20, 0, 0}},
	{"ipv6/udp", ether("", 0x86dd, v6(17, "", udp(53, []byte("payload")))), Layout{eth | ip6 | isUDP, 14, 40, 8, 0, 0}},
	{"ipv4/tcp with options", ether("", 0x0800, v4("", 6, tcp("0101 080a 0000 0001 0000 0002", "x"))), Layout{eth | ip4 | isTCP, 14, 20, 32, 0, 0}},
	{"ipv6/tcp with all options", ether("", 0x86dd, v6(6, "", tcp(zeros(40), "x"))), Layout{eth | ip6 | isTCP, 14, 40, 60, 0, 0}},
	{"ipv4 with options/udp", ether("", 0x0800, v4("9404 0000", 17, udp(53, nil))), Layout{eth | ip4x | isUDP, 14, 24, 8, 0, 0}},
	{"ipv4 with all options/tcp", ether("", 0x0800, v4(zeros(40), 6, tcp("", "x"))), Layout{eth | ip4x | isTCP, 14, 60, 20, 0, 0}},
	{"ipv4/sctp", ether("", 0x0800, v4("", 132, make([]byte, 16))), Layout{eth | ip4 | isSCTP, 14, 20, 12, 0, 0}},
	{"ipv6/sctp", ether("", 0x86dd, v6(132, "", make([]byte, 16))), Layout{eth | ip6 | isSCTP, 14, 40, 12, 0, 0}},
	{"ipv4/icmp", ether("", 0x0800, v4("", 1, make([]byte, 8))), Layout{eth | ip4 | icmp, 14, 20, 0, 0, 0}},
	{"ipv6/icmpv6", ether("", 0x86dd, v6(58, "", make([]byte, 8))), Layout{eth | ip6 | icmp, 14, 40, 0, 0, 0}},
	{"ipv6/icmp", ether("", 0x86dd, v6(1, "", make([]byte, 8))), Layout{eth | ip6 | other, 14, 40, 0, 0, 0}},
	{"ipv4/icmpv6", ether("", 0x0800, v4("", 58, make([]byte, 8))), Layout{eth | ip4 | other, 14, 20, 0, 0, 0}},
	{"ipv4/igmp", ether("", 0x0800, v4("9404 0000", 2, make([]byte, 8))), Layout{eth | ip4x | igmp, 14, 24, 0, 0, 0}},
	{"ipv6/2", ether("", 0x86dd, v6(2, "", make([]byte, 8))), Layout{eth | ip6 | other, 14, 40, 0, 0, 0}},
	{"ipv4/esp", ether("", 0x0800, v4("", 50, make([]byte, 30))), Layout{eth | ip4 | other, 14, 20, 0, 0, 0}},
	{"ipv4/255", ether("", 0x0800, v4("", 255, make([]byte, 30))), Layout{eth | ip4 | other, 14, 20, 0, 0, 0}},
	{"ipv4, first fragment", ether("", 0x0800, edit(udp4(), 6, 0x20)), Layout{eth | ip4 | frag, 14, 20, 0, 0, 0}},
	{"ipv4, last fragment", ether("", 0x0800, edit(tcp4(), 7, 0x01)), Layout{eth | ip4 | frag, 14, 20, 0, 0, 0}},
	{"ipv4, fragment of gre", ether("", 0x0800, edit(v4("", 47, join(unhex("0000 0800"), tcp4())), 7, 0x01)), Layout{eth | ip4 | frag, 14, 20, 0, 0, 0}},

	{"arp", arp(), Layout{mbuf.PTypeL2EtherARP, 14, 0, 0, 0, 0}},
	{"other type", ether("", 0x88cc, make([]byte, 60)), Layout{eth, 14, 0, 0, 0, 0}},
	{"802.3 length", ether("", 60, make([]byte, 60)), Layout{eth, 14, 0, 0, 0, 0}},
	{"vlan/ipv4/tcp", ether("8100 0001", 0x0800, tcp4()), Layout{vlan | ip4 | isTCP, 18, 20, 20, 0, 0}},
	{"vlan/arp", ether("8100 0001", 0x0806, make([]byte, 28)), Layout{vlan, 18, 0, 0, 0, 0}},
	{"802.1ad/ipv6/tcp", ether("88a8 0001", 0x86dd, tcp6()), Layout{vlan | ip6 | isTCP, 18, 40, 20, 0, 0}},
	{"qinq/ipv4/udp", ether("88a8 0002 8100 0001", 0x0800, udp4()), Layout{qinq | ip4 | isUDP, 22, 20, 8, 0, 0}},
	{"vlan in vlan/ipv6/tcp", ether("8100 0002 8100 0001", 0x86dd, tcp6()), Layout{qinq | ip6 | isTCP, 22, 40, 20, 0, 0}},
	{"three tags", ether("88a8 0003 8100 0002 8100 0001", 0x0800, tcp4()), Layout{qinq, 22, 0, 0, 0, 0}},

	{"hop-by-hop/tcp", ether("", 0x86dd, v6(0, "06"+pad6, tcp("", "x"))), Layout{eth | ip6x | isTCP, 14, 48, 20, 0, 0}},
	{"destination options/udp", ether("", 0x86dd, v6(60, "11"+pad14, udp(53, nil))), Layout{eth | ip6x | isUDP, 14, 56, 8, 0, 0}},
	{"routing/tcp", ether("", 0x86dd, v6(43, "06 02 04 00 0000 0000"+zeros(16), tcp("", "x"))), Layout{eth | ip6x | isTCP, 14, 64, 20, 0, 0}},
	{"ah/tcp", ether("", 0x86dd, v6(51, "06 04 0000"+zeros(20), tcp("", "x"))), Layout{eth | ip6x | isTCP, 14, 64, 20, 0, 0}},
	{"four extensions/tcp", ether("", 0x86dd, v6(0, "3c"+pad6+"2b"+pad14+"33 00 0000 0000 0000"+"06 01 0000 0000 0000 0000 0000", tcp("", "x"))),
		Layout{eth | ip6x | isTCP, 14, 40 + 8 + 16 + 8 + 12, 20, 0, 0}},
	{"eight extensions/255", ether("", 0x86dd, v6(60, chain(7)+"ff"+pad6, nil)), Layout{eth | ip6x | other, 14, 104, 0, 0, 0}},
	{"nine extensions", ether("", 0x86dd, v6(60, chain(8)+"06"+pad6, tcp("", "x"))), Layout{eth, 14, 0, 0, 0, 0}},
	{"extension of 512 bytes", ether("", 0x86dd, v6(60, "06 3f"+zeros(510), tcp("", "x"))), Layout{eth | ip6x | isTCP, 14, 552, 20, 0, 0}},
	{"ipv6, first fragment", ether("", 0x86dd, v6(44, "06 00 0001 0000 0000", tcp("", "x"))), Layout{eth | ip6x | frag, 14, 48, 0, 0, 0}},
	{"ipv6, last fragment", ether("", 0x86dd, v6(44, "06 00 0008 0000 0000", tcp("", "x"))), Layout{eth | ip6x | frag, 14, 48, 0, 0, 0}},
	{"ipv6, fragment of options", ether("", 0x86dd, v6(0, "2c"+pad6+"3c 00 0009 0000 0000", make([]byte, 8))), Layout{eth | ip6x | frag, 14, 56, 0, 0, 0}},
	{"ipv6, atomic fragment", ether("", 0x86dd, v6(44, "06 00 0006 0000 0000", tcp("", "x"))), Layout{eth | ip6x | isTCP, 14, 48, 20, 0, 0}},
	{"ipv6/no next header", ether("", 0x86dd, v6(59, "", nil)), Layout{eth | ip6 | other, 14, 40, 0, 0, 0}},

	{"vxlan", over4(vxlanOf(inner())), Layout{eth | ip4 | inVXLAN | iEth | iIP4 | iTCP, 30, 20, 20, 14, 20}},
	{"vxlan, port of linux", over4(edit(edit(vxlanOf(inner()), 2, 0x21), 3, 0x18)), Layout{eth | ip4 | inVXLAN | iEth | iIP4 | iTCP, 30, 20, 20, 14, 20}},
	{"vxlan/ipv6", over4(vxlanOf(inner6())), Layout{eth | ip4 | inVXLAN | iEth | iIP6 | iTCP, 30, 40, 20, 14, 20}},
	{"vxlan over ipv6 in vlan/vlan/udp", ether("8100 0001", 0x86dd, v6(17, "", vxlanOf(ether("8100 0005", 0x0800, udp4())))),
		Layout{vlan | ip6 | inVXLAN | iVLAN | iIP4 | iUDP, 34, 20, 8, 18, 40}},
	{"vxlan/qinq/icmp", over4(vxlanOf(ether("88a8 0005 8100 0006", 0x0800, v4("", 1, make([]byte, 8))))),
		Layout{eth | ip4 | inVXLAN | iQinQ | iIP4 | iICMP, 38, 20, 0, 14, 20}},
	{"vxlan/ipv4 with options/sctp", over4(vxlanOf(ether("", 0x0800, v4("9404 0000", 132, make([]byte, 12))))),
		Layout{eth | ip4 | inVXLAN | iEth | iIP4x | iSCTP, 30, 24, 12, 14, 20}},
	{"vxlan/fragment", over4(vxlanOf(ether("", 0x0800, edit(udp4(), 6, 0x20)))), Layout{eth | ip4 | inVXLAN | iEth | iIP4 | iFrag, 30, 20, 0, 14, 20}},
	{"vxlan/igmp", over4(vxlanOf(ether("", 0x0800, v4("", 2, make([]byte, 8))))), Layout{eth | ip4 | inVXLAN | iEth | iIP4 | iAny, 30, 20, 0, 14, 20}},
	{"vxlan/vxlan", over4(vxlanOf(over4(vxlanOf(inner())))), Layout{eth | ip4 | inVXLAN | iEth | iIP4 | iUDP, 30, 20, 8, 14, 20}},
	{"vxlan/arp", over4(vxlanOf(arp())), Layout{eth | ip4 | isUDP, 14, 20, 8, 0, 0}},
	{"vxlan without identifier", over4(edit(vxlanOf(inner()), 8, 0)), Layout{eth | ip4 | isUDP, 14, 20, 8, 0, 0}},
	{"vxlan, port is the source", over4(edit(edit(edit(vxlanOf(inner()), 0, 0x12), 1, 0xb5), 2, 0)), Layout{eth | ip4 | isUDP, 14, 20, 8, 0, 0}},
	{"geneve", over4(geneveOf(0, 0x6558, inner())), Layout{eth | ip4 | inGENEVE | iEth | iIP4 | iTCP, 30, 20, 20, 14, 20}},
	{"geneve with options over ipv6", over6(geneveOf(3, 0x6558, inner6())), Layout{eth | ip6 | inGENEVE | iEth | iIP6 | iTCP, 42, 40, 20, 14, 40}},
	{"geneve with all options", over4(geneveOf(63, 0x6558, inner())), Layout{eth | ip4 | inGENEVE | iEth | iIP4 | iTCP, 282, 20, 20, 14, 20}},
	{"geneve/ipv4", over4(geneveOf(1, 0x0800, tcp4())), Layout{eth | ip4 | inGENEVE | iIP4 | iTCP, 20, 20, 20, 14, 20}},
	{"geneve/ipv6", over4(geneveOf(0, 0x86dd, v6(60, "06"+pad6, tcp("", "x")))), Layout{eth | ip4 | inGENEVE | iIP6x | iTCP, 16, 48, 20, 14, 20}},
	{"geneve, other type", over4(geneveOf(0, 0x0806, make([]byte, 60))), Layout{eth | ip4 | isUDP, 14, 20, 8, 0, 0}},
	{"geneve, version 1", over4(edit(geneveOf(0, 0x6558, inner()), 8, 0x40)), Layout{eth | ip4 | isUDP, 14, 20, 8, 0, 0}},

	{"gre/ipv4", greOf("0000 0800", tcp4()), Layout{eth | ip4 | inGRE | iIP4 | iTCP, 4, 20, 20, 14, 20}},
	{"gre/ipv6", greOf("0000 86dd", tcp6()), Layout{eth | ip4 | inGRE | iIP6 | iTCP, 4, 40, 20, 14, 20}},
	{"gre with checksum", greOf("8000 0800 0000 0000", tcp4()), Layout{eth | ip4 | inGRE | iIP4 | iTCP, 8, 20, 20, 14, 20}},
	{"gre with key", greOf("2000 0800 0000 0001", tcp4()), Layout{eth | ip4 | inGRE | iIP4 | iTCP, 8, 20, 20, 14, 20}},
	{"gre with sequence number", greOf("1000 0800 0000 0001", tcp4()), Layout{eth | ip4 | inGRE | iIP4 | iTCP, 8, 20, 20, 14, 20}},
	{"gre with checksum and key", greOf("a000 0800"+zeros(8), tcp4()), Layout{eth | ip4 | inGRE | iIP4 | iTCP, 12, 20, 20, 14, 20}},
	{"gre with checksum and sequence number", greOf("9000 0800"+zeros(8), tcp4()), Layout{eth | ip4 | inGRE | iIP4 | iTCP, 12, 20, 20, 14, 20}},
	{"gre with key and sequence number", greOf("3000 86dd"+zeros(8), tcp6()), Layout{eth | ip4 | inGRE | iIP6 | iTCP, 12, 40, 20, 14, 20}},
	{"gre with all", greOf("b000 0800"+zeros(12), tcp4()), Layout{eth | ip4 | inGRE | iIP4 | iTCP, 16, 20, 20, 14, 20}},
	{"gre with routing", greOf("4000 0800", tcp4()), Layout{eth | ip4 | other, 14, 20, 0, 0, 0}},
	{"gre, version 1", greOf("2001 0800"+zeros(4), tcp4()), Layout{eth | ip4 | other, 14, 20, 0, 0, 0}},
	{"gre/other type", greOf("0000 88cc", tcp4()), Layout{eth | ip4 | other, 14, 20, 0, 0, 0}},
	{"nvgre", greOf("2000 6558 0000 0100", inner()), Layout{eth | ip4 | inNVGRE | iEth | iIP4 | iTCP, 22, 20, 20, 14, 20}},
	{"gre/ethernet/vlan/ipv6", greOf("0000 6558", ether("8100 0001", 0x86dd, tcp6())), Layout{eth | ip4 | inNVGRE | iVLAN | iIP6 | iTCP, 22, 40, 20, 14, 20}},
	{"gre over ipv6", ether("", 0x86dd, v6(47, "", join(unhex("0000 0800"), tcp4()))), Layout{eth | ip6 | inGRE | iIP4 | iTCP, 4, 20, 20, 14, 40}},

	{"ipv4 in ipv4", ether("", 0x0800, v4("", 4, tcp4())), Layout{eth | ip4 | inIP | iIP4 | iTCP, 0, 20, 20, 14, 20}},
	{"ipv6 in ipv4", ether("", 0x0800, v4("9404 0000", 41, tcp6())), Layout{eth | ip4x | inIP | iIP6 | iTCP, 0, 40, 20, 14, 24}},
	{"ipv4 in ipv6", ether("", 0x86dd, v6(60, "04"+pad6, udp4())), Layout{eth | ip6x | inIP | iIP4 | iUDP, 0, 20, 8, 14, 48}},
	{"ipv6 in ipv6", ether("8100 0001", 0x86dd, v6(41, "", v6(44, "11 00 0001 0000 0000", make([]byte, 9)))), Layout{vlan | ip6 | inIP | iIP6x | iFrag, 0, 48, 0, 18, 40}},
	{"ipv6 said to be ipv4 in ipv4", ether("", 0x0800, v4("", 4, tcp6())), Layout{eth | ip4 | other, 14, 20, 0, 0, 0}},
}

// zeros is n bytes in hex, chain n extension headers of which each says that the
// next one is destination options.
func zeros(n int) string { return string(repeat("00", n)) }
func chain(n int) string { return string(repeat("3c"+pad6, n)) }

func repeat(s string, n int) []byte {
	var b []byte
	for range n {
		b = append(b, s...)
	}
	return b
}

// frames are the frames by name.
var frames = func() map[string][]byte {
	m := make(map[string][]byte)
	for _, w := range whole {
		m[w.name] = w.frame
	}
	return m
}()

func TestParse(t *testing.T) {
	for _, w := range whole {
		if got := Parse(w.frame); got != w.want {
			t.Errorf("%s: got %+v, want %+v", w.name, got, w.want)
		}
		checkAgree(t, w.frame)
	}
}

// outerOf is what ParseOuter says of a frame that Parse says l of.
func outerOf(l Layout) Layout {
	if l.PacketType&mbuf.PTypeTunnelMask == 0 {
		return l
	}
	o := Layout{PacketType: l.PacketType & (mbuf.PTypeL2Mask | mbuf.PTypeL3Mask | mbuf.PTypeL4Mask), L2: l.OuterL2, L3: l.OuterL3}
	if o.PacketType&mbuf.PTypeL4Mask == isUDP {
		o.L4 = 8
	} else {
		o.PacketType |= other
	}
	return o
}

// checkAgree compares the ways of parsing b.
func checkAgree(t *testing.T, b []byte) {
	t.Helper()
	l := Parse(b)
	var got Layout
	if got.walk(b); got != l {
		t.Errorf("Parse %+v, header by header %+v for %x", l, got, b)
	}
	if got, want := ParseOuter(b), outerOf(l); got != want {
		t.Errorf("ParseOuter %+v, want %+v for %x", got, want, b)
	}
	want := l
	if _, ok := want.Pack(); !ok {
		want = ParseOuter(b)
	}
	if _, ok := want.Pack(); !ok {
		want = Layout{PacketType: want.PacketType & mbuf.PTypeL2Mask, L2: want.L2}
	}
	var m mbuf.Mbuf
	m.PacketType, m.TxOffload = ParsePacked(b)
	if m.PacketType != want.PacketType || m.Lengths() != want.Lengths() {
		t.Errorf("ParsePacked %#x %+v, want %+v for %x", m.PacketType, m.Lengths(), want, b)
	}
	checkIP(t, b)
}

// checkIP compares what is said of the IP packet in frame b, without what is in front of it, to what is said of the frame.
func checkIP(t *testing.T, b []byte) {
	t.Helper()
	_, l2, typ := ethernet(b)
	ip := b[l2:]
	if typ != etherIPv4 && typ != etherIPv6 || typ != etherType(ip) {
		return
	}
	if got, want := ParseIP(ip), withoutL2(Parse(b)); got != want {
		t.Errorf("ParseIP %+v, want %+v for %x", got, want, ip)
	}
	if got, want := ParseOuterIP(ip), withoutL2(ParseOuter(b)); got != want {
		t.Errorf("ParseOuterIP %+v, want %+v for %x", got, want, ip)
	}
	want := withoutL2(Parse(b))
	if _, ok := want.Pack(); !ok {
		want = withoutL2(ParseOuter(b))
	}
	if _, ok := want.Pack(); !ok {
		want = Layout{}
	}
	var m mbuf.Mbuf
	m.PacketType, m.TxOffload = ParseIPPacked(ip)
	if m.PacketType != want.PacketType || m.Lengths() != want.Lengths() {
		t.Errorf("ParseIPPacked %#x %+v, want %+v for %x", m.PacketType, m.Lengths(), want, ip)
	}
}

// withoutL2 is l without the outer layer 2.
func withoutL2(l Layout) Layout {
	l.PacketType &^= mbuf.PTypeL2Mask
	if l.PacketType&mbuf.PTypeTunnelMask != 0 {
		l.OuterL2 = 0
	} else {
		l.L2 = 0
	}
	return l
}

// TestParseIPOther: what is no IP packet has no layout.
func TestParseIPOther(t *testing.T) {
	for _, b := range [][]byte{nil, {0x45}, {0x60}, make([]byte, 60), edit(tcp4(), 0, 0x55), edit(tcp6(), 0, 0x70)} {
		ptype, lengths := ParseIPPacked(b)
		if l, o := ParseIP(b), ParseOuterIP(b); l != (Layout{}) || o != (Layout{}) || ptype != 0 || lengths != 0 {
			t.Errorf("%x: %+v, %+v, %#x, %#x", b, l, o, ptype, lengths)
		}
	}
}

// checkWithin looks for a header that does not lie in b, or lies behind another one
// that was not recognised.
func checkWithin(t *testing.T, b []byte) {
	t.Helper()
	l := Parse(b)
	p := l.PacketType
	tunnel := p&mbuf.PTypeTunnelMask != 0
	switch {
	case l.Headers() > len(b),
		p&mbuf.PTypeL2Mask == 0 && l != Layout{},
		p&mbuf.PTypeL2Mask != 0 && int(l.OuterL2+l.L2) < 14,
		p&mbuf.PTypeL3Mask == 0 && (p > mbuf.PTypeL2Mask || l.L3 != 0 || l.L4 != 0),
		p&mbuf.PTypeL3Mask != 0 && l.L3 < 20,
		tunnel && (l.OuterL2 < 14 || l.OuterL3 < 20 || p&mbuf.PTypeInnerL3Mask == 0),
		!tunnel && (p >= mbuf.PTypeInnerL2Ether || l.OuterL2 != 0 || l.OuterL3 != 0):
		t.Errorf("%+v for %d bytes %x", l, len(b), b)
	}
	checkAgree(t, b)
	checkInUDPTunnel(t, b, l)
}

// checkInUDPTunnel asks for an inner packet everywhere in b, of which l is what Parse says.
func checkInUDPTunnel(t *testing.T, b []byte, l Layout) {
	t.Helper()
	outer := ParseOuter(b)
	for at := -1; at <= len(b)+1; at++ {
		got, ok := InUDPTunnel(b, outer, at)
		if !ok && got != outer || ok && (got.IPStart() != at || got.L2 < 8 || got.Headers() > len(b) || at+int(got.L3) > int(got.OuterL2)+IPLength(b[got.OuterL2:])) {
			t.Errorf("%+v, %v at %d of %d bytes %x", got, ok, at, len(b), b)
		}
	}
	if l.PacketType&mbuf.PTypeTunnelMask == 0 || l.PacketType&mbuf.PTypeL4Mask != isUDP {
		return
	}
	want := l
	want.PacketType = l.PacketType&^(mbuf.PTypeTunnelMask|mbuf.PTypeInnerL2Mask) | mbuf.PTypeTunnelGRENAT
	if got, ok := InUDPTunnel(b, outer, l.IPStart()); !ok || got != want {
		t.Errorf("%+v, %v, want %+v for %x", got, ok, want, b)
	}
}

// TestInUDPTunnel: what is in a tunnel that nobody knows, with an Ethernet header or without, and what is none.
func TestInUDPTunnel(t *testing.T) {
	const unknown = isUDP | mbuf.PTypeTunnelGRENAT
	for _, c := range []struct {
		name  string
		frame []byte
		at    int
		want  Layout // 0: none
	}{
		{"bare", over4(udp(6635, tcp4())), 42, Layout{eth | ip4 | unknown | iIP4 | iTCP, 8, 20, 20, 14, 20}},
		{"bare ipv6 over ipv6 with a tag", ether("8100 0001", 0x86dd, v6(17, "", udp(6635, tcp6()))), 66, Layout{vlan | ip6 | unknown | iIP6 | iTCP, 8, 40, 20, 18, 40}},
		{"with a header", over4(udp(6080, join(unhex("0004 0000"), v4("", 17, udp(53, nil))))), 46, Layout{eth | ip4 | unknown | iIP4 | iUDP, 12, 20, 8, 14, 20}},
		{"with an Ethernet header", over4(udp(5555, join(make([]byte, 8), inner6()))), 64, Layout{eth | ip4 | unknown | iIP6 | iTCP, 30, 40, 20, 14, 20}},
		{"extension headers", over4(udp(6635, v6(60, "06"+pad6, tcp("", "x")))), 42, Layout{eth | ip4 | unknown | iIP6x | iTCP, 8, 48, 20, 14, 20}},
		{"no layer 4", over4(udp(6635, v4("", 255, nil))), 42, Layout{eth | ip4 | unknown | iIP4 | iAny, 8, 20, 0, 14, 20}},
		{"elsewhere", over4(udp(6635, tcp4())), 43, Layout{}},
		{"in the UDP header", over4(udp(6635, tcp4())), 41, Layout{}},
		{"the outer one", over4(udp(6635, tcp4())), 14, Layout{}},
		{"before", over4(udp(6635, tcp4())), -1, Layout{}},
		{"at the end", over4(udp(6635, nil)), 42, Layout{}},
		{"beyond", over4(udp(6635, nil)), 43, Layout{}},
		{"far beyond", over4(udp(6635, nil)), 65535 + 14, Layout{}},
		{"behind the outer packet", over4len(udp(6635, tcp4()), 20+8), 42, Layout{}},
		{"further behind it", over4len(udp(6635, tcp4()), 20+8), 50, Layout{}},
		{"partly behind it", over4len(udp(6635, tcp4()), 20+8+19), 42, Layout{}},
		{"no IP", over4(udp(6635, edit(tcp4(), 0, 0x55))), 42, Layout{}},
		{"in TCP", ether("", 0x0800, v4("", 6, join(tcp("", ""), tcp4()))), 54, Layout{}},
		{"in a fragment", ether("", 0x0800, edit(v4("", 17, udp(6635, tcp4())), 7, 1)), 42, Layout{}},
		{"in nothing", nil, 0, Layout{}},
	} {
		outer := ParseOuter(c.frame)
		want, ok := c.want, c.want != (Layout{})
		if !ok {
			want = outer
		}
		if got, is := InUDPTunnel(c.frame, outer, c.at); got != want || is != ok {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, is, want)
		}
		if len(c.frame) > 0 && c.frame[12] == 0x08 { // the same without Ethernet header
			want = withoutL2(want)
			if got, is := InUDPTunnel(c.frame[14:], ParseOuterIP(c.frame[14:]), c.at-14); got != want || is != ok {
				t.Errorf("%s, bare: %+v, %v, want %+v", c.name, got, is, want)
			}
		}
		if ok {
			checkWithin(t, c.frame)
		}
	}
	// A layout that is not the frame's, nor of a frame at all.
	if _, ok := InUDPTunnel(tcp4()[:30], Layout{PacketType: isUDP, L2: 40, L3: 20, L4: 8}, 68); ok {
		t.Error("a tunnel beyond the bytes")
	}
	if _, ok := InUDPTunnel(over4(vxlanOf(inner())), Parse(over4(vxlanOf(inner()))), 100); ok {
		t.Error("a tunnel in a tunnel")
	}
}

// cut is what is recognised of the first n bytes of a frame with layout l. It is
// false where that is not said: among the tags.
func cut(l Layout, n int) (Layout, bool) {
	tunnel := l.PacketType&mbuf.PTypeTunnelMask != 0
	switch {
	case n >= l.Headers():
		return l, true
	case n >= l.L4Start() && tunnel:
		l.PacketType &^= mbuf.PTypeInnerL4Mask
		l.L4 = 0
		return l, true
	case n >= l.L4Start():
		l.PacketType &^= mbuf.PTypeL4Mask
		l.L4 = 0
		return l, true
	case tunnel:
		return cut(outerOf(l), n)
	case n >= int(l.L2):
		return Layout{PacketType: l.PacketType & mbuf.PTypeL2Mask, L2: l.L2}, true
	}
	return Layout{}, n < 14
}

// TestParseCutShort: of a frame that is cut, those headers are recognised that are
// there wholly.
func TestParseCutShort(t *testing.T) {
	for _, w := range whole {
		for n := range len(w.frame) {
			b := w.frame[:n:n]
			checkWithin(t, b)
			if want, known := cut(w.want, n); known && Parse(b) != want {
				t.Errorf("%s, %d bytes: got %+v, want %+v", w.name, n, Parse(b), want)
			}
		}
	}
}

func TestParseMalformed(t *testing.T) {
	l2, l3of4, l3of6 := Layout{eth, 14, 0, 0, 0, 0}, Layout{eth | ip4, 14, 20, 0, 0, 0}, Layout{eth | ip6, 14, 40, 0, 0, 0}
	for _, c := range []struct {
		name  string
		frame []byte
		want  Layout
	}{
		{"nothing", nil, Layout{}},
		{"13 bytes", make([]byte, 13), Layout{}},
		{"ipv4, version", ether("", 0x0800, edit(tcp4(), 0, 0x55)), l2},
		{"ipv4, header length", ether("", 0x0800, edit(tcp4(), 0, 0x44)), l2},
		{"ipv4, header longer than the packet", ether("", 0x0800, edit(v4("", 17, nil), 0, 0x46)), l2},
		{"ipv4, length 0", ether("", 0x0800, edit(edit(tcp4(), 2, 0), 3, 0)), l2},
		{"ipv4, length 19", ether("", 0x0800, edit(tcp4(), 3, 19)), l2},
		{"ipv4, no room for tcp", ether("", 0x0800, edit(tcp4(), 3, 39)), l3of4},
		{"ipv4, no room for tcp options", ether("", 0x0800, edit(v4("", 6, tcp("0101 0101", "x")), 3, 43)), l3of4},
		{"ipv4, no room for udp", ether("", 0x0800, edit(udp4(), 3, 27)), l3of4},
		{"ipv4, no room for sctp", ether("", 0x0800, edit(v4("", 132, make([]byte, 20)), 3, 31)), l3of4},
		{"tcp, header length", ether("", 0x0800, edit(tcp4(), 32, 0x40)), l3of4},
		{"tcp, header longer than the packet", ether("", 0x86dd, edit(tcp6(), 52, 0xf0)), l3of6},
		{"udp, length", ether("", 0x0800, edit(udp4(), 25, 7)), l3of4},
		{"ipv6, version", ether("", 0x86dd, edit(tcp6(), 0, 0x40)), l2},
		{"ipv6, length 0", ether("", 0x86dd, edit(tcp6(), 5, 0)), l3of6},
		{"ipv6, no room for tcp", ether("", 0x86dd, edit(tcp6(), 5, 19)), l3of6},
		{"ipv6, no room for extension", ether("", 0x86dd, edit(v6(0, "06"+pad6, tcp("", "x")), 5, 7)), l2},
		{"ipv6, extension longer than the packet", ether("", 0x86dd, edit(v6(60, "06"+pad6, tcp("", "x")), 41, 200)), l2},
		{"vxlan, inner beyond the outer packet", over4len(vxlanOf(inner()), 20+30+19), Layout{eth | ip4 | isUDP, 14, 20, 8, 0, 0}},
		{"vxlan, udp length", over4(edit(edit(vxlanOf(inner()), 4, 0), 5, 7)), l3of4},
		{"vxlan, cut before udp", over4len(vxlanOf(inner()), 20+7), l3of4},
		{"geneve, options beyond the packet", over4len(geneveOf(8, 0x6558, inner()), 20+16+31), Layout{eth | ip4 | isUDP, 14, 20, 8, 0, 0}},
		{"gre, cut short", greOf("b000 0800"+zeros(11), nil), Layout{eth | ip4 | other, 14, 20, 0, 0, 0}},
		{"ipv4 in ipv4, inner malformed", ether("", 0x0800, v4("", 4, edit(tcp4(), 0, 0x44))), Layout{eth | ip4 | other, 14, 20, 0, 0, 0}},
	} {
		if got := Parse(c.frame); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
		checkWithin(t, c.frame)
	}
}

// over4len is over4 with n as the length in the outer IP header.
func over4len(u []byte, n byte) []byte {
	p := v4("", 17, u)
	p[2], p[3] = 0, n
	return ether("", 0x0800, p)
}

// TestParsePadding: lengths may be less than what is there, and more.
func TestParsePadding(t *testing.T) {
	for _, w := range whole {
		if got := Parse(join(w.frame, make([]byte, 50))); got != w.want {
			t.Errorf("%s, padded: got %+v, want %+v", w.name, got, w.want)
		}
	}
	large := Layout{eth | ip4 | isTCP, 14, 20, 20, 0, 0}
	if got := Parse(ether("", 0x0800, edit(tcp4(), 2, 0xff))); got != large {
		t.Errorf("first bytes of a large packet: got %+v, want %+v", got, large)
	}
}

func FuzzParse(f *testing.F) {
	for _, w := range whole {
		f.Add(w.frame)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkWithin(t, b[:len(b):len(b)])
	})
}

func TestLayout(t *testing.T) {
	l := Layout{L2: 30, L3: 40, L4: 32, OuterL2: 18, OuterL3: 24}
	if l.IPStart() != 72 || l.L4Start() != 112 || l.Headers() != 144 {
		t.Errorf("starts at %d, %d, headers of %d", l.IPStart(), l.L4Start(), l.Headers())
	}
	if want := (mbuf.Lengths{L2: 30, L3: 40, L4: 32, OuterL2: 18, OuterL3: 24}); l.Lengths() != want {
		t.Errorf("Lengths: %+v, want %+v", l.Lengths(), want)
	}
}

// TestPack: Pack is PackLengths, at the limits of each length.
func TestPack(t *testing.T) {
	fields := func(l *Layout) []*uint16 { return []*uint16{&l.L2, &l.L3, &l.L4, &l.OuterL2, &l.OuterL3} }
	for i := range 5 {
		for _, n := range []uint16{0, 1, 127, 128, 255, 256, 511, 512, 0xffff} {
			l := Layout{L2: 14, L3: 20, L4: 8, OuterL2: 18, OuterL3: 40}
			*fields(&l)[i] = n
			got, ok := l.Pack()
			if want, wantOK := mbuf.PackLengths(l.Lengths()); got != want || ok != wantOK {
				t.Errorf("%+v: %#x %v, want %#x %v", l, got, ok, want, wantOK)
			}
		}
	}
}
