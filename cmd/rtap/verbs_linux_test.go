// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/uring"
)

// parsedInfo is infoReport as a reader of the JSON sees it.
type parsedInfo struct {
	Version, Kernel, Arch, Reason, Engine string
	CPUs                                  int
	Works                                 bool
	RxOffloads                            []string          `json:"rx_offloads"`
	TxOffloads                            []string          `json:"tx_offloads"`
	Lacking                               map[string]string `json:"lacking_offloads"`
	Features                              []struct{ Name, Outcome, Since, Detail, Cost string }
}

func (p *process) parseInfo() parsedInfo {
	p.t.Helper()
	var r parsedInfo
	p.decode(&r)
	return r
}

func TestInfo(t *testing.T) {
	ns := nettest.NS(t)
	p := start(t, ns, "info", "--json")
	p.wait(exitDone)
	r := p.parseInfo()
	if !r.Works || r.Engine != engines()[0] || !strings.HasPrefix(r.Kernel, "Linux ") {
		t.Errorf("info --json: %+v", r)
	}
	seen := map[string]string{}
	for _, f := range r.Features {
		seen[f.Name] = f.Outcome
		if !slices.Contains([]string{"yes", "no", "unknown"}, f.Outcome) || f.Cost == "" {
			t.Errorf("feature %+v", f)
		}
	}
	for _, name := range []string{"/dev/net/tun", "CAP_NET_ADMIN", "RLIMIT_MEMLOCK", "huge pages", uring.FeatureIoUring, uring.FeatureClone, uring.FeatureNoWait} {
		if seen[name] == "" {
			t.Errorf("info does not know %q", name)
		}
	}
	if seen["/dev/net/tun"] != "yes" || seen["CAP_NET_ADMIN"] != "yes" || (seen[uring.FeatureIoUring] == "yes") != uring.Supported() {
		t.Errorf("outcomes are %v", seen)
	}

	checkOffloads(t, r)

	p = start(t, ns, "info")
	p.wait(exitDone)
	if !strings.Contains(p.out.String(), "Ports work here, with engine "+engines()[0]) ||
		!strings.Contains(p.out.String(), "Rx offloads: vlan_strip, ") || !strings.Contains(p.out.String(), "Tx offloads: vlan_insert, ") {
		t.Errorf("info: %s", &p.out)
	}
}

// checkOffloads: what every kernel has is there, and the others are there or it is
// said why not.
func checkOffloads(t *testing.T, r parsedInfo) {
	t.Helper()
	for _, name := range []string{"ipv4_cksum", "tcp_cksum", "tcp_lro", "vlan_strip", "scatter"} {
		if !slices.Contains(r.RxOffloads, name) {
			t.Errorf("info has no Rx offload %s: %q", name, r.RxOffloads)
		}
	}
	for _, name := range []string{"udp_lro", "tunnel_lro"} {
		if why := r.Lacking["rx "+name]; slices.Contains(r.RxOffloads, name) == (why != "") || why != "" && !strings.Contains(why, "Linux 6.") {
			t.Errorf("Rx offload %s: %q, lacking %q", name, r.RxOffloads, r.Lacking)
		}
	}
	for _, name := range []string{"udp_tso", "vxlan_tnl_tso", "geneve_tnl_tso"} {
		if slices.Contains(r.TxOffloads, name) == (r.Lacking["tx "+name] != "") {
			t.Errorf("Tx offload %s: %q, lacking %q", name, r.TxOffloads, r.Lacking)
		}
	}
	if nettest.IsLinux61() != (r.Lacking["rx udp_lro"] != "") {
		t.Errorf("lacking: %q", r.Lacking)
	}
}

// tinyBench is as short as it gets.
var tinyBench = []string{"bench", "--rounds=2", "--round-time=1ms", "--packet-bytes=64", "--burst=8"}

func TestBenchJSON(t *testing.T) {
	nettest.NeedFast(t)
	nettest.NeedTun(t)
	p := start(t, nil, append(tinyBench, "--json")...)
	p.wait(exitDone)
	var r benchReport
	p.decode(&r)
	want := len(workloads) * len(engines())
	for _, w := range workloads {
		want += len(w.rivals)
	}
	if len(r.Rows) != want {
		t.Fatalf("%d rows, want %d: %+v", len(r.Rows), want, r.Rows)
	}
	for _, row := range r.Rows {
		if row.Rounds != 2 || row.Min <= 0 || row.Min > row.NsPerPacket || row.NsPerPacket > row.Max {
			t.Errorf("row %+v", row)
		}
		if strings.HasPrefix(row.Workload, "forward") != (row.Gbps > 0) || (row.Workload == "tx" && row.PacketBytes != 64) {
			t.Errorf("row %+v", row)
		}
	}
}

