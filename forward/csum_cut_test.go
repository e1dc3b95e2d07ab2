// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"testing"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// TestCsumCut: what is cut, into what, and what becomes of what cannot be.
func TestCsumCut(t *testing.T) {
	limited, noSeg, noTunnel := allHardware, allHardware, allHardware
	limited.TSOSegSize, limited.TunnelTSOSegSize = 100, 50
	noSeg.TCPSeg, noSeg.UDPSeg = false, false
	noTunnel.TunnelSeg = false
	softOuter, tcpOnly, bare := allHardware, CsumConfig{TCPSeg: true}, CsumConfig{TCPSeg: true, TSOSegSize: 60}
	softOuter.OuterUDP = false
	const tcpSeg, udpSeg = mbuf.TxTCPSeg | mbuf.TxTCPCksum, mbuf.TxUDPSeg | mbuf.TxUDPCksum
	tests := []struct {
		name, kind string
		c          CsumConfig
		flags      uint64
		seg        int
		payload    int
		wantSeg    int    // 0: not to be cut
		want       uint64 // of TxTCPSeg, TxUDPSeg and the layer-4 checksum; dropped if noTSO
	}{
		{"own size", "tcp4", allHardware, lro, 200, 500, 200, tcpSeg},
		{"own size 6", "tcp6", allHardware, lro, 200, 500, 200, tcpSeg},
		{"odd size", "tcp4 options", allHardware, lro, 201, 501, 201, tcpSeg},
		{"limit smaller", "tcp4", limited, lro, 200, 500, 100, tcpSeg},
		{"limit larger", "tcp4", limited, lro, 80, 500, 80, tcpSeg},
		{"not lro, over the limit", "tcp4", limited, 0, 0, 101, 100, tcpSeg},
		{"not lro, at the limit", "tcp4", limited, 0, 0, 100, 0, mbuf.TxTCPCksum},
		{"not lro, no limit", "tcp4", allHardware, 0, 0, 500, 0, mbuf.TxTCPCksum},
		{"checksums in software", "tcp6", bare, 0, 0, 500, 60, tcpSeg},
		{"one packet's worth", "tcp4", allHardware, lro, 500, 500, 0, mbuf.TxTCPCksum},
		{"one packet's worth, no tso", "tcp4", noSeg, lro, 500, 500, 0, mbuf.TxTCPCksum},
		{"datagrams", "udp4", allHardware, lro, 200, 500, 200, udpSeg},
		{"datagrams, limit smaller", "udp6", limited, lro, 200, 500, 200, udpSeg},
		{"one datagram", "udp6", limited, 0, 0, 500, 0, mbuf.TxUDPCksum},
		{"no tso", "tcp4", noSeg, lro, 200, 500, 0, noTSO},
		{"no uso", "udp4", tcpOnly, lro, 200, 500, 0, noTSO},
		{"no size", "tcp4", allHardware, lro, 0, 500, 0, noTSO},
		{"tunnel", "vxlan4", allHardware, lro, 200, 500, 200, tcpSeg},
		{"tunnel, limit", "vxlan4", limited, lro, 200, 500, 50, tcpSeg},
		{"tunnel, not lro", "vxlan4", limited, 0, 0, 51, 50, tcpSeg},
		{"tunnel, datagrams", "vxlan6", limited, lro, 200, 500, 200, udpSeg},
		{"tunnel, none", "vxlan4", noTunnel, lro, 200, 500, 0, noTSO},
		{"tunnel, outer in software", "vxlan4", softOuter, lro, 200, 500, 200, tcpSeg},
		{"tunnel, outer 6 in software", "geneve4 in 6", softOuter, lro, 200, 500, 0, noTSO},
		{"tunnel, outer 6 without", "vxlan6 no sum", softOuter, lro, 200, 500, 200, udpSeg},
		{"tunnel, outer 6 by driver", "geneve4 in 6", allHardware, lro, 200, 500, 200, tcpSeg},
		{"gre", "gre", allHardware, lro, 200, 500, 0, noTSO},
		{"gre, not lro", "gre", limited, 0, 0, 500, 0, mbuf.TxTCPCksum},
	}
	for _, tt := range tests {
		r := csumRig(t, tt.c)
		f := frames(tt.payload)[tt.kind]
		m := r.passMbuf(r.received(f.damaged(), tt.flags, tt.seg, 30, 9))
		if tt.want == noTSO {
			if m != nil {
				t.Errorf("%s: sent with %#x", tt.name, m.OlFlags)
				m.Free()
			}
			wantStats(t, r.s, Stats{RxPackets: 1, NoTSO: 1})
			continue
		}
		if m == nil {
			t.Errorf("%s: not sent: %+v", tt.name, r.s.Stats())
			continue
		}
		got := m.OlFlags & (mbuf.TxTCPSeg | mbuf.TxUDPSeg | mbuf.TxL4Mask)
		if l := m.Lengths(); got != tt.want || l.TSOSegSize != tt.wantSeg {
			t.Errorf("%s: flags %#x, segment size %d; want %#x, %d", tt.name, got, l.TSOSegSize, tt.want, tt.wantSeg)
		}
		want := fromPeer(f.b)
		if l := m.Lengths(); tt.kind == "vxlan4" && tt.c == softOuter {
			put16(want[l.OuterL2+l.OuterL3+6:], 0) // every part would need another
		}
		wantBytes(t, tt.name, transmit(t, m), want)
		m.Free()
	}
}

