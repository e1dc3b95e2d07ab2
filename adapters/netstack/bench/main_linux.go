// SPDX-License-Identifier: BSD-3-Clause

// Command bench compares endpoints of a gVisor stack, by one TCP stream between the stack and the kernel in each
// direction: package netstack over rtap, and gVisor's own fdbased on the same kind of interface. The rivals take turns, round by
// round, so that what else the machine does hits all of them alike.
//
//	bench [-rounds N] [-seconds N] [-rivals LIST] [-baseline PREFIX] [-benchstat]
//
// Each stream has two processes of its own, the stack and the kernel's end, in a network namespace that vanishes
// with it. The TCP options of the stack are the same for all. Linux only; it needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// directions of a stream.
var directions = []string{"in", "out"} // into the stack, out of it

type options struct {
	rounds    int
	time      time.Duration
	rivals    []*rival
	baseline  string
	benchstat bool
}

func main() {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil { // a child of ours
		if err := roles[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
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
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if err := run(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parse reads the command line.
func parse(args []string, w io.Writer) (options, error) {
	var o options
	var names string
	var seconds float64
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(w)
	f.IntVar(&o.rounds, "rounds", 7, "`N`: how often each rival runs")
	f.Float64Var(&seconds, "seconds", 3, "how long each TCP stream is measured")
	f.StringVar(&names, "rivals", "rtap,fdbased,fdbased-nogro,fdbased-procs", "`LIST` of rivals, separated by commas")
	f.StringVar(&o.baseline, "baseline", "fdbased", "`PREFIX` of the names of the rivals to the best of which the ratios are")
	f.BoolVar(&o.benchstat, "benchstat", false, "print lines of Go benchmarks, one for each round, as benchstat reads them")
	f.Usage = func() {
		fmt.Fprint(w, "usage: bench [-flag value]...\n\nRivals:\n")
		for _, r := range rivals {
			fmt.Fprintf(w, "  %-13s %s\n", r.name, r.help)
		}
		fmt.Fprint(w, "\nFlags:\n")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.rounds < 1 || o.rounds > 10000 {
		return o, fmt.Errorf("-rounds is %d: want 1 to 10000", o.rounds)
	}
	if seconds < 0.01 || seconds > 3600 {
		return o, fmt.Errorf("-seconds is %v: want 0.01 to 3600", seconds)
	}
	o.time = time.Duration(seconds * float64(time.Second))
	for name := range strings.SplitSeq(names, ",") {
		r := find(name)
		if r == nil {
			return o, fmt.Errorf("-rivals: there is no %q", name)
		}
		if !slices.Contains(o.rivals, r) {
			o.rivals = append(o.rivals, r)
		}
	}
	if !slices.ContainsFunc(o.rivals, func(r *rival) bool { return strings.HasPrefix(r.name, o.baseline) }) {
		return o, fmt.Errorf("-baseline: no rival that runs is called %q", o.baseline)
	}
	return o, nil
}

// run lets the rivals take turns and prints what it came to. What was measured before an error or a signal is
// printed, too.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	r := newReport(o)
	err := r.race(ctx, o, progress)
	if o.benchstat {
		r.benchstat(out)
	} else {
		r.table(out)
	}
	return err
}

func (r *report) race(ctx context.Context, o options, progress io.Writer) error {
	for round := range o.rounds {
		for i, rv := range o.rivals {
			for d, direction := range directions {
				res, err := stream(ctx, rv.name, direction, o.time)
				if ctx.Err() != nil {
					return errors.New("interrupted")
				}
				if err != nil {
					return fmt.Errorf("rival %s, %s: %w", rv.name, direction, err)
				}
				fmt.Fprintf(progress, "round %d of %d: %-13s %-3s %6.2f Gb/s\n", round+1, o.rounds, rv.name, direction, res.gbps)
				r.rows[i].results[d] = append(r.rows[i].results[d], res)
			}
		}
	}
	return nil
}
