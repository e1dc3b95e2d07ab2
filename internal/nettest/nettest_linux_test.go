// SPDX-License-Identifier: BSD-3-Clause

package nettest

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/tuntap"
	"golang.org/x/sys/unix"
)

// recorder is a testing.TB that notes how a test would have ended.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper()                   {}
func (r *recorder) Skipf(f string, a ...any)  { r.skipped = fmt.Sprintf(f, a...) }
func (r *recorder) Fatalf(f string, a ...any) { r.failed = fmt.Sprintf(f, a...) }
func (r *recorder) Errorf(f string, a ...any) { r.failed += fmt.Sprintf(f, a...) }

func TestSkipIsFailureInCI(t *testing.T) {
	for ci, wantFail := range map[string]bool{"": false, "true": true} {
		t.Setenv("CI", ci)
		var r recorder
		skip(&r, "no %s", "root")
		if (r.failed != "") != wantFail || (r.skipped != "") == wantFail {
			t.Errorf("CI=%q: skipped %q, failed %q", ci, r.skipped, r.failed)
		}
		if got := r.failed + r.skipped; !strings.Contains(got, "no root") {
			t.Errorf("CI=%q: says %q", ci, got)
		}
	}
}

// TestNeedSince: what an older kernel may lack, a newer one must have.
func TestNeedSince(t *testing.T) {
	for _, c := range []struct {
		release      string
		major, minor int
		want         bool
	}{
		{"6.1.0-50-cloud-amd64", 6, 2, true}, {"6.12.107+deb13", 6, 2, false}, {"6.12.107+deb13", 6, 17, true},
		{"6.18.44", 6, 17, false}, {"7.2.13", 6, 17, false}, {"5.19", 6, 2, true}, {"", 6, 2, false},
	} {
		if got := isBefore(c.release, c.major, c.minor); got != c.want {
			t.Errorf("%q is before %d.%d: %t", c.release, c.major, c.minor, got)
		}
	}
}

func TestNeedProbe(t *testing.T) {
	for _, c := range []struct {
		err        error
		skip, fail bool
	}{
		{nil, false, false},
		{syscall.EOPNOTSUPP, true, false},
		{fmt.Errorf("probe: %w", syscall.ENOSYS), true, false},
		{syscall.EINVAL, false, true},
	} {
		var r recorder
		NeedProbe(&r, "flux", func() error { return c.err })
		if (r.skipped != "") != c.skip || (r.failed != "") != c.fail {
			t.Errorf("%v: skipped %q, failed %q", c.err, r.skipped, r.failed)
		}
	}
}

func TestScale(t *testing.T) {
	defer func(s int) { scale = s }(scale)
	scale = 10
	if Scale(200) != 20 || Scale(3) != 1 || Bound(time.Second) != 10*time.Second || Bound(time.Hour) != 10*time.Minute {
		t.Error("wrong:", Scale(200), Scale(3), Bound(time.Second), Bound(time.Hour))
	}
	scale = 1
	if Scale(200) != 200 || Bound(time.Second) != time.Second {
		t.Error("wrong:", Scale(200), Bound(time.Second))
	}
}

func TestEventually(t *testing.T) {
	n := 0
	Eventually(t, 10*time.Second, "counting", func() bool { n++; return n == 3 })
	var r recorder
	Eventually(&r, time.Millisecond, "the impossible", func() bool { return false })
	if !strings.Contains(r.failed, "the impossible") {
		t.Errorf("failed %q", r.failed)
	}
}

// leaks makes a leak, and returns what is said about it.
func leaks(t *testing.T, leak func() (undo func())) string {
	t.Helper()
	defer func(d time.Duration) { settle = d }(settle)
	before := Leaks()
	undo := leak()
	settle = 10 * time.Millisecond
	found := before.Since()
	undo()
	settle = 5 * time.Second
	before.Check(t)
	return strings.Join(found, "\n")
}

func want(t *testing.T, got string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("the leak is called %q; it should have %q in it", got, p)
		}
	}
}

func TestLeakedDescriptorIsNamed(t *testing.T) {
	got := leaks(t, func() func() {
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		return func() { f.Close() }
	})
	want(t, got, "descriptor of /dev/null")
	got = leaks(t, func() func() {
		var fds []int
		for range 3 {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			fds = append(fds, fd)
		}
		return func() {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	})
	want(t, got, "3 × descriptor of socket")
}

func parked(c chan struct{}) { <-c }

func TestLeakedGoroutineIsNamed(t *testing.T) {
	got := leaks(t, func() func() {
		c := make(chan struct{})
		go parked(c)
		return func() { close(c) }
	})
	want(t, got, "nettest.parked", "TestLeakedGoroutineIsNamed")
}

func TestLeakedMappingIsNamed(t *testing.T) {
	got := leaks(t, func() func() {
		fd, err := unix.MemfdCreate("leaky", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Ftruncate(fd, 4096); err != nil {
			t.Fatal(err)
		}
		mem, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		return func() { _ = unix.Munmap(mem) }
	})
	want(t, got, "mapping of /memfd:leaky")
}

// In the namespace the process started in, because that is the one that is looked at.
func TestLeakedInterfaceIsNamed(t *testing.T) {
	NeedTun(t)
	name := fmt.Sprintf("rl%d", os.Getpid())
	got := leaks(t, func() func() {
		q, err := tuntap.Attach(name, tuntap.Options{Exclusive: true})
		if err != nil {
			t.Fatal(err)
		}
		return func() { q.Close() }
	})
	want(t, got, "interface "+name+" (index ", "descriptor of /dev/net/tun attached to interface "+name)
}

func TestNamespaceNamesWhatIsLeft(t *testing.T) {
	NeedFast(t)
	NeedTun(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var q *tuntap.Queue
	err = ns.Do(func() (err error) {
		q, err = tuntap.Attach("left0", tuntap.Options{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := leftTaps(ns); len(got) != 1 || got[0] != "left0" {
		t.Errorf("left behind: %q", got)
	}
	q.Close()
	if got := leftTaps(ns); len(got) != 0 {
		t.Errorf("left behind after Close: %q", got)
	}
}

func TestUnprivileged(t *testing.T) {
	Unprivileged(t, func(t *testing.T) {
		if got := fmt.Sprint(missingCaps()); got != "[CAP_SYS_ADMIN CAP_NET_ADMIN CAP_NET_RAW]" {
			t.Errorf("missing %s", got)
		}
	})
	if os.Getenv(unprivilegedEnv) == "" && len(missingCaps()) != 0 {
		t.Errorf("missing %v, but root", missingCaps())
	}
}
