// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rtap-project/rtap/test/kernels/plan"
)

// bootAll boots the machines, some at a time, and returns their results in the order of the runs.
func bootAll(ctx context.Context, cfg *config, s *suite, kernels map[string]*kernel, selected []run) []*result {
	results := make([]*result, len(selected))
	free := make(chan struct{}, max(cfg.jobs, 1))
	var wg sync.WaitGroup
	for i, r := range selected {
		free <- struct{}{}
		wg.Go(func() {
			results[i] = boot(ctx, cfg, s, kernels[r.suite], r)
			<-free
		})
	}
	wg.Wait()
	return results
}

// boot runs one machine from power-on to power-off. What goes wrong with the machine is in the result.
func boot(ctx context.Context, cfg *config, s *suite, k *kernel, r run) *result {
	m := &machine{cfg: cfg, name: r.name, logs: filepath.Join(cfg.cache, "log")}
	res := newResult(r.name, m.consoleLog(), m.testLog())
	start := time.Now()
	initrd := filepath.Join(s.build, "initramfs-"+r.name)
	vmCtx, cancel := context.WithTimeout(ctx, cfg.perVM)
	defer cancel()
	all := s.of(cfg, r)
	tests := all
	var err error
	for range 2 {
		if err = s.initramfs(initrd, cfg, k, r, tests); err != nil {
			break
		}
		if err = m.run(vmCtx, k.image(), initrd, res); !errors.Is(err, errEmulator) {
			break
		}
		tests = res.again(all)
		m.name = r.name + "-again" // its logs stay
		fmt.Printf("%s: %v; once more from %s\n", r.name, err, tests[0].Package)
	}
	res.finish(err, all, time.Since(start))
	// Held only to boot from; a machine's is as large as all test binaries together.
	if err := os.Remove(initrd); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
	}
	return res
}

// errEmulator is QEMU's own failure, so that no kernel runs that could be tested: the machine prints nothing and does not
// even take a non-maskable interrupt, or its clock is wrong. What a kernel does wrong is never this.
var errEmulator = errors.New("the emulator fails")

// machine is a QEMU process.
type machine struct {
	cfg  *config
	name string
	logs string // directory
	tmp  string // directory
}

func (m *machine) consoleLog() string { return filepath.Join(m.logs, m.name+".console.log") }
func (m *machine) testLog() string    { return filepath.Join(m.logs, m.name+".tests.log") }

// monitor is a socket's name, which must be short.
func (m *machine) monitor() string { return filepath.Join(m.tmp, "monitor") }

// cpu leaves out cmpxchg16b, which the kernel's allocator uses if it can: QEMU as Debian builds it stops the
// whole machine for each one, and version 7.2 now and then garbles the flags after it (seen as a double
// fault in __kmalloc while booting).
const cpu = "max,cx16=off"

// machineType leaves out the timer by which kernels measure how fast the TSC is. On a busy host QEMU serves it late, and the
// kernel's clock is wrong from then on: eight times as fast was seen. Without it they go by the HPET.
const machineType = "q35,pit=off"

// checkClock compares the time since the kernel started, by its own clock, with that since QEMU was started.
func checkClock(booted, started time.Duration) error {
	if booted <= started+started/5+time.Second {
		return nil
	}
	return fmt.Errorf("%w: the machine's clock says %.1f s after %.1f s", errEmulator, booted.Seconds(), started.Seconds())
}

// commandLine is the kernel's. A kernel that panics restarts, which -no-reboot makes the end of the
// machine. The emulated TSC follows the host's clock, so the watchdog that would distrust it after the
// pauses of a busy host is off.
const commandLine = "console=ttyS0 loglevel=5 panic=-1 oops=panic tsc=reliable no_timer_check " +
	"mitigations=off random.trust_cpu=on unknown_nmi_panic rdinit=/init"

func (m *machine) args(image, initrd string) []string {
	return []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", machineType, "-accel", m.cfg.accel, "-cpu", cpu,
		"-smp", strconv.Itoa(m.cfg.cpus), "-m", strconv.Itoa(m.cfg.memory),
		"-serial", "file:" + m.consoleLog(), // ttyS0: the kernel's messages
		"-serial", "stdio", // ttyS1: init's report and the tests' output
		"-monitor", "unix:" + m.monitor() + ",server,nowait",
		"-kernel", image, "-initrd", initrd, "-append", commandLine,
	}
}

