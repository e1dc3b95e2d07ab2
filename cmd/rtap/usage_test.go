// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
)

func TestHelp(t *testing.T) {
	for _, c := range []struct {
		args string
		want []string
	}{
		{"help", []string{"run ", "info ", "bench ", "demo ", "Exit codes"}},
		{"--help", []string{"Usage: rtap VERB"}},
		{"-h", []string{"Usage: rtap VERB"}},
		{"help run", []string{"--vdev DEVARGS", "--total-num-mbufs N", "icmpecho", "iface=NAME", "Examples:",
			"--enable-rx-cksum", "--enable-lro", "--max-lro-pkt-size BYTES", "--enable-scatter", "--rx-offloads SET", "--tx-offloads SET",
			"--proc-type TYPE", "(default primary)", "--num-procs N", "--proc-id I", "packets for\nthe queues of a process that is not there wait in the kernel",
			"--http ADDR", "--offloads LIST", "--tso-segsz BYTES", "--offloads=all", "12 MB", "--rx-mode NAME", "--log-level NAME", "--log-format NAME"}},
		{"help capture", []string{"  -w FILE ", "--snaplen BYTES", "--queue N", "| tcpdump -n -r -"}},
		{"run --help", []string{"--forward-mode MODE", "(default io)"}},
		{"info -h", []string{"--json"}},
		{"help bench", []string{"--rounds N", "rx-drain", "poll-empty", "(default 64,1500)"}},
		{"help demo", []string{"--duration SECONDS"}},
		{"help stats", []string{"Usage: rtap stats [PORT] [--flag value]...", "--watch [=SECONDS]", "--file-prefix NAME", "(default rtap)", "rtap stats net_rtap0 --watch", `"rates"`}},
		{"help ports", []string{"rtap ports", `"engine"`}},
		{"xstats --help", []string{"--nonzero"}},
		{"link foo0 --help", []string{`"status"`}},
		{"help help", []string{"explain"}},
		{"version", []string{runtime.GOARCH}},
		{"--version", []string{runtime.GOARCH}},
	} {
		code, out, errs := here(strings.Fields(c.args)...)
		if code != exitDone || errs != "" {
			t.Errorf("rtap %s: exit code %d, stderr %q", c.args, code, errs)
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("rtap %s does not say %q:\n%s", c.args, w, out)
			}
		}
	}
}

