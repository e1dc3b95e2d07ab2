// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

// claims shows each feature that docs/features.ini may claim. The names are DPDK's
// (doc/guides/nics/features/default.ini).
var claims = map[string]func(t *testing.T){
	"Link status": showLinkStatus,
	"Rx interrupt": func(t *testing.T) {
		p := startPort(t, Config{})
		done := start(func() error { return p.RxQueue(0).Wait(bounded(t)) })
		parked(t, inWait)
		p.inject(frame(64, 1))
		must(t, ended(t, done))
		p.receive(1)
	},
	"Link status event": showEvent(func(p *port) error { return p.conn.SetDown(p.index) }, ChangeLink),
	"Removal event":     showEvent(func(p *port) error { return p.conn.Delete(p.index) }, ChangeRemoved),
	"MTU update":        showMTUUpdate,
	"Scattered Rx":      showScatteredRx,
	"Promiscuous mode":  showPromiscuous,
	"Allmulticast mode": showAllMulticast,
	"Basic stats":       showBasicStats,
	"Stats per queue":   showQueueStats,
	"Extended stats":    showXStats,
	"LRO":               showRelay(relayConfig{rx: relayRx, tx: relayTx}, func(s *seen) bool { return s.lro.Load() > 0 }),
	"TSO":               showRelay(relayConfig{rx: relayRx, tx: relayTx, hop: true}, func(s *seen) bool { return s.lro.Load() > 0 }),
	"VLAN offload": showRelay(relayConfig{rx: relayRx | RxOffloadVLANStrip, tx: relayTx | TxOffloadVLANInsert, tags: []traffic.VLANTag{{Type: 0x8100, TCI: 100}}},
		func(s *seen) bool { return s.stripped.Load() > 0 }),
	"QinQ offload": showRelay(relayConfig{rx: relayRx | relayStrip, tx: relayTx | relayInsert, tags: []traffic.VLANTag{{Type: 0x88a8, TCI: 7}, {Type: 0x8100, TCI: 100}}},
		func(s *seen) bool { return s.stripped.Load() > 0 }),
	"L3 checksum offload": showTx("IPv4 header"),
	"L4 checksum offload": showTx("TCP v6"),
	"Inner L3 checksum":   showTx("both IPv4 headers"),
	"Inner L4 checksum":   showTx("in VXLAN"),
	"Packet type parsing": showRx("QinQ not stripped by VLAN"),
	"Multiprocess aware": func(t *testing.T) {
		s := newStage(t, 2)
		a := s.agent("one")
		a.attach(0)
		a.lease(0, 1)
		a.echo(0, 1)
		a.do(order{Op: "say", Queues: []int{1}, N: 1})
		s.inject(flow(1, 64))
		nettest.Eventually(t, wait, "a secondary sends back what it received", func() bool { return s.stats().OPackets == 2 })
		a.quit()
	},
	"Linux":      showFile("Makefile", "linux/amd64"),
	"ARMv7":      showFile("Makefile", "linux/arm "),
	"ARMv8":      showFile("Makefile", "linux/arm64"),
	"Power8":     showFile("Makefile", "linux/ppc64le"),
	"x86-32":     showFile("Makefile", "linux/386"),
	"x86-64":     showFile("Makefile", "linux/amd64"),
	"Usage doc":  showFile("docs/guide.md", "# The user's guide"),
	"Design doc": showFile("docs/architecture.md", "# Architecture"),
}

func TestFeatures(t *testing.T) {
	nettest.NeedFast(t)
	claimed := readFeatures(t, "docs/features.ini")
	for name := range claims {
		if _, ok := claimed[name]; !ok {
			t.Errorf("%q is there and not claimed", name)
		}
	}
	for name, value := range claimed {
		t.Run(name, func(t *testing.T) {
			if value != "Y" && value != "P" {
				t.Errorf("value is %q: want Y, or P for partly", value)
			}
			show, ok := claims[name]
			if !ok {
				t.Fatal("claimed, and nothing shows it")
			}
			show(t)
		})
	}
}

