// SPDX-License-Identifier: BSD-3-Clause

// Command tcp measures what forwarders between two interfaces are worth to one TCP
// stream of the kernel's: rtap run in its ways of working, wireguard-go's package
// tun, and a veth pair with nothing in between. The rivals take turns, round by
// round, so that what else the machine does hits all of them alike.
//
//	tcp [-rounds N] [-time DURATION] [-rivals LIST] [-baseline NAME] [-sender NAME] [-benchstat]
//
// In each round a rival starts anew, as a process of its own, in network namespaces
// that vanish with it, however the program ends. The programs rtap and wgtun are
// looked for beside this one. Linux only; it needs root.
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
	"syscall"
	"time"

	"github.com/rtap-project/rtap/bench/internal/course"
)

// options are the command line.
type options struct {
	rounds    int
	time      time.Duration
	rivals    []rival
	baseline  string
	sender    string // of streams
	benchstat bool
	programs  programs
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tcp:", err)
		os.Exit(2)
	}
	if err := run(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "tcp:", err)
		os.Exit(1)
	}
}

// parse reads the command line.
func parse(args []string, w io.Writer) (options, error) {
	var o options
	var names, rtap, wgtun string
	f := flag.NewFlagSet("tcp", flag.ContinueOnError)
	f.SetOutput(w)
	f.IntVar(&o.rounds, "rounds", 7, "`N`: how often each rival runs")
	f.DurationVar(&o.time, "time", 3*time.Second, "how `long` each TCP stream is sent")
	f.StringVar(&names, "rivals", "", "`LIST` of rivals, separated by commas (default: all)")
	f.StringVar(&o.baseline, "baseline", "none", "`NAME` of the rival that the ratios are to; the first, if it does not run")
	f.StringVar(&o.sender, "sender", "own", "`NAME` of what sends the stream: own, or iperf3, which sends whole seconds")
	f.BoolVar(&o.benchstat, "benchstat", false, "print lines of Go benchmarks, one for each round, as benchstat reads them")
	f.StringVar(&rtap, "rtap", "", "`PATH` of the command rtap (default: beside this program)")
	f.StringVar(&wgtun, "wgtun", "", "`PATH` of the command wgtun (default: beside this program)")
	f.Usage = func() {
		fmt.Fprint(w, "usage: tcp [-flag value]...\n\nRivals:\n")
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
	if o.time < 10*time.Millisecond || o.time > time.Hour {
		return o, fmt.Errorf("-time is %v: want 10ms to 1h", o.time)
	}
	if !slices.Contains(course.Senders, o.sender) {
		return o, fmt.Errorf("-sender is %q: want own or iperf3", o.sender)
	}
	var err error
	if o.rivals, err = choose(names); err != nil {
		return o, err
	}
	if !slices.ContainsFunc(rivals, func(r rival) bool { return r.name == o.baseline }) {
		return o, fmt.Errorf("-baseline: there is no rival %q", o.baseline)
	}
	o.programs = programs{"rtap": rtap, "wgtun": wgtun}
	return o, o.programs.find(o.rivals)
}

// run lets the rivals take turns and prints what it came to. What was measured
// before an error or a signal is printed, too.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	results := make([][]course.Result, len(o.rivals))
	err := rounds(ctx, o, results, progress)
	r := newReport(o, results)
	if o.benchstat {
		r.benchstat(out)
	} else {
		r.table(out)
	}
	return err
}

func rounds(ctx context.Context, o options, results [][]course.Result, progress io.Writer) error {
	for round := range o.rounds {
		for i, rv := range o.rivals {
			res, err := race(ctx, rv, o)
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			if err != nil {
				return fmt.Errorf("rival %s: %w", rv.name, err)
			}
			fmt.Fprintf(progress, "round %d of %d: %-13s %6.2f Gb/s\n", round+1, o.rounds, rv.name, res.Gbps)
			results[i] = append(results[i], res)
		}
	}
	return nil
}
