// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/bench/internal/course"
	"github.com/rtap-project/rtap/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

func TestParse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "built")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	built := []string{"-plugin=" + file, "-burst=" + file}
	for args, want := range map[string]string{
		"-rounds=0":              "-rounds is 0",
		"-time=1ms":              "-time is 1ms",
		"-contests=txonly,horse": `no contest "horse"`,
		"-plugin=/nowhere":       "/nowhere",
		"extra":                  `unexpected argument "extra"`,
	} {
		if _, err := parse(append(built, strings.Fields(args)...), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", args, err, want)
		}
	}
	o, err := parse(append(built, "-contests=rx,txonly"), io.Discard)
	if err != nil || o.rounds != 7 || len(o.contests) != 2 || o.contests[0].name != "txonly" {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestSameFlags: rivals are given the same arguments, but for the device's name and the plugin.
func TestSameFlags(t *testing.T) {
	o := &options{plugin: "PLUGIN"}
	a := strings.Join(drivers[0].pmd(o, "io", "a", "b"), " ")
	b := strings.Join(drivers[1].pmd(o, "io", "a", "b"), " ")
	if got := strings.ReplaceAll(strings.Replace(b, " -d PLUGIN", "", 1), "net_rtap", "net_tap"); got != a || !strings.Contains(b, " -d PLUGIN ") {
		t.Errorf("net_tap has %s\nnet_rtap has %s", a, b)
	}
	if !strings.Contains(a, "--vdev=net_tap0,iface=a --vdev=net_tap1,iface=b ") {
		t.Errorf("devices are in %s", a)
	}
}

func TestReport(t *testing.T) {
	all := []outcome{{contests[0], [][]float64{{1, 9, 2}, {4, 3, 5}}}, {contests[1], [][]float64{{1}, nil}}}
	var out strings.Builder
	report(&out, all, false)
	for _, want := range []string{"2.00 x", ">= 1.3", "1.00..9.00", "rxonly"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), contests[1].goal) {
		t.Errorf("a rival that did not run is in\n%s", &out)
	}
	out.Reset()
	report(&out, all, true)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4+7 || !strings.HasPrefix(lines[4], "BenchmarkDPDK/contest=txonly/rival=net_tap-") || !strings.HasSuffix(lines[4], "\t1\t1.000 Mpps") {
		t.Errorf("benchstat has\n%s", &out)
	}
}

// TestNative: Go's own bursts are measured, both ways.
func TestNative(t *testing.T) {
	nettest.NeedRoot(t)
	nettest.NeedTun(t)
	for _, way := range []string{"tx", "rx"} {
		ns := nettest.NS(t)
		if err := ns.Do(func() error { return native(way + " 0.02") }); err != nil {
			t.Errorf("%s: %v", way, err)
		}
	}
}

// TestPackets: an interface's counters are those of this interface, in this namespace.
func TestPackets(t *testing.T) {
	ns := nettest.NS(t)
	if rx, tx, err := course.Packets(ns, "lo"); rx != 0 || tx != 0 || err != nil {
		t.Errorf("lo: %d, %d, %v", rx, tx, err)
	}
	if _, _, err := course.Packets(ns, "no-such"); err == nil {
		t.Error("an interface that is not there has counters")
	}
}
