// SPDX-License-Identifier: BSD-3-Clause

// Command dpdk compares the DPDK plugin with DPDK's own TAP driver, net_tap, in the same testpmd with the same flags, and what
// the plugin's bursts cost with what those of Go cost. The rivals of a contest take turns, round by round, so that
// what else the machine does hits all of them alike.
//
//	dpdk [-rounds N] [-time DURATION] [-contests LIST] [-benchstat]
//
// In each round a rival starts anew, as a process of its own, in network namespaces that vanish with it. It needs root,
// DPDK's testpmd, and make dpdk.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	rounds    int
	time      time.Duration
	contests  []contest
	sender    string // of streams
	benchstat bool
	testpmd   string // paths
	plugin    string
	burst     string
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == nativeFlag {
		if err := native(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "dpdk:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dpdk:", err)
		os.Exit(2)
	}
	if err := run(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "dpdk:", err)
		os.Exit(1)
	}
}

// parse reads the command line.
func parse(args []string, w io.Writer) (options, error) {
	var o options
	var names string
	f := flag.NewFlagSet("dpdk", flag.ContinueOnError)
	f.SetOutput(w)
	f.IntVar(&o.rounds, "rounds", 7, "`N`: how often each rival runs")
	f.DurationVar(&o.time, "time", 3*time.Second, "how `long` each of them is measured")
	f.StringVar(&names, "contests", "", "`LIST` of contests, separated by commas (default: all)")
	f.StringVar(&o.sender, "sender", "iperf3", "`NAME` of what sends TCP streams: iperf3, which sends whole seconds, or own")
	f.BoolVar(&o.benchstat, "benchstat", false, "print lines of Go benchmarks, one for each round, as benchstat reads them")
	f.StringVar(&o.testpmd, "testpmd", "dpdk-testpmd", "`PROGRAM` of DPDK")
	f.StringVar(&o.plugin, "plugin", "", "`PATH` of librte_net_rtap.so (default: beside this program)")
	f.StringVar(&o.burst, "burst", "", "`PATH` of the program burst (default: beside this program)")
	f.Usage = func() {
		fmt.Fprint(w, "usage: dpdk [-flag value]...\n\nContests:\n")
		for _, c := range contests {
			fmt.Fprintf(w, "  %-9s %s\n", c.name, c.help)
		}
		fmt.Fprint(w, "\nFlags:\n")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.rounds < 1 || o.rounds > 10000:
		return o, fmt.Errorf("-rounds is %d: want 1 to 10000", o.rounds)
	case o.time < 10*time.Millisecond || o.time > time.Hour:
		return o, fmt.Errorf("-time is %v: want 10ms to 1h", o.time)
	}
	var err error
	if o.contests, err = choose(names); err != nil {
		return o, err
	}
	self, err := os.Executable()
	if err != nil {
		return o, err
	}
	for path, name := range map[*string]string{&o.plugin: "librte_net_rtap.so", &o.burst: "burst"} {
		if *path == "" {
			*path = filepath.Join(filepath.Dir(self), name)
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return o, err
		}
		if _, err := os.Stat(*path); err != nil {
			return o, fmt.Errorf("%w (make dpdk bench-dpdk builds it)", err)
		}
	}
	return o, nil
}

// choose returns the contests of these names, in the order of the table, or all.
func choose(names string) ([]contest, error) {
	if names == "" {
		return contests, nil
	}
	want := strings.Split(names, ",")
	for _, name := range want {
		if !slices.ContainsFunc(contests, func(c contest) bool { return c.name == name }) {
			return nil, fmt.Errorf("-contests: there is no contest %q", name)
		}
	}
	return slices.DeleteFunc(slices.Clone(contests), func(c contest) bool { return !slices.Contains(want, c.name) }), nil
}

// run has each contest's rivals take turns and prints what it came to. What was measured before an error or a signal is
// printed, too.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	dir, err := os.MkdirTemp("", "rtap") // EAL leaves things there
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Setenv("RUNTIME_DIRECTORY", dir); err != nil {
		return err
	}
	var all []outcome
	for _, c := range o.contests {
		var r outcome
		r, err = c.rounds(ctx, &o, progress)
		all = append(all, r)
		if err != nil {
			break
		}
	}
	report(out, all, o.benchstat)
	return err
}

// rounds lets the rivals take turns.
func (c contest) rounds(ctx context.Context, o *options, progress io.Writer) (outcome, error) {
	r := outcome{contest: c, figures: make([][]float64, len(c.rivals))}
	for round := range o.rounds {
		for i, rv := range c.rivals {
			v, err := c.run(ctx, o, &rv)
			if ctx.Err() != nil {
				return r, errors.New("interrupted")
			}
			if err != nil {
				return r, fmt.Errorf("%s, %s: %w", c.name, rv.name, err)
			}
			fmt.Fprintf(progress, "round %d of %d: %-8s %-9s %8.2f %s\n", round+1, o.rounds, c.name, rv.name, v, c.unit)
			r.figures[i] = append(r.figures[i], v)
		}
	}
	return r, nil
}
