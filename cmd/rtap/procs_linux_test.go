// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/telemetry"
)

// cableRun is rtap run as a primary with two ports, whose interfaces are in namespaces of their own.
type cableRun struct {
	t    *testing.T
	p    *process
	ns   *netns.NS    // of the processes
	ends [2]*netns.NS // of the interfaces
}

// startCable starts one. All processes of the test find each other.
func startCable(t *testing.T, args ...string) *cableRun {
	t.Helper()
	if os.Getenv(runtimeDirectory) == "" {
		sharedRuntime(t)
	}
	c := &cableRun{t: t, ns: quietNS(t), ends: [2]*netns.NS{quietNS(t), quietNS(t)}}
	c.startPrimary(args...)
	return c
}

func (c *cableRun) startPrimary(args ...string) {
	c.t.Helper()
	conn := nettest.Conn(c.t, c.ns)
	c.p = start(c.t, c.ns, append([]string{"run", "--json", "--file-prefix=blue", "--vdev=net_rtap0,iface=foo0", "--vdev=net_rtap1,iface=foo1"}, args...)...)
	c.p.forwarding()
	for i, name := range []string{"foo0", "foo1"} {
		moveEnd(c.t, conn, c.p.up(conn, name), i, c.ends[i])
	}
}

// secondary starts another process on the ports, and waits until it forwards.
func (c *cableRun) secondary(args ...string) *process {
	c.t.Helper()
	p := start(c.t, c.ns, append([]string{"run", "--json", "--file-prefix=blue", "--proc-type=secondary"}, args...)...)
	nettest.Eventually(c.t, 10*time.Second, "the secondary forwards", func() bool { return strings.Contains(p.err.String(), "worker 0: RX P=0/Q=") })
	return p
}

// flows sends as many flows through the cable that every queue has some, and fails if a datagram is lost.
func (c *cableRun) flows() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), nettest.Bound(30*time.Second))
	defer cancel()
	for i := range 64 { // of 3 queues, one has none in one direction with a probability of 1e-5
		r, err := traffic.UDP(ctx, traffic.UDPConfig{Client: c.ends[i%2], Server: c.ends[1-i%2], Addr: netip.AddrPortFrom(cable4[1-i%2].Addr(), 0),
			Count: 3, Linger: nettest.Bound(5 * time.Second)})
		if err != nil || r.Lost() > 0 {
			c.t.Fatalf("flow %d: %+v, %v", i, r, err)
		}
	}
}

// kill kills a process, and waits for its end.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	p.wait(-1)
}

// queues are the ports' statistics, queue by queue.
func queues(t *testing.T) (all [2][]rtap.QueueStats, totals [2]rtap.Stats) {
	t.Helper()
	for i, p := range asJSON[statsRow](t, "stats", "--file-prefix=blue").Ports {
		all[i], totals[i] = p.Queues, p.Stats
	}
	return all, totals
}

// TestProcs: three processes forward on a queue each, and the primary's statistics are the sum of what each has
// moved.
func TestProcs(t *testing.T) {
	for _, engine := range engines() {
		t.Run(engine, func(t *testing.T) {
			c := startCable(t, "--rxq=3", "--num-procs=3", "--proc-id=0", "--engine", engine)
			var secondaries []*process
			for _, id := range []string{"1", "2"} {
				secondaries = append(secondaries, c.secondary("--num-procs=3", "--proc-id", id, "--engine", engine))
			}
			c.flows()
			checkProcesses(t, secondaries)
			var reports [3]report
			for i, p := range secondaries {
				reports[1+i] = p.ended()
			}
			all := sumsUp(t)
			reports[0] = c.p.ended()
			checkShares(t, reports, all)
			if got := string(reports[1].Ports[0].Engine); got != engine {
				t.Errorf("engine %s", got)
			}
		})
	}
}

