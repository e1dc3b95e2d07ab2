// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/test/kernels/plan"
)

// settleTimeout bounds the wait for what a package's tests leave to the kernel to take down.
const settleTimeout = 10 * time.Second

// runTest runs one test binary. Its error is nil when the tests passed and left the machine as it was.
func runTest(t plan.Test, env []string, out io.Writer) error {
	links, taint := interfaces(), tainted()
	ctx, cancel := context.WithTimeout(context.Background(), t.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.Binary, t.Args...)
	cmd.Dir, cmd.Env = t.Dir, env
	// Through pipes, not the port itself: only so can no test change the port's settings.
	w := &pulse{w: out}
	w.beat()
	cmd.Stdout = w
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = settleTimeout
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := w.watch(t.Silence, func() { showStuck(cmd.Process) })
	err := cmd.Wait()
	if stop() {
		err = fmt.Errorf("silent for %v: %w", t.Silence, err)
	} else if ctx.Err() != nil {
		err = fmt.Errorf("killed after %v", t.Timeout)
	}
	return errors.Join(err, sweep(), checkLinks(links), checkTaint(taint))
}

// pulse passes on what tests print and remembers when they last did.
type pulse struct {
	w    io.Writer
	last atomic.Int64
}

func (p *pulse) beat() { p.last.Store(time.Now().UnixNano()) }

func (p *pulse) Write(b []byte) (int, error) {
	p.beat()
	return p.w.Write(b)
}

// watch calls f, once, when nothing has been printed for a time. The function that it returns ends the watch
// and tells whether f was called.
func (p *pulse) watch(silence time.Duration, f func()) (stop func() bool) {
	quit, called := make(chan struct{}), make(chan bool, 1)
	go func() {
		for {
			rest := silence - time.Since(time.Unix(0, p.last.Load()))
			if rest <= 0 {
				f()
				called <- true
				return
			}
			select {
			case <-quit:
				called <- false
				return
			case <-time.After(rest):
			}
		}
	}()
	return func() bool { close(quit); return <-called }
}

// showStuck has the kernel say on its console what every CPU does and which tasks are blocked, and ends the
// test, which says what its goroutines do.
func showStuck(test *os.Process) {
	for _, key := range "8lw5" { // all messages to the console; CPUs; blocked tasks; as it was
		if err := os.WriteFile("/proc/sysrq-trigger", []byte(string(key)), 0); err != nil {
			fmt.Fprintln(os.Stderr, "init: sysrq:", err)
		}
	}
	if err := test.Signal(unix.SIGQUIT); err != nil {
		fmt.Fprintln(os.Stderr, "init: end the test:", err)
	}
}

// sweep waits for the processes that the tests left, and ends those that do not end by themselves, so that
// none of them disturbs the next package's tests.
func sweep() error {
	const grace = time.Second
	start := time.Now()
	for ; time.Since(start) < settleTimeout; time.Sleep(10 * time.Millisecond) {
		if orphans := reap(); !orphans && time.Since(start) < grace {
			return nil
		} else if !orphans {
			return errors.New("processes left behind had to be killed")
		}
		if time.Since(start) < grace {
			continue
		}
		if err := unix.Kill(-1, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill all: %w", err)
		}
	}
	return errors.New("processes left behind that cannot be killed")
}

// reap waits for those children that have ended and tells whether there are others. Orphans become PID 1's
// children, so there are no processes but PID 1 when it has none.
func reap() bool {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.ECHILD) {
			return false
		}
		if pid <= 0 && !errors.Is(err, unix.EINTR) {
			return true
		}
	}
}

// interfaces are the names of the network interfaces in the machine's first namespace.
func interfaces() []string {
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return []string{err.Error()}
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// checkLinks waits for the interfaces to be the ones that were there before.
func checkLinks(before []string) error {
	for deadline := time.Now().Add(settleTimeout); ; time.Sleep(10 * time.Millisecond) {
		now := interfaces()
		if slices.Equal(before, now) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("interfaces before the tests: %s; after: %s", strings.Join(before, " "), strings.Join(now, " "))
		}
	}
}

// badTaint are the bits of a kernel that has warned of a fault of its own or has survived an oops
// (Documentation/admin-guide/tainted-kernels.rst).
const badTaint = 1<<9 | 1<<7

func tainted() uint64 {
	body, err := os.ReadFile("/proc/sys/kernel/tainted")
	if err != nil {
		return 0
	}
	bits, err := strconv.ParseUint(strings.TrimSpace(string(body)), 10, 64)
	if err != nil {
		return 0
	}
	return bits
}

// checkTaint fails when the tests made the kernel warn.
func checkTaint(before uint64) error {
	if added := tainted() &^ before & badTaint; added != 0 {
		return fmt.Errorf("the kernel warned during these tests (taint bits %#x): see the console's log", added)
	}
	return nil
}
