// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/rtap-project/rtap/test/kernels/plan"
)

// result is what is known of one run.
type result struct {
	name       string
	consoleLog string // file name
	testLog    string // file name
	release    string // of the kernel, once it has booted
	packages   []*packageResult
	done       bool
	err        error // what went wrong with the machine
	elapsed    time.Duration
}

// packageResult is what is known of one package's tests in one run.
type packageResult struct {
	name    string
	ended   bool
	ok      bool
	detail  string
	seconds float64
	output  []byte // as test2json reads it
}

func newResult(name, consoleLog, testLog string) *result {
	return &result{name: name, consoleLog: consoleLog, testLog: testLog}
}

// event takes note of what init reports.
func (r *result) event(e plan.Event) {
	switch e.Kind {
	case plan.Booted:
		r.release = e.Detail
	case plan.Begin:
		r.packages = append(r.packages, &packageResult{name: e.Package})
	case plan.End:
		if p := r.current(); p != nil && p.name == e.Package {
			p.ended, p.ok, p.detail, p.seconds = true, e.OK, e.Detail, e.Seconds
		}
	case plan.Done:
		r.done = true
	case plan.Failed:
		r.err = errors.New(e.Detail)
	}
}

// current is the package whose tests run, or nil.
func (r *result) current() *packageResult {
	if n := len(r.packages); n > 0 && !r.packages[n-1].ended {
		return r.packages[n-1]
	}
	return nil
}

// again forgets the package that was not ended, and returns it and those after it.
func (r *result) again(tests []plan.Test) []plan.Test {
	if r.current() != nil {
		r.packages = r.packages[:len(r.packages)-1]
	}
	return tests[min(len(r.packages), len(tests)-1):]
}

// output takes a line that a test printed.
func (r *result) output(line []byte) {
	if p := r.current(); p != nil {
		p.output = append(p.output, line...)
	}
}

// finish closes the account once the machine has ended: all that was to run must have.
func (r *result) finish(err error, tests []plan.Test, elapsed time.Duration) {
	r.elapsed = elapsed
	r.err = errors.Join(r.err, err)
	if r.release == "" {
		r.err = errors.Join(r.err, errors.New("the kernel did not boot to its init"))
	}
	if !r.done || len(r.packages) != len(tests) {
		r.err = errors.Join(r.err, fmt.Errorf("the machine ended before its time, in package %d of %d", len(r.packages), len(tests)))
	}
}

func (r *result) passed() bool {
	for _, p := range r.packages {
		if !p.ended || !p.ok {
			return false
		}
	}
	return r.err == nil
}

// counts adds up tests, subtests included.
type counts struct{ passed, failed, skipped int }

// report prints what was skipped, then what failed, in full, and a line for each run at the end. Where only
// the end of a long output is kept, it has what matters.
func report(w io.Writer, results []*result, elapsed time.Duration) bool {
	passed := true
	var lines []string
	var failed bytes.Buffer
	for _, r := range results {
		c := r.print(w, &failed)
		word := "passed"
		if !r.passed() {
			word, passed = "FAILED", false
		}
		lines = append(lines, fmt.Sprintf("%s  %-24s %-28s %2d packages: %4d passed, %d failed, %d skipped  %4.0f s",
			word, r.name, r.release, len(r.packages), c.passed, c.failed, c.skipped, r.elapsed.Seconds()))
	}
	_, _ = failed.WriteTo(w)
	fmt.Fprintf(w, "\nkernel tests, %.0f s in all:\n%s\n", elapsed.Seconds(), strings.Join(lines, "\n"))
	return passed
}

// print shows a run's skipped tests and its failures.
func (r *result) print(w, failed io.Writer) counts {
	var sum counts
	if !r.passed() {
		fmt.Fprintf(failed, "\n=== %s: logs: %s %s\nend of the latter:\n%s",
			r.name, r.testLog, r.consoleLog, tail(r.consoleLog, 60))
	}
	for _, p := range r.packages {
		events, err := convert(p.output)
		if err != nil {
			fmt.Fprintln(w, "kernels: test2json:", err)
		}
		c, skipped := count(events)
		sum.passed, sum.failed, sum.skipped = sum.passed+c.passed, sum.failed+c.failed, sum.skipped+c.skipped
		if len(skipped) > 0 {
			fmt.Fprintf(w, "%s: skipped in %s: %s\n", r.name, p.name, strings.Join(skipped, " "))
		}
		if !p.ended || !p.ok {
			fmt.Fprintf(failed, "\n=== %s: FAILED %s: %s\n%s", r.name, p.name, p.reason(), failures(events))
		}
	}
	if r.err != nil {
		fmt.Fprintf(failed, "=== %s: FAILED: %v\n", r.name, r.err)
	}
	return sum
}

func (p *packageResult) reason() string {
	if !p.ended {
		return "the machine ended while these tests ran"
	}
	return p.detail
}

// testEvent is test2json's output (go doc test2json).
type testEvent struct{ Action, Test, Output string }

// convert runs the tests' output through test2json, which knows what belongs to which test.
func convert(output []byte) ([]testEvent, error) {
	cmd := exec.Command("go", "tool", "test2json")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(output), os.Stderr
	body, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var events []testEvent
	for d := json.NewDecoder(bytes.NewReader(body)); d.More(); {
		var e testEvent
		if err := d.Decode(&e); err != nil {
			return events, err
		}
		events = append(events, e)
	}
	return events, nil
}

func count(events []testEvent) (c counts, skipped []string) {
	for _, e := range events {
		switch {
		case e.Test == "":
		case e.Action == "pass":
			c.passed++
		case e.Action == "fail":
			c.failed++
		case e.Action == "skip":
			c.skipped++
			skipped = append(skipped, e.Test)
		}
	}
	return c, skipped
}

// failures is what the failed tests printed, those that did not end, and the package as such.
func failures(events []testEvent) string {
	ended := make(map[string]string)
	for _, e := range events {
		if e.Action == "pass" || e.Action == "fail" || e.Action == "skip" {
			ended[e.Test] = e.Action
		}
	}
	var b strings.Builder
	for _, e := range events {
		fine := ended[e.Test] == "pass" || ended[e.Test] == "skip"
		if e.Action == "output" && (e.Test == "" || !fine) {
			b.WriteString(e.Output)
		}
	}
	return b.String()
}

// tail is the end of a file.
func tail(name string, lines int) string {
	body, err := os.ReadFile(name)
	if err != nil {
		return err.Error() + "\n"
	}
	all := strings.SplitAfter(strings.ReplaceAll(string(body), "\r", ""), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}