// sumsUp reads the statistics of all queues, which must come to the ports'.
func sumsUp(t *testing.T) (all [2][]rtap.QueueStats) {
	t.Helper()
	nettest.Eventually(t, 10*time.Second, "the totals are the sum of the queues'", func() bool { // an ARP packet may come meanwhile
		var totals [2]rtap.Stats
		all, totals = queues(t)
		for port, queues := range all {
			var sum rtap.QueueStats
			for _, q := range queues {
				addSince(&sum, q, rtap.QueueStats{})
			}
			if sum != totals[port].QueueStats {
				return false
			}
		}
		return true
	})
	return all
}

// checkShares: every process says of itself what the primary says of its queue, and what it has forwarded.
func checkShares(t *testing.T, reports [3]report, all [2][]rtap.QueueStats) {
	t.Helper()
	for id, r := range reports {
		var received uint64
		for port := range r.Ports {
			own := r.Ports[port].Stats.QueueStats
			if id == 0 { // it reports of all
				own.IPackets -= reports[1].Ports[port].IPackets + reports[2].Ports[port].IPackets
			} else if own != all[port][id] || r.Ports[port].IMissed != 0 {
				t.Errorf("port %d queue %d: the secondary says %+v, the primary %+v", port, id, r.Ports[port].Stats, all[port][id])
			}
			if all[port][id].IPackets < 3 || all[port][id].OPackets < 3 {
				t.Errorf("port %d queue %d has moved %+v", port, id, all[port][id])
			}
			received += own.IPackets
		}
		if received != r.Forward.RxPackets {
			t.Errorf("process %d has forwarded %d packets, its queues %d", id, r.Forward.RxPackets, received)
		}
	}
}

// checkProcesses: rtap ports says who has which queue.
func checkProcesses(t *testing.T, secondaries []*process) {
	t.Helper()
	for _, port := range asJSON[portRow](t, "ports", "--file-prefix=blue").Ports {
		for i, want := range secondaries {
			pid := want.cmd.Process.Pid
			j := slices.IndexFunc(port.Processes, func(p telemetry.PortProcess) bool { return p.PID == pid })
			if j < 0 || !slices.Equal(port.Processes[j].Queues, []int{1 + i}) || len(port.Processes) != len(secondaries) {
				t.Errorf("port %d: processes %+v, want %d with queue %d", port.ID, port.Processes, pid, 1+i)
			}
		}
	}
	wantText(t, asText(t, "ports", "--file-prefix=blue"), fmt.Sprintf("rtap run (process %d): 1", secondaries[0].cmd.Process.Pid))
}

// TestProcsModes: a secondary may do something else with packets than the primary.
func TestProcsModes(t *testing.T) {
	nettest.NeedFast(t)
	c := startCable(t, "--num-procs=1", "--forward-mode=rxonly", "--offloads=all")
	for _, mode := range []string{"io", "mac", "csum", "mtu", "txonly"} {
		p := c.secondary("--num-procs=1", "--forward-mode", mode, "--eth-peer=7,02:00:00:00:00:07")
		if mode == "io" {
			c.flows()
		}
		nettest.Eventually(t, 10*time.Second, "packets move", func() bool {
			all, _ := queues(t)
			return mode != "txonly" || all[1][0].OPackets > 1000
		})
		if r := p.ended(); r.Forward.NoMbuf > 0 || r.Ports[0].RxNoMbuf > 0 {
			t.Errorf("mode %s: %+v", mode, r)
		}
	}
}

