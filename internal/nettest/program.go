// SPDX-License-Identifier: BSD-3-Clause

package nettest

import (
	"os"
	"os/exec"
	"testing"
)

// NeedProgram returns the path of a program of Debian's. Without it the test is skipped, but fails in CI, which
// installs it (packages in .ci/run). In the virtual machines, which have no programs, the test is skipped.
func NeedProgram(t testing.TB, name string) string {
	t.Helper()
	if os.Getenv("RTAP_TEST_VM") != "" {
		t.Skipf("there is no %s in the virtual machines", name)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		skip(t, "this test needs %s: %v", name, err)
	}
	return path
}
