// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/runtimedir"
	"github.com/rtap-project/rtap/internal/traffic"
)

// sharedRuntime is where the sockets of all commands of this test are.
func sharedRuntime(t *testing.T) string {
	t.Helper()
	dir := newRuntime(t)
	t.Setenv(runtimeDirectory, dir)
	return dir
}

// startEcho is rtap run that answers pings from its namespace, after it has answered some.
func startEcho(t *testing.T, args ...string) *process {
	t.Helper()
	ns := quietNS(t)
	conn := nettest.Conn(t, ns)
	p := start(t, ns, append([]string{"run", "--json", "--forward-mode=icmpecho", "--vdev=net_rtap0,iface=foo0,mac=02:00:00:00:00:ab",
		"--vdev=net_rtap5,iface=foo1,queues=1"}, args...)...)
	p.forwarding()
	if err := conn.AddAddr(p.up(conn, "foo0").Index, cable4[0]); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(10*time.Second))
	defer cancel()
	r, err := traffic.Ping(ctx, traffic.PingConfig{NS: ns, Dst: cable4[1].Addr(), Count: 5, Timeout: nettest.Bound(time.Second)})
	if err != nil || r.Lost() > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	return p
}

// asJSON is what a verb prints, which must be one JSON object.
func asJSON[T any](t *testing.T, args ...string) reading[T] {
	t.Helper()
	p := start(t, nil, append(args, "--json")...)
	p.wait(exitDone)
	var r reading[T]
	p.decode(&r)
	return r
}

func asText(t *testing.T, args ...string) string {
	t.Helper()
	p := start(t, nil, args...)
	p.wait(exitDone)
	return p.out.String()
}

// wantText fails unless the text has all of the words.
func wantText(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in:\n%s", w, text)
		}
	}
}

// ended is a port's own numbers, at the end of rtap run.
func (p *process) ended() report {
	p.t.Helper()
	p.end(syscall.SIGINT, exitDone)
	return p.parseReport()
}

