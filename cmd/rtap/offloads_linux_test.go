// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
)

// TestRunOffloads sends the kernel's own traffic through two ports with offloads.
func TestRunOffloads(t *testing.T) {
	for k, c := range []struct {
		name, args string
		large      bool // the stream comes in frames of several packets
		longest    int  // bytes that no frame may exceed, 0: as many as there are
		changes    bool // what is sent is not what was received, packet by packet
		both       bool // with either engine, not the first alone
	}{
		{name: "all", args: "--offloads=all", both: true, large: true},
		{name: "testpmd's names", args: "--enable-lro --enable-rx-cksum", large: true},
		{name: "chains", args: "--enable-lro --enable-scatter", large: true},
		{name: "small chains", args: "--offloads=all --enable-scatter --mbuf-size=640", both: true, large: true},
		{name: "16 KB", args: "--offloads=lro --mbuf-size=16384", large: true, longest: 16384},
		{name: "bounded", args: "--offloads=lro --max-lro-pkt-size=9000", large: true, longest: 9000},
		{name: "checksums", args: "--offloads=csum"},
		{name: "mac", args: "--offloads=all --forward-mode=mac", large: true},
		{name: "queues", args: "--offloads=all --rxq=3 --nb-cores=2 --burst=7", large: true},
		{name: "csum in software", args: "--forward-mode=csum"},
		{name: "csum completes", args: "--forward-mode=csum --enable-rx-cksum"},
		{name: "csum of the port", args: "--forward-mode=csum --offloads=csum"},
		{name: "csum and LRO", args: "--forward-mode=csum --enable-lro", large: true},
		{name: "csum and all", args: "--forward-mode=csum --offloads=all", large: true},
		{name: "csum cuts", args: "--forward-mode=csum --tso-segsz=700"},
		{name: "mtu", args: "--forward-mode=mtu", large: true, changes: true},
		{name: "mtu, chains", args: "--forward-mode=mtu --offloads=all --enable-scatter", both: true, large: true, changes: true},
		{name: "TUN", args: "mode=tun --offloads=all", both: true, large: true},
		{name: "TUN, chains", args: "mode=tun --offloads=all --enable-scatter", large: true},
		{name: "TUN, no offloads", args: "mode=tun --rxq=2"},
		{name: "TUN, csum and all", args: "mode=tun --forward-mode=csum --offloads=all", large: true},
		{name: "TUN, mtu", args: "mode=tun --forward-mode=mtu", large: true, changes: true},
		{name: "mtu, no LRO", args: "--forward-mode=mtu --enable-rx-cksum", changes: true},
	} {
		for i, engine := range engines() {
			if nettest.Leave(k) || i > 0 && !c.both {
				continue
			}
			t.Run(c.name+"/"+engine, func(t *testing.T) {
				r := runThrough(t, engine, c.args)
				checkLarge(t, r, c.large)
				if in := r.Ports[0]; c.longest > 0 && in.IBytes > in.IPackets*uint64(c.longest) {
					t.Errorf("%d packets had %d bytes, more than %d each", in.IPackets, in.IBytes, c.longest)
				}
				checkPassed(t, r, c.changes)
			})
		}
	}
}

// offloadBytes is how long the stream is that is sent through ports with offloads.
func offloadBytes() int { return nettest.Scale(16 << 20) }

// quietNS is a namespace whose interfaces do not announce themselves by IPv6: an
// announcement that comes before the other end is up counts in oerrors.
func quietNS(t *testing.T) *netns.NS {
	t.Helper()
	ns := nettest.NS(t)
	if err := (lab{ns}).withoutIPv6(0); err != nil {
		t.Fatal(err)
	}
	return ns
}

// runThrough sends pings and a stream through rtap run, and returns its report. Of arguments that begin with mode=tun
// the ports are TUNs.
func runThrough(t *testing.T, engine, args string) report {
	t.Helper()
	const mac0, mac1 = "02:00:00:00:0f:00", "02:00:00:00:0f:01"
	ns, a, b := quietNS(t), quietNS(t), quietNS(t)
	conn := nettest.Conn(t, ns)
	args, tun := strings.CutPrefix(args, "mode=tun ")
	if tun {
		args += " --vdev=net_rtap0,iface=foo0,mode=tun --vdev=net_rtap1,mode=tun,iface=foo1"
	} else {
		args += " --vdev=net_rtap0,iface=foo0,mac=" + mac0 + " --vdev=net_rtap1,iface=foo1,mac=" + mac1 +
			" --eth-peer=0," + mac0 + " --eth-peer=1," + mac1 // for the modes that write addresses
	}
	p := start(t, ns, append([]string{"run", "--json", "--engine", engine}, strings.Fields(args)...)...)
	moveEnd(t, conn, p.up(conn, "foo0"), 0, a)
	moveEnd(t, conn, p.up(conn, "foo1"), 1, b)
	through(t, a, b, int64(offloadBytes()))
	p.end(syscall.SIGINT, exitDone)
	return p.parseReport()
}