func TestUsageErrors(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir()) // that of root may not be there
	for _, c := range []struct{ args, want string }{
		{"", "no verb"},
		{"fly", `no verb "fly"`},
		{"help fly", `no verb "fly"`},
		{"version now", "no arguments"},
		{"run", "--vdev=net_rtap0"},
		{"run --vdev=net_rtap0 --wings=2", "no flag --wings"},
		{"run --vdev", "a value is missing after --vdev"},
		{"run --vdev=net_rtap0 extra", `unexpected argument "extra"`},
		{"run --vdev=net_tap0", "net_tap0"},
		{"run --vdev=net_rtap0 --file-prefix=a/b", `--file-prefix: file prefix is "a/b": want a directory's name`},
		{"stats --watch=0", `invalid value "0" for --watch: want 0.01 seconds or more`},
		{"stats --watch=soon", "a number of seconds"},
		{"stats 0 1", `unexpected argument "1"`},
		{"link 0 --json 1", `unexpected argument "1"`},
		{"ports --wings", "no flag --wings"},
		{"xstats --nonzero=perhaps", `invalid value "perhaps" for --nonzero`},
		{"xstats --file-prefix=", `file prefix is ""`},
		{"run --vdev=net_rtap0,mtu=7", `mtu is "7": want 68 to 65521`},
		{"run --vdev=net_rtap0,iface=a23456789012345678", "at most 15 bytes"},
		{"run --vdev=net_rtap0 --vdev=net_rtap0", "two ports"},
		{"run --vdev=net_rtap0 --rxq=two", `"two" for --rxq: not a number`},
		{"run --vdev=net_rtap0 --rxq=129", "--rxq is 129: want 1 to 128"},
		{"run --vdev=net_rtap0 --rxq=2 --txq=3", "must be equal"},
		{"run --vdev=net_rtap0 --rxd=0", "--rxd is 0"},
		{"run --vdev=net_rtap0 --txd=5000", "--txd is 5000"},
		{"run --vdev=net_rtap0 --burst=513", "--burst is 513"},
		{"run --vdev=net_rtap0 --nb-cores=0", "--nb-cores is 0"},
		{"run --vdev=net_rtap0 --mbuf-size=100", "--mbuf-size is 100"},
		{"run --vdev=net_rtap0 --total-num-mbufs=-1", "--total-num-mbufs is -1"},
		{"run --vdev=net_rtap0 --engine=steam", `"steam": want auto, uring or syscall`},
		{"run --vdev=net_rtap0 --rx-mode=doze", `--rx-mode is "doze": want adaptive, poll, interrupt`},
		{"run --vdev=net_rtap0 --log-level=loud", `--log-level is "loud": want debug, info, warn, error, off`},
		{"run --vdev=net_rtap0 --log-format=xml", `--log-format is "xml": want text or json`},
		{"run --vdev=net_rtap0 --stats-period=often", "a number of seconds"},
		{"run --vdev=net_rtap0 --duration=-1s", "from 0 on"},
		{"run --vdev=net_rtap0 --duration=NaN", "a number of seconds"},
		{"run --vdev=net_rtap0 --txpkts=64,x", "numbers separated by commas"},
		{"run --vdev=net_rtap0 --port-topology=star", "paired, chained or loop"},
		{"run --vdev=net_rtap0 --eth-peer=1,02:00:00:00:00:01", "0 to 0"},
		{"run --vdev=net_rtap0 --eth-peer=0,02:00", "MAC address"},
		{"run --vdev=net_rtap0 --mbuf-size=65536", "--mbuf-size is 65536"},
		{"run --vdev=net_rtap0 --mbuf-size=0", "--mbuf-size is 0"},
		{"run --vdev=net_rtap0 --offloads=wings", `no "wings": want all, none, or some of csum, tso, lro, uso, vlan, qinq, tunnel`},
		{"run --vdev=net_rtap0 --offloads=none,csum", "none goes with nothing else"},
		{"run --vdev=net_rtap0 --rx-offloads=fly", `"fly": want a number, or one of vlan_strip`},
		{"run --vdev=net_rtap0 --tx-offloads=0xfly", `"0xfly": want a number, or one of vlan_insert`},
		{"run --vdev=net_rtap0 --max-lro-pkt-size=1023", "--max-lro-pkt-size is 1023"},
		{"run --vdev=net_rtap0 --max-lro-pkt-size=0", "--max-lro-pkt-size is 0"},
		{"run --vdev=net_rtap0 --tso-segsz=800", "--tso-segsz is for --forward-mode=csum"},
		{"run --vdev=net_rtap0 --tso-segsz=65536 --forward-mode=csum", "--tso-segsz is 65536"},
		{"run --vdev=net_rtap0 --tso-segsz=800 --forward-mode=csum --tx-offloads=tcp_cksum", "TCPSeg"},
		{"run --vdev=net_rtap0 --enable-lro --tx-offloads=tcp_cksum", "--tx-offloads lacks udp_cksum,tcp_tso, which mode io needs"},
		{"run --vdev=net_rtap0 --offloads=lro --tx-offloads=0 --rx-offloads=vlan_strip", "--tx-offloads lacks vlan_insert"},
		{"run --vdev=net_rtap0 --forward-mode=mtu --tx-offloads=tcp_cksum", "--tx-offloads lacks tcp_tso, which mode mtu needs"},
		{"run --vdev=net_rtap0 --proc-type=tertiary", `--proc-type is "tertiary": want primary, secondary, auto`},
		{"run --vdev=net_rtap0 --num-procs=0", "--num-procs is 0: want 1 to 32"},
		{"run --vdev=net_rtap0 --num-procs=33", "--num-procs is 33: want 1 to 32"},
		{"run --vdev=net_rtap0 --num-procs=2 --proc-id=2", "--proc-id is 2: want 0 to 1, with --num-procs=2"},
		{"run --vdev=net_rtap0 --proc-id=1", "--proc-id is 1: want 0 to 0, with --num-procs=1"},
		{"run --proc-type=secondary --vdev=net_rtap0", "--vdev is for the primary: a secondary takes the ports as they are"},
		{"run --proc-type=secondary --num-procs=2 --offloads=all", "--offloads is for the primary"},
		{"run --proc-type=secondary --num-procs=2 --total-num-mbufs=9", "--total-num-mbufs is for the primary"},
		{"run --proc-type=secondary --forward-mode=io", "--forward-mode is for a secondary that forwards: give it --num-procs and --proc-id, too"},
		{"run --proc-type=secondary --nb-cores=2", "--nb-cores is for a secondary that forwards"},
		{"run --proc-type=secondary --num-procs=2 --tso-segsz=800", "--tso-segsz is for --forward-mode=csum"},
		{"run --proc-type=secondary --num-procs=2 --eth-peer=65536,02:00:00:00:00:01", "0 to 65535"},
		{"run --proc-type=secondary --file-prefix=a/b", `file prefix is "a/b"`},
		{"capture --file-prefix=a/b", `file prefix is "a/b"`},
		{"capture --port=-1", "--port is -1: want 0 to 65535"},
		{"capture --queue=128", "--queue is 128: want -1 to 127"},
		{"capture --count=-1", "--count is -1"},
		{"capture --snaplen=0", "--snaplen is 0: want 1 to 262144"},
		{"capture a.pcap", `unexpected argument "a.pcap"`},
		{"run --vdev=net_rtap0 --http=here", `"here" for --http: want a port`},
		{"run --vdev=net_rtap0 --http=host.example:80", `"host.example" is no IP address`},
		{"run --vdev=net_rtap0 --http=0.0.0.0", "want a port"},
		{"info extra", "unexpected argument"},
		{"bench --workload=tx,sleep", `"sleep"`},
		{"bench --rounds=0", "--rounds is 0"},
		{"bench --packet-bytes=13", "--packet-bytes is 13"},
		{"bench --burst=0", "--burst is 0"},
		{"bench --round-time=0", "--round-time is 0s"},
		{"bench --json --benchstat", "one of them"},
		{"demo --duration=0", "--duration is 0s"},
		{"demo --engine=steam", "steam"},
	} {
		args := strings.Fields(c.args)
		if strings.HasPrefix(c.args, "run --vdev=") && !strings.Contains(c.args, "--duration") {
			args = append(args, "--duration=0.1") // should it be no error after all
		}
		code, out, errs := here(args...)
		if code != exitUsage || !strings.Contains(errs, c.want) || out != "" {
			t.Errorf("rtap %s: exit code %d, stdout %q, stderr %q; want exit code 2 and %q", c.args, code, out, errs, c.want)
		}
	}
}

