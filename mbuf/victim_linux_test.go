// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// victimEnv makes the test program another process that uses the pool of its
// parent: ROLE:BASE:PROC, with the pool as descriptor 3.
const victimEnv = "RTAP_MBUF_VICTIM"

type victimArgs struct {
	base uintptr
	proc int
}

var victimRoles = map[string]func(v *victimArgs) error{}

// victim plays its role until it is killed, or its parent is gone or closes
// stdin.
func victim() {
	f := strings.Split(os.Getenv(victimEnv), ":")
	base, err1 := strconv.ParseUint(f[1], 16, 64)
	proc, err2 := strconv.Atoi(f[2])
	if err := errors.Join(err1, err2, victimRoles[f[0]](&victimArgs{uintptr(base), proc})); err != nil {
		fmt.Fprintln(os.Stderr, f, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process is another process that uses our pool.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	err   error
}

// startVictim starts the test program in a role, as process proc, with
// descriptors from 3 on.
func startVictim(t *testing.T, role string, p *Pool, proc int, fds ...int) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s:%x:%d", victimEnv, role, p.Base(), proc))
	cmd.Stderr = os.Stderr
	for _, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(dup), "shared")
		defer file.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	v := &process{cmd: cmd}
	if v.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.kill(); v.wait() })
	return v
}

func (v *process) kill() { _ = v.cmd.Process.Kill() }

// wait returns how the process ended. It does so each time.
func (v *process) wait() error {
	if v.cmd.ProcessState == nil {
		v.err = v.cmd.Wait() // closes stdin
	}
	return v.err
}
