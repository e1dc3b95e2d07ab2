// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"golang.org/x/sys/unix"
)

// bound is how long anything here may take.
func bound() time.Duration { return nettest.Bound(10 * time.Second) }

// needRing skips the test where io_uring is switched off, as one run of the
// tests has it on purpose.
func needRing(t testing.TB) {
	t.Helper()
	f := probeRing()
	switch {
	case f.Outcome == Yes:
	case disabled() == "1" || disabled() == "2":
		t.Skip(f)
	default:
		t.Fatal(f)
	}
}

// needFeature skips the test on a kernel without the feature.
func needFeature(t testing.TB, name string) {
	t.Helper()
	needRing(t)
	for _, f := range Probe() {
		if f.Name == name && f.Outcome == No {
			t.Skip(f)
		}
	}
}

func newRing(t testing.TB, cfg Config) *Ring {
	t.Helper()
	needRing(t)
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeRing(t, r) })
	return r
}

// lockThread keeps the test on its thread until rings that are made later were
// closed at its end.
func lockThread(t testing.TB) {
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
}

func closeRing(t testing.TB, r *Ring) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// memory returns n bytes outside the Go heap, and their address.
func memory(t testing.TB, n int) ([]byte, uintptr) {
	t.Helper()
	v := vectors(t, 0, n)
	return v.Scratch, v.ScratchAddr(0)
}

func vectors(t testing.TB, n, scratch int) *Vectors {
	t.Helper()
	v, err := NewVectors(n, scratch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

// stream returns the ends of a connection, for reading and for writing; blocking, so that only the ring's own ways of
// not waiting keep it from waiting. Not a pipe's: before Linux 6.4 these are left to a thread of the kernel's, and if signals
// keep coming, such as Go's own for preemption, it gives up starting one: ECANCELED.
func stream(t testing.TB) (r, w int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0], p[1]
}

func eventfd(t testing.TB) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func writeAll(t testing.TB, fd int, b []byte) {
	t.Helper()
	if n, err := unix.Write(fd, b); n != len(b) || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
}

func readAll(t testing.TB, fd, n int) []byte {
	t.Helper()
	for { // a read that nobody ends would hide what went wrong before
		k, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(bound().Milliseconds()))
		if k == 1 {
			break
		}
		if err != unix.EINTR {
			t.Fatalf("nothing to read (%v)", err)
		}
	}
	b := make([]byte, n)
	n, err := unix.Read(fd, b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// enter submits what was prepared and expects the kernel to take n.
func enter(t testing.TB, r *Ring, n int) {
	t.Helper()
	if got, errno := r.Enter(); got != n || errno != 0 {
		t.Fatalf("Enter took %d (%v), want %d", got, errno, n)
	}
}

// complete waits for n completions and takes them.
func complete(t testing.TB, r *Ring, n int) []CQE {
	t.Helper()
	if errno := r.Wait(n, bound()); errno != 0 {
		t.Fatalf("waiting for %d completions, %d are there: %v", n, r.Ready(), errno)
	}
	if got := r.Ready(); got != n {
		t.Fatalf("%d completions, want %d", got, n)
	}
	var list []CQE
	for i := range n {
		list = append(list, *r.Completion(i))
	}
	r.Release(n)
	return list
}

// do runs one request to its completion.
func do(t testing.TB, r *Ring, prep func(s *SQE)) int32 {
	t.Helper()
	prep(r.SQE())
	enter(t, r, 1)
	return complete(t, r, 1)[0].Res
}

// within fails the test if f takes longer than anything should.
func within(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(bound()):
		t.Fatalf("%s: not done after %v", what, bound())
	}
}

// refuse makes io_uring_setup(2) fail as refused says, for the length of a test.
func refuse(t testing.TB, refused func(p *params) syscall.Errno) (asked *[]uint32) {
	t.Helper()
	real := setupRing
	asked = new([]uint32)
	setupRing = func(entries uint32, p *params) (int, syscall.Errno) {
		*asked = append(*asked, p.flags)
		if errno := refused(p); errno != 0 {
			return -1, errno
		}
		return real(entries, p)
	}
	t.Cleanup(func() { setupRing = real })
	return asked
}
