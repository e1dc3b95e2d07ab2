// SPDX-License-Identifier: BSD-3-Clause

package nettest

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/rtnl"
	"golang.org/x/sys/unix"
)

// NeedRoot skips the test, or fails it in CI, unless the process may make namespaces, interfaces and
// raw sockets: CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW.
func NeedRoot(t testing.TB) {
	t.Helper()
	if missing := missingCaps(); len(missing) > 0 {
		skip(t, "this test needs root; missing: %s", strings.Join(missing, ", "))
	}
}

// NeedTun is NeedRoot, and /dev/net/tun must open.
func NeedTun(t testing.TB) {
	t.Helper()
	NeedRoot(t)
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		skip(t, "this test needs /dev/net/tun (modprobe tun): %v", err)
	}
	unix.Close(fd)
}

// missingCaps names the capabilities that the process lacks, see capabilities(7).
func missingCaps() []string {
	var data [2]unix.CapUserData
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return []string{err.Error()}
	}
	var missing []string
	for _, c := range []struct {
		bit  uint
		name string
	}{
		{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},
		{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
		{unix.CAP_NET_RAW, "CAP_NET_RAW"},
	} {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	return missing
}

// NS returns a fresh namespace with loopback up, for this test alone. At the end of the test, after
// the clean-ups that the test registers later, it is checked for TAP interfaces left behind, each of
// which is an error, and closed: make it before what is moved into it. NS is NeedRoot.
func NS(t testing.TB) *netns.NS {
	t.Helper()
	NeedRoot(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer ns.Close()
		for _, name := range leftTaps(ns) {
			t.Errorf("the test left the interface %s behind", name)
		}
	})
	return ns
}

// QuietNS is NS for a namespace in which the kernel sends nothing of its own accord: no IPv6, hence no router
// solicitations, so that tests can count packets exactly.
func QuietNS(t testing.TB) *netns.NS {
	t.Helper()
	NeedTun(t)
	ns := NS(t)
	err := ns.Do(func() error {
		// /proc/sys/net is that of the thread that opens it.
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return ns
}

// leftTaps names the TAP and TUN interfaces in the namespace that do not go away by themselves. One
// may be on its way out when its last descriptor was just closed, as by a request still in flight.
func leftTaps(ns *netns.NS) []string {
	c, err := rtnl.Dial(ns.FD())
	if err != nil {
		return nil // the test closed the namespace itself
	}
	defer c.Close()
	var names []string
	poll(Bound(2*time.Second), func() bool {
		links, err := c.Links()
		if err != nil {
			names = []string{err.Error()}
			return true
		}
		names = names[:0]
		for _, l := range links {
			if l.Kind == "tun" {
				names = append(names, l.Name)
			}
		}
		return len(names) == 0
	})
	return names
}

// Conn returns a rtnetlink connection to the namespace, closed at the end of the test.
func Conn(t testing.TB, ns *netns.NS) *rtnl.Conn {
	t.Helper()
	c, err := rtnl.Dial(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
