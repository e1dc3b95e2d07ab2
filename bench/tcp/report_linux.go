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

	"golang.org/x/sys/unix"
)

// row is one rival's rounds.
type row struct {
	name   string
	rounds []result
}

// report is what was measured, of the rivals that ran.
type report struct {
	kernel string
	rows   []row
	base   row // what the ratios are to
}

func newReport(o options, results [][]result) report {
	r := report{kernel: kernelRelease()}
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

// kernelRelease is the running kernel, as uname -sr prints it.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "Linux"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

// of is one figure of all rounds, sorted.
func of[T cmp.Ordered](rounds []result, figure func(result) T) []T {
	var v []T
	for _, r := range rounds {
		v = append(v, figure(r))
	}
	slices.Sort(v)
	return v
}

// median of sorted values. Of an even number it is the mean of the two in the middle.
func median[T ~int | ~int64 | ~float64](sorted []T) T {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func gbps(r result) float64 { return r.gbps }

// table prints a line for each rival.
func (r *report) table(w io.Writer) {
	if len(r.rows) == 0 {
		return
	}
	fmt.Fprintf(w, "%s, %d CPUs; one TCP stream, medians of %d rounds\n\n", r.kernel, runtime.NumCPU(), len(r.rows[0].rounds))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "rival\tGb/s\tmin..max\tto %s\tretransmits\tping µs\t\n", r.base.name)
	base := median(of(r.base.rounds, gbps))
	for _, row := range r.rows {
		v := of(row.rounds, gbps)
		ping := median(of(row.rounds, func(r result) time.Duration { return r.ping }))
		fmt.Fprintf(t, "%s\t%.2f\t%.2f..%.2f\t%.2f x\t%d\t%d\t\n", row.name, median(v), v[0], v[len(v)-1], median(v)/base,
			median(of(row.rounds, func(r result) int { return r.retransmits })), ping.Microseconds())
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
				res.gbps, res.retransmits, res.ping.Nanoseconds())
		}
	}
}
