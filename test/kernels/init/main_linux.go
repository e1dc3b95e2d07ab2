// SPDX-License-Identifier: BSD-3-Clause

// Command init is PID 1 of the virtual machines that the kernel tests boot: it makes a bare kernel fit
// for the tests (file systems, modules, sysctls, loopback), runs the plan's test binaries one after the
// other, reports on the second serial port and powers the machine off.
package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/test/kernels/plan"
)

// reportTTY is the second serial port: the first is the kernel's console, whose messages would land in
// the middle of the tests' lines.
const reportTTY = "/dev/ttyS1"

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: only runs as PID 1 of a test machine")
		os.Exit(2)
	}
	defer powerOff()
	if err := mountAll(); err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		return
	}
	tty, err := openTTY(reportTTY)
	if err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		return
	}
	defer drain(tty)
	if err := serve(tty); err != nil {
		send(tty, plan.Event{Kind: plan.Failed, Detail: err.Error()})
	}
}

// serve prepares the machine and runs the plan.
func serve(tty *os.File) error {
	p, err := readPlan(plan.File)
	if err != nil {
		return err
	}
	if err := prepare(p); err != nil {
		return err
	}
	send(tty, plan.Event{Kind: plan.Booted, Detail: release(), Seconds: uptime()})
	for _, t := range p.Tests {
		send(tty, plan.Event{Kind: plan.Begin, Package: t.Package})
		start := time.Now()
		err := runTest(t, p.Env, tty)
		e := plan.Event{Kind: plan.End, Package: t.Package, OK: err == nil, Seconds: time.Since(start).Seconds()}
		if err != nil {
			e.Detail = err.Error()
		}
		send(tty, e)
	}
	send(tty, plan.Event{Kind: plan.Done, Seconds: uptime()})
	return nil
}

func send(w io.Writer, e plan.Event) {
	if _, err := w.Write(e.Line()); err != nil {
		fmt.Fprintln(os.Stderr, "init: report:", err)
	}
}

// release is the kernel's, as uname -r.
func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	return unix.ByteSliceToString(u.Release[:])
}

// uptime is the time since the kernel started, in seconds.
func uptime() float64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano()).Seconds()
}

// powerOff ends the machine. It does not return while the kernel can do it.
func powerOff() {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "init: power off:", err)
	}
	// PID 1 must not return: the kernel would panic, which with -no-reboot ends the machine as well.
}
