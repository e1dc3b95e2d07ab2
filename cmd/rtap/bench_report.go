// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/rtap-project/rtap"
)

// row is one cell of one engine.
type row struct {
	Workload    string      `json:"workload"`
	Engine      rtap.Engine `json:"engine"`
	PacketBytes int         `json:"packet_bytes"`
	Burst       int         `json:"burst"`
	NsPerPacket float64     `json:"ns_per_packet"` // median of the rounds
	Min         float64     `json:"min"`           // nanoseconds per packet, as the median
	Max         float64     `json:"max"`
	Rounds      int         `json:"rounds"`
	Gbps        float64     `json:"gbps,omitempty"` // the forward workloads: payload of the TCP stream, median
	P99         float64     `json:"p99,omitempty"`  // the ping workloads: nanoseconds that 99 of 100 did not exceed, median

	samples []sample
}

// summarize fills in what follows from the samples.
func (r *row) summarize() {
	var ns, gbps, tail []float64
	for _, s := range r.samples {
		ns = append(ns, s.nsPerPacket())
		gbps = append(gbps, s.gbps)
		tail = append(tail, float64(s.tail))
	}
	r.Rounds = len(ns)
	r.NsPerPacket, r.Min, r.Max = median(ns), slices.Min(ns), slices.Max(ns)
	r.Gbps, r.P99 = median(gbps), median(tail)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// benchReport is what --json prints.
type benchReport struct {
	Version string `json:"version"`
	Kernel  string `json:"kernel"`
	Rows    []row  `json:"rows"`
}

// table prints a line for each cell, the engines side by side.
func (r *benchReport) table(w io.Writer) {
	if len(r.Rows) == 0 {
		return
	}
	t := newTable(1, "workload", "bytes", "burst", "syscall ns", "min..max", "uring ns", "min..max", "syscall/uring", "uring/plain", "no-offloads/uring", "Gb/s", "p99 ns")
	for _, a := range r.Rows {
		if a.Engine != rtap.EngineSyscall {
			continue
		}
		t.add(r.line(a)...)
	}
	fmt.Fprintf(w, "%s, rtap %s; nanoseconds per packet, medians of %s\n\n%s", r.Kernel, r.Version, plural(r.Rows[0].Rounds, "round"), t)
}

// line is the cells of a's place in the table, a being of the syscall engine.
func (r *benchReport) line(a row) []string {
	cells := []string{a.Workload, fmt.Sprint(a.PacketBytes), fmt.Sprint(a.Burst), a.ns(), a.spread()}
	uring, plain, packets := r.counterpart(a, rtap.EngineUring), r.counterpart(a, enginePlain), r.counterpart(a, engineNoOffloads)
	if uring == nil {
		return append(cells, "-", "-", "-", "", "", chain(gbpsOf, packets, &a), chain(p99Of, plain, &a))
	}
	return append(cells, uring.ns(), uring.spread(), ratio(&a, uring), ratio(uring, plain), ratio(packets, uring),
		chain(gbpsOf, packets, &a, uring), chain(p99Of, plain, &a, uring))
}

func (r *row) ns() string     { return fmt.Sprintf("%.0f", r.NsPerPacket) }
func (r *row) spread() string { return fmt.Sprintf("%.0f..%.0f", r.Min, r.Max) }

// ratio is of two rows that are both there.
func ratio(a, b *row) string {
	if a == nil || b == nil {
		return ""
	}
	return fmt.Sprintf("%.2f x", a.NsPerPacket/b.NsPerPacket)
}

func gbpsOf(r *row) (float64, string) { return r.Gbps, "%.2f" }
func p99Of(r *row) (float64, string)  { return r.P99, "%.0f" }

// chain is "1.28 -> 1.90" for rows that are there and have the figure.
func chain(figure func(*row) (float64, string), rows ...*row) string {
	var out []string
	for _, r := range rows {
		if r == nil {
			continue
		}
		if v, format := figure(r); v > 0 {
			out = append(out, fmt.Sprintf(format, v))
		}
	}
	return strings.Join(out, " -> ")
}

// counterpart is the row of another engine for the cell of a.
func (r *benchReport) counterpart(a row, engine rtap.Engine) *row {
	i := slices.IndexFunc(r.Rows, func(b row) bool {
		return b.Engine == engine && b.Workload == a.Workload && b.PacketBytes == a.PacketBytes && b.Burst == a.Burst
	})
	if i < 0 {
		return nil
	}
	return &r.Rows[i]
}

// benchstat prints a line for each round (Go's proposal 14313, benchmark data
// format), so that benchstat has samples to compare.
func (r *benchReport) benchstat(w io.Writer) {
	fmt.Fprintf(w, "goos: %s\ngoarch: %s\npkg: github.com/rtap-project/rtap/cmd/rtap\nkernel: %s\n", runtime.GOOS, runtime.GOARCH, r.Kernel)
	for _, row := range r.Rows {
		for _, s := range row.samples {
			fmt.Fprintf(w, "Benchmark%s/bytes=%d/burst=%d/engine=%s-%d\t%d\t%.1f ns/op", camel(row.Workload),
				row.PacketBytes, row.Burst, row.Engine, runtime.GOMAXPROCS(0), s.packets, s.nsPerPacket())
			if s.gbps > 0 {
				fmt.Fprintf(w, "\t%.3f Gb/s", s.gbps)
			}
			fmt.Fprintln(w)
		}
	}
}

// camel makes "RxDrain" of "rx-drain".
func camel(name string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(name, "-") {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}