// TestProcsKilled: when a secondary is killed the primary goes on, and its queues work again: by the next secondary with
// its number, or, if the primary has none, by the primary.
func TestProcsKilled(t *testing.T) {
	for _, c := range []struct {
		name, primary string
		alone         bool // the primary takes the queues back
	}{{"shares", "--num-procs=2", false}, {"all", "--proc-type=auto", true}} {
		t.Run(c.name, func(t *testing.T) {
			run := startCable(t, "--rxq=2", c.primary)
			for range nettest.Scale(3) {
				p := run.secondary("--num-procs=2", "--proc-id=1")
				run.flows()
				before, _ := queues(t)
				p.kill()
				if c.alone {
					run.flows()
				}
				p = run.secondary("--num-procs=2", "--proc-id=1")
				if got := strings.Contains(p.err.String(), "rtap capture will not see"); got != c.alone {
					t.Errorf("no capture: %v\n%s", got, &p.err)
				}
				run.flows()
				if after, _ := queues(t); after[0][1].IPackets <= before[0][1].IPackets {
					t.Errorf("queue 1 has moved %d packets, and %d before", after[0][1].IPackets, before[0][1].IPackets)
				}
				// Its totals are not those of the one before.
				if r := p.ended(); r.Forward.RxPackets != r.Ports[0].IPackets+r.Ports[1].IPackets || r.Forward.RxPackets == 0 {
					t.Errorf("%+v", r)
				}
			}
			run.secondary("--num-procs=2", "--proc-id=1").kill() // which the primary may not have noticed yet
			run.p.ended()
		})
	}
}

// TestProcsPrimaryKilled: secondaries of any kind end with an error, and a new primary has the same prefix and
// interfaces.
func TestProcsPrimaryKilled(t *testing.T) {
	nettest.NeedFast(t)
	for _, c := range []struct {
		name string
		end  func(p *process)
	}{{"killed", (*process).kill}, {"ended", func(p *process) { p.end(syscall.SIGINT, exitDone) }}} {
		t.Run(c.name, func(t *testing.T) {
			run := startCable(t, "--rxq=2", "--num-procs=2")
			forwards := run.secondary("--num-procs=2", "--proc-id=1", "--stats-period=0.05")
			shows := startShowing(t, run.ns)
			captures := startCapture(t, run.ns, "-w", filepath.Join(t.TempDir(), "a.pcap"))
			run.flows()
			forwards.samples(2)
			c.end(run.p)
			for _, p := range []*process{forwards, shows, captures} {
				p.wait(exitFailed)
				wantText(t, p.err.String(), "the primary process is gone")
			}
			wantText(t, forwards.err.String(), "the primary of file prefix blue has ended", "Totals of this process")
			if r := forwards.parseReport(); r.Ports[0].IPackets < 3 || r.Ports[0].IPackets+r.Ports[1].IPackets != r.Forward.RxPackets {
				t.Errorf("the report is %+v", r)
			}
			run.gone()
			run.startPrimary("--rxq=2", "--num-procs=2")
			p := run.secondary("--num-procs=2", "--proc-id=1")
			run.flows()
			p.ended()
			run.p.ended()
		})
	}
}

// gone waits until the interfaces are: io_uring may close files of a process that has ended a moment later.
func (c *cableRun) gone() {
	c.t.Helper()
	for i, name := range []string{"foo0", "foo1"} {
		conn := nettest.Conn(c.t, c.ends[i])
		nettest.Eventually(c.t, 10*time.Second, "interface "+name+" is gone", func() bool {
			_, err := conn.LinkByName(name)
			return errors.Is(err, rtnl.ErrNotFound)
		})
	}
}

// samples waits until the process has read its statistics n times more.
func (p *process) samples(n int) {
	p.t.Helper()
	count := func() int { return strings.Count(p.err.String(), "rx pkt/s") }
	n += count()
	nettest.Eventually(p.t, 10*time.Second, "the statistics are read", func() bool { return count() >= n })
}

// startShowing starts a secondary that only shows.
func startShowing(t *testing.T, ns *netns.NS) *process {
	t.Helper()
	p := start(t, ns, "run", "--proc-type=secondary", "--file-prefix=blue", "--json", "--stats-period=0.05")
	p.samples(1)
	return p
}

