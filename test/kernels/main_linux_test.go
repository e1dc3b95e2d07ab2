// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"slices"
	"testing"
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
