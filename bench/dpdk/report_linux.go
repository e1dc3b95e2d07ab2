// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"

	"github.com/rtap-project/rtap/bench/internal/course"
)

// outcome is what a contest came to: a figure a round, for each rival.
type outcome struct {
	contest
	figures [][]float64
}

// report prints a table, or lines for benchstat.
func report(w io.Writer, all []outcome, benchstat bool) {
	if benchstat {
		fmt.Fprintf(w, "goos: %s\ngoarch: %s\npkg: github.com/rtap-project/rtap/bench/dpdk\nkernel: %s\n", runtime.GOOS, runtime.GOARCH,
			course.KernelRelease())
		for i := range all {
			all[i].benchstat(w)
		}
		return
	}
	fmt.Fprintf(w, "%s, %d CPUs; medians\n\n", course.KernelRelease(), runtime.NumCPU())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "contest\trival\trounds\tmedian\tmin..max\tunit\tratio\tgoal\t\n")
	for i := range all {
		all[i].table(t)
	}
	t.Flush()
}

func (o *outcome) table(w io.Writer) {
	base := 0.0
	for i, figures := range o.figures {
		if len(figures) == 0 {
			continue
		}
		v := slices.Sorted(slices.Values(figures))
		m := course.Median(v)
		if i == 0 {
			base = m
		}
		goal := ""
		if i == 1 {
			goal = o.goal
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%.2f\t%.2f..%.2f\t%s\t%.2f x\t%s\t\n", o.name, o.rivals[i].name, len(v), m, v[0], v[len(v)-1], o.unit,
			m/base, goal)
	}
}

// benchstat prints a line for each round (Go's proposal 14313, benchmark data format).
func (o *outcome) benchstat(w io.Writer) {
	for i, figures := range o.figures {
		for _, v := range figures {
			fmt.Fprintf(w, "BenchmarkDPDK/contest=%s/rival=%s-%d\t1\t%.3f %s\n", o.name, o.rivals[i].name, runtime.GOMAXPROCS(0), v, o.unit)
		}
	}
}
