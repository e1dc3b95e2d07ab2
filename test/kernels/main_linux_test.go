// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rtap-project/rtap/test/kernels/plan"
)

func TestSelectRuns(t *testing.T) {
	for _, c := range []struct {
		only []string
		want int
	}{
		{nil, len(runs)}, {[]string{"sid"}, 1}, {[]string{"trixie", "bookworm"}, 2},
	} {
		if got, err := selectRuns(c.only); err != nil || len(got) != c.want {
			t.Errorf("%q: got %d runs, %v, want %d", c.only, len(got), err, c.want)
		}
	}
	for _, only := range [][]string{{""}, {"x"}, {"sid", "x"}} {
		if got, err := selectRuns(only); err == nil {
			t.Errorf("%q: got %v, want an error", only, got)
		}
	}
}

// TestLeave: packages that runs leave out, or narrow down, are there; one at least tests all of each.
func TestLeave(t *testing.T) {
	s := new(suite)
	for _, dir := range slices.Concat([]string{".", "forward"}, anyKernel, anyEngine, theCommand, tools) {
		if found, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go")); err != nil || len(found) == 0 {
			t.Errorf("%s has no tests, %v", dir, err)
		}
		s.tests = append(s.tests, plan.Test{Dir: path.Join(treeDir, dir)})
	}
	whole := map[string]int{}
	for _, r := range runs {
		all := s.of(&config{packages: everything}, r)
		for _, test := range all {
			if len(test.Args) == 0 {
				whole[test.Dir]++
			}
		}
		for dir := range r.only {
			if !slices.ContainsFunc(all, func(test plan.Test) bool { return test.Dir == path.Join(treeDir, dir) && len(test.Args) == 1 }) {
				t.Errorf("%s does not narrow %s down", r.name, dir)
			}
		}
		if got := s.of(&config{packages: []string{"./mbuf"}}, r); len(got) != len(s.tests) {
			t.Errorf("%s leaves out what was asked for", r.name)
		}
	}
	for _, test := range s.tests {
		dir, _ := filepath.Rel(treeDir, test.Dir)
		if want := !slices.Contains(tools, dir); (whole[test.Dir] > 0) != want {
			t.Errorf("%s is tested %d times", dir, whole[test.Dir])
		}
	}
	if n := whole[treeDir]; n != len(runs)-1 {
		t.Errorf("the driver is tested %d times", n)
	}
}

func TestCheckClock(t *testing.T) {
	for _, c := range []struct {
		booted, started time.Duration
		ok              bool
	}{
		{4 * time.Second, 6 * time.Second, true}, {0, 0, true}, {60 * time.Second, 50 * time.Second, true},
		{77 * time.Second, 10 * time.Second, false}, {10 * time.Second, 5 * time.Second, false},
	} {
		if err := checkClock(c.booted, c.started); (err == nil) != c.ok || err != nil && !errors.Is(err, errEmulator) {
			t.Errorf("%v after %v: %v", c.booted, c.started, err)
		}
	}
}

func TestPatternsIn(t *testing.T) {
	for _, c := range []struct {
		part           string
		patterns, want []string
	}{
		{".", []string{"./..."}, []string{"./..."}},
		{"cmd/rtap", []string{"./..."}, []string{"./..."}},
		{".", []string{".", "./forward", "./cmd/rtap"}, []string{".", "./forward"}},
		{"cmd/rtap", []string{".", "./forward", "./cmd/rtap"}, []string{"."}},
		{"cmd/rtap", []string{"./cmd/rtap/..."}, []string{"./..."}},
		{"cmd/rtap", []string{"./forward"}, nil},
	} {
		if got := patternsIn(c.part, c.patterns); !slices.Equal(got, c.want) {
			t.Errorf("%q in %q: %q, want %q", c.patterns, c.part, got, c.want)
		}
	}
}
