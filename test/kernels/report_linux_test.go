// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rtap-project/rtap/test/kernels/plan"
)

var twoTests = []plan.Test{{Package: "a"}, {Package: "b"}}

// wholeRun are the events of a run in which all passes.
var wholeRun = []plan.Event{
	{Kind: plan.Booted, Detail: "6.1"},
	{Kind: plan.Begin, Package: "a"}, {Kind: plan.End, Package: "a", OK: true},
	{Kind: plan.Begin, Package: "b"}, {Kind: plan.End, Package: "b", OK: true},
	{Kind: plan.Done},
}

// TestPassed leaves out or changes one event at a time: only the whole run passes.
func TestPassed(t *testing.T) {
	play := func(events []plan.Event, err error) *result {
		r := newResult("x", "", "")
		for _, e := range events {
			r.event(e)
		}
		r.finish(err, twoTests, time.Second)
		return r
	}
	if r := play(wholeRun, nil); !r.passed() {
		t.Errorf("the whole run failed: %+v", r)
	}
	if play(wholeRun, errors.New("qemu")).passed() {
		t.Error("passed although the machine failed")
	}
	for i, e := range wholeRun {
		events := append(append([]plan.Event{}, wholeRun[:i]...), wholeRun[i+1:]...)
		if play(events, nil).passed() {
			t.Errorf("passed without %+v", e)
		}
		if play(wholeRun[:i], nil).passed() {
			t.Errorf("passed although it ended before %+v", e)
		}
		if e.Kind == plan.End {
			failed := append([]plan.Event{}, wholeRun...)
			failed[i].OK = false
			if play(failed, nil).passed() {
				t.Errorf("passed although %s failed", e.Package)
			}
		}
	}
	failed := append(append([]plan.Event{}, wholeRun...), plan.Event{Kind: plan.Failed, Detail: "init"})
	if play(failed, nil).passed() {
		t.Error("passed although init failed")
	}
}

func TestFailures(t *testing.T) {
	events := []testEvent{
		{"run", "TestA", ""}, {"output", "TestA", "a fine\n"}, {"pass", "TestA", ""},
		{"output", "TestB", "b bad\n"}, {"fail", "TestB", ""},
		{"output", "TestC", "c no matter\n"}, {"skip", "TestC", ""},
		{"output", "TestD", "d hangs\n"},
		{"output", "", "panic\n"},
	}
	if got, want := failures(events), "b bad\nd hangs\npanic\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	c, skipped := count(events)
	if want := (counts{1, 1, 1}); c != want || strings.Join(skipped, " ") != "TestC" {
		t.Errorf("got %+v %v", c, skipped)
	}
}
