// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"errors"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// allHardware asks for everything that can be asked for.
var allHardware = CsumConfig{
	IPv4: true, TCP: true, UDP: true, OuterIPv4: true, OuterUDP: true,
	TCPSeg: true, UDPSeg: true, TunnelSeg: true, VLAN: true, QinQ: true, ParseTunnel: true,
}

func csumRig(t testing.TB, c CsumConfig) *rig {
	return newRig(t, newPool(t, mbuf.Config{Count: 1024}), Config{Mode: "csum", Csum: c})
}

// csumSettings are the ways to share the work with the driver. Each must give the same packets.
func csumSettings() map[string]CsumConfig {
	outerOnly, innerOnly := allHardware, allHardware
	outerOnly.TCP, outerOnly.UDP, outerOnly.IPv4 = false, false, false
	innerOnly.OuterIPv4, innerOnly.OuterUDP = false, false
	return map[string]CsumConfig{
		"software": {ParseTunnel: true}, "hardware": allHardware, "outer only": outerOnly, "inner only": innerOnly,
	}
}

// TestCsum: whatever comes in with wrong checksums goes out with right ones, computed here or by the driver, in one
// piece or in any cut, with an odd payload or an even one.
func TestCsum(t *testing.T) {
	for name, c := range csumSettings() {
		t.Run(name, func(t *testing.T) {
			r := csumRig(t, c)
			for _, n := range []int{0, 33, 64} {
				for kind, f := range frames(n) {
					in, want := f.damaged(), fromPeer(f.b)
					if kind == "vxlan no ip" && n == 0 {
						continue
					}
					pass := func(cuts ...int) {
						t.Helper()
						m := r.passMbuf(r.received(in, 0, 0, cuts...))
						if m == nil {
							t.Fatalf("%s: not sent", kind)
						}
						wantBytes(t, kind, transmit(t, m), want)
						m.Free()
					}
					pass()
					pass(ones(len(in))...)
					for cut := 1; cut < len(in); cut += 3 * len(in) / nettest.Scale(len(in)) {
						pass(cut)
						pass(cut/2, cut)
					}
				}
			}
		})
	}
}

// TestCsumRequests: what is asked for is what the settings allow, and no more.
func TestCsumRequests(t *testing.T) {
	const (
		v4, v6 = mbuf.TxIPv4, mbuf.TxIPv6
		o4, o6 = mbuf.TxOuterIPv4, mbuf.TxOuterIPv6
	)
	vxlan4 := mbuf.TxTunnelVXLAN | o4
	tests := []struct {
		c    CsumConfig
		kind string
		want uint64
	}{
		{CsumConfig{ParseTunnel: true}, "vxlan4", 0},
		{CsumConfig{IPv4: true}, "tcp4", mbuf.TxIPCksum | v4},
		{CsumConfig{IPv4: true}, "tcp6", 0},
		{CsumConfig{TCP: true}, "tcp4", mbuf.TxTCPCksum | v4},
		{CsumConfig{TCP: true}, "tcp6 hbh", mbuf.TxTCPCksum | v6},
		{CsumConfig{TCP: true}, "udp4", 0},
		{CsumConfig{UDP: true}, "udp6", mbuf.TxUDPCksum | v6},
		{CsumConfig{UDP: true}, "tcp6", 0},
		{CsumConfig{UDP: true}, "udp4 no sum", 0},
		{allHardware, "udp4 no sum", mbuf.TxIPCksum | v4},
		{allHardware, "sctp4", mbuf.TxIPCksum | v4},
		{allHardware, "sctp6", 0},
		{allHardware, "fragment", mbuf.TxIPCksum | v4},
		{allHardware, "routed", 0},
		{allHardware, "arp", 0},
		{CsumConfig{UDP: true}, "vxlan4", mbuf.TxUDPCksum | v4},                                       // not looked into
		{CsumConfig{TCP: true, ParseTunnel: true}, "vxlan4", mbuf.TxTCPCksum | v4 | vxlan4},           // the inner one
		{CsumConfig{OuterIPv4: true, ParseTunnel: true}, "vxlan4", mbuf.TxOuterIPCksum | v4 | vxlan4}, //
		{CsumConfig{OuterUDP: true, ParseTunnel: true}, "vxlan4", mbuf.TxOuterUDPCksum | v4 | vxlan4}, //
		{CsumConfig{OuterUDP: true, ParseTunnel: true}, "vxlan4 no sum", 0},                           //
		{allHardware, "geneve4 in 6", mbuf.TxIPCksum | mbuf.TxTCPCksum | mbuf.TxOuterUDPCksum | v4 | o6 | mbuf.TxTunnelGENEVE},
		{allHardware, "gre", mbuf.TxIPCksum | mbuf.TxTCPCksum | mbuf.TxOuterIPCksum | v4 | o4 | mbuf.TxTunnelGRE},
		{allHardware, "nvgre", mbuf.TxUDPCksum | mbuf.TxOuterIPCksum | v6 | o4 | mbuf.TxTunnelGRE},
		{allHardware, "4in6", mbuf.TxIPCksum | mbuf.TxTCPCksum | v4 | o6 | mbuf.TxTunnelIPIP},
	}
	for _, tt := range tests {
		r := csumRig(t, tt.c)
		f := frames(20)[tt.kind]
		m := r.passMbuf(r.received(f.b, mbuf.RxL4CksumGood|mbuf.RxIPCksumGood, 0))
		if m.OlFlags != tt.want {
			t.Errorf("%s with %+v: flags %#x, want %#x", tt.kind, tt.c, m.OlFlags, tt.want)
		}
		if tt.want == 0 {
			wantBytes(t, tt.kind, m.AppendTo(nil), fromPeer(f.b))
		}
		m.Free()
	}
}