// TestDPDKTelemetry: DPDK's own client works, and sees what the ports count.
func TestDPDKTelemetry(t *testing.T) {
	client := nettest.NeedProgram(t, "dpdk-telemetry.py")
	dir := sharedRuntime(t)
	p := startEcho(t, "--file-prefix=blue")
	ask := func(args []string, input string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(30*time.Second))
		defer cancel()
		cmd := exec.CommandContext(ctx, client, args...)
		cmd.Env = append(os.Environ(), "TERM=dumb")
		cmd.Stdin = strings.NewReader(input)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	requests := []string{"/", "/info", "/ethdev/list", "/ethdev/stats,0", "/ethdev/stats,1", "/ethdev/xstats,0", "/ethdev/info,0",
		"/ethdev/link_status,0", "/ethdev/stats,2", "/mempool/list", "/mempool/info,rtap", "/nothing", "/help,/ethdev/list"}
	lines := strings.Split(strings.TrimSpace(ask([]string{"-f", "blue"}, strings.Join(requests, "\n")+"\nquit\n")), "\n")
	if len(lines) != len(requests) {
		t.Fatalf("%d answers to %d requests: %q", len(lines), len(requests), lines)
	}
	answers := map[string]any{}
	for i, line := range lines {
		var answer map[string]any
		name, _, _ := strings.Cut(requests[i], ",")
		if err := json.Unmarshal([]byte(line), &answer); err != nil || len(answer) != 1 {
			t.Fatalf("%v: %s", err, line)
		}
		if strings.HasPrefix(requests[i], "/help") {
			name = "/ethdev/list" // as the C library answers: {"/help": {"/ethdev/list": ...}}
			answer, _ = answer["/help"].(map[string]any)
		}
		value, ok := answer[name]
		if !ok {
			t.Fatalf("%s is answered by %s", requests[i], line)
		}
		answers[requests[i]] = value
	}
	xstats := asJSON[xstatsRow](t, "xstats", "0", "--file-prefix=blue").Ports[0].XStats
	wantText(t, ask([]string{"-l"}, ""), "Valid file-prefixes", "blue", "dpdk-telemetry.py -f blue")
	report := p.ended()

	for i, port := range report.Ports { // no packet came since
		counts := answers[fmt.Sprintf("/ethdev/stats,%d", i)].(map[string]any)
		s := port.Stats
		for name, n := range map[string]uint64{"ipackets": s.IPackets, "opackets": s.OPackets, "ibytes": s.IBytes, "obytes": s.OBytes,
			"imissed": s.IMissed, "ierrors": s.IErrors, "oerrors": s.OErrors, "rx_nombuf": s.RxNoMbuf} {
			if counts[name] != float64(n) {
				t.Errorf("port %d: %s is %v, the port counted %d", i, name, counts[name], n)
			}
		}
		if q, _ := counts["q_ipackets"].([]any); len(q) != 1 || q[0] != float64(s.IPackets) {
			t.Errorf("port %d: q_ipackets is %v", i, counts["q_ipackets"])
		}
	}
	if report.Ports[0].IPackets < 5 || report.Ports[0].OPackets < 5 {
		t.Errorf("there was no traffic: %+v", report.Ports[0])
	}
	x := answers["/ethdev/xstats,0"].(map[string]any)
	if len(x) != len(xstats) || x["rx_good_packets"] != float64(report.Ports[0].IPackets) {
		t.Errorf("xstats are %v, and %v", x, xstats)
	}
	for _, want := range xstats {
		if x[want.Name] != float64(want.Value) {
			t.Errorf("%s is %v, and %d", want.Name, x[want.Name], want.Value)
		}
	}
	info := answers["/ethdev/info,0"].(map[string]any)
	for name, want := range map[string]any{"name": "net_rtap0", "mac_addr": "02:00:00:00:00:AB", "mtu": 1500.0, "dev_started": 1.0, "nb_rx_queues": 1.0} {
		if info[name] != want {
			t.Errorf("info: %s is %v, want %v", name, info[name], want)
		}
	}
	if hello := answers["/info"].(map[string]any); hello["pid"] != float64(p.cmd.Process.Pid) {
		t.Errorf("/info is %v", hello)
	}
	for request, want := range map[string]any{"/ethdev/list": []any{0.0, 1.0}, "/mempool/list": []any{"rtap"}, "/ethdev/stats,2": nil, "/nothing": nil,
		"/ethdev/link_status,0": map[string]any{"status": "UP", "speed": 10000.0, "duplex": "full-duplex"}} {
		if !reflect.DeepEqual(answers[request], want) {
			t.Errorf("%s is %v, want %v", request, answers[request], want)
		}
	}
	if pool := answers["/mempool/info,rtap"].(map[string]any); pool["size"].(float64) <= pool["common_pool_count"].(float64) {
		t.Errorf("pool %v: no mbuf is in use", pool)
	}
	if left, _ := filepath.Glob(dir + "/dpdk/*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestClientVerbs: they see what rtap run itself reports.
func TestClientVerbs(t *testing.T) {
	sharedRuntime(t)
	p := startEcho(t)
	stats := asJSON[statsRow](t, "stats")
	one := asJSON[statsRow](t, "stats", "net_rtap5")
	xstats := asJSON[xstatsRow](t, "xstats", "foo0")
	nonzero := asJSON[xstatsRow](t, "xstats", "0", "--nonzero")
	ports := asJSON[portRow](t, "ports")
	links := asJSON[linkRow](t, "link", "--file-prefix", "rtap", "1")
	wantText(t, asText(t, "stats"), "net_rtap0", "foo1", "ipackets", "all")
	wantText(t, asText(t, "stats", "1"), "net_rtap5", "queue")
	wantText(t, asText(t, "xstats"), "net_rtap0 (foo0)", "net_rtap5 (foo1)", "rx_good_packets")
	wantText(t, asText(t, "ports"), "interface", "foo1", "started", "UP", "none")
	wantText(t, asText(t, "link"), "02:00:00:00:00:ab", "UP", "carrier", "1500")
	report := p.ended()

	if stats.FilePrefix != "rtap" || stats.PID != p.cmd.Process.Pid || len(stats.Ports) != 2 || stats.Seconds != 0 {
		t.Fatalf("stats: %+v", stats)
	}
	for i, want := range report.Ports {
		got := stats.Ports[i]
		if got.ID != i || got.Name != want.Name || got.Interface != want.Interface || got.IfIndex != want.IfIndex || got.Stats != want.Stats ||
			len(got.Queues) != 1 || got.Queues[0] != want.QueueStats {
			t.Errorf("stats: %+v, want %+v", got, want)
		}
	}
	if len(one.Ports) != 1 || one.Ports[0].ID != 1 {
		t.Errorf("stats of one: %+v", one.Ports)
	}
	x := xstats.Ports[0].XStats
	if len(xstats.Ports) != 1 || len(x) < 8 || x[0].XStat != (rtap.XStat{Name: "rx_good_packets", Value: report.Ports[0].IPackets}) {
		t.Errorf("xstats: %+v", xstats.Ports)
	}
	if n := nonzero.Ports[0].XStats; len(n) == 0 || len(n) >= len(x) {
		t.Errorf("xstats that are not 0: %+v", n)
	}
	for _, n := range nonzero.Ports[0].XStats {
		if n.Value == 0 {
			t.Errorf("%s is 0", n.Name)
		}
	}
	if got := ports.Ports; len(got) != 2 || got[1].ID != 1 || got[1].PortInfo.Name != "net_rtap5" || got[1].Info.Name != "foo1" || got[1].RxQueues != 1 ||
		got[1].Engine != report.Ports[1].Engine || !got[1].Started || !got[1].Running {
		t.Errorf("ports: %+v", got)
	}
	if got := links.Ports; len(got) != 1 || got[0].Interface != "foo1" || got[0].Status != "UP" || !got[0].Carrier || got[0].MTU != 1500 {
		t.Errorf("links: %+v", got)
	}
}

// TestClientErrors: the user is told what there is.
func TestClientErrors(t *testing.T) {
	sharedRuntime(t)
	fails := func(words []string, args ...string) {
		t.Helper()
		p := start(t, nil, args...)
		p.wait(exitFailed)
		wantText(t, p.err.String(), words...)
	}
	fails([]string{"file prefix rtap runs", "none does"}, "stats")
	startEcho(t, "--file-prefix=blue")
	fails([]string{"file prefix rtap runs", "these do: blue"}, "link", "--watch")
	fails([]string{"no port 2", "0 net_rtap0 foo0, 1 net_rtap5 foo1"}, "xstats", "2", "--file-prefix=blue")
}

// line waits for the n-th line of the output, from 1.
func (p *process) line(n int) string {
	p.t.Helper()
	var lines []string
	nettest.Eventually(p.t, 20*time.Second, fmt.Sprintf("line %d comes", n), func() bool {
		lines = strings.SplitAfter(p.out.String(), "\n")
		return len(lines) > n
	})
	return lines[n-1]
}

// TestWatch: readings follow each other, with rates from the second on, until Ctrl-C.
func TestWatch(t *testing.T) {
	sharedRuntime(t)
	run := start(t, quietNS(t), "run", "--vdev=net_rtap0,iface=foo0", "--forward-mode=txonly")
	run.forwarding()

	p := start(t, nil, "stats", "--watch=0.05", "--json")
	var first, second reading[statsRow]
	for n, r := range []*reading[statsRow]{&first, &second} {
		if err := json.Unmarshal([]byte(p.line(n+1)), r); err != nil {
			t.Fatal(err)
		}
	}
	p.end(syscall.SIGINT, exitDone)
	a, b := first.Ports[0], second.Ports[0]
	if first.Seconds != 0 || a.Rates != nil || second.Seconds <= 0 || b.OPackets <= a.OPackets {
		t.Errorf("%+v, then %+v", first, second)
	}
	for name, want := range map[string]float64{"opackets": float64(b.OPackets-a.OPackets) / second.Seconds,
		"obytes": float64(b.OBytes-a.OBytes) / second.Seconds, "ipackets": 0} {
		if got, ok := b.Rates[name]; !ok || got != want {
			t.Errorf("%s per second is %v, want %v", name, got, want)
		}
	}

	p = start(t, nil, "xstats", "--watch=0.05", "--json", "--nonzero")
	var early, late reading[xstatsRow]
	for n, r := range []*reading[xstatsRow]{&early, &late} {
		if err := json.Unmarshal([]byte(p.line(n+1)), r); err != nil {
			t.Fatal(err)
		}
	}
	p.end(syscall.SIGINT, exitDone)
	x, y := early.Ports[0].XStats[0], late.Ports[0].XStats[0]
	if x.Name != "tx_good_packets" || x.Rate != nil || y.Name != x.Name || y.Rate == nil || *y.Rate != float64(y.Value-x.Value)/late.Seconds {
		t.Errorf("%+v, then %+v after %v s", x, y, late.Seconds)
	}

	watched := map[string]*process{}
	for verb, words := range map[string]string{"stats": "tx pkt/s", "xstats": "per second", "link": "UP", "ports": "started"} {
		p := start(t, nil, verb, "0", "--watch=0.05")
		watched[verb] = p
		nettest.Eventually(t, 20*time.Second, verb+" shows "+words, func() bool { return strings.Contains(p.out.String(), words) })
	}
	for _, verb := range []string{"link", "xstats"} {
		watched[verb].end(syscall.SIGINT, exitDone)
	}
	run.end(syscall.SIGINT, exitDone)
	for _, verb := range []string{"stats", "ports"} { // what is watched ends
		watched[verb].wait(exitFailed)
		if strings.Contains(watched[verb].out.String(), "\x1b") {
			t.Errorf("control sequences where there is no terminal: %q", &watched[verb].out)
		}
	}
}

// TestFilePrefix: of two that are given none, each has its own; one that is given is had or refused; and one
// whose rtap was killed is free again.
func TestFilePrefix(t *testing.T) {
	dir := sharedRuntime(t)
	vdev := "--vdev=net_rtap0,iface=foo0"
	first := start(t, quietNS(t), "run", vdev)
	first.forwarding()
	second := start(t, quietNS(t), "run", vdev)
	second.forwarding()
	own := fmt.Sprintf("rtap.%d", second.cmd.Process.Pid)
	wantText(t, first.out.String(), "file prefix rtap,")
	wantText(t, second.out.String(), "file prefix "+own+",")
	if got := asJSON[portRow](t, "ports", "--file-prefix", own); got.PID != second.cmd.Process.Pid {
		t.Errorf("%s is of process %d", own, got.PID)
	}
	if got := asJSON[portRow](t, "ports"); got.PID != first.cmd.Process.Pid {
		t.Errorf("rtap is of process %d", got.PID)
	}

	ns := quietNS(t)
	third := start(t, ns, "run", vdev, "--file-prefix=rtap")
	third.wait(exitFailed)
	wantText(t, third.err.String(), "in use by process", fmt.Sprint(first.cmd.Process.Pid), "--file-prefix")

	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	first.cmd.Wait()
	if _, err := os.Stat(runtimedir.Socket(dir, "rtap", runtimedir.SocketName)); err != nil {
		t.Fatal(err)
	}
	again := start(t, ns, "run", vdev, "--file-prefix=rtap")
	again.forwarding()
	again.end(syscall.SIGTERM, exitDone)
	second.end(syscall.SIGINT, exitDone)
	if left, _ := filepath.Glob(dir + "/dpdk/*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestNoTelemetry: it is left out where it is not wanted, and where it cannot be, unless it was asked for.
func TestNoTelemetry(t *testing.T) {
	dir := sharedRuntime(t)
	p := start(t, quietNS(t), "run", "--vdev=net_rtap0", "--no-telemetry")
	p.forwarding()
	bench := start(t, nil, "bench", "--rounds=10000")
	nettest.Eventually(t, 10*time.Second, "rtap bench begins", func() bool { return strings.Contains(bench.err.String(), "Measuring") })
	if there, err := os.ReadDir(dir); err != nil || len(there) > 0 {
		t.Errorf("there is %v, %v", there, err)
	}
	bench.end(syscall.SIGINT, exitFailed)
	p.end(syscall.SIGINT, exitDone)
	if strings.Contains(p.out.String(), "telemetry") {
		t.Errorf("stdout: %s", &p.out)
	}

	if err := os.WriteFile(dir+"/dpdk", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p = start(t, quietNS(t), "run", "--vdev=net_rtap0", "--duration=0.1")
	p.wait(exitDone)
	wantText(t, p.out.String(), "no telemetry: "+dir+"/dpdk is a link or a file", "Totals")
	p = start(t, quietNS(t), "run", "--vdev=net_rtap0", "--duration=0.1", "--file-prefix=mine")
	p.wait(exitFailed)
	wantText(t, p.err.String(), dir+"/dpdk is a link or a file")
}