// checkLarge: a stream of large frames is fewer packets than it is segments, and
// nothing is lost on the way.
func checkLarge(t *testing.T, r report, large bool) {
	t.Helper()
	segments := uint64(offloadBytes()) / 1448
	if got := r.Ports[0].IPackets; large != (got < segments/2) {
		t.Errorf("%d packets were received; the stream is %d segments", got, segments)
	}
	for _, p := range r.Ports {
		if p.IErrors+p.OErrors+p.RxNoMbuf > 0 || p.Error != "" {
			t.Errorf("errors: %+v", p)
		}
	}
	if f := r.Forward; f.FwdDropped+f.Malformed+f.NoMbuf+f.NoTSO > 0 {
		t.Errorf("dropped: %+v", f)
	}
}

// checkPassed: every byte that was received was sent, in as many packets unless the
// mode changes that.
func checkPassed(t *testing.T, r report, changes bool) {
	t.Helper()
	in, out := r.Ports[0], r.Ports[1]
	if in.IBytes < uint64(offloadBytes()) || out.OBytes < uint64(offloadBytes()) {
		t.Errorf("%d bytes were received and %d sent of a stream of %d", in.IBytes, out.OBytes, offloadBytes())
	}
	if !changes && (in.IPackets != out.OPackets || in.IBytes != out.OBytes || out.IPackets != in.OPackets || out.IBytes != in.OBytes) {
		t.Errorf("the ports counted %+v and %+v", in.Stats, out.Stats)
	}
}

// TestRunSaysOffloads: what is on is in the announcement and in the report.
func TestRunSaysOffloads(t *testing.T) {
	ns := nettest.NS(t)
	p := start(t, ns, "run", "--json", "--vdev=net_rtap0", "--enable-lro", "--rx-offloads=vlan_strip", "--duration=0.1")
	p.wait(exitDone)
	const rx, tx = "vlan_strip,ipv4_cksum,udp_cksum,tcp_cksum,tcp_lro", "vlan_insert,udp_cksum,tcp_cksum,tcp_tso"
	spaced := func(names string) string { return strings.ReplaceAll(names, ",", ", ") }
	if want := "Rx offloads " + spaced(rx) + "; Tx offloads " + spaced(tx); !strings.Contains(p.err.String(), want) {
		t.Errorf("no %q in %s", want, &p.err)
	}
	port := p.parseReport().Ports[0]
	if !slices.Equal(port.RxOffloads, strings.Split(rx, ",")) || !slices.Equal(port.TxOffloads, strings.Split(tx, ",")) {
		t.Errorf("the report has Rx offloads %q, Tx offloads %q", port.RxOffloads, port.TxOffloads)
	}

	p = start(t, ns, "run", "--json", "--vdev=net_rtap0", "--duration=0.1")
	p.wait(exitDone)
	if !strings.Contains(p.out.String(), `"rx_offloads":[],"tx_offloads":[]`) || strings.Contains(p.err.String(), "Rx offloads") {
		t.Errorf("with none: %s%s", &p.out, &p.err)
	}
}

// TestRunRefusesOffloads: what no kernel has is refused by name.
func TestRunRefusesOffloads(t *testing.T) {
	ns := nettest.NS(t)
	for args, want := range map[string]string{
		"--rx-offloads=sctp_cksum": "rx offload sctp_cksum: ",
		"--rx-offloads=0x4000000":  "rx offload bit 26: ",
		"--tx-offloads=0x400":      "tx offload gre_tnl_tso: ",
	} {
		p := start(t, ns, "run", "--vdev=net_rtap0", "--duration=0.1", args)
		p.wait(exitFailed)
		if !strings.Contains(p.err.String(), want) {
			t.Errorf("%s: no %q in %s", args, want, &p.err)
		}
	}
}