// TestProcsShow: a secondary without a share shows what all have moved, and moves nothing.
func TestProcsShow(t *testing.T) {
	nettest.NeedFast(t)
	run := startCable(t)
	shows := startShowing(t, run.ns)
	run.flows()
	r := shows.ended()
	want := run.p.ended()
	for i := range want.Ports {
		got := r.Ports[i]
		later := want.Ports[i].IPackets - got.IPackets // an ARP packet may have come
		if got.IPackets < 10 || later > 4 || got.IBytes < 1000*got.IPackets/2 || got.Interface != want.Ports[i].Interface || got.IfIndex != want.Ports[i].IfIndex {
			t.Errorf("port %d is shown as %+v, and is %+v", i, got, want.Ports[i])
		}
	}
	if r.Forward.RxPackets > 0 || !strings.Contains(shows.err.String(), "nothing is forwarded here") {
		t.Errorf("%+v\n%s", r.Forward, &shows.err)
	}
}

// TestProcsHTTP: a secondary can serve the page and the metrics, of all that is counted on the ports.
func TestProcsHTTP(t *testing.T) {
	nettest.NeedFast(t)
	run := startCable(t)
	shows := start(t, run.ns, "run", "--proc-type=secondary", "--file-prefix=blue", "--json", "--stats-period=0.05", "--http=0")
	shows.samples(1)
	run.flows()
	url := regexp.MustCompile(`http://127\.0\.0\.1:[1-9]\d*/`).FindString(shows.err.String())
	nettest.Eventually(t, 10*time.Second, "the metrics are the primary's", func() bool { // between the two questions a packet may come
		all, _ := queues(t)
		_, text := get(t, httpIn(t, run.ns), url+"metrics")
		return all[0][0].IPackets > 0 && strings.Contains(text, fmt.Sprintf(`rtap_queue_receive_packets_total{port="0",queue="0"} %d`, all[0][0].IPackets))
	})
	if code, text := get(t, httpIn(t, run.ns), url+"healthz"); code != 200 || !strings.Contains(text, `"interface":"foo1","status":"ok"`) {
		t.Errorf("health is %d: %s", code, text)
	}
}

// TestProcsNoTelemetry: with a file prefix, other processes can attach all the same.
func TestProcsNoTelemetry(t *testing.T) {
	nettest.NeedFast(t)
	run := startCable(t, "--no-telemetry")
	run.secondary("--num-procs=1").ended()
	p := start(t, run.ns, "stats", "--file-prefix=blue")
	p.wait(exitFailed)
	run.p.ended()
}

// TestProcsAuto: the first is the primary, of which --vdev is, and the next a secondary.
func TestProcsAuto(t *testing.T) {
	nettest.NeedFast(t)
	run := startCable(t, "--proc-type=auto", "--rxq=2", "--num-procs=2", "--proc-id=0")
	p := start(t, run.ns, "run", "--json", "--file-prefix=blue", "--vdev=net_rtap0,iface=foo0", "--vdev=net_rtap1,iface=foo1",
		"--proc-type=auto", "--rxq=2", "--num-procs=2", "--proc-id=1")
	nettest.Eventually(t, 10*time.Second, "the secondary forwards", func() bool { return strings.Contains(p.err.String(), "worker 0: RX P=0/Q=1") })
	run.flows()
	if r := p.ended(); r.Forward.RxPackets < 10 {
		t.Errorf("%+v", r)
	}
	run.p.ended()
	p = start(t, run.ns, "run", "--file-prefix=blue", "--proc-type=auto")
	p.wait(exitUsage)
	wantText(t, p.err.String(), "there is no primary of file prefix blue", "--vdev")
}