// TestCsumOuterOnly: without ParseTunnel a tunnel is its outer headers, and what is inside is payload.
func TestCsumOuterOnly(t *testing.T) {
	inner := tcp(40, "").ip4(6, "").ether("0800")
	inner.b, inner.sums = inner.damaged(), nil
	for _, f := range []made{vxlan(inner, true).ip4(17, "").ether("0800"), vxlan(inner, true).ip6(17, 17, "").ether("86dd")} {
		for _, c := range []CsumConfig{{}, {IPv4: true, TCP: true, UDP: true, OuterUDP: true}} {
			r := csumRig(t, c)
			m := r.passMbuf(r.received(f.damaged(), 0, 0, 17))
			wantBytes(t, "outer", transmit(t, m), fromPeer(f.b))
			m.Free()
		}
	}
}

// TestCsumGREChecksum: what a GRE checksum covers is not changed under it.
func TestCsumGREChecksum(t *testing.T) {
	inner := tcp(40, "").ip4(6, "")
	inner.b, inner.sums = inner.damaged(), nil
	f := inner.under(unhex("8000 0800 1234 0000")).ip4(47, "").ether("0800")
	r := csumRig(t, CsumConfig{ParseTunnel: true})
	wantBytes(t, "gre", r.pass(f.damaged()), fromPeer(f.b))
}

// TestCsumPadding: what is behind the IP packet is neither part of a checksum nor left to a driver, which would
// make it part.
func TestCsumPadding(t *testing.T) {
	for name, c := range csumSettings() {
		r := csumRig(t, c)
		for kind, f := range frames(1) {
			pad := []byte{1, 2, 3}
			m := r.passMbuf(r.received(append(f.damaged(), pad...), 0, 0, 5))
			wantBytes(t, name+" "+kind, transmit(t, m), append(fromPeer(f.b), pad...))
			m.Free()
		}
	}
}

// TestCsumOpen: checksums that are not in the packet are completed like wrong ones, even if the field holds 0.
func TestCsumOpen(t *testing.T) {
	for name, c := range csumSettings() {
		r := csumRig(t, c)
		for _, kind := range []string{"tcp4", "tcp6 hbh", "udp4", "udp6", "vxlan4", "vxlan6", "geneve4 in 6", "gre", "4in6"} {
			f := frames(31)[kind]
			in := f.damaged()
			l := packetLengths(t, r, in)
			put16(in[l.L4Start()+map[bool]int{true: 6, false: 16}[strings.Contains(kind, "udp") || kind == "vxlan6"]:], 0)
			flags := mbuf.RxL4CksumNone
			if l.OuterL3 != 0 && strings.Contains(kind, "v") {
				flags |= mbuf.RxOuterL4CksumInvalid
				put16(in[l.OuterL2+l.OuterL3+6:], 0)
			}
			m := r.passMbuf(r.received(in, flags, 0, 20))
			wantBytes(t, name+" "+kind, transmit(t, m), fromPeer(f.b))
			m.Free()
		}
	}
	// Tunnels are looked into for what the driver left open there, ParseTunnel or not.
	r := csumRig(t, CsumConfig{})
	f := frames(31)["vxlan4"]
	m := r.passMbuf(r.received(f.damaged(), mbuf.RxL4CksumNone, 0))
	wantBytes(t, "without ParseTunnel", transmit(t, m), fromPeer(f.b))
	m.Free()
}

