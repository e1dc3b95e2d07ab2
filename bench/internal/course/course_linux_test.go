// SPDX-License-Identifier: BSD-3-Clause

package course

import (
	"errors"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

// TestChildEnds: a command that ends well when asked did well, others did not.
func TestChildEnds(t *testing.T) {
	nettest.NeedRoot(t)
	ns := nettest.NS(t)
	for _, code := range []string{"0", "4"} {
		c, err := Start(ns, "/bin/sh", []string{"-c", "trap 'exit " + code + "' TERM; echo ready; while :; do sleep 0.01; done"})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Says(t.Context(), "ready"); err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(); (err == nil) != (code == "0") {
			t.Errorf("it ended with %s, and stop says %v", code, err)
		}
		if err := c.Stop(); err == nil {
			t.Error("that a command had ended by itself is no error")
		}
	}
}

func TestParseIperf3(t *testing.T) {
	if v, err := parseIperf3([]byte(`{"end":{"sum_received":{"bits_per_second":2e9}}}`), nil); v != 2e9 || err != nil {
		t.Errorf("%v, %v", v, err)
	}
	for out, want := range map[string]string{`{"error":"no route"}`: "no route", "": "exit", "{": "exit"} {
		if _, err := parseIperf3([]byte(out), errors.New("exit")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", out, err, want)
		}
	}
	if _, err := parseIperf3([]byte(`{"end":{}}`), nil); err == nil {
		t.Error("nothing received is no error")
	}
}

func TestSNMP(t *testing.T) {
	const text = "Ip: Forwarding RetransSegs\nIp: 1 9\nTcp: RtoMin RetransSegs InErrs\nTcp: 200 17 0\n"
	if n, err := snmpValue(text, "Tcp:", "RetransSegs"); n != 17 || err != nil {
		t.Errorf("RetransSegs is %d, %v", n, err)
	}
	if _, err := snmpValue(text, "Udp:", "InErrs"); err == nil {
		t.Error("what is not there was found")
	}
}

func TestMedian(t *testing.T) {
	if got := Median([]float64{1, 2, 10}); got != 2 {
		t.Errorf("of three: %v", got)
	}
	if got := Median([]float64{1, 2, 4, 10}); got != 3 {
		t.Errorf("of four: %v", got)
	}
}