// readFeatures reads the [Features] section of a file in DPDK's format.
func readFeatures(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	features := map[string]string{}
	section := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), ";")
		line = strings.TrimSpace(line)
		name, value, ok := strings.Cut(line, "=")
		switch {
		case line == "":
		case strings.HasPrefix(line, "["):
			section = line
		case !ok || section != "[Features]":
			t.Fatalf("%s: %q: want \"Name = Y\" in [Features]", path, line)
		default:
			features[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	if len(features) == 0 {
		t.Fatalf("%s claims nothing", path)
	}
	return features
}

func showFile(path, holds string) func(t *testing.T) {
	return func(t *testing.T) {
		b, err := os.ReadFile(path)
		must(t, err)
		if !strings.Contains(string(b), holds) {
			t.Errorf("%s does not have %q", path, holds)
		}
	}
}

func showLinkStatus(t *testing.T) {
	p := startPort(t, Config{})
	for _, up := range []bool{true, false, true} {
		if up {
			must(t, p.SetLinkUp())
		} else {
			must(t, p.SetLinkDown())
		}
		l, err := p.Link()
		must(t, err)
		if l.Running != up || p.kernel().Up != up {
			t.Errorf("Running is %v, the kernel says %v: want %v", l.Running, p.kernel().Up, up)
		}
	}
}

func showEvent(do func(p *port) error, want Change) func(t *testing.T) {
	return func(t *testing.T) {
		p := startPort(t, Config{})
		e := p.listen()
		must(t, do(p))
		for e.next().Changed&want == 0 {
		}
	}
}

func showMTUUpdate(t *testing.T) {
	p := startPort(t, Config{})
	must(t, p.SetMTU(9000))
	if got := p.kernel().MTU; got != 9000 {
		t.Errorf("the kernel's MTU is %d: want 9000", got)
	}
}

func showScatteredRx(t *testing.T) {
	if startPort(t, Config{}).Info().RxOffloads&RxOffloadScatter == 0 {
		t.Error("not a capability of the port")
	}
	p := startPort(t, Config{MTU: 9000})
	p.inject(frame(9000, 1))
	got := p.burst(0, 1)
	defer mbuf.FreeBulk(got)
	if got[0].NbSegs < 2 {
		t.Errorf("a frame of 9000 bytes came in %d mbufs of 2048", got[0].NbSegs)
	}
}

// showRelay sends a stream through two ports and looks at what the first received.
func showRelay(cfg relayConfig, ok func(s *seen) bool) func(t *testing.T) {
	return func(t *testing.T) {
		r := newRelay(t, cfg)
		r.tcp(traffic.TCPConfig{Bytes: 1 << 20}, r.v4[1])
		if !ok(&r.seen[0]) {
			t.Error("no packet was received so")
		}
	}
}

// showTx and showRx show one of the cases of the tests of offloads.
func showTx(name string) func(t *testing.T) {
	return func(t *testing.T) {
		pool := newPool(t, mbuf.Config{Name: "show", Count: 8, DataRoom: 4000})
		cases := txCases()
		c := cases[slices.IndexFunc(cases, func(c txCase) bool { return c.name == name })]
		m := c.mbuf(t, pool)
		c.check(t, m, m.AppendTo(nil))
	}
}

func showRx(name string) func(t *testing.T) {
	return func(t *testing.T) {
		pool := newPool(t, mbuf.Config{Name: "show", Count: 64, DataRoom: 4000})
		cases := rxCases()
		c := cases[slices.IndexFunc(cases, func(c rxCase) bool { return c.name == name })]
		m := fakeReceive(t, pool, PortConfig{RxOffloads: c.offloads}, c.hdr, c.frame)
		defer m.Free()
		c.check(t, m)
	}
}

func showPromiscuous(t *testing.T) {
	p := startPort(t, Config{})
	must(t, p.SetPromiscuous(true))
	if !p.kernel().Promisc {
		t.Error("the kernel does not know")
	}
}

func showAllMulticast(t *testing.T) {
	p := startPort(t, Config{})
	must(t, p.SetAllMulticast(true))
	if !p.kernel().AllMulti {
		t.Error("the kernel does not know")
	}
}

func showBasicStats(t *testing.T) {
	p := startPort(t, Config{})
	before := p.stats()
	p.send(0, frame(100, 1), frame(100, 2))
	if got := p.stats().OPackets - before.OPackets; got != 2 {
		t.Errorf("opackets grew by %d: want 2", got)
	}
}

func showQueueStats(t *testing.T) {
	p := startPort(t, Config{Queues: 2})
	p.send(1, frame(100, 1))
	s, err := p.QueueStats(1)
	must(t, err)
	if s.OPackets != 1 {
		t.Errorf("queue 1 sent %d packets: want 1", s.OPackets)
	}
}

func showXStats(t *testing.T) {
	p := startPort(t, Config{})
	p.send(0, frame(100, 1))
	for name, want := range map[string]uint64{"tx_good_packets": 1, "tx_q0_size_65_to_127_packets": 1, "tx_q0_unicast_packets": 1} {
		if got := p.xstat(name); got != want {
			t.Errorf("%s is %d: want %d", name, got, want)
		}
	}
}
