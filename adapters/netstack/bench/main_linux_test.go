// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

// The test binary is its own children, as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		if err := roles[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	nettest.Main(m)
}

// A rival of each kind runs, and has lines in the table and for benchstat.
func TestRun(t *testing.T) {
	nettest.NeedTun(t)
	for args, line := range map[string]string{
		"-rivals rtap,fdbased":                       "fdbased  out",
		"-rivals rtap-tun -baseline rtap -benchstat": "BenchmarkTCP/direction=out/rival=rtap-tun-",
	} {
		o, err := parse(append([]string{"-rounds", "1", "-seconds", "0.05"}, strings.Fields(args)...), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := run(context.Background(), o, &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), line) {
			t.Errorf("%q is missing", line)
		}
		t.Logf("\n%s", out.String())
	}
}

func TestParse(t *testing.T) {
	for _, bad := range []string{"-rounds 0", "-seconds 0", "-rivals nobody", "-baseline nobody", "-rivals rtap", "more"} {
		if _, err := parse(strings.Fields(bad), io.Discard); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}