func TestShort(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 7: "7", 0.5: "0.50", 9.96: "10.0", 99.6: "100", 999: "999", 999.6: "1.00 k", 1234: "1.23 k",
		12345: "12.3 k", 999600: "1.00 M", 1.5e9: "1.50 G", 2e12: "2.00 T", 5e15: "5000 T",
	} {
		if got := short(v); got != want {
			t.Errorf("short(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	tab := newTable(1, "name", "n")
	tab.add("µ", "1000")
	if got, want := tab.String(), "name     n\nµ     1000\n"; got != want {
		t.Errorf("table is %q, want %q", got, want)
	}
}

func TestCut(t *testing.T) {
	if got := cut("µs per packet", 4); got != "µs p" {
		t.Errorf("cut = %q", got)
	}
	if got := cut("short", 80); got != "short" {
		t.Errorf("cut = %q", got)
	}
}

func TestSeconds(t *testing.T) {
	for in, want := range map[string]time.Duration{"5": 5 * time.Second, "0.5": time.Second / 2, "200ms": 200 * time.Millisecond, "0": 0} {
		var s seconds
		if err := s.Set(in); err != nil || time.Duration(s) != want {
			t.Errorf("seconds %q = %v, %v; want %v", in, time.Duration(s), err, want)
		}
	}
}

func TestMedian(t *testing.T) {
	if got := median([]float64{5, 1, 3}); got != 3 {
		t.Errorf("median of three is %v", got)
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("median of four is %v", got)
	}
}

// TestBenchLine: each ratio is of the two that its head names.
func TestBenchLine(t *testing.T) {
	rows := []row{
		{Workload: "forward-lro", Engine: rtap.EngineSyscall, NsPerPacket: 200, Gbps: 2},
		{Workload: "forward-lro", Engine: rtap.EngineUring, NsPerPacket: 100, Gbps: 4},
		{Workload: "forward-lro", Engine: engineNoOffloads, NsPerPacket: 300, Gbps: 1},
		{Workload: "ping", Engine: rtap.EngineSyscall, NsPerPacket: 60, P99: 90},
		{Workload: "ping", Engine: rtap.EngineUring, NsPerPacket: 50, P99: 80},
		{Workload: "ping", Engine: enginePlain, NsPerPacket: 40, P99: 70},
	}
	r := benchReport{Rows: rows}
	for i, want := range map[int][]string{0: {"2.00 x", "", "3.00 x", "1.00 -> 2.00 -> 4.00", ""}, 3: {"1.20 x", "1.25 x", "", "", "70 -> 90 -> 80"}} {
		if got := r.line(rows[i]); len(got) != 12 || !slices.Equal(got[7:], want) {
			t.Errorf("%s: %q, want %q at the end", rows[i].Workload, got, want)
		}
	}
	alone := benchReport{Rows: rows[:1]}
	if got := alone.line(rows[0]); len(got) != 12 || got[10] != "2.00" {
		t.Errorf("without io_uring: %q", got)
	}
}

func TestTop(t *testing.T) {
	lines := []string{"a", "b", "c"}
	for n, want := range [][]string{{"... and 3 lines more than fit here"}, {"... and 3 lines more than fit here"}, {"a", "... and 2 lines more than fit here"}, lines, lines} {
		if got := top(lines, n); !slices.Equal(got, want) {
			t.Errorf("%d lines: %q, want %q", n, got, want)
		}
	}
	if !slices.Equal(lines, []string{"a", "b", "c"}) {
		t.Errorf("the lines are now %q", lines)
	}
}
