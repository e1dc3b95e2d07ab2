// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
)

// planned is the session that flags of rtap run ask for, of two ports.
func planned(t *testing.T, args string) sessionConfig {
	t.Helper()
	var o runOptions
	f := o.flags()
	if err := f.parse(append(strings.Fields(args), "--vdev=net_rtap0", "--vdev=net_rtap1"), io.Discard); err != nil {
		t.Fatalf("%s: %v", args, err)
	}
	if err := o.complete(f); err != nil {
		t.Fatalf("%s: %v", args, err)
	}
	return o.session.withDefaults()
}

func TestOffloadFlags(t *testing.T) {
	const (
		rxCsum  = "ipv4_cksum udp_cksum tcp_cksum"
		txCsum  = "ipv4_cksum udp_cksum tcp_cksum"
		passing = "udp_cksum tcp_cksum"
	)
	for _, c := range []struct{ args, rx, tx string }{
		{"", "", ""},
		{"--offloads=none", "", ""},
		{"--enable-rx-cksum", rxCsum, passing},
		{"--enable-rx-cksum --forward-mode=csum", rxCsum, ""},
		{"--enable-rx-cksum --forward-mode=rxonly", rxCsum, ""},
		{"--enable-lro", rxCsum + " tcp_lro", passing + " tcp_tso"},
		{"--enable-lro --enable-scatter", rxCsum + " tcp_lro scatter", passing + " tcp_tso"},
		{"--enable-lro --forward-mode=csum", rxCsum + " tcp_lro", "tcp_tso"},
		{"--enable-lro --forward-mode=mtu", rxCsum + " tcp_lro", passing + " tcp_tso"},
		{"--enable-lro --forward-mode=rxonly", rxCsum + " tcp_lro", ""},
		{"--enable-lro --tx-offloads=0x2c", rxCsum + " tcp_lro", passing + " tcp_tso"},
		{"--rx-offloads=0x10", "tcp_lro", "tcp_tso"},
		{"--rx-offloads=16 --tx-offloads=tcp_tso,multi_segs", "tcp_lro", "tcp_tso multi_segs"},
		{"--rx-offloads=vlan_strip,qinq_strip", "vlan_strip qinq_strip", "vlan_insert qinq_insert"},
		{"--tx-offloads=32", "", "tcp_tso"},
		{"--offloads=csum", rxCsum, txCsum},
		{"--offloads=tso", "", txCsum + " tcp_tso"},
		{"--offloads=lro", rxCsum + " tcp_lro", txCsum + " tcp_tso"},
		{"--offloads=uso", rxCsum + " udp_lro", txCsum + " udp_tso"},
		{"--offloads=vlan,qinq", "vlan_strip qinq_strip", "vlan_insert qinq_insert"},
		{"--offloads=tunnel", rxCsum + " tcp_lro tunnel_lro",
			txCsum + " tcp_tso outer_ipv4_cksum vxlan_tnl_tso geneve_tnl_tso udp_tnl_tso outer_udp_cksum"},
		{"--tso-segsz=800 --forward-mode=csum", "", "tcp_tso"},
	} {
		s := planned(t, c.args).offloads
		if rx := strings.Join(rtap.RxOffloadNames(s.rx), " "); rx != c.rx || s.all {
			t.Errorf("%s: Rx offloads %q, all %v; want %q", c.args, rx, s.all, c.rx)
		}
		if tx := strings.Join(rtap.TxOffloadNames(s.tx), " "); tx != c.tx {
			t.Errorf("%s: Tx offloads %q, want %q", c.args, tx, c.tx)
		}
	}
}

// TestOffloadsAll: everything that the port has, but for chains, which are asked for.
func TestOffloadsAll(t *testing.T) {
	info := rtap.Info{RxOffloads: rtap.RxOffloadTCPLRO | rtap.RxOffloadScatter, TxOffloads: rtap.TxOffloadTCPTSO}
	for args, want := range map[string]uint64{
		"--offloads=all":                       rtap.RxOffloadTCPLRO,
		"--forward-mode=mtu":                   rtap.RxOffloadTCPLRO,
		"--offloads=all --enable-scatter":      rtap.RxOffloadTCPLRO | rtap.RxOffloadScatter,
		"--offloads=all,csum":                  rtap.RxOffloadTCPLRO | rtap.RxOffloadChecksum,
		"--forward-mode=mtu --enable-rx-cksum": rtap.RxOffloadChecksum,
	} {
		s := planned(t, args).offloads
		if rx, _ := s.of(info); rx != want {
			t.Errorf("%s: Rx offloads %q, want %q", args, rtap.RxOffloadNames(rx), rtap.RxOffloadNames(want))
		}
		if _, tx := s.of(info); tx&rtap.TxOffloadTCPTSO == 0 {
			t.Errorf("%s: Tx offloads %q", args, rtap.TxOffloadNames(tx))
		}
	}
}

