// SPDX-License-Identifier: BSD-3-Clause

//go:build soak

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
)

// TestSoakIdle: four ports without traffic take at most 0.5 % of one CPU's time in 30 s.
func TestSoakIdle(t *testing.T) {
	const idle, share = 30 * time.Second, 0.005
	for _, engine := range engines() {
		t.Run(engine, func(t *testing.T) {
			ns := nettest.NS(t)
			conn := nettest.Conn(t, ns)
			p := start(t, ns, "run", "--json", "--engine", engine, "--vdev=net_rtap0,iface=foo0", "--vdev=net_rtap1,iface=foo1",
				"--vdev=net_rtap2,iface=foo2", "--vdev=net_rtap3,iface=foo3")
			p.up(conn, "foo3")
			p.forwarding()
			before := p.cpuTime()
			time.Sleep(idle) // what is measured is this time
			used := p.cpuTime() - before
			t.Logf("%v in %v: %.2f %%", used, idle, 100*used.Seconds()/idle.Seconds())
			if used.Seconds() > share*idle.Seconds() {
				t.Errorf("used %v of CPU time in %v", used, idle)
			}
			p.end(syscall.SIGINT, exitDone)
		})
	}
}

// cpuTime is what the process has used, user and system: clock ticks of 10 ms (proc(5)).
func (p *process) cpuTime() time.Duration {
	p.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	ticks := 0
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			p.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