// run starts QEMU, reads the report until the machine ends, and keeps it in the log.
func (m *machine) run(ctx context.Context, image, initrd string, res *result) error {
	if err := os.MkdirAll(m.logs, 0o755); err != nil {
		return err
	}
	log, err := os.Create(m.testLog())
	if err != nil {
		return err
	}
	defer log.Close()
	if m.tmp, err = os.MkdirTemp("", "rtap-kernels-"); err != nil {
		return err
	}
	defer os.RemoveAll(m.tmp)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", m.args(image, initrd)...)
	// QEMU must not outlive this program, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	// Later than init, which can say more of a test that hangs, if the machine does not hang itself.
	quiet := m.cfg.silence + time.Minute
	var hung atomic.Pointer[error]
	silent := time.AfterFunc(quiet, func() {
		err := m.interrupt()
		hung.Store(&err)
		_ = cmd.Process.Kill()
	})
	readErr := m.read(pipe, log, res, start, func() { silent.Reset(quiet) })
	silent.Stop()
	if readErr != nil {
		_ = cmd.Process.Kill()
	}
	err = cmd.Wait()
	if why := hung.Load(); why != nil {
		return fmt.Errorf("silent for %v: %w", quiet, *why)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("machine killed: not finished within its time (%v a machine, %v in all)", m.cfg.perVM, m.cfg.total)
	}
	if err != nil {
		err = fmt.Errorf("qemu: %w\n%s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return errors.Join(err, readErr)
}

// interrupt has the kernel of a machine that says nothing any more say on its console where it is: it panics
// from the interrupt, and the machine ends. If it does not, no kernel runs.
func (m *machine) interrupt() error {
	const grace = 10 * time.Second
	c, err := net.DialTimeout("unix", m.monitor(), grace)
	if err != nil {
		return fmt.Errorf("%w: %w", errEmulator, err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(grace)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "nmi\n"); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: it stands still", errEmulator)
	}
	return errors.New("the kernel stood still, see its console")
}

// read takes the report line by line, and tells the user of each package that has ended. It calls beat for
// each line.
func (m *machine) read(r io.Reader, log io.Writer, res *result, start time.Time, beat func()) error {
	out := bufio.NewWriter(log)
	for b := bufio.NewReaderSize(r, 1<<16); ; {
		line, err := b.ReadBytes('\n')
		beat()
		if len(line) > 0 {
			// test2json's mark has no place in a log for people.
			out.Write(bytes.ReplaceAll(line, []byte{0x16}, nil))
			if e, ok := plan.Parse(bytes.TrimRight(line, "\r\n")); ok {
				res.event(e)
				fmt.Printf("%s %s", time.Now().Format(time.TimeOnly), progress(m.name, e))
				// So that the log of a machine that hangs can be read while it does.
				err = errors.Join(err, out.Flush())
				if e.Kind == plan.Booted {
					err = errors.Join(err, checkClock(time.Duration(e.Seconds*float64(time.Second)), time.Since(start)))
				}
			} else {
				res.output(line)
			}
		}
		if errors.Is(err, io.EOF) {
			return out.Flush()
		}
		if err != nil {
			return err
		}
	}
}

// progress is one line for an event.
func progress(name string, e plan.Event) string {
	switch e.Kind {
	case plan.Booted:
		return fmt.Sprintf("%s: booted %s in %.1f s\n", name, e.Detail, e.Seconds)
	case plan.Begin:
		return fmt.Sprintf("%s: ...    %s\n", name, e.Package)
	case plan.End:
		if e.OK {
			return fmt.Sprintf("%s: ok     %s %.1f s\n", name, e.Package, e.Seconds)
		}
		return fmt.Sprintf("%s: FAILED %s %.1f s: %s\n", name, e.Package, e.Seconds, e.Detail)
	case plan.Done:
		return fmt.Sprintf("%s: done after %.0f s\n", name, e.Seconds)
	}
	return fmt.Sprintf("%s: %s %s\n", name, e.Kind, e.Detail)
}