// TestProcsErrors: what does not go together is said, with the exit code of a command line that makes no sense where it
// is one.
func TestProcsErrors(t *testing.T) {
	nettest.NeedFast(t)
	run := startCable(t, "--rxq=2")
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"--file-prefix=red --num-procs=2", "red", exitFailed},
		{"--file-prefix=blue --num-procs=3", "port 0 has 2 queues, which 3 processes cannot share: must be a multiple of 3", exitUsage},
		{"--file-prefix=blue --num-procs=2 --rxq=4", "--rxq is 4, and the primary's ports have 2", exitUsage},
		{"--file-prefix=blue --num-procs=2 --forward-mode=fly", "fly", exitUsage},
		{"--file-prefix=blue --num-procs=2 --forward-mode=txonly --txpkts=3000", "the pool's mbufs hold 2048 bytes", exitUsage},
	} {
		p := start(t, run.ns, append([]string{"run", "--proc-type=secondary", "--duration=5"}, strings.Fields(c.args)...)...)
		p.wait(c.code)
		wantText(t, p.err.String(), c.want)
	}
	run.secondary("--num-procs=2", "--proc-id=1")
	p := start(t, run.ns, "run", "--proc-type=secondary", "--file-prefix=blue", "--num-procs=1")
	p.wait(exitFailed)
	wantText(t, p.err.String(), "port 0: ", "leased by another process", "queue 1")
	run.flows() // nothing is left of it all
	p = start(t, run.ns, "run", "--vdev=net_rtap0", "--rxq=3", "--num-procs=2", "--duration=5")
	p.wait(exitUsage)
	wantText(t, p.err.String(), "port 0 has 3 queues, which 2 processes cannot share")
}

// TestProcsRest: without traffic all processes rest, also a primary whose queues are all leased, while another has traffic.
func TestProcsRest(t *testing.T) {
	nettest.NeedFast(t)
	run := startCable(t, "--rxq=2")
	for _, mode := range []rxMode{rxAdaptive, rxInterrupt} {
		p := run.secondary("--num-procs=1", "--rx-mode", string(mode))
		run.flows()
		p.rests(true)
		run.p.rests(true)
		p.ended()
		run.p.rests(true)
		run.flows()
	}
}

// TestProcsOffloads: a secondary does not lose packets for want of offloads that the primary had no need of.
func TestProcsOffloads(t *testing.T) {
	nettest.NeedFast(t)
	run := startCable(t, "--forward-mode=rxonly", "--enable-lro")
	p := start(t, run.ns, "run", "--proc-type=secondary", "--file-prefix=blue", "--num-procs=1", "--duration=5")
	p.wait(exitUsage)
	wantText(t, p.err.String(), "port 0 lacks Tx offloads udp_cksum, tcp_cksum, tcp_tso, which mode io needs")
	run.secondary("--num-procs=1", "--forward-mode=rxonly").ended()
}

// startCapture starts rtap capture, and waits until it captures.
func startCapture(t *testing.T, ns *netns.NS, args ...string) *process {
	t.Helper()
	p := start(t, ns, append([]string{"capture", "--file-prefix=blue"}, args...)...)
	nettest.Eventually(t, 10*time.Second, "the capture begins", func() bool { return strings.Contains(p.err.String(), "Capturing port") })
	return p
}

// pings is how many echo requests and replies there are among packets, which must be in the order of their times.
func pings(t *testing.T, packets []pcapPacket) (requests, replies int) {
	t.Helper()
	last := int64(0)
	for i, p := range packets {
		if len(p.data) > 34 && p.data[12] == 8 && p.data[13] == 0 && p.data[23] == 1 {
			if p.at < last {
				t.Errorf("packet %d is of %d, one before of %d", i, p.at, last)
			}
			last = p.at
			switch p.data[34] {
			case 8:
				requests++
			case 0:
				replies++
			}
		}
	}
	return requests, replies
}

