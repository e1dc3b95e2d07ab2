// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// forget makes the next Probe try everything anew, and again after the test.
func forget(t *testing.T) {
	known.Clear()
	t.Cleanup(known.Clear)
}

func find(t *testing.T, name string) Feature {
	t.Helper()
	for _, f := range Probe() {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("%s is not probed", name)
	return Feature{}
}

// TestProbe: where a ring can be made, every probe comes to a result, which is
// yes on a kernel of at least the version that brings the feature; a
// distribution may have it earlier.
func TestProbe(t *testing.T) {
	needRing(t)
	forget(t)
	for _, f := range Probe() {
		t.Log(f)
		if f.Outcome == Unknown || f.Outcome == No && kernelHas(t, f.Since) {
			t.Errorf("%v", f)
		}
	}
}

// kernelHas reports whether the kernel's version is at least since.
func kernelHas(t *testing.T, since string) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var have, want [2]int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &have[0], &have[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(since, "%d.%d", &want[0], &want[1]); err != nil {
		t.Fatal(err)
	}
	return slices.Compare(have[:], want[:]) >= 0
}

// TestProbeRemembers: yes and no are tried once, what could not be told again.
func TestProbeRemembers(t *testing.T) {
	for errno, want := range map[syscall.Errno]int{0: 1, syscall.EINVAL: 1, syscall.EBUSY: 3} {
		forget(t)
		tried := 0
		try := trial{FeatureNoSQArray, func() error {
			tried++
			if errno != 0 {
				return errno
			}
			return nil
		}, unsupported}
		for range 3 {
			try.run(true)
		}
		if tried != want {
			t.Errorf("%v: tried %d times, want %d", errno, tried, want)
		}
		known.Clear()
	}
}

// TestProbeRefused: with each flag refused in turn, that feature is missing and
// those that do not depend on it are not.
func TestProbeRefused(t *testing.T) {
	needRing(t)
	for name, flag := range map[string]uint32{
		FeatureSubmitAll: setupSubmitAll, FeatureCoopTaskrun: setupCoopTaskrun, FeatureSingleIssuer: setupSingleIssuer,
		FeatureDeferTaskrun: setupDeferTaskrun, FeatureNoSQArray: setupNoSQArray,
	} {
		t.Run(name, func(t *testing.T) {
			forget(t)
			before := find(t, FeatureFiles)
			known.Clear()
			refuse(t, func(p *params) syscall.Errno {
				if p.flags&flag != 0 {
					return syscall.EINVAL
				}
				return 0
			})
			f := find(t, name)
			if f.Outcome != No || f.Detail != "since Linux "+f.Since || !errors.Is(f.Err, syscall.EINVAL) {
				t.Errorf("%v (%v)", f, f.Err)
			}
			if after := find(t, FeatureFiles); after != before {
				t.Errorf("%v", after)
			}
		})
	}
}

// TestProbeNoRing: nothing is known of the rest without a ring, and no guess
// stays in memory.
func TestProbeNoRing(t *testing.T) {
	forget(t)
	for errno, want := range map[syscall.Errno]Outcome{
		syscall.EPERM: No, syscall.ENOSYS: No, syscall.EACCES: No, syscall.ENOMEM: No, syscall.EMFILE: Unknown,
	} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			refuse(t, func(*params) syscall.Errno { return errno })
			list := append(Probe(), ProbeNoWait(-1))
			if f := list[0]; f.Outcome != want || !errors.Is(f.Err, errno) {
				t.Errorf("%v (%v)", f, f.Err)
			}
			for _, f := range list[1:] {
				if f.Outcome != Unknown || f.Err == nil {
					t.Errorf("%v (%v)", f, f.Err)
				}
			}
			if Supported() {
				t.Error("Supported says yes")
			}
		})
	}
	if f := find(t, FeatureIoUring); f.Outcome == Yes && find(t, FeatureFiles).Outcome != Yes {
		t.Error("a failed probe is remembered")
	}
}

func TestWhyNoRing(t *testing.T) {
	for _, c := range []struct {
		err      error
		disabled string
		want     string
	}{
		{syscall.EPERM, "2", "kernel.io_uring_disabled is 2"},
		{syscall.EPERM, "1", "CAP_SYS_ADMIN"},
		{syscall.EPERM, "0", "seccomp"},
		{syscall.EPERM, "", "seccomp"},
		{syscall.ENOSYS, "0", "the kernel has no io_uring"},
		{syscall.EACCES, "0", "security module"},
		{syscall.ENOMEM, "0", "locked memory"},
	} {
		if got := whyNoRing(c.err, c.disabled); !strings.Contains(got, c.want) {
			t.Errorf("%v with kernel.io_uring_disabled=%q: %q, want %q in it", c.err, c.disabled, got, c.want)
		}
	}
	if why := Explain(syscall.EBADF); why != "" {
		t.Errorf("EBADF is explained: %q", why)
	}
}

// TestSysctl switches io_uring off for the whole machine, so only in a virtual
// one.
func TestSysctl(t *testing.T) {
	const path = "/proc/sys/kernel/io_uring_disabled"
	if os.Getenv("RTAP_TEST_VM") == "" {
		t.Skip("it would switch io_uring off for others")
	}
	old, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("this kernel has no kernel.io_uring_disabled: since Linux 6.6")
	}
	if err == nil {
		err = os.WriteFile(path, []byte("2"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(path, old, 0)
	if _, err := New(Config{Entries: 1}); !errors.Is(err, syscall.EPERM) {
		t.Errorf("New: %v, want EPERM", err)
	}
	if f := find(t, FeatureIoUring); f.Outcome != No || f.Detail != "kernel.io_uring_disabled is 2: forbidden for all" {
		t.Errorf("%v", f)
	}
}

func TestProbeConcurrently(t *testing.T) {
	forget(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { Probe() })
	}
	wg.Wait()
}

// TestProbeNoWait: what it says of a TAP is how reads of it behave. Nothing is
// sent by asking.
func TestProbeNoWait(t *testing.T) {
	p := newTap(t)
	sent := func() uint64 {
		l, err := p.conn.Link(p.index)
		if err != nil {
			t.Fatal(err)
		}
		return l.Stats.RxPackets
	}
	before := sent()
	f := ProbeNoWait(p.FD())
	t.Log(f)
	r := newRing(t, Config{Entries: 1})
	_, addr := memory(t, 100)
	switch res := do(t, r, func(s *SQE) { s.PrepRead(int32(p.FD()), addr, 100, RWFNoWait) }); {
	case f.Outcome == Yes && res == -int32(syscall.EAGAIN):
	case f.Outcome == No && res == -int32(syscall.EOPNOTSUPP):
	default:
		t.Errorf("%v, but a read of the empty TAP gives %d", f, res)
	}
	if f.Outcome == No && kernelHas(t, f.Since) {
		t.Errorf("%v", f)
	}
	if sent() != before {
		t.Error("the probe has sent a packet")
	}
	if f := ProbeNoWait(-1); f.Outcome != Unknown || !errors.Is(f.Err, syscall.EBADF) {
		t.Errorf("without a descriptor: %v (%v)", f, f.Err)
	}
}
