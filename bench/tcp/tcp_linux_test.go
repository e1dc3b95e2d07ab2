// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/bench/internal/course"
	"github.com/rtap-project/rtap/internal/nettest"
)

// asCommand makes the test binary be the command.
const asCommand = "RTAP_BENCH_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		os.Exit(0)
	}
	nettest.Main(m)
}

// build makes the rivals' programs, in a directory of the test's own.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, from := range map[string]string{"rtap": "../../cmd/rtap", "wgtun": "../wgtun"} {
		out, err := exec.Command("go", "build", "-C", from, "-o", filepath.Join(dir, name), ".").CombinedOutput()
		if err != nil {
			t.Fatalf("go build %s: %v\n%s", from, err, out)
		}
	}
	return dir
}

// TestRivals lets every rival run for a moment.
func TestRivals(t *testing.T) {
	nettest.NeedRoot(t)
	nettest.NeedTun(t)
	dir := build(t)
	o, err := parse([]string{"-rounds=1", "-time=50ms", "-rtap=" + dir + "/rtap", "-wgtun=" + dir + "/wgtun"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out, progress bytes.Buffer
	if err := run(t.Context(), o, &out, &progress); err != nil {
		t.Fatal(err)
	}
	for _, r := range rivals {
		if !strings.Contains(out.String(), " "+r.name+" ") || !strings.Contains(progress.String(), ": "+r.name+" ") {
			t.Errorf("nothing of %s in\n%s%s", r.name, &out, &progress)
		}
	}
}

// TestRivalFails: a rival that cannot run is named, with what it said.
func TestRivalFails(t *testing.T) {
	nettest.NeedRoot(t)
	r := rival{name: "broken", program: "sh", args: []string{"-c", "echo no wings; exit 3"}}
	_, err := race(t.Context(), r, options{programs: programs{"sh": "/bin/sh"}, time: time.Millisecond, sender: "own"})
	if err == nil || !strings.Contains(err.Error(), "no wings") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v", err)
	}
}

// TestInterrupted: a signal ends everything soon, the rival's command too, and what
// was measured is printed.
func TestInterrupted(t *testing.T) {
	nettest.NeedRoot(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "-rivals=veth", "-rounds=10000", "-time=20ms")
	cmd.Env = append(os.Environ(), asCommand+"=1")
	var out bytes.Buffer
	cmd.Stdout = &out
	progress, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := progress.Read(make([]byte, 1)); err != nil { // a round is done
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(progress)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(rest), "interrupted") {
		t.Errorf("it ended with %v: %s", err, rest)
	}
	if !strings.Contains(out.String(), "veth") {
		t.Errorf("it printed %q", &out)
	}
}

func TestParse(t *testing.T) {
	for args, want := range map[string]string{
		"-rounds=0":                    "-rounds is 0",
		"-time=1ms":                    "-time is 1ms",
		"-rivals=veth,horse":           `no rival "horse"`,
		"-baseline=horse":              `no rival "horse"`,
		"-rivals=none -rtap=/nowhere":  "/nowhere",
		"-rivals=wgtun -wgtun=/no/way": "/no/way",
		"-sender=pigeon":               `"pigeon": want own or iperf3`,
		"extra":                        `unexpected argument "extra"`,
	} {
		if _, err := parse(strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", args, err, want)
		}
	}
	o, err := parse([]string{"-rivals=veth,veth-gso"}, io.Discard)
	if err != nil || o.rounds != 7 || len(o.rivals) != 2 || o.rivals[0].name != "veth-gso" {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestReport(t *testing.T) {
	o := options{rivals: []rival{{name: "a"}, {name: "none"}, {name: "c"}}, baseline: "none"}
	rounds := func(v ...float64) (out []course.Result) {
		for i, g := range v {
			out = append(out, course.Result{Gbps: g, Retransmits: i, Ping: time.Duration(i+1) * time.Microsecond})
		}
		return out
	}
	r := newReport(o, [][]course.Result{rounds(9, 1, 4), rounds(3, 2, 1), nil})
	var out strings.Builder
	r.table(&out)
	for _, want := range []string{"to none", "4.00", "1.00..9.00", "2.00 x", "1.00 x"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), " c ") {
		t.Errorf("a rival that did not run is in\n%s", &out)
	}
	out.Reset()
	r.benchstat(&out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4+6 || !strings.HasPrefix(lines[4], "BenchmarkTCP/rival=a-") ||
		!strings.HasSuffix(lines[4], "\t1\t9.000 Gb/s\t0 retransmits\t1000 ns/ping") {
		t.Errorf("benchstat has\n%s", &out)
	}
	o.baseline = "c"
	if r := newReport(o, [][]course.Result{rounds(9), rounds(3), nil}); r.base.name != "a" {
		t.Errorf("the baseline that did not run is replaced by %q", r.base.name)
	}
}

func TestIperf3(t *testing.T) {
	nettest.NeedRoot(t)
	nettest.NeedProgram(t, "iperf3")
	res, err := race(t.Context(), rivals[0], options{time: time.Second, sender: "iperf3"})
	if err != nil || res.Gbps <= 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

// TestSwitchOff: ethtool's features are really off afterwards.
func TestSwitchOff(t *testing.T) {
	a, b := nettest.NS(t), nettest.NS(t)
	if err := connectVethPlain(a, b); err != nil {
		t.Fatal(err)
	}
	err := a.Do(func() error {
		if err := switchOff("nothing", segmentation); err == nil {
			t.Error("an interface that is not there was changed")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c := nettest.NeedProgram(t, "ethtool")
	var out []byte
	if err := a.Do(func() (err error) { out, err = exec.Command(c, "-k", course.IfA).Output(); return err }); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"generic-segmentation-offload: off", "tx-tcp-segmentation: off", "tx-tcp6-segmentation: off", "tx-checksumming: on"} {
		if !slices.ContainsFunc(strings.Split(string(out), "\n"), func(l string) bool { return strings.HasPrefix(strings.TrimSpace(l), want) }) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