// TestCsumUnknownTunnel: a large frame in a tunnel whose kind does not show is treated where the driver says that the
// headers are; if they are not there, it is not sent.
func TestCsumUnknownTunnel(t *testing.T) {
	inner := tcp(500, "").ip4(6, "")
	noTunnel := allHardware
	noTunnel.TunnelSeg = false
	for name, d := range map[string]struct {
		f  made
		at int // of the inner IP header
	}{
		"bareudp":          {udpAround(inner, 6635, true).ip4(17, "").ether("0800"), 42},
		"vxlan elsewhere":  {udpAround(inner.ether("0800").under(make([]byte, 8)), 5555, true).ip4(17, "").ether("0800"), 64},
		"looks like vxlan": {udpAround(inner.under(unhex("0c00 0001 0000 0100")), 4789, true).ip4(17, "").ether("0800"), 50},
	} {
		receive := func(r *rig, at int) *mbuf.Mbuf {
			m := r.received(d.f.damaged(), lro|mbuf.RxOuterL4CksumInvalid, 100, 30, 9)
			m.PacketType = mbuf.PTypeL2Ether | mbuf.PTypeL3IPv4 | mbuf.PTypeL4UDP | mbuf.PTypeTunnelGRENAT | mbuf.PTypeInnerL3IPv4 | mbuf.PTypeInnerL4TCP
			m.SetLengths(mbuf.Lengths{OuterL2: 14, OuterL3: 20, L2: at - 34, L3: 20, L4: 20, TSOSegSize: 100})
			return r.passMbuf(m)
		}
		r := csumRig(t, allHardware)
		m := receive(r, d.at)
		if m == nil {
			t.Fatalf("%s: not sent: %+v", name, r.s.Stats())
		}
		const want = mbuf.TxTCPSeg | mbuf.TxTunnelUDP | mbuf.TxOuterUDPCksum
		if l := m.Lengths(); m.OlFlags&(mbuf.TxTCPSeg|mbuf.TxTunnelMask|mbuf.TxOuterUDPCksum) != want || l.TSOSegSize != 100 || l.IPStart() != d.at {
			t.Errorf("%s: flags %#x, %+v", name, m.OlFlags, l)
		}
		wantBytes(t, name, transmit(t, m), fromPeer(d.f.b))
		m.Free()

		r = csumRig(t, noTunnel)
		if m := receive(r, d.at); m != nil {
			t.Errorf("%s: sent without TunnelSeg with %#x", name, m.OlFlags)
			m.Free()
		}
		wantStats(t, r.s, Stats{RxPackets: 1, NoTSO: 1})

		r = csumRig(t, allHardware)
		if m := receive(r, d.at+1); m != nil {
			t.Errorf("%s: sent with %#x, though there is no packet", name, m.OlFlags)
			m.Free()
		}
		wantStats(t, r.s, Stats{RxPackets: 1, Malformed: 1})
	}
}

