// SPDX-License-Identifier: BSD-3-Clause

// Command plain compares package packetio with songgao/water: what reading and writing small packets costs a plain
// program. The rivals take turns, round by round, so that what else the machine does hits all of them alike.
//
//	plain [-rounds N] [-time DURATION] [-size BYTES] [-contests LIST] [-cpu]
//
// In each round a rival has an interface of its own, in a network namespace that vanishes with it. It needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/bench/internal/course"
)

// options are the command line.
type options struct {
	rounds   int
	time     time.Duration
	size     int
	contests []string
	cpu      bool
}

// goal is what packetio, with many packets a call, is to reach beside water.
const goal = 1.3

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "plain:", err)
		os.Exit(2)
	}
	if err := run(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "plain:", err)
		os.Exit(1)
	}
}

// parse reads the command line.
func parse(args []string, w io.Writer) (options, error) {
	var o options
	var names string
	f := flag.NewFlagSet("plain", flag.ContinueOnError)
	f.SetOutput(w)
	f.IntVar(&o.rounds, "rounds", 7, "`N`: how often each rival runs")
	f.DurationVar(&o.time, "time", time.Second, "how `long` each of them is measured, in each mode and contest")
	f.IntVar(&o.size, "size", 64, "`BYTES` of each packet")
	f.StringVar(&names, "contests", strings.Join(contestNames, ","), "`LIST` of contests, separated by commas")
	f.BoolVar(&o.cpu, "cpu", false, "count CPU time instead of time, which a busy machine disturbs less")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.contests = strings.Split(names, ",")
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.rounds < 1 || o.rounds > 10000:
		return o, fmt.Errorf("-rounds is %d: want 1 to 10000", o.rounds)
	case o.time < time.Millisecond || o.time > time.Hour:
		return o, fmt.Errorf("-time is %v: want 1ms to 1h", o.time)
	case o.size < 64 || o.size > 1500:
		return o, fmt.Errorf("-size is %d: want 64 to 1500", o.size)
	}
	for _, name := range o.contests {
		if !slices.Contains(contestNames, name) {
			return o, fmt.Errorf("-contests: there is no contest %q, want %s", name, strings.Join(contestNames, ", "))
		}
	}
	return o, nil
}

// outcome is what a rival's rounds came to, in ns a packet.
type outcome struct {
	mode    rtap.Mode
	contest string
	figures [][]float64 // of each rival
}

// run has the rivals take turns, and prints what it came to, also what was measured before an error.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	var all []outcome
	err := error(nil)
	for _, mode := range []rtap.Mode{rtap.ModeTAP, rtap.ModeTUN} {
		for _, name := range o.contests {
			r := outcome{mode, name, make([][]float64, len(rivals))}
			for round := 0; round < o.rounds && err == nil; round++ {
				err = r.round(ctx, &o)
				fmt.Fprintf(progress, "%s %s: round %d of %d\n", mode, name, round+1, o.rounds)
			}
			all = append(all, r)
			if err != nil {
				report(out, all)
				return err
			}
		}
	}
	report(out, all)
	return nil
}

func (r *outcome) round(ctx context.Context, o *options) error {
	for i, rival := range rivals {
		if err := ctx.Err(); err != nil {
			return err
		}
		ns, err := measure(rival, r.mode, r.contest, o)
		if err != nil {
			return fmt.Errorf("%s: %s %s: %w", rival.name, r.mode, r.contest, err)
		}
		r.figures[i] = append(r.figures[i], ns)
	}
	return nil
}

// report prints medians, and how many times as fast as the first rival each is.
func report(w io.Writer, all []outcome) {
	fmt.Fprintf(w, "%s, %d CPUs; medians\n\n", course.KernelRelease(), runtime.NumCPU())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "mode\tcontest\trival\trounds\tns/packet\tmin..max\tspeed\tgoal\t\n")
	for _, r := range all {
		base := 0.0
		for i, figures := range r.figures {
			if len(figures) == 0 {
				continue
			}
			v := slices.Sorted(slices.Values(figures))
			m := course.Median(v)
			if i == 0 {
				base = m
			}
			want := ""
			if rivals[i].goal {
				want = fmt.Sprintf(">= %.1f", goal)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%.0f\t%.0f..%.0f\t%.2f x\t%s\t\n", r.mode, r.contest, rivals[i].name, len(v), m, v[0], v[len(v)-1],
				base/m, want)
		}
	}
	t.Flush()
}
