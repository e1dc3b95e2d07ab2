// SPDX-License-Identifier: BSD-3-Clause

package runtimedir

import (
	"os"
	"strings"
	"testing"
)

func TestBase(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", "/run/service")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1")
	if got := Base(); got != "/run/service" {
		t.Errorf("a service's is %s", got)
	}
	t.Setenv("RUNTIME_DIRECTORY", "")
	want, none := "/run/user/1", "/tmp"
	if os.Getuid() == 0 {
		want, none = "/var/run", "/var/run"
	}
	if got := Base(); got != want {
		t.Errorf("a user's is %s, want %s", got, want)
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	if got := Base(); got != none {
		t.Errorf("without any setting it is %s, want %s", got, none)
	}
}

func TestCheckPrefix(t *testing.T) {
	for _, bad := range []string{"", ".", "..", "a/b", "../a", "a\x00b", strings.Repeat("a", 65)} {
		if CheckPrefix(bad) == nil {
			t.Errorf("prefix %q is taken", bad)
		}
		if _, err := Dial("/tmp", bad, SocketName); err == nil || !strings.Contains(err.Error(), "file prefix is") {
			t.Errorf("prefix %q: %v", bad, err)
		}
		if _, err := Listen("/tmp", bad, SocketName); err == nil {
			t.Errorf("prefix %q is taken", bad)
		}
	}
	for _, good := range []string{"rtap", "rtap.1", "a b", "..a"} {
		if err := CheckPrefix(good); err != nil {
			t.Error(err)
		}
	}
	long := "/tmp/" + strings.Repeat("a", 100)
	if _, err := Dial(long, "a", SocketName); err == nil || !strings.Contains(err.Error(), "at most 107") {
		t.Errorf("a long path: %v", err)
	}
}
