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
// parent: ROLE:BASE, with the pool as descriptor 3.
const victimEnv = "RTAP_MBUF_VICTIM"

var victimRoles = map[string]func(base uintptr) error{}

// victim plays its role until it is killed, or its parent is gone.
func victim() {
	role, hex, _ := strings.Cut(os.Getenv(victimEnv), ":")
	base, err := strconv.ParseUint(hex, 16, 64)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(2)
	}()
	play := victimRoles[role]
	if err == nil && play != nil {
		err = play(uintptr(base))
	} else if play == nil {
		err = errors.New("no such role: " + role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
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

// startVictim starts the test program in a role, with descriptors from 3 on.
func startVictim(t *testing.T, role string, p *Pool, fds ...int) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s:%x", victimEnv, role, p.Base()),
		"GODEBUG=asyncpreemptoff=1")
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

// newTestRing makes a ring that is closed when the test ends.
func newTestRing(t *testing.T, p *Pool, size int) *Ring {
	t.Helper()
	r, err := NewRing("ring", size, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for proc := range seats {
			r.Vacate(Producing, proc)
			r.Vacate(Consuming, proc)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func assign(t *testing.T, r *Ring, producer, consumer int) {
	t.Helper()
	for e, proc := range []int{producer, consumer} {
		if err := r.Assign(End(e), proc); err != nil {
			t.Fatal(err)
		}
	}
}

// listed returns the elements in the list, which nobody changes now. Each must be
// there once and its depth right.
func listed(h *header) (map[uint32]bool, error) {
	free := make(map[uint32]bool)
	length := h.length()
	for i := indexOf(h.head.Load()); i != none; {
		if i >= h.count || free[i] {
			return nil, fmt.Errorf("element %d of %d after %d others: out of range or twice", i, h.count, len(free))
		}
		free[i] = true
		link := h.link(i).Load()
		if d := int(depth(link)); d != length-len(free)+1 {
			return nil, fmt.Errorf("element %d: link %#x, %d before it, length %d", i, link, len(free)-1, length)
		}
		i = uint32(link)
	}
	if len(free) != length {
		return nil, fmt.Errorf("%d elements in the list, length %d", len(free), length)
	}
	return free, nil
}
