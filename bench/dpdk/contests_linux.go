// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/rtap-project/rtap/bench/internal/course"
)

// contest is something that rivals are compared by. The first rival is what the ratios are to.
type contest struct {
	name, help, unit string
	goal             string // what the project wants the second rival's ratio to be
	rivals           []rival
	run              func(ctx context.Context, o *options, r *rival) (figure float64, err error)
}

// rival is one way to do it.
type rival struct {
	name string
	dev  string   // a device's arguments for EAL's --vdev: NUMBER and NAME are replaced
	args []string // of testpmd
	file string   // commands of testpmd's
}

const tapDev, rtapDev = "net_tapNUMBER,iface=NAME", "net_rtapNUMBER,iface=NAME"

// nativeRival is the rival that is no DPDK.
const nativeRival = "go"

var drivers = []rival{{name: "net_tap", dev: tapDev}, {name: "net_rtap", dev: rtapDev}}

// large has frames of up to 64 KB passed on that the kernel never cut: one mbuf takes one. The csum engine asks for
// segmentation anew, and leaves addresses as they are.
var large = rival{name: "rtap-lro", dev: rtapDev,
	args: []string{"--mbuf-size=65535", "--total-num-mbufs=2048", "--enable-lro", "--max-lro-pkt-size=65000"},
	file: `port stop all
csum set ip hw 0
csum set tcp hw 0
csum set ip hw 1
csum set tcp hw 1
tso set 1448 0
tso set 1448 1
csum mac-swap off 0
csum mac-swap off 1
set fwd csum
port start all
start
`}

// contests is the table of them.
var contests = []contest{
	{name: "txonly", help: "testpmd sends packets of 64 bytes", unit: "Mpps", goal: ">= 1.3", rivals: drivers, run: sends},
	{name: "rxonly", help: "testpmd receives of a flood of packets of 64 bytes", unit: "Mpps", goal: ">= 5", rivals: drivers, run: receives},
	{name: "tcp", help: "one TCP stream through testpmd's io mode; rtap-lro: through its csum mode, in frames of 64 KB", unit: "Gb/s",
		goal: ">= 1.5", rivals: append(drivers[:2:2], large), run: streams},
	{name: "tx", help: "what sending a packet costs in bursts of 32: the plugin's, and Go's", unit: "ns/packet", goal: "<= 1.1",
		rivals: []rival{{name: nativeRival}, {name: "plugin", dev: rtapDev}}, run: costs("tx")},
	{name: "rx", help: "what receiving a packet costs, likewise", unit: "ns/packet", goal: "<= 1.1",
		rivals: []rival{{name: nativeRival}, {name: "plugin", dev: rtapDev}}, run: costs("rx")},
}

// eal are EAL's arguments for a rival's devices, which have these interfaces.
func (r *rival) eal(o *options, lcores string, interfaces ...string) []string {
	args := []string{"-l", lcores, "--no-huge", "-m", "512", "--no-pci", "--no-telemetry", "--log-level=*:error",
		fmt.Sprintf("--file-prefix=rtap-bench-%d", os.Getpid())}
	if strings.HasPrefix(r.dev, "net_rtap") {
		args = append(args, "-d", o.plugin)
	}
	for i, name := range interfaces {
		args = append(args, "--vdev="+strings.NewReplacer("NUMBER", fmt.Sprint(i), "NAME", name).Replace(r.dev))
	}
	return args
}

// ready is what testpmd says when it has started: with the first statistics, of which there is a period.
const ready = "Port statistics"

// pmd are testpmd's arguments. With a period for statistics it does not end with its input.
func (r *rival) pmd(o *options, mode string, interfaces ...string) []string {
	args := append(r.eal(o, "0-1", interfaces...), "--", "--forward-mode="+mode, "--nb-cores=1", "--no-mlockall",
		"--stats-period=100000", "--total-num-mbufs=8192")
	return append(args, r.args...)
}

// streams sends a TCP stream through testpmd.
func streams(ctx context.Context, o *options, r *rival) (float64, error) {
	args := r.pmd(o, "io", course.IfA, course.IfB)
	if r.file != "" {
		f, err := os.CreateTemp("", "testpmd")
		if err != nil {
			return 0, err
		}
		defer os.Remove(f.Name())
		_, err = f.WriteString(r.file)
		if err = errors.Join(err, f.Close()); err != nil {
			return 0, err
		}
		args = append(args, "--cmdline-file="+f.Name())
	}
	res, err := course.Race(ctx, course.Config{Path: o.testpmd, Args: args, Raises: true, Ready: ready, Sender: o.sender, Time: o.time})
	return res.Gbps, err
}