// TestCsumConfig: mode csum leaves to the port what that has, and nothing else.
func TestCsumConfig(t *testing.T) {
	s := offloadSet{tsoSegSize: 700}
	c := s.csum(rtap.TxOffloadTCPCksum | rtap.TxOffloadTCPTSO | rtap.TxOffloadVLANInsert | rtap.TxOffloadVXLANTnlTSO)
	if !c.TCP || !c.TCPSeg || !c.VLAN || c.TSOSegSize != 700 || c.UDP || c.IPv4 || c.UDPSeg || c.QinQ || c.OuterUDP || c.OuterIPv4 ||
		c.TunnelSeg || c.ParseTunnel {
		t.Errorf("of four offloads: %+v", c)
	}
	c = s.csum(^uint64(0))
	if !c.IPv4 || !c.UDP || !c.OuterIPv4 || !c.OuterUDP || !c.UDPSeg || !c.TunnelSeg || !c.ParseTunnel || !c.QinQ {
		t.Errorf("of all: %+v", c)
	}
}

// TestMbufsForOffloads: how large mbufs are, and how many.
func TestMbufsForOffloads(t *testing.T) {
	const burst, small, large = 32, mbuf.DefaultCacheSize * 3 / 2, mbuf.DefaultCacheSize / 4 * 3 / 2
	chain := (rtap.MaxLROPktSize + 64 + 2047) / 2048
	for _, c := range []struct {
		args        string
		size, count int
	}{
		{"", 2176, 2*burst + small + burst},
		{"--rxd=16", 2176, 2*16 + small + burst},
		{"--rxq=3", 2176, 6*burst + small + burst},
		{"--mbuf-size=640", 640, 4*(2*burst) + small + 4*burst},
		{"--enable-lro", 65535, 2*burst + large + burst},
		{"--offloads=all", 65535, 2*burst + large + burst},
		{"--offloads=uso", 65535, 2*burst + large + burst},
		{"--enable-rx-cksum", 2176, 2*burst + small + burst},
		{"--enable-lro --mbuf-size=16384", 16384, 2*burst + large + burst},
		{"--enable-lro --mbuf-size=2176", 2176, 2*burst + small + burst},
		{"--enable-lro --enable-scatter", 2176, chain*2*burst + small + chain*burst},
		{"--offloads=all --enable-scatter --max-lro-pkt-size=8000", 2176, 4*2*burst + small + 4*burst},
		{"--enable-lro --total-num-mbufs=500", 65535, 500},
	} {
		if s := planned(t, c.args); s.mbufSize != c.size || s.mbufs != c.count {
			t.Errorf("%s: %d mbufs of %d bytes, want %d of %d", c.args, s.mbufs, s.mbufSize, c.count, c.size)
		}
	}
}

// TestOffloadHelp: the help has a line for each name that --offloads takes.
func TestOffloadHelp(t *testing.T) {
	_, out, _ := here("help", "run")
	for _, name := range append(groupNames(), "all") {
		if !strings.Contains(out, "\n  --offloads="+name+" ") {
			t.Errorf("no line for --offloads=%s", name)
		}
	}
	if names := strings.Join(groupNames(), ", "); !strings.Contains(out, names) {
		t.Errorf("the flag's own text does not list %s", names)
	}
	if slices.ContainsFunc(strings.Split(out, "\n"), func(l string) bool { return len([]rune(l)) > 200 }) {
		t.Error("a line of more than 200 characters")
	}
}

// TestOffloadsAllOfTUN: of everything, a port gets what it can also send: no large frames of tunnels on a TUN.
func TestOffloadsAllOfTUN(t *testing.T) {
	o := offloadSet{all: true}
	info := rtap.Info{RxOffloads: rtap.RxOffloadTCPLRO | rtap.RxOffloadTunnelLRO | rtap.RxOffloadChecksum | rtap.RxOffloadScatter,
		TxOffloads: rtap.TxOffloadTCPTSO | txChecksum}
	if rx, tx := o.of(info); rx != rtap.RxOffloadTCPLRO|rtap.RxOffloadChecksum || tx != info.TxOffloads {
		t.Errorf("rx %v, tx %v", rtap.RxOffloadNames(rx), rtap.TxOffloadNames(tx))
	}
	info.TxOffloads |= txTunnels
	if rx, _ := o.of(info); rx&rtap.RxOffloadTunnelLRO == 0 {
		t.Errorf("rx %v", rtap.RxOffloadNames(rx))
	}
}
