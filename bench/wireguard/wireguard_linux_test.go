// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

// TestContests lets every rival run for a moment in each contest. A moment in which the machine stands still is repeated.
func TestContests(t *testing.T) {
	nettest.NeedTun(t)
	o, err := parse([]string{"-rounds=1", "-seconds=0.05"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, time.Minute, "something sent by each rival in each contest", func() bool {
		var out bytes.Buffer
		if err := run(t.Context(), o, &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		missing := missing(out.String())
		if missing != "" {
			t.Logf("nothing of %s in:\n%s", missing, &out)
		}
		return missing == ""
	})
}

// missing is a contest and a rival of which the table has nothing.
func missing(table string) string {
	lines := strings.Split(table, "\n")
	for _, c := range contests {
		for _, r := range rivals {
			if !slices.ContainsFunc(lines, func(line string) bool {
				f := strings.Fields(line)
				return len(f) > 2 && f[0] == c.name && f[1] == r.name && f[2] != "0.000"
			}) {
				return c.name + " " + r.name
			}
		}
	}
	return ""
}

func TestCommandLine(t *testing.T) {
	for _, args := range [][]string{{"-rounds=0"}, {"-seconds=0"}, {"-contests=walk"}, {"-rivals=none"}, {"-window=-1"}, {"-size=1393"}, {"more"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%v is accepted", args)
		}
	}
	o, err := parse([]string{"-contests=udp,tcp", "-rivals=rtap"}, io.Discard)
	if err != nil || len(o.contests) != 2 || o.contests[0].name != "tcp" || len(o.rivals) != 1 {
		t.Errorf("%+v, %v", o, err)
	}
}