func TestBenchText(t *testing.T) {
	nettest.NeedTun(t)
	p := start(t, nil, append(tinyBench, "--workload=poll-empty,tx")...)
	p.wait(exitDone)
	for _, want := range []string{"syscall ns", "tx ", "poll-empty ", "medians of 2 rounds"} {
		if !strings.Contains(p.out.String(), want) {
			t.Errorf("no %q in\n%s", want, &p.out)
		}
	}
	p = start(t, nil, append(tinyBench, "--workload=tx", "--benchstat")...)
	p.wait(exitDone)
	line := regexp.MustCompile(`(?m)^BenchmarkTx/bytes=64/burst=8/engine=(uring|syscall)-\d+\t\d+\t[\d.]+ ns/op$`)
	if got := len(line.FindAllString(p.out.String(), -1)); got != 2*len(engines()) {
		t.Errorf("%d lines of benchmarks in\n%s", got, &p.out)
	}
}

// TestBenchInterrupted: Ctrl-C ends a long run at once, with what it has.
func TestBenchInterrupted(t *testing.T) {
	nettest.NeedTun(t)
	p := start(t, nil, "bench", "--rounds=10000")
	nettest.Eventually(t, 10*time.Second, "rtap bench begins", func() bool { return strings.Contains(p.err.String(), "Measuring") })
	p.end(syscall.SIGINT, exitFailed)
	if !strings.Contains(p.err.String(), "interrupted") {
		t.Errorf("stderr: %s", &p.err)
	}
}

func TestDemo(t *testing.T) {
	nettest.NeedTun(t)
	for _, engine := range engines() {
		p := start(t, nil, "demo", "--duration=0.5", "--engine", engine)
		p.wait(exitDone)
		for _, want := range []string{"ok  ARP ", "ok  ping, IPv4 ", "ok  UDP through ", "ok  TCP through ", "ok  TCP in large frames ", "engine " + engine,
			"Everything got through."} {
			if !strings.Contains(p.out.String(), want) {
				t.Errorf("no %q in\n%s", want, &p.out)
			}
		}
		if strings.Contains(p.out.String(), "\x1b") {
			t.Errorf("control sequences where there is no terminal: %q", &p.out)
		}
	}
}

func rivalNames(w workload) []string {
	var names []string
	for _, e := range w.rivals {
		names = append(names, string(e))
	}
	return names
}

// TestRigs opens and closes each workload in this process, where the end of the
// tests sees what was left behind.
func TestRigs(t *testing.T) {
	nettest.NeedFast(t)
	nettest.NeedTun(t)
	for _, w := range workloads {
		for _, engine := range append(engines(), rivalNames(w)...) {
			r, err := w.open(rtap.Engine(engine))
			if err != nil {
				t.Fatalf("%s, %s: %v", w.name, engine, err)
			}
			c := w.cell
			if w.matrix {
				c = cell{60, 3}
			}
			s, err := r.round(t.Context(), c, nettest.Bound(5*time.Millisecond))
			if err != nil || s.packets == 0 || s.elapsed <= 0 {
				t.Errorf("%s, %s: %+v, %v", w.name, engine, s, err)
			}
			if err := r.close(); err != nil {
				t.Errorf("%s, %s: %v", w.name, engine, err)
			}
		}
	}
}

// TestForwardRigs: the workloads with offloads have them, and what they are compared
// with has none.
func TestForwardRigs(t *testing.T) {
	nettest.NeedTun(t)
	for _, c := range []struct {
		workload, mode string
		engine         rtap.Engine
		lro            bool
	}{
		{"forward", "io", rtap.EngineSyscall, false},
		{"forward-lro", "io", rtap.EngineSyscall, true},
		{"forward-lro", "io", engineNoOffloads, false},
		{"forward-mtu", "mtu", rtap.EngineSyscall, true},
		{"forward-mtu", "io", engineNoOffloads, false},
	} {
		i := slices.IndexFunc(workloads, func(w workload) bool { return w.name == c.workload })
		r, err := workloads[i].open(c.engine)
		if err != nil {
			t.Fatal(err)
		}
		s := r.(forwardRig).s
		on := s.ports[0].dev.Info().EnabledRxOffloads&rtap.RxOffloadTCPLRO != 0
		if on != c.lro || s.fwd.Mode().Name != c.mode {
			t.Errorf("%s, %s: LRO %v, mode %s", c.workload, c.engine, on, s.fwd.Mode().Name)
		}
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}
}
