// SPDX-License-Identifier: BSD-3-Clause

// Command kernels runs the module's tests on the kernels of Debian's releases, in virtual machines.
//
// It builds every package's tests as static binaries, fetches the kernels with apt from the mirror that
// this machine uses, packs binaries, sources and kernel modules into an initramfs whose init is the
// program in ./init, and boots each kernel under QEMU's emulation (no /dev/kvm needed). Nothing of the
// machine is changed: apt runs on a state directory of its own, and everything lies below .cache/kernels,
// the logs of the last run in .cache/kernels/log.
//
//	go run ./test/kernels [flags] [packages]
//
// In the machine each test binary runs as root in its package's directory, on a copy of the module's
// tree, with CI=true and RTAP_TEST_SCALE set: there is no Go, no shell and no other program. Tests see
// the kernel's modules tun, veth and dummy. The exit code is 0 when every package passed on every kernel.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// config is what the flags say.
type config struct {
	module   string        // the module's root
	cache    string        // where everything is kept
	packages []string      // patterns for go list
	only     []string      // names of the runs to do; none means all
	testArgs []string      // further flags for the test binaries
	scale    int           // RTAP_TEST_SCALE, see package nettest
	jobs     int           // machines at once
	memory   int           // megabytes a machine
	cpus     int           // virtual CPUs a machine
	accel    string        // QEMU's accelerator
	perTest  time.Duration // limit for one package's tests
	perVM    time.Duration // limit for one machine
	silence  time.Duration // limit for a time in which nothing is printed
	total    time.Duration // limit for all
	refresh  bool          // ask the mirror for newer kernels
}

// run is one boot: a kernel, and what is different about it.
type run struct {
	name    string
	suite   string            // the Debian release that the kernel is from
	sysctls map[string]string // below /proc/sys
	leave   []string          // packages that are not tested, unless they are asked for by name
	only    map[string]string // of other packages, the tests that match (-test.run); likewise
}

// runs are named by release: bookworm has Linux 6.1, trixie 6.12, sid what is newest (7.2 in 2026). The second
// run on trixie is what a hardened machine or a container's seccomp profile looks like to the driver (the
// sysctl is there since Linux 6.6): it has what depends on the engine, and the other one what io_uring does there. The
// command is the same on all, but for what it says of a kernel that lacks something. The longest come first, so that no
// machine is left to run alone.
var runs = []run{
	{name: "bookworm", suite: "bookworm", leave: tools},
	{name: "sid", suite: "sid", leave: slices.Concat(tools, anyKernel, theCommand)},
	{name: "trixie-no-io_uring", suite: "trixie", sysctls: map[string]string{"kernel/io_uring_disabled": "2"},
		leave: slices.Concat(tools, anyKernel, anyEngine), only: map[string]string{"cmd/rtap": "Info|Demo|RunForwards|RunErrors"}},
	{name: "trixie", suite: "trixie", leave: slices.Concat(tools, anyKernel, theCommand),
		only: map[string]string{".": "Burst|Queues|Order|Close|Exhaust|Registered|Scatter|Chain|Delete|OffloadTransfer|TUNTransfer"}},
}

// everything is which packages are tested unless some are named.
var everything = []string{"./..."}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	cfg, err := parseFlags(os.Args[1:])
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		os.Exit(2)
	}
	passed, err := testKernels(ctx, cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
	}
	if err != nil || !passed {
		stop()
		os.Exit(1)
	}
}

func parseFlags(args []string) (*config, error) {
	c := new(config)
	var only, testArgs string
	f := flag.NewFlagSet("kernels", flag.ContinueOnError)
	f.StringVar(&c.module, "module", ".", "root `directory` of the module to test")
	f.StringVar(&c.cache, "cache", ".cache/kernels", "`directory` for kernels, binaries and logs")
	f.StringVar(&only, "only", "", "do these `runs` only, of "+strings.Join(runNames(), ","))
	f.StringVar(&testArgs, "args", "", "further `flags` for the test binaries, such as \"-test.run=TestX\"")
	f.IntVar(&c.scale, "scale", 10, "RTAP_TEST_SCALE: tests divide counts and multiply waits by it")
	f.IntVar(&c.jobs, "jobs", min(2, runtime.NumCPU()), "machines at once")
	f.IntVar(&c.memory, "memory", 2048, "`megabytes` a machine")
	f.IntVar(&c.cpus, "cpus", 2, "virtual CPUs a machine")
	f.StringVar(&c.accel, "accel", "tcg", "QEMU `accelerator`")
	f.DurationVar(&c.perTest, "package-timeout", 10*time.Minute, "limit for one package")
	f.DurationVar(&c.perVM, "vm-timeout", 20*time.Minute, "limit for one machine")
	f.DurationVar(&c.silence, "silence", 3*time.Minute, "limit for a time in which nothing is printed")
	f.DurationVar(&c.total, "timeout", 25*time.Minute, "limit for everything")
	f.BoolVar(&c.refresh, "refresh", false, "look for newer kernels even if that was done within a day")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	c.testArgs = strings.Fields(testArgs)
	if only != "" {
		c.only = strings.Split(only, ",")
	}
	if c.packages = f.Args(); len(c.packages) == 0 {
		c.packages = everything
	}
	return c, c.resolve()
}

// resolve makes the directories absolute: commands run in several places.
func (c *config) resolve() (err error) {
	if c.module, err = filepath.Abs(c.module); err != nil {
		return err
	}
	c.cache, err = filepath.Abs(c.cache)
	return err
}

// testKernels does all of it and reports whether everything passed.
func testKernels(ctx context.Context, cfg *config) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.total)
	defer cancel()
	if err := checkTools(); err != nil {
		return false, err
	}
	selected, err := selectRuns(cfg.only)
	if err != nil {
		return false, err
	}
	start := time.Now()
	suite, err := buildSuite(ctx, cfg)
	if err != nil {
		return false, err
	}
	fmt.Printf("built the tests of %d packages in %.0f s\n", len(suite.tests), time.Since(start).Seconds())
	kernels, err := fetchKernels(ctx, cfg, selected)
	if err != nil {
		return false, err
	}
	results := bootAll(ctx, cfg, suite, kernels, selected)
	return report(os.Stdout, results, time.Since(start)), nil
}

func runNames() []string {
	var names []string
	for _, r := range runs {
		names = append(names, r.name)
	}
	return names
}

func selectRuns(only []string) ([]run, error) {
	var selected []run
	for _, r := range runs {
		if len(only) == 0 || slices.Contains(only, r.name) {
			selected = append(selected, r)
		}
	}
	if len(only) > 0 && len(selected) != len(only) {
		return nil, fmt.Errorf("-only %s: the runs are %s", strings.Join(only, ","), strings.Join(runNames(), ","))
	}
	return selected, nil
}