func packetLengths(t *testing.T, r *rig, b []byte) mbuf.Lengths {
	m := r.received(b, 0, 0)
	defer m.Free()
	return m.Lengths()
}

// TestCsumContradiction: what the driver left open and cannot be found is not sent.
func TestCsumContradiction(t *testing.T) {
	short := frames(40)["tcp4"].b
	for name, in := range map[string][]byte{
		"icmp": frames(9)["icmp4"].b, "arp": frames(9)["arp"].b, "fragment": frames(9)["fragment"].b,
		"short": short[:len(short)-1], "short tunnel": frames(9)["vxlan4"].b[:100], "routed": frames(9)["routed"].b, "gre arp": frames(9)["vxlan no ip"].b[:50],
	} {
		for _, flags := range []uint64{mbuf.RxL4CksumNone, mbuf.RxLRO, mbuf.RxOuterL4CksumInvalid} {
			if name == "routed" || name == "icmp" {
				flags &^= mbuf.RxOuterL4CksumInvalid
			}
			if flags == 0 {
				continue
			}
			r := csumRig(t, allHardware)
			if m := r.passMbuf(r.received(in, flags, 100)); m != nil {
				t.Errorf("%s with flags %#x: sent with %#x", name, flags, m.OlFlags)
				m.Free()
			}
			wantStats(t, r.s, Stats{RxPackets: 1, Malformed: 1})
		}
	}
}

// TestCsumBad: what the driver found wrong is counted, and mended.
func TestCsumBad(t *testing.T) {
	r := csumRig(t, CsumConfig{})
	f := frames(10)["tcp4"]
	for _, flags := range []uint64{
		mbuf.RxIPCksumBad, mbuf.RxIPCksumBad | mbuf.RxL4CksumBad, mbuf.RxL4CksumBad,
		mbuf.RxL4CksumBad | mbuf.RxOuterL4CksumBad, mbuf.RxIPCksumMask, mbuf.RxL4CksumNone,
		mbuf.RxIPCksumGood | mbuf.RxL4CksumGood | mbuf.RxOuterL4CksumGood, mbuf.RxL4CksumBad,
	} {
		m := r.passMbuf(r.received(f.damaged(), flags, 0))
		wantBytes(t, "mended", m.AppendTo(nil), fromPeer(f.b))
		if m.OlFlags != 0 {
			t.Errorf("flags %#x remain of %#x", m.OlFlags, flags)
		}
		m.Free()
	}
	wantStats(t, r.s, Stats{RxPackets: 8, TxPackets: 8, BadIPCsum: 2, BadL4Csum: 4, BadOuterL4Csum: 1})
}

func TestCsumConfigErrors(t *testing.T) {
	for _, tt := range []struct {
		field, want string
		c           CsumConfig
	}{
		{"Csum.TSOSegSize", "65535", CsumConfig{TSOSegSize: -1, TCPSeg: true}},
		{"Csum.TSOSegSize", "65535", CsumConfig{TSOSegSize: 65536, TCPSeg: true}},
		{"Csum.TSOSegSize", "Csum.TCPSeg", CsumConfig{TSOSegSize: 1, TunnelSeg: true, ParseTunnel: true}},
		{"Csum.TunnelTSOSegSize", "65535", CsumConfig{TunnelTSOSegSize: -1}},
		{"Csum.TunnelTSOSegSize", "65535", CsumConfig{TunnelTSOSegSize: 65536}},
		{"Csum.TunnelTSOSegSize", "Csum.TCPSeg", CsumConfig{TunnelTSOSegSize: 1, TunnelSeg: true, ParseTunnel: true}},
		{"Csum.TunnelTSOSegSize", "Csum.TunnelSeg", CsumConfig{TunnelTSOSegSize: 1, TCPSeg: true, ParseTunnel: true}},
		{"Csum.TunnelTSOSegSize", "Csum.ParseTunnel", CsumConfig{TunnelTSOSegSize: 1, TCPSeg: true, TunnelSeg: true}},
	} {
		_, err := New(Config{Mode: "csum", Csum: tt.c}, testPorts(1)...)
		var ce *ConfigError
		if !errors.As(err, &ce) || ce.Field != tt.field || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: error %v, want one about %s and %s", tt.c, err, tt.field, tt.want)
		}
	}
	ok := allHardware
	ok.TSOSegSize, ok.TunnelTSOSegSize = MaxTSOSegSize, 1
	if _, err := New(Config{Mode: "csum", Csum: ok}, testPorts(1)...); err != nil {
		t.Error(err)
	}
}