// TestCapture: another process sees what a port receives and sends, each packet once, while it looks.
func TestCapture(t *testing.T) {
	sharedRuntime(t)
	ns := quietNS(t)
	conn := nettest.Conn(t, ns)
	p := start(t, ns, "run", "--file-prefix=blue", "--forward-mode=icmpecho", "--vdev=net_rtap0,iface=foo0", "--rxq=2", "--nb-cores=2")
	p.forwarding()
	if err := conn.AddAddr(p.up(conn, "foo0").Index, cable4[0]); err != nil {
		t.Fatal(err)
	}
	ping := func(count, size int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(20*time.Second))
		defer cancel()
		r, err := traffic.Ping(ctx, traffic.PingConfig{NS: ns, Dst: cable4[1].Addr(), Count: count, SizeBytes: size, Timeout: nettest.Bound(time.Second)})
		if err != nil || r.Lost() > 0 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	// written waits until a running capture has written the pings: a reply is on its way before it is in the ring.
	written := func(file string, requests int) {
		t.Helper()
		nettest.Eventually(t, 10*time.Second, "the capture has written all", func() bool {
			b, _ := os.ReadFile(file)
			_, packets, _ := parsePcap(b)
			q, r := pings(t, packets)
			return q >= requests && r >= requests
		})
	}
	check := func(file string, snapLen, requests int) {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, packets := readPcap(t, b)
		q, r := pings(t, packets)
		if requests < 0 && len(packets) == -requests { // of any kind: there may be ARP packets among them
			return
		}
		if q != requests || r != requests || got != snapLen {
			t.Errorf("%d requests, %d replies, snapshot length %d; want %d each and %d", q, r, got, requests, snapLen)
		}
		for _, p := range packets {
			if p.length > snapLen && len(p.data) != snapLen || p.length <= snapLen && len(p.data) != p.length {
				t.Errorf("%d of %d bytes", len(p.data), p.length)
			}
		}
	}
	ping(3, 100) // which nobody captures
	file := filepath.Join(t.TempDir(), "a.pcap")
	for _, c := range []struct {
		args             string
		count, size      int
		snapLen, packets int
		sig              bool
	}{
		{"", 5, 100, maxSnapLen, 5, true},
		{"--snaplen=50", 4, 1000, 50, 4, true},
		{"--count=6", 10, 100, maxSnapLen, -6, false},
		{"--queue=77", 3, 100, maxSnapLen, 0, true},
	} {
		capture := startCapture(t, ns, append([]string{"-w", file}, strings.Fields(c.args)...)...)
		ping(c.count, c.size)
		if c.sig {
			written(file, c.packets)
			capture.end(syscall.SIGINT, exitDone)
		} else {
			capture.wait(exitDone)
		}
		wantText(t, capture.err.String(), " captured, 0 dropped")
		check(file, c.snapLen, c.packets)
	}

	// One that is killed leaves the ring to the next, who does not see what was for the first.
	capture := startCapture(t, ns, "-w", file)
	second := start(t, ns, "capture", "--file-prefix=blue", "-w", file+"2")
	second.wait(exitFailed)
	wantText(t, second.err.String(), fmt.Sprintf("rtap capture (process %d)", capture.cmd.Process.Pid))
	if err := capture.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ping(7, 100)
	capture.kill()
	var again *process
	nettest.Eventually(t, 10*time.Second, "the ring is free again", func() bool {
		again = start(t, ns, "capture", "--file-prefix=blue", "-w", file)
		nettest.Eventually(t, 10*time.Second, "it begins or fails", func() bool { return again.err.String() != "" })
		return strings.Contains(again.err.String(), "Capturing")
	})
	ping(2, 100)
	written(file, 2)
	again.end(syscall.SIGTERM, exitDone)
	check(file, maxSnapLen, 2)
	p.end(syscall.SIGINT, exitDone)
}

// TestCaptureProcs: what a secondary moves is captured, too, and by queue it can be told from the primary's.
func TestCaptureProcs(t *testing.T) {
	run := startCable(t, "--rxq=2", "--num-procs=2")
	run.secondary("--num-procs=2", "--proc-id=1")
	file := filepath.Join(t.TempDir(), "a.pcap")
	moved := func(q int) uint64 {
		all, _ := queues(t)
		return all[1][q].IPackets + all[1][q].OPackets
	}
	for q := range 2 {
		before := moved(q)
		p := startCapture(t, run.ns, "-w", file, "--port=1", fmt.Sprint("--queue=", q))
		run.flows()
		nettest.Eventually(t, 10*time.Second, "all that the queue has moved is captured", func() bool {
			b, _ := os.ReadFile(file)
			_, packets, _ := parsePcap(b)
			return len(packets) > 10 && uint64(len(packets)) == moved(q)-before
		})
		p.end(syscall.SIGINT, exitDone)
		wantText(t, p.err.String(), " 0 dropped")
	}
}

