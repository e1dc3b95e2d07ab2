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

// table prints a line for each rival in each contest.
func table(w io.Writer, o *options, all [][][]result) {
	fmt.Fprintf(w, "%s, %d CPUs; medians of %d rounds of %v; UDP with %d bytes, %d under way\n\n", course.KernelRelease(), runtime.NumCPU(),
		o.rounds, o.time, o.size, o.window)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "contest\trival\tGb/s\tmin..max\tto %s\twanted\tCPU s/Gb\t\n", o.rivals[0].name)
	for i, c := range o.contests {
		for j, rv := range o.rivals {
			if len(all[i]) == 0 || len(all[i][j]) == 0 {
				continue
			}
			rates := sorted(all[i][j], func(r result) float64 { return r.gbps })
			wanted := ""
			if j > 0 && c.target > 0 {
				wanted = fmt.Sprintf("%.2f x", c.target)
			}
			base := course.Median(sorted(all[i][0], func(r result) float64 { return r.gbps }))
			fmt.Fprintf(t, "%s\t%s\t%.3f\t%.3f..%.3f\t%.2f x\t%s\t%.2f\t\n", c.name, rv.name, course.Median(rates), rates[0], rates[len(rates)-1],
				course.Median(rates)/base, wanted, course.Median(sorted(all[i][j], func(r result) float64 { return r.cpu })))
		}
	}
	t.Flush()
}

// sorted is one figure of all rounds.
func sorted(rounds []result, figure func(result) float64) []float64 {
	var v []float64
	for _, r := range rounds {
		v = append(v, figure(r))
	}
	slices.Sort(v)
	return v
}
