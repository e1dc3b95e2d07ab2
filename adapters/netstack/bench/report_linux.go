// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// row is one rival's rounds, by direction.
type row struct {
	name    string
	results [2][]result
}

// report is what was measured.
type report struct {
	rows     []row
	baseline string // prefix of the rows' names to the best of which the ratios are
}

func newReport(o options) *report {
	r := &report{baseline: o.baseline}
	for _, rv := range o.rivals {
		r.rows = append(r.rows, row{name: rv.name})
	}
	return r
}

// base is the best median of the baseline's in a direction.
func (r *report) base(d int) (best float64) {
	for _, row := range r.rows {
		if strings.HasPrefix(row.name, r.baseline) && len(row.results[d]) > 0 {
			best = max(best, median(of(row.results[d], gbps)))
		}
	}
	return best
}

// of is one figure of all rounds, sorted.
func of(rounds []result, figure func(result) float64) []float64 {
	var v []float64
	for _, r := range rounds {
		v = append(v, figure(r))
	}
	slices.Sort(v)
	return v
}

func gbps(r result) float64 { return r.gbps }

// median of sorted values. Of an even number it is the mean of the two in the middle.
func median(v []float64) float64 { return (v[(len(v)-1)/2] + v[len(v)/2]) / 2 }

// table prints a line for each rival and direction.
func (r *report) table(w io.Writer) {
	if n := len(r.rows[0].results[0]); n > 0 {
		fmt.Fprintf(w, "%s, %d CPUs; one TCP stream, medians of %d rounds\n\n", kernel(), runtime.NumCPU(), n)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "rival\t\tGb/s\tmin..max\tto %s\tCPU s per Gb: stack\tkernel's end\t\n", r.baseline)
	for d, direction := range directions {
		for _, row := range r.rows {
			rounds := row.results[d]
			if len(rounds) == 0 {
				continue
			}
			v := of(rounds, gbps)
			fmt.Fprintf(t, "%s\t%s\t%.2f\t%.2f..%.2f\t%.2f x\t%.3f\t%.3f\t\n", row.name, direction, median(v), v[0], v[len(v)-1],
				median(v)/r.base(d), median(of(rounds, func(r result) float64 { return r.stack })),
				median(of(rounds, func(r result) float64 { return r.peer })))
		}
	}
	t.Flush()
}

// benchstat prints a line for each round (Go's proposal 14313, benchmark data format), so that benchstat has samples
// to compare.
func (r *report) benchstat(w io.Writer) {
	fmt.Fprintf(w, "goos: %s\ngoarch: %s\npkg: github.com/rtap-project/rtap/adapters/netstack/bench\nkernel: %s\n",
		runtime.GOOS, runtime.GOARCH, kernel())
	for _, row := range r.rows {
		for d, direction := range directions {
			for _, res := range row.results[d] {
				fmt.Fprintf(w, "BenchmarkTCP/direction=%s/rival=%s-%d\t1\t%.3f Gb/s\t%.4f stack-s/Gb\t%.4f kernel-s/Gb\n", direction, row.name,
					runtime.GOMAXPROCS(0), res.gbps, res.stack, res.peer)
			}
		}
	}
}

// kernel is the running one, as uname -sr prints it.
func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "Linux"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}
