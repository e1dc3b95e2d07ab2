// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"encoding/json"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// TestProbeList: every feature is listed once, and says what a report needs.
func TestProbeList(t *testing.T) {
	list := append(Probe(), ProbeNoWait(-1))
	if len(list) != len(features) {
		t.Errorf("%d features are probed, of %d", len(list), len(features))
	}
	seen := map[string]bool{}
	for _, f := range list {
		if seen[f.Name] {
			t.Errorf("%s comes twice", f.Name)
		}
		seen[f.Name] = true
		if f.Cost == "" || !regexp.MustCompile(`^\d\.\d+$`).MatchString(f.Since) {
			t.Errorf("%s: since %q, cost %q", f.Name, f.Since, f.Cost)
		}
		if (f.Outcome == Yes) != (f.Err == nil) {
			t.Errorf("%v: the error is %v", f, f.Err)
		}
		if f.Outcome != Yes && f.Detail == "" {
			t.Errorf("%v: no reason", f)
		}
		if runtime.GOOS != "linux" && f.Detail != "Linux only" {
			t.Errorf("%v", f)
		}
	}
	if list[0].Name != FeatureIoUring {
		t.Errorf("%s comes first", list[0].Name)
	}
}

func TestFeatureJSON(t *testing.T) {
	f := feature(FeatureClone)
	f.Outcome, f.Err = Yes, nil
	b, err := json.Marshal(f)
	if err != nil || !strings.HasPrefix(string(b), `{"name":"CLONE_BUFFERS","outcome":"yes","since":"6.12","cost":"`) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestFeatureString(t *testing.T) {
	for want, f := range map[string]Feature{
		"x: yes":                     {Name: "x", Outcome: Yes},
		"x: yes: up to 4":            {Name: "x", Outcome: Yes, Detail: "up to 4"},
		"x: no: since Linux 9.9":     {Name: "x", Outcome: No, Since: "9.9", Detail: "since Linux 9.9"},
		"x: could not tell: bad day": {Name: "x", Detail: "bad day"},
	} {
		if f.String() != want {
			t.Errorf("%q, want %q", f, want)
		}
	}
}
