// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/rtap-project/rtap/bench/internal/course"
)

// row is one rival's rounds.
type row struct {
	name   string
	rounds []course.Result
}

// report is what was measured, of the rivals that ran.
type report struct {
	kernel string
	rows   []row
	base   row // what the ratios are to
}

func newReport(o options, results [][]course.Result) report {
	r := report{kernel: course.KernelRelease()}
	for i, rv := range o.rivals {
		if len(results[i]) > 0 {
			r.rows = append(r.rows, row{rv.name, results[i]})
		}
	}
	if len(r.rows) > 0 {
		r.base = r.rows[0]
	}
	if i := slices.IndexFunc(r.rows, func(w row) bool { return w.name == o.baseline }); i >= 0 {
		r.base = r.rows[i]
	}
	return r
}

// of is one figure of all rounds, sorted.
func of[T cmp.Ordered](rounds []course.Result, figure func(course.Result) T) []T {
	var v []T
	for _, r := range rounds {
		v = append(v, figure(r))
	}
	slices.Sort(v)
	return v
}

func gbps(r course.Result) float64 { return r.Gbps }

// table prints a line for each rival.
func (r *report) table(w io.Writer) {
	if len(r.rows) == 0 {
		return
	}
	fmt.Fprintf(w, "%s, %d CPUs; one TCP stream, medians of %d rounds\n\n", r.kernel, runtime.NumCPU(), len(r.rows[0].rounds))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "rival\tGb/s\tmin..max\tto %s\tretransmits\tping µs\t\n", r.base.name)
	base := course.Median(of(r.base.rounds, gbps))
	for _, row := range r.rows {
		v := of(row.rounds, gbps)
		ping := course.Median(of(row.rounds, func(r course.Result) time.Duration { return r.Ping }))
		fmt.Fprintf(t, "%s\t%.2f\t%.2f..%.2f\t%.2f x\t%d\t%d\t\n", row.name, course.Median(v), v[0], v[len(v)-1], course.Median(v)/base,
			course.Median(of(row.rounds, func(r course.Result) int { return r.Retransmits })), ping.Microseconds())
	}
	t.Flush()
}

// benchstat prints a line for each round (Go's proposal 14313, benchmark data
// format), so that benchstat has samples to compare.
func (r *report) benchstat(w io.Writer) {
	fmt.Fprintf(w, "goos: %s\ngoarch: %s\npkg: github.com/rtap-project/rtap/bench/tcp\nkernel: %s\n", runtime.GOOS, runtime.GOARCH, r.kernel)
	for _, row := range r.rows {
		for _, res := range row.rounds {
			fmt.Fprintf(w, "BenchmarkTCP/rival=%s-%d\t1\t%.3f Gb/s\t%d retransmits\t%d ns/ping\n", row.name, runtime.GOMAXPROCS(0),
				res.Gbps, res.Retransmits, res.Ping.Nanoseconds())
		}
	}
}
