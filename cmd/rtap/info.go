// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/internal/uring"
)

// infoReport is what rtap info found out.
type infoReport struct {
	Version string `json:"version"`
	Kernel  string `json:"kernel"`
	Arch    string `json:"arch"`
	CPUs    int    `json:"cpus"`

	Works  bool        `json:"works"`            // a port can be opened
	Engine rtap.Engine `json:"engine,omitempty"` // that auto takes
	Reason string      `json:"reason"`           // why that engine, or why no port

	// What a port may be configured with, by name, and what this kernel lacks.
	RxOffloads []string          `json:"rx_offloads"`
	TxOffloads []string          `json:"tx_offloads"`
	Lacking    map[string]string `json:"lacking_offloads,omitempty"` // "rx udp_lro" and why

	Features []uring.Feature `json:"features"`
}

// measured is what it costs to do without, where that was measured: 64-byte
// packets, one core, Linux 6.18.
var measured = map[string]string{
	uring.FeatureIoUring: "sending takes 1.5 times as long, receiving 1.3 times",
	uring.FeatureBuffers: "a packet takes a tenth longer each way",
	uring.FeatureFiles:   "a packet takes a fifth longer",
}

const infoIntro = `Says what this kernel and these privileges allow, what is missing, and what that
costs. Everything is tried, nothing guessed from a version: a port is opened for a
moment, in a network namespace of its own if that is allowed, else in this one.
`

const infoMore = `Examples:
  rtap info
  rtap info --json | jq -r '.features[] | select(.outcome != "yes") | .name'

With --json standard output has one object: {"kernel", "works", "engine", "reason",
"rx_offloads": [...], "tx_offloads": [...], "lacking_offloads": {"rx NAME": reason...},
"features": [{"name", "outcome": "yes"|"no"|"unknown", "since", "detail", "cost"}...]}.
The exit code is 0 whatever was found.
`

// infoVerb is rtap info.
func infoVerb(_ context.Context, s streams, args []string) error {
	f := newFlags("info", infoIntro, infoMore)
	asJSON := f.Bool("json", false, "print one JSON object")
	if err := f.parse(args, s.out); err != nil {
		return err
	}
	r := inspect()
	if *asJSON {
		e := json.NewEncoder(s.out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	r.print(s.out)
	return nil
}

// inspect tries everything.
func inspect() infoReport {
	r := infoReport{Version: version(), Kernel: kernelRelease(), Arch: runtime.GOARCH, CPUs: runtime.NumCPU()}
	r.Features = append(systemFeatures(), uring.Probe()...)
	err := somewhere(func() error {
		q, err := tuntap.Attach(rtap.DefaultName, tuntap.Options{})
		if err != nil {
			return err
		}
		r.Features = append(r.Features, uring.ProbeNoWait(q.FD()))
		return errors.Join(q.Close(), r.openPort())
	})
	if err != nil {
		r.Reason = strings.TrimPrefix(err.Error(), "tuntap: ")
	}
	r.Works = err == nil
	for i, f := range r.Features {
		if m := measured[f.Name]; m != "" {
			r.Features[i].Cost = f.Cost + ": " + m
		}
	}
	return r
}

// somewhere runs f in a namespace of its own, or here where none can be made.
func somewhere(f func() error) error {
	ns, err := netns.New()
	if err != nil {
		return f()
	}
	return errors.Join(ns.Do(f), ns.Close())
}

// openPort opens a port and sees what engine it takes.
func (r *infoReport) openPort() error {
	dev, err := rtap.Open(rtap.Config{})
	if err != nil {
		return err
	}
	info := dev.Info()
	r.Engine, r.Reason = info.Engine, info.EngineReason
	r.RxOffloads, r.TxOffloads = rtap.RxOffloadNames(info.RxOffloads), rtap.TxOffloadNames(info.TxOffloads)
	r.Lacking = lacking(dev, info)
	return dev.Close()
}

// lacking is the offloads that the driver knows and this kernel has not: the driver
// says why when asked for one.
func lacking(dev *rtap.Device, info rtap.Info) map[string]string {
	m := map[string]string{}
	try := func(cfg rtap.PortConfig) {
		cfg.RxQueues, cfg.TxQueues = 1, 1
		if e := (*rtap.OffloadError)(nil); errors.As(dev.Configure(cfg), &e) {
			m[e.Dir+" "+e.Name] = e.Reason
		}
	}
	for _, n := range offloadNeeds { // every offload that a kernel may lack is in it
		for bits := n.rx &^ info.RxOffloads; bits != 0; bits &= bits - 1 {
			try(rtap.PortConfig{RxOffloads: bits & -bits})
		}
		for bits := n.tx &^ info.TxOffloads; bits != 0; bits &= bits - 1 {
			try(rtap.PortConfig{TxOffloads: bits & -bits})
		}
	}
	return m
}

func (r *infoReport) print(w io.Writer) {
	fmt.Fprintf(w, "rtap %s, %s, %s, %s\n\n", r.Version, r.Kernel, r.Arch, plural(r.CPUs, "CPU"))
	if r.Works {
		fmt.Fprintf(w, "Ports work here, with engine %s: %s.\n\n", r.Engine, r.Reason)
	} else {
		fmt.Fprintf(w, "Ports do not work here: %s.\n\n", r.Reason)
	}
	r.printOffloads(w)
	wide := 0
	for _, f := range r.Features {
		wide = max(wide, len(f.Name))
	}
	for _, f := range r.Features {
		line := fmt.Sprintf("  %-7s  %-*s  %s", f.Outcome, wide, f.Name, f.Detail)
		fmt.Fprintln(w, strings.TrimRight(line, " "))
		if f.Outcome != uring.Yes {
			fmt.Fprintf(w, "  %-7s  %-*s  without it: %s", "", wide, "", f.Cost)
			if f.Since != "" {
				fmt.Fprintf(w, " (since Linux %s)", f.Since)
			}
			fmt.Fprintln(w)
		}
	}
}

func (r *infoReport) printOffloads(w io.Writer) {
	if !r.Works {
		return
	}
	fmt.Fprintf(w, "Rx offloads: %s\nTx offloads: %s\n", names(r.RxOffloads), names(r.TxOffloads))
	for _, name := range slices.Sorted(maps.Keys(r.Lacking)) {
		fmt.Fprintf(w, "There is no %s: %s\n", name, r.Lacking[name])
	}
	fmt.Fprintln(w)
}
