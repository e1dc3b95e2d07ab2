// SPDX-License-Identifier: BSD-3-Clause

package nettest

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"
)

const unprivilegedEnv = "RTAP_TEST_UNPRIVILEGED"

// nobody is the user and group without privileges. It needs no entry in a password file.
const nobody = 65534

// Unprivileged runs f as a user without any capability: in a child process, which is this test binary
// with only this test, a top-level one. What fails there fails here. It is NeedRoot, because only root
// can become somebody else.
func Unprivileged(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(unprivilegedEnv) == t.Name() {
		f(t)
		return
	}
	NeedRoot(t)
	ctx, cancel := context.WithTimeout(t.Context(), Bound(time.Minute))
	defer cancel()
	// Not os.Executable: the directory that go test builds in is closed to others, this link is not.
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.v")
	cmd.Env = append(os.Environ(), unprivilegedEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("without privileges: %v\n%s", err, out)
	}
	if !regexp.MustCompile(`(?m)^--- PASS: ` + regexp.QuoteMeta(t.Name())).Match(out) {
		t.Fatalf("without privileges, the test did not run:\n%s", out)
	}
}