// TestCaptureLRO: a frame of many packets is captured as the one that it is, whole.
func TestCaptureLRO(t *testing.T) {
	run := startCable(t, "--offloads=all")
	file := filepath.Join(t.TempDir(), "a.pcap")
	p := startCapture(t, run.ns, "-w", file)
	through(t, run.ends[0], run.ends[1], int64(nettest.Scale(40<<20)))
	p.end(syscall.SIGINT, exitDone)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, packets := readPcap(t, b)
	longest := 0
	for _, p := range packets {
		if len(p.data) != p.length || len(p.data) > 14 && p.data[12] == 8 && p.data[13] == 0 && int(p.data[16])<<8|int(p.data[17]) != p.length-14 {
			t.Fatalf("%d bytes of %d: %x", len(p.data), p.length, p.data[:min(len(p.data), 40)])
		}
		longest = max(longest, p.length)
	}
	if longest < 10000 {
		t.Errorf("%d packets, the longest of %d bytes", len(packets), longest)
	}
}

// TestCaptureTUN: of a TUN, packets begin with their IP header, and the file says so. The pings are those that rtap
// itself answers.
func TestCaptureTUN(t *testing.T) {
	sharedRuntime(t)
	ns := quietNS(t)
	conn := nettest.Conn(t, ns)
	p := start(t, ns, "run", "--file-prefix=blue", "--forward-mode=icmpecho", "--vdev=net_rtap0,iface=foo0,mode=tun")
	p.forwarding()
	index := p.up(conn, "foo0").Index
	if err := conn.AddAddr(index, cable4[0]); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "a.pcap")
	capture := startCapture(t, ns, "-w", file, "--count=6")
	ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(20*time.Second))
	defer cancel()
	r, err := traffic.Ping(ctx, traffic.PingConfig{NS: ns, Dst: cable4[1].Addr(), Count: 3, Timeout: nettest.Bound(time.Second)})
	if err != nil || r.Lost() > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	capture.wait(exitDone)
	b, err := os.ReadFile(file)
	if err != nil || len(b) < 24 || b[20] != 101 {
		t.Fatalf("the link type is not LINKTYPE_RAW: %x, %v", b[:min(24, len(b))], err)
	}
	b[20] = pcapEthernet // which readPcap looks for
	_, packets := readPcap(t, b)
	if len(packets) != 6 {
		t.Errorf("%d packets", len(packets))
	}
	for _, p := range packets {
		if p.data[0] != 0x45 || p.data[9] != 1 {
			t.Errorf("a packet begins with % x", p.data[:20])
		}
	}
	p.end(syscall.SIGINT, exitDone)
}

// TestCaptureDrops: one that does not keep up loses packets, and says how many; forwarding goes on.
func TestCaptureDrops(t *testing.T) {
	sharedRuntime(t)
	run := start(t, quietNS(t), "run", "--file-prefix=blue", "--vdev=net_rtap0,iface=foo0", "--forward-mode=txonly")
	run.forwarding()
	p := startCapture(t, nil, "-w", "/dev/null", "--duration=60")
	sent := func() uint64 { return asJSON[statsRow](t, "stats", "--file-prefix=blue").Ports[0].OPackets }
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	at := sent()
	nettest.Eventually(t, 20*time.Second, "more is sent than the ring holds", func() bool { return sent() > at+3*captureRingSize })
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	at = sent()
	nettest.Eventually(t, 20*time.Second, "it goes on", func() bool { return sent() > at+3*captureRingSize })
	p.end(syscall.SIGINT, exitDone)
	var packets, dropped int
	if _, err := fmt.Sscanf(p.err.String()[strings.Index(p.err.String(), "\n")+1:], "%d packets captured, %d dropped", &packets, &dropped); err != nil {
		t.Fatalf("%v: %s", err, &p.err)
	}
	if packets <= captureRingSize || dropped == 0 {
		t.Errorf("%d packets captured, %d dropped", packets, dropped)
	}
	run.end(syscall.SIGINT, exitDone)
}