// TestCsumCutPadding: a driver would take what is behind the IP packet for payload.
func TestCsumCutPadding(t *testing.T) {
	r := csumRig(t, allHardware)
	if m := r.passMbuf(r.received(append(frames(500)["tcp4"].b, 0, 0), lro, 100)); m != nil {
		t.Errorf("sent with %#x", m.OlFlags)
		m.Free()
	}
	wantStats(t, r.s, Stats{RxPackets: 1, NoTSO: 1})
}

// noTSO stands for a packet that is dropped.
const noTSO = ^uint64(0)

// TestCsumTags: a tag that was stripped goes back, by the driver or in software, and in front of nothing else.
func TestCsumTags(t *testing.T) {
	for _, c := range []CsumConfig{{}, {VLAN: true}, {QinQ: true, TCP: true, IPv4: true}, allHardware} {
		for _, flags := range []uint64{0, oneTag, twoTags} {
			for _, cuts := range [][]int{nil, {3}, ones(60), {0, 13, 1, 5}} {
				r := csumRig(t, c)
				f := tcp(31, "").ip4(6, "").ether("0800")
				m := r.passMbuf(r.received(f.damaged(), flags, 0, cuts...))
				want := fromPeer(f.b)
				switch flags {
				case oneTag:
					want = tag(want, "8100 e064")
				case twoTags:
					want = tag(want, "88a8 0123 8100 e064")
				}
				wantBytes(t, "tagged", transmit(t, m), want)
				wantLayout(t, m)
				asked := m.OlFlags & (mbuf.TxVLAN | mbuf.TxQinQ)
				if may := flags == oneTag && c.VLAN || flags == twoTags && c.QinQ; (asked != 0) != may {
					t.Errorf("%+v, flags %#x: asked for %#x", c, flags, asked)
				}
				m.Free()
			}
		}
	}
}

// wantLayout compares what m says of its headers with the headers.
func wantLayout(t *testing.T, m *mbuf.Mbuf) {
	t.Helper()
	l := header.Parse(m.AppendTo(nil))
	lengths := m.Lengths()
	lengths.TSOSegSize = 0
	if m.PacketType != l.PacketType || lengths != l.Lengths() {
		t.Errorf("type %#x, lengths %+v; want %#x, %+v", m.PacketType, lengths, l.PacketType, l.Lengths())
	}
}

// TestCsumTagInFront: a tag in software goes in front of those that are there.
func TestCsumTagInFront(t *testing.T) {
	c := allHardware
	c.VLAN, c.QinQ = false, false
	for _, kind := range []string{"arp", "tcp4 vlan", "vxlan4", "vxlan vlan both"} {
		r := csumRig(t, c)
		f := frames(31)[kind]
		m := r.passMbuf(r.received(f.damaged(), oneTag, 0, 11))
		want := tag(fromPeer(f.b), "8100 e064")
		wantBytes(t, kind, transmit(t, m), want)
		wantLayout(t, m)
		m.Free()
	}
	// No type says three tags; the lengths do.
	r := csumRig(t, c)
	f := frames(31)["tcp6 qinq"]
	m := r.passMbuf(r.received(f.damaged(), oneTag, 0, 11))
	wantBytes(t, "three tags", transmit(t, m), tag(fromPeer(f.b), "8100 e064"))
	if l2 := m.PacketType & mbuf.PTypeL2Mask; l2 != mbuf.PTypeL2EtherQinQ || m.Lengths().L2 != 26 {
		t.Errorf("three tags: type %#x, lengths %+v", l2, m.Lengths())
	}
	m.Free()
}

// TestCsumNoHeadroom: a tag that has no place drops the packet, as does a buffer that others see.
func TestCsumNoHeadroom(t *testing.T) {
	r := csumRig(t, CsumConfig{})
	b := frames(10)["tcp4"].b
	full := r.received(b, oneTag, 0)
	full.Prepend(full.Headroom() - 3)
	shared := r.received(b, oneTag, 0)
	shared.RefUpdate(1)
	for _, m := range []*mbuf.Mbuf{full, shared} {
		if m := r.passMbuf(m); m != nil {
			t.Error("sent")
			m.Free()
		}
	}
	shared.Free()
	wantStats(t, r.s, Stats{RxPackets: 2, NoMbuf: 2})
}
