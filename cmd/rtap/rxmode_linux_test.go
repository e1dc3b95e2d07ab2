// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
)

// TestRunRxModes: workers without packets sleep, unless they are to poll, and forward all the same.
func TestRunRxModes(t *testing.T) {
	for _, mode := range rxModes {
		for _, engine := range engines() {
			t.Run(mode+"/"+engine, func(t *testing.T) {
				ns := nettest.NS(t)
				conn := nettest.Conn(t, ns)
				p := start(t, ns, "run", "--json", "--engine", engine, "--rx-mode", mode, "--rxq=2", "--nb-cores=2",
					"--vdev=net_rtap0,iface=foo0", "--vdev=eth_rtap1,iface=foo1")
				a := cableEnd(t, conn, p.up(conn, "foo0"), 0)
				b := cableEnd(t, conn, p.up(conn, "foo1"), 1)
				for range 3 {
					p.rests(mode != string(rxPoll))
					through(t, a, b, int64(nettest.Scale(2<<20)))
				}
				p.rests(mode != string(rxPoll))
				p.end(syscall.SIGINT, exitDone)
				checkForwarded(t, p.parseReport(), 3*int64(nettest.Scale(2<<20)))
			})
		}
	}
}

// rests waits until the process is seen to do nothing for a while, or, if it should not rest, to be at work.
func (p *process) rests(should bool) {
	p.t.Helper()
	const looks = 20
	nettest.Eventually(p.t, 10*time.Second, fmt.Sprintf("the process to rest: %t", should), func() bool {
		running := 0
		for range looks {
			running += p.runningThreads()
			time.Sleep(time.Millisecond)
		}
		// Of a process at rest one look or two may see a thread that the runtime's own timers have woken up.
		return should == (running <= looks/5)
	})
}

// runningThreads is how many threads of the process are on a CPU or want one (proc(5), state R).
func (p *process) runningThreads() int {
	p.t.Helper()
	dir := fmt.Sprintf("/proc/%d/task/", p.cmd.Process.Pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		p.t.Fatal(err)
	}
	n := 0
	for _, task := range tasks {
		stat, err := os.ReadFile(dir + task.Name() + "/stat")
		if err != nil {
			continue // a thread that has ended
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		if strings.HasPrefix(after, "R") {
			n++
		}
	}
	return n
}

// TestRunTxOnlyDoesNotSleep: a mode that sends of its own accord goes on without anything to receive.
func TestRunTxOnlyDoesNotSleep(t *testing.T) {
	p := start(t, nettest.NS(t), "run", "--json", "--rx-mode=interrupt", "--forward-mode=txonly", "--vdev=net_rtap0", "--duration=0.2")
	p.wait(exitDone)
	if r := p.parseReport(); r.Ports[0].OPackets < 64 {
		t.Errorf("sent %d packets", r.Ports[0].OPackets)
	}
}

// TestRunFollowsMAC: mode mac writes the address that the interface has now, whoever gave it that.
func TestRunFollowsMAC(t *testing.T) {
	ns := nettest.NS(t)
	conn := nettest.Conn(t, ns)
	p := start(t, ns, "run", "--forward-mode=mac", "--port-topology=loop", "--vdev=net_rtap0,iface=foo0")
	p.forwarding()
	link := p.up(conn, "foo0")
	in, err := traffic.NewInjector(ns, link.Index)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := traffic.NewCapturer(ns, link.Index)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(10*time.Second))
	defer cancel()
	frame := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5}, make([]byte, 50)...)
	for _, mac := range []net.HardwareAddr{link.MAC, {2, 0, 0, 0, 0, 7}, {2, 0, 0, 0, 0, 8}} {
		if err := conn.SetMAC(link.Index, mac); err != nil {
			t.Fatal(err)
		}
		nettest.Eventually(t, 10*time.Second, "packets from "+mac.String(), func() bool {
			if err := in.Inject(frame); err != nil {
				t.Fatal(err)
			}
			got, err := out.Next(ctx, func(f []byte) bool { return f[12] == 0x88 && f[13] == 0xb5 })
			if err != nil {
				t.Fatal(err)
			}
			return bytes.Equal(got[6:12], mac)
		})
	}
	p.end(syscall.SIGINT, exitDone)
}

// TestRunLogs: the driver's log lines, in the format asked for, on standard error.
func TestRunLogs(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--log-level=info --log-format=json", `"msg":"port opened","port":"net_rtap0"`},
		{"--log-level=debug", `msg="port opened" port=net_rtap0`},
		{"", ""},
		{"--log-level=off", ""},
	} {
		p := start(t, nettest.NS(t), append([]string{"run", "--vdev=net_rtap0", "--duration=0.1"}, strings.Fields(c.args)...)...)
		p.wait(exitDone)
		if got := p.err.String(); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: standard error is %q, want %q in it", c.args, got, c.want)
		}
	}
}