// TestCaptureErrors: there is a primary and a port, or an error that says so.
func TestCaptureErrors(t *testing.T) {
	run := startCable(t)
	for args, want := range map[string]string{"--file-prefix=red": "red", "--file-prefix=blue --port=2": "no such port",
		"--file-prefix=blue -w /nowhere/a.pcap": "/nowhere/a.pcap"} {
		p := start(t, run.ns, append([]string{"capture", "--duration=5"}, strings.Fields(args)...)...)
		p.wait(exitFailed)
		wantText(t, p.err.String(), want)
	}
}

// examples are the command lines in a verb's help that have all of the words.
func examples(t *testing.T, verb string, words ...string) (lines []string) {
	t.Helper()
	_, out, _ := here("help", verb)
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		has := strings.HasPrefix(line, "rtap "+verb+" ")
		for _, w := range words {
			has = has && strings.Contains(line, w)
		}
		if has {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestProcsExamples: the examples in the help work as they stand there.
func TestProcsExamples(t *testing.T) {
	for _, program := range []string{"sh", "tcpdump"} {
		nettest.NeedProgram(t, program)
	}
	sharedRuntime(t)
	ns, dir := quietNS(t), t.TempDir()
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, dir+"/rtap")
	}
	if err != nil {
		t.Fatal(err)
	}
	shell := func(line string) *process {
		t.Helper()
		p := &process{t: t, cmd: exec.CommandContext(t.Context(), "sh", "-c", "exec "+line)}
		p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, &p.out, &p.err
		p.cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		if err := p.startIn(ns); err != nil {
			t.Fatal(err)
		}
		return p
	}
	primaries, secondaries := examples(t, "run", "--num-procs", "--vdev"), examples(t, "run", "--proc-type=secondary")
	captures := examples(t, "capture")
	if len(primaries) != 1 || len(secondaries) != 2 || len(captures) != 3 {
		t.Fatalf("examples: %q, %q, %q", primaries, secondaries, captures)
	}
	primary := shell(primaries[0])
	primary.forwarding()
	var running []*process
	for _, line := range secondaries {
		running = append(running, shell(line))
	}
	nettest.Eventually(t, 20*time.Second, "both secondaries work", func() bool {
		return strings.Contains(running[0].out.String(), "worker 0: RX P=0/Q=1") && strings.Contains(running[1].out.String(), "rx pkt/s")
	})
	blue := start(t, ns, "run", "--vdev=net_rtap2,iface=foo2", "--file-prefix=blue", "--forward-mode=txonly")
	blue.forwarding()
	for _, line := range captures {
		p := shell(strings.Replace(line, "--duration=10", "--duration=0.5", 1))
		switch {
		case strings.Contains(line, "--count"), strings.Contains(line, "--duration"):
			p.wait(exitDone)
			wantText(t, p.err.String(), "captured")
		default:
			nettest.Eventually(t, 10*time.Second, "the capture begins", func() bool { return strings.Contains(p.err.String(), "Capturing") })
			p.end(syscall.SIGINT, exitDone)
		}
	}
	for _, file := range []string{"foo0.pcap", "blue.pcap"} {
		b, err := os.ReadFile(dir + "/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if _, packets := readPcap(t, b); file == "blue.pcap" && (len(packets) != 1000 || bytes.Equal(packets[0].data, nil)) {
			t.Errorf("%s has %d packets", file, len(packets))
		}
	}
	for _, p := range append([]*process{blue}, append(running, primary)...) {
		p.end(syscall.SIGINT, exitDone)
	}
	if left, _ := filepath.Glob(os.Getenv(runtimeDirectory) + "/dpdk/*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
