// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// trial tries one feature. Its error is nil if the feature works, an errno in
// refusals if it does not.
type trial struct {
	name     string
	try      func() error
	refusals []error
}

// unsupported is how io_uring says that it does not know a flag or an operation.
var unsupported = []error{syscall.EINVAL}

var trials = []trial{
	{FeatureCQESkip, tryCQESkip, unsupported},
	{FeatureSubmitAll, tryFlags(setupSubmitAll), unsupported},
	{FeatureCoopTaskrun, tryFlags(setupCoopTaskrun), unsupported},
	{FeatureSingleIssuer, tryFlags(setupSingleIssuer), unsupported},
	{FeatureDeferTaskrun, tryFlags(setupSingleIssuer | setupDeferTaskrun), unsupported},
	{FeatureNoSQArray, tryFlags(setupNoSQArray), unsupported},
	{FeatureFiles, tryFiles, unsupported},
	{FeatureBuffers, tryBuffers, []error{syscall.EINVAL, syscall.ENOMEM}},
	{FeatureRingFD, tryRingFD, unsupported},
	{FeatureClone, tryClone, unsupported},
	{FeatureSyncCancel, trySyncCancel, unsupported},
}

// errNoRing is why nothing else can be told where no ring can be made.
var errNoRing = errors.New("io_uring is not to be had here")

// Probe tries, one by one, what the driver uses of io_uring. Nothing is guessed
// from a version number. What the kernel has once been found to have, or to lack,
// is remembered; what an administrator can change meanwhile (io_uring as such,
// locked memory) and what could not be told is tried at each call. Probe may be
// called by any goroutine at any time. RWF_NOWAIT needs a descriptor to be tried
// on: see ProbeNoWait.
func Probe() []Feature {
	ring := probeRing()
	list := []Feature{ring}
	for _, t := range trials {
		list = append(list, t.run(ring.Outcome == Yes))
	}
	return list
}

// Supported reports whether a ring can be made now.
func Supported() bool { return probeRing().Outcome == Yes }

// known remembers outcomes that cannot change while the kernel runs.
var known sync.Map // name → Feature

func (t trial) run(ring bool) Feature {
	f := feature(t.name)
	if !ring {
		return f.outcome(errNoRing)
	}
	if f, ok := known.Load(t.name); ok {
		return f.(Feature)
	}
	f = f.outcome(t.try(), t.refusals...)
	if t.name == FeatureBuffers {
		return describeBuffers(f)
	}
	f = f.missing()
	if f.Outcome != Unknown {
		known.Store(t.name, f)
	}
	return f
}

// setupRing is io_uring_setup(2); tests put refusals in its place.
var setupRing = func(entries uint32, p *params) (int, syscall.Errno) {
	fd, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(p)), 0)
	return int(fd), errno
}

// probeRing makes a ring and, if that fails, looks for the reason.
func probeRing() Feature {
	r, err := New(Config{Entries: 1})
	if err == nil {
		err = r.Close()
	}
	f := feature(FeatureIoUring).outcome(err, syscall.EPERM, syscall.EACCES, syscall.ENOSYS, syscall.ENOMEM)
	if f.Outcome == No {
		f.Detail = whyNoRing(err, disabled())
	}
	return f
}

// Explain says in a few words what an administrator can do about an error of New
// or of a registration, or "".
func Explain(err error) string {
	switch {
	case errors.Is(err, syscall.ENOMEM):
		return lockedMemory()
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ENOSYS):
		return whyNoRing(err, disabled())
	}
	return ""
}

// whyNoRing tells a sysctl from a seccomp filter from a kernel without io_uring,
// given kernel.io_uring_disabled (sysctl/kernel.rst), "" where there is none.
func whyNoRing(err error, disabled string) string {
	switch {
	case errors.Is(err, syscall.ENOMEM):
		return lockedMemory()
	case errors.Is(err, syscall.EACCES):
		return "a security module forbids it"
	case errors.Is(err, syscall.ENOSYS):
		return "the kernel has no io_uring, or a seccomp filter hides it"
	case disabled == "2":
		return "kernel.io_uring_disabled is 2: forbidden for all"
	case disabled == "1":
		return "kernel.io_uring_disabled is 1: needs CAP_SYS_ADMIN or membership in the group kernel.io_uring_group"
	}
	return "a seccomp filter forbids it, as the default profiles of Docker and containerd do"
}

// disabled is the sysctl kernel.io_uring_disabled, since Linux 6.6.
func disabled() string {
	b, _ := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
	return strings.TrimSpace(string(b))
}

