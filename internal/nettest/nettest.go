// SPDX-License-Identifier: BSD-3-Clause

// Package nettest is what tests on real interfaces need: the privilege to make them, namespaces that
// vanish with the test, bounded waits, and checks that nothing is left behind.
//
// The environment says where the tests run:
//
//   - CI=true turns a missing privilege or driver from a skip into a failure.
//   - RTAP_TEST_SCALE=n is for emulated machines: [Scale] divides counts by n, [Bound] multiplies
//     waits by it.
package nettest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scale is RTAP_TEST_SCALE, at least 1.
var scale = func() int {
	n, err := strconv.Atoi(os.Getenv("RTAP_TEST_SCALE"))
	if err != nil || n < 1 {
		return 1
	}
	return n
}()

// Scale returns how often a test should do what takes n rounds on a fast machine: n divided by
// RTAP_TEST_SCALE, and at least 1.
func Scale(n int) int { return max(n/scale, 1) }

// Bound returns how long to wait at most for what a fast machine does within d: d multiplied by
// RTAP_TEST_SCALE, up to ten minutes.
func Bound(d time.Duration) time.Duration { return min(d*time.Duration(scale), 10*time.Minute) }

// NeedFast leaves a test out on a slow, emulated machine, which is there to try other kernels: for what is the same with
// all of them and takes long.
func NeedFast(t testing.TB) {
	t.Helper()
	if scale > 1 {
		t.Skip("a slow machine leaves to fast ones what is the same with every kernel")
	}
}

// Leave reports whether case i of many is left out: a slow machine does every other one.
func Leave(i int) bool { return scale > 1 && i%2 != 0 }

// CI reports whether the tests must run rather than skip.
func CI() bool { return os.Getenv("CI") == "true" }

// UringForbidden reports whether the administrator has switched io_uring off, as one run on other
// kernels does on purpose (kernel.io_uring_disabled, since Linux 6.6). Nothing else excuses its absence.
func UringForbidden() bool {
	v := kernelSetting("io_uring_disabled")
	return v == "1" || v == "2"
}

// NeedUring skips the test, in CI too, where io_uring is forbidden. Where it merely does not work the
// test goes on, and fails.
func NeedUring(t testing.TB) {
	t.Helper()
	if UringForbidden() {
		t.Skip("kernel.io_uring_disabled forbids io_uring")
	}
}

// IsLinux61 reports whether this is the one kernel before 6.4 that is served, for what it does otherwise.
func IsLinux61() bool { return strings.HasPrefix(kernelSetting("osrelease"), "6.1.") }

// NeedSince skips a test for want of what, which this kernel lacks, if that came with a later Linux. Where
// it ought to be there the test fails, in CI or not.
func NeedSince(t testing.TB, major, minor int, what string) {
	t.Helper()
	release := kernelSetting("osrelease")
	if !isBefore(release, major, minor) {
		t.Fatalf("Linux %s has no %s: it ought to, since %d.%d", release, what, major, minor)
	}
	t.Skipf("Linux %s has no %s: since %d.%d", release, what, major, minor)
}

// isBefore is false for a release that cannot be read, so that nothing is skipped for it.
func isBefore(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n < 2 {
		return false
	}
	return a < major || a == major && b < minor
}

// NeedLinux skips a test where err says that something is of Linux only. On Linux that is a failure, as any
// other error is.
func NeedLinux(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, errors.ErrUnsupported) && runtime.GOOS != "linux" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// kernelSetting is a file of /proc/sys/kernel, empty if there is none.
func kernelSetting(name string) string {
	v, _ := os.ReadFile("/proc/sys/kernel/" + name)
	return strings.TrimSpace(string(v))
}

// skip skips the test for want of something, which in CI is a failure.
func skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if CI() {
		t.Fatalf("CI=true: "+format, args...)
	} else {
		t.Skipf(format, args...)
	}
}

// NeedProbe runs probe, which tries whether this kernel can do what the test is about, called what. A
// kernel that cannot, because the error wraps errors.ErrUnsupported as ENOSYS and EOPNOTSUPP do, skips
// the test, in CI too: the older kernels are among those tested. Any other error fails it. There is
// no asking for a version: distributions backport.
func NeedProbe(t testing.TB, what string, probe func() error) {
	t.Helper()
	switch err := probe(); {
	case errors.Is(err, errors.ErrUnsupported):
		t.Skipf("this kernel has no %s: %v", what, err)
	case err != nil:
		t.Fatalf("could not tell whether this kernel has %s: %v", what, err)
	}
}

// Allocs is testing.AllocsPerRun, the least of five: it counts what other goroutines allocate, too, such as the one that
// hears of an interface; but not for long.
func Allocs(runs int, f func()) float64 {
	n := testing.AllocsPerRun(runs, f)
	for try := 1; n != 0 && try < 5; try++ {
		n = min(n, testing.AllocsPerRun(runs, f))
	}
	return n
}

// Eventually waits until cond returns true, and fails the test if it does not within [Bound](limit).
// It is for what cannot be awaited otherwise, such as a counter of the kernel. It asks at once, then
// after a millisecond, then ever less often, up to every 50 ms.
func Eventually(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	if !poll(Bound(limit), cond) {
		t.Fatalf("waited %v in vain: %s", Bound(limit), what)
	}
}

func poll(limit time.Duration, cond func() bool) bool {
	end := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if cond() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		time.Sleep(pause)
	}
}
