// SPDX-License-Identifier: BSD-3-Clause

package tuntap_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/tuntap"
	"golang.org/x/sys/unix"
)

// try attaches in ns.
func try(ns *netns.NS, name string, o tuntap.Options) (q *tuntap.Queue, err error) {
	err = ns.Do(func() error {
		q, err = tuntap.Attach(name, o)
		return err
	})
	return q, err
}

// attach attaches in ns, for as long as the test runs.
func attach(t testing.TB, ns *netns.NS, name string, o tuntap.Options) *tuntap.Queue {
	t.Helper()
	nettest.NeedTun(t)
	q, err := try(ns, name, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func nameOf(t testing.TB, q *tuntap.Queue) string {
	t.Helper()
	name, err := q.Name()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func indexOf(t testing.TB, q *tuntap.Queue) int {
	t.Helper()
	index, err := q.IfIndex()
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func link(t testing.TB, c *rtnl.Conn, index int) rtnl.Link {
	t.Helper()
	l, err := c.Link(index)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAttachNames(t *testing.T) {
	ns := nettest.NS(t)
	for _, c := range []struct{ pattern, want string }{
		{"port", "port"}, {"rtap%d", "rtap0"}, {"rtap%d", "rtap1"}, {"", "tap0"}, {"fifteen-letters", "fifteen-letters"}, {"a%db", "a0b"},
	} {
		q := attach(t, ns, c.pattern, tuntap.Options{})
		if got := nameOf(t, q); got != c.want {
			t.Errorf("%q became %q, not %q", c.pattern, got, c.want)
		}
		l := link(t, nettest.Conn(t, ns), indexOf(t, q))
		if l.Name != c.want || l.Kind != "tun" || l.Up || !l.Carrier || len(l.MAC) != 6 || l.MaxMTU != 65521 || l.Persistent {
			t.Errorf("%q is %+v", c.pattern, l)
		}
	}
}

func TestAttachRefusesBadNames(t *testing.T) {
	ns := nettest.NS(t)
	nettest.NeedTun(t)
	for _, c := range []struct {
		name  string
		errno error
		says  string
	}{
		{"sixteen-letters!", syscall.ENAMETOOLONG, "16 bytes; an interface name has at most 15"},
		{"a/b", syscall.EINVAL, "slash"},
		{"a b", syscall.EINVAL, "space"},
		{"a\x00", syscall.EINVAL, "zero"},
		{"a:1", syscall.EINVAL, "colon"},
		{"..", syscall.EINVAL, "not an interface name"},
		{"%d%d", syscall.EINVAL, "one %d"},
		{"a%s", syscall.EINVAL, "one %d"},
	} {
		_, err := try(ns, c.name, tuntap.Options{})
		var e *tuntap.Error
		if !errors.Is(err, c.errno) || !errors.As(err, &e) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v", c.name, err)
		}
		if errors.Is(err, tuntap.ErrForeign) {
			t.Errorf("%q is said to exist: %v", c.name, err)
		}
	}
}

// foreign makes an interface that is not ours, with the flags given.
func foreign(t testing.TB, ns *netns.NS, name string, flags uint16) {
	t.Helper()
	nettest.NeedTun(t)
	err := ns.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		ifr.SetUint16(flags)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAttachRefusesWhatIsNotOurs(t *testing.T) {
	ns := nettest.NS(t)
	foreign(t, ns, "tun", unix.IFF_TUN|unix.IFF_MULTI_QUEUE)
	foreign(t, ns, "single", unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
	for name, what := range map[string]string{"lo": "of another kind", "tun": "a TUN", "single": "single queue"} {
		_, err := try(ns, name, tuntap.Options{})
		if !errors.Is(err, tuntap.ErrForeign) || !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, part := range []string{name, what, "ip link del " + name} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", name, err, part)
			}
		}
	}
}

// TestTUN: an interface without Ethernet, and what is not one when one is wanted.
func TestTUN(t *testing.T) {
	ns := nettest.NS(t)
	q := attach(t, ns, "three", tuntap.Options{TUN: true})
	l := link(t, nettest.Conn(t, ns), indexOf(t, q))
	if l.Name != "three" || l.Kind != "tun" || len(l.MAC) != 0 || l.MaxMTU != 65535 {
		t.Errorf("it is %+v", l)
	}
	attach(t, ns, "three", tuntap.Options{TUN: true, IfIndex: l.Index})
	attach(t, ns, "tap", tuntap.Options{})
	foreign(t, ns, "single", unix.IFF_TUN|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
	for _, c := range []struct {
		name string
		tun  bool
		says string
	}{
		{"three", false, "not a multi-queue TAP: it is a TUN, without Ethernet headers"},
		{"tap", true, "not a multi-queue TUN: it is a TAP, with Ethernet headers"},
		{"single", true, "not a multi-queue TUN: it is a TUN with a single queue"},
		{"lo", true, "not a multi-queue TUN: it is of another kind"},
	} {
		_, err := try(ns, c.name, tuntap.Options{TUN: c.tun})
		if !errors.Is(err, tuntap.ErrForeign) || !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestExclusive(t *testing.T) {
	ns := nettest.NS(t)
	attach(t, ns, "port", tuntap.Options{Exclusive: true})
	_, err := try(ns, "port", tuntap.Options{Exclusive: true})
	if !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "exists") {
		t.Errorf("a second time: %v", err)
	}
	attach(t, ns, "port", tuntap.Options{})
}

func TestFurtherQueueNeverMakesAnInterface(t *testing.T) {
	ns := nettest.NS(t)
	q := attach(t, ns, "port", tuntap.Options{})
	other := attach(t, ns, "other", tuntap.Options{})
	index := indexOf(t, q)
	second := attach(t, ns, "port", tuntap.Options{IfIndex: index})
	if indexOf(t, second) != index {
		t.Error("on another interface")
	}
	// The name is free meanwhile, or somebody else's.
	for name, says := range map[string]string{"gone": "no longer has that name", "other": "now belongs to"} {
		_, err := try(ns, name, tuntap.Options{IfIndex: index})
		if !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	links, err := nettest.Conn(t, ns).Links()
	if err != nil || len(links) != 3 {
		t.Errorf("%v, %d interfaces instead of lo, port, other: %+v", err, len(links), links)
	}
	runtime.KeepAlive(other)
}

func TestFurtherQueueLeavesSettingsAlone(t *testing.T) {
	ns := nettest.NS(t)
	q := attach(t, ns, "port", tuntap.Options{})
	size := func() int {
		t.Helper()
		n, err := unix.IoctlGetUint32(q.FD(), unix.TUNGETVNETHDRSZ)
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	if size() != tuntap.VnetHdrSize {
		t.Errorf("header of %d bytes", size())
	}
	if le, err := unix.IoctlGetUint32(q.FD(), unix.TUNGETVNETLE); err != nil || le != 1 {
		t.Errorf("little endian: %d, %v", le, err)
	}
	if err := q.SetVnetHdrSize(12); err != nil {
		t.Fatal(err)
	}
	if err := q.SetCarrier(false); err != nil {
		t.Fatal(err)
	}
	attach(t, ns, "port", tuntap.Options{IfIndex: indexOf(t, q)})
	if size() != 12 || link(t, nettest.Conn(t, ns), indexOf(t, q)).Carrier {
		t.Errorf("with a further queue: header of %d bytes, carrier %v", size(), link(t, nettest.Conn(t, ns), indexOf(t, q)).Carrier)
	}
	if err := unix.IoctlSetPointerInt(q.FD(), unix.TUNSETSNDBUF, 4096); err != nil {
		t.Fatal(err)
	}
	attach(t, ns, "port", tuntap.Options{})
	if n, err := unix.IoctlGetUint32(q.FD(), unix.TUNGETSNDBUF); err != nil || n != math.MaxInt32 {
		t.Errorf("taken over: send buffer of %d bytes, %v", n, err)
	}
	if size() != tuntap.VnetHdrSize {
		t.Errorf("taken over: header of %d bytes", size())
	}
}

func TestQueuesMax(t *testing.T) {
	ns := nettest.NS(t)
	q := attach(t, ns, "port", tuntap.Options{})
	index := indexOf(t, q)
	var more []*tuntap.Queue
	defer func() {
		for _, q := range more {
			q.Close()
		}
	}()
	var err error
	for err == nil && len(more) < tuntap.QueuesMax {
		var m *tuntap.Queue
		if m, err = try(ns, "port", tuntap.Options{IfIndex: index}); err == nil {
			more = append(more, m)
		}
	}
	if len(more) != tuntap.QueuesMax-1 || !errors.Is(err, syscall.E2BIG) || !strings.Contains(err.Error(), "256") {
		t.Errorf("after %d queues: %v", 1+len(more), err)
	}
}

func TestDescriptorFlags(t *testing.T) {
	q := attach(t, nettest.NS(t), "port", tuntap.Options{})
	fl, err := unix.FcntlInt(uintptr(q.FD()), unix.F_GETFL, 0)
	if err != nil || fl&unix.O_NONBLOCK == 0 || fl&unix.O_ACCMODE != unix.O_RDWR {
		t.Errorf("flags %#x, %v", fl, err)
	}
	fl, err = unix.FcntlInt(uintptr(q.FD()), unix.F_GETFD, 0)
	if err != nil || fl&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v", fl, err)
	}
}

func TestUnprivileged(t *testing.T) {
	if os.Geteuid() == 0 { // not in the child
		nettest.NeedTun(t)
	}
	nettest.Unprivileged(t, func(t *testing.T) {
		_, err := tuntap.Attach("port", tuntap.Options{})
		denied := errors.Is(err, syscall.EACCES) && strings.Contains(err.Error(), "permissions") // of the device node
		if !denied && !(errors.Is(err, syscall.EPERM) && strings.Contains(err.Error(), "CAP_NET_ADMIN")) {
			t.Error(err)
		}
	})
}

// withDevNet runs f on a thread that has an empty /dev/net of its own.
func withDevNet(t *testing.T, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread goes with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
				return err
			}
			if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			if err := unix.Mount("none", "/dev/net", "tmpfs", 0, ""); err != nil {
				return err
			}
			return f()
		}()
	}()
	return <-done
}

func TestMissingDevice(t *testing.T) {
	nettest.NeedTun(t)
	err := withDevNet(t, func() error {
		_, err := tuntap.Attach("port", tuntap.Options{})
		if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "modprobe tun") || !strings.Contains(err.Error(), "mknod") {
			t.Errorf("no device node: %v", err)
		}
		// A node without a driver behind it: a minor number of the misc device that nobody has.
		if err := unix.Mknod("/dev/net/tun", unix.S_IFCHR|0o666, int(unix.Mkdev(10, 4000))); err != nil {
			return fmt.Errorf("mknod: %w", err)
		}
		_, err = tuntap.Attach("port", tuntap.Options{})
		if !(errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENXIO)) || !strings.Contains(err.Error(), "modprobe tun") {
			t.Errorf("no driver: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