// lockedMemory says how much memory the process may have pinned.
func lockedMemory() string {
	if holdsIPCLock() {
		return "locked memory is not limited (CAP_IPC_LOCK)"
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil {
		return "locked memory is limited by RLIMIT_MEMLOCK, and CAP_IPC_LOCK is missing"
	}
	if lim.Cur == unix.RLIM_INFINITY {
		return "locked memory is not limited (RLIMIT_MEMLOCK)"
	}
	return fmt.Sprintf("RLIMIT_MEMLOCK allows %d KB of locked memory per user, and CAP_IPC_LOCK is missing", lim.Cur>>10)
}

// holdsIPCLock reports whether the process is exempt from RLIMIT_MEMLOCK:
// CAP_IPC_LOCK in the initial user namespace, of which a container's root has none.
func holdsIPCLock() bool {
	var data [2]unix.CapUserData
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if unix.Capget(&hdr, &data[0]) != nil || data[unix.CAP_IPC_LOCK/32].Effective&(1<<(unix.CAP_IPC_LOCK%32)) == 0 {
		return false
	}
	m, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || strings.Join(strings.Fields(string(m)), " ") == "0 0 4294967295"
}

func describeBuffers(f Feature) Feature {
	if f.Outcome == Yes || errors.Is(f.Err, syscall.ENOMEM) {
		f.Detail = lockedMemory()
		return f
	}
	return f.missing()
}

// tryFlags asks for a ring with these set-up flags and nothing else.
func tryFlags(flags uint32) func() error {
	return func() error {
		fd, errno := setupRing(1, &params{flags: flags})
		if errno != 0 {
			return errno
		}
		return unix.Close(fd)
	}
}

func tryCQESkip() error {
	p := &params{}
	fd, errno := setupRing(1, p)
	if errno != 0 {
		return errno
	}
	if p.features&featCQESkip == 0 {
		return errors.Join(syscall.EINVAL, unix.Close(fd))
	}
	return unix.Close(fd)
}

// withRing runs f on a ring of its own.
func withRing(f func(r *Ring) error) error {
	r, err := New(Config{Entries: 1})
	if err != nil {
		return err
	}
	return errors.Join(f(r), r.Close())
}

func tryFiles() error {
	return withRing(func(r *Ring) error {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return r.RegisterFiles([]int32{int32(fd)})
	})
}

func tryBuffers() error {
	return withRing(func(r *Ring) error { return withBuffer(r, func() error { return nil }) })
}

func tryClone() error {
	return withRing(func(src *Ring) error {
		return withBuffer(src, func() error {
			return withRing(func(r *Ring) error { return r.CloneBuffers(src) })
		})
	})
}

// withBuffer runs f while r has one page registered.
func withBuffer(r *Ring, f func() error) error {
	v, err := NewVectors(0, os.Getpagesize())
	if err != nil {
		return err
	}
	if err := r.RegisterBuffers([]Iovec{{v.ScratchAddr(0), uintptr(len(v.Scratch))}}); err != nil {
		return errors.Join(err, v.Close())
	}
	return errors.Join(f(), r.UnregisterBuffers(), v.Close())
}

func tryRingFD() error {
	runtime.LockOSThread() // the registration belongs to the thread
	defer runtime.UnlockOSThread()
	return withRing(func(r *Ring) error {
		if errno := r.registerRingFD(); errno != 0 {
			return errno
		}
		return nil
	})
}

func trySyncCancel() error {
	return withRing((*Ring).cancelAll)
}

// probeNoWait: TAP refuses a write that is too short to be a packet with EINVAL,
// or with EOPNOTSUPP before it looks when it lacks RWF_NOWAIT.
func probeNoWait(f Feature, fd int) Feature {
	err := withRing(func(r *Ring) error {
		v, err := NewVectors(0, 1)
		if err != nil {
			return err
		}
		defer v.Close()
		r.SQE().PrepWrite(int32(fd), v.ScratchAddr(0), 1, RWFNoWait)
		if n, errno := r.Enter(); errno != 0 || n != 1 {
			return fmt.Errorf("uring: io_uring_enter took %d of 1 request: %w", n, errno)
		}
		defer r.Release(1)
		if errno := syscall.Errno(-r.Completion(0).Res); errno != syscall.EINVAL {
			return fmt.Errorf("uring: write of one byte to the TAP: %w", errno)
		}
		return nil
	})
	return f.outcome(err, syscall.EOPNOTSUPP).missing()
}

// missing is what there is to say of a feature that the kernel refuses to know.
func (f Feature) missing() Feature {
	if f.Outcome == No {
		f.Detail = "since Linux " + f.Since
	}
	return f
}

// outcome fills in what err means: nil is yes, an errno in refusals no, anything
// else could not be told.
func (f Feature) outcome(err error, refusals ...error) Feature {
	f.Err = err
	if err == nil {
		f.Outcome = Yes
		return f
	}
	f.Outcome, f.Detail = Unknown, err.Error()
	for _, r := range refusals {
		if errors.Is(err, r) {
			f.Outcome = No
		}
	}
	return f
}
