// SPDX-License-Identifier: BSD-3-Clause

// Command wireguard measures what wireguard-go is worth over rtap's TUN device, and over its own: two devices of
// wireguard-go in this process, in network namespaces that vanish with it, a load through the tunnel. The rivals take
// turns, round by round, so that what else the machine does hits both alike.
//
//	wireguard [-rounds N] [-seconds N] [-contests LIST] [-rivals LIST] [-window N] [-size BYTES]
//
// Linux only; it needs root.
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

// options are the command line.
type options struct {
	rounds       int
	time         time.Duration
	contests     []contest
	rivals       []rival
	window, size int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "wireguard:", err)
		os.Exit(2)
	}
	if err := run(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "wireguard:", err)
		os.Exit(1)
	}
}

// parse reads the command line.
func parse(args []string, w io.Writer) (*options, error) {
	o := &options{}
	var names, who string
	var seconds float64
	f := flag.NewFlagSet("wireguard", flag.ContinueOnError)
	f.SetOutput(w)
	f.IntVar(&o.rounds, "rounds", 7, "`N`: how often each rival runs")
	f.Float64Var(&seconds, "seconds", 2, "`N`: how long a load is sent each time")
	f.StringVar(&names, "contests", "", "`LIST` of contests, separated by commas (default: all)")
	f.StringVar(&who, "rivals", "", "`LIST` of rivals, tun and rtap (default: both)")
	f.IntVar(&o.window, "window", 256, "`N`: how many datagrams are under way at most; 0: as many as can be sent")
	f.IntVar(&o.size, "size", 1392, "payload of a datagram in `bytes`")
	f.Usage = func() {
		fmt.Fprint(w, "usage: wireguard [-flag value]...\n\nContests:\n")
		for _, c := range contests {
			fmt.Fprintf(w, "  %-10s %s\n", c.name, c.help)
		}
		fmt.Fprint(w, "\nFlags:\n")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.rounds < 1 || o.rounds > 10000:
		return nil, fmt.Errorf("-rounds is %d: want 1 to 10000", o.rounds)
	case seconds < 0.01 || seconds > 3600:
		return nil, fmt.Errorf("-seconds is %g: want 0.01 to 3600", seconds)
	case o.window < 0 || o.window > 1<<20:
		return nil, fmt.Errorf("-window is %d: want 0 to %d", o.window, 1<<20)
	case o.size < 1 || o.size > 1392:
		return nil, fmt.Errorf("-size is %d: want 1 to 1392", o.size)
	}
	o.time = time.Duration(seconds * float64(time.Second))
	var err error
	if o.contests, err = choose(contests, func(c contest) string { return c.name }, names); err != nil {
		return nil, fmt.Errorf("-contests: %w", err)
	}
	if o.rivals, err = choose(rivals, func(r rival) string { return r.name }, who); err != nil {
		return nil, fmt.Errorf("-rivals: %w", err)
	}
	return o, nil
}

// choose returns those of all that have these names, in their order, or all.
func choose[T any](all []T, name func(T) string, names string) ([]T, error) {
	if names == "" {
		return all, nil
	}
	want := strings.Split(names, ",")
	for _, w := range want {
		if !slices.ContainsFunc(all, func(v T) bool { return name(v) == w }) {
			return nil, fmt.Errorf("there is no %q", w)
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(v T) bool { return !slices.Contains(want, name(v)) }), nil
}

// run has the rivals take turns in each contest, and prints what it came to. What was measured before an error or a signal
// is printed, too.
func run(ctx context.Context, o *options, out, progress io.Writer) error {
	all := make([][][]result, len(o.contests)) // by contest and rival
	err := rounds(ctx, o, all, progress)
	table(out, o, all)
	return err
}

func rounds(ctx context.Context, o *options, all [][][]result, progress io.Writer) error {
	for i := range all {
		all[i] = make([][]result, len(o.rivals))
	}
	for i := range o.contests {
		for round := range o.rounds {
			for j, rv := range o.rivals {
				res, err := race(ctx, &o.contests[i], rv.create, o)
				if ctx.Err() != nil {
					return errors.New("interrupted")
				}
				if err != nil {
					return fmt.Errorf("contest %s, rival %s: %w", o.contests[i].name, rv.name, err)
				}
				fmt.Fprintf(progress, "%s, round %d of %d: %-5s %6.3f Gb/s, %.2f CPU s/Gb\n", o.contests[i].name, round+1, o.rounds, rv.name, res.gbps, res.cpu)
				all[i][j] = append(all[i][j], res)
			}
		}
	}
	return nil
}
