// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

func TestParse(t *testing.T) {
	for args, want := range map[string]string{
		"-rounds=0":             "-rounds is 0",
		"-time=1us":             "-time is 1µs",
		"-size=4":               "-size is 4",
		"-contests=write,horse": `no contest "horse"`,
		"extra":                 `unexpected argument "extra"`,
	} {
		if _, err := parse(strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", args, err, want)
		}
	}
	if o, err := parse(nil, io.Discard); err != nil || o.rounds != 7 || len(o.contests) != 3 {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestReport(t *testing.T) {
	var out strings.Builder
	report(&out, []outcome{{rtap.ModeTUN, "read", [][]float64{{30, 20, 10}, {40, 5, 10}, nil}}})
	for _, want := range []string{"2.00 x", ">= 1.3", "5..40", "tun"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

// TestRun: every rival does every contest, in both modes.
func TestRun(t *testing.T) {
	nettest.NeedTun(t)
	var out strings.Builder
	o := options{rounds: 1, time: time.Millisecond, size: 64, contests: contestNames}
	if err := run(context.Background(), o, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), " x "); n != 2*len(contestNames)*len(rivals) {
		t.Errorf("%d figures in\n%s", n, &out)
	}
}
