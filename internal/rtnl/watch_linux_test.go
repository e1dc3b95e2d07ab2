// SPDX-License-Identifier: BSD-3-Clause

package rtnl_test

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// watch is a Watcher in ns for as long as the test runs.
func watch(t testing.TB, ns *netns.NS) *rtnl.Watcher {
	t.Helper()
	w, err := rtnl.Watch(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func follow(t testing.TB, w *rtnl.Watcher, ns *netns.NS, name string) rtnl.Message {
	t.Helper()
	m, err := w.Follow(ns.FD(), name)
	if err != nil {
		t.Fatal(err)
	}
	if m.Link.Name != name || m.Gone || m.Resync || m.Answer == 0 {
		t.Fatalf("%s is %+v", name, m)
	}
	return m
}

// next is the next message. It fails the test, by closing w, if none comes.
func next(t testing.TB, w *rtnl.Watcher) rtnl.Message {
	t.Helper()
	late := time.AfterFunc(nettest.Bound(10*time.Second), func() { w.Close() })
	defer late.Stop()
	m, err := w.Next()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func do(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWatch: every change is heard of, in its order, with the state at that time, and the deletion.
func TestWatch(t *testing.T) {
	ns, c, _, index := tap(t)
	w := watch(t, ns)
	follow(t, w, ns, "port")
	do(t, w.SetBuffer(8<<20))
	n := nettest.Scale(1000)
	for i := range n {
		do(t, c.SetMTU(index, 1000+i))
	}
	for i := range n {
		if m := next(t, w); m.Link.MTU != 1000+i || m.Resync || m.Answer != 0 || m.Gone {
			t.Fatalf("message %d: %+v", i, m)
		}
	}
	do(t, c.Delete(index))
	if m := next(t, w); !m.Gone || m.Resync {
		t.Errorf("deleted: %+v", m)
	}
	if _, err := w.Ask(); err != nil {
		t.Error(err)
	}
	if m := next(t, w); !m.Gone || m.Answer == 0 {
		t.Errorf("asked of a deleted interface: %+v", m)
	}
	if _, err := w.Follow(ns.FD(), "port"); !errors.Is(err, rtnl.ErrNotFound) {
		t.Errorf("follow a deleted interface: %v", err)
	}
}

// TestWatchHearsOneInterface: nothing of others gets as far as the socket, not even of one that was watched before, nor
// what is said of the interface as a port of a bridge.
func TestWatchHearsOneInterface(t *testing.T) {
	ns, c, _, index := tap(t)
	tapIn(t, ns, "other")
	other, err := c.LinkByName("other")
	do(t, err)
	w := watch(t, ns)
	stir := func(indices ...int) {
		t.Helper()
		for _, i := range indices {
			do(t, c.SetUp(i))
			do(t, c.SetMTU(i, 1400))
			do(t, c.SetMTU(i, 1500))
			do(t, c.SetDown(i))
		}
	}
	silent := func() {
		t.Helper()
		if err := w.Waiting(); err != unix.EAGAIN {
			t.Errorf("a message is there: %v", err)
		}
	}
	stir(index, other.Index)
	silent()
	follow(t, w, ns, "port")
	stir(other.Index)
	silent()
	stir(index)
	for i, mtu := range []int{1500, 1400, 1500, 1500} {
		if m := next(t, w); m.Link.Index != index || m.Link.MTU != mtu {
			t.Errorf("message %d: %+v", i, m)
		}
	}
	stir(index)
	follow(t, w, ns, "other")
	silent()
	stir(index)
	silent()
	stir(other.Index)
	if m := next(t, w); m.Link.Index != other.Index {
		t.Errorf("%+v", m)
	}
}

// TestWatchIgnoresBridge: AF_BRIDGE messages are of the same type.
func TestWatchIgnoresBridge(t *testing.T) {
	ns, _, _, _ := tap(t)
	w := watch(t, ns)
	err := ns.Do(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		port, err := netlink.LinkByName("port")
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(port, bridge)
	})
	do(t, err)
	follow(t, w, ns, "port")
	err = ns.Do(func() error {
		port, err := netlink.LinkByName("port")
		for range 10 {
			err = errors.Join(err, netlink.LinkSetLearning(port, false), netlink.LinkSetLearning(port, true))
		}
		return err
	})
	do(t, err)
	if err := w.Waiting(); err != unix.EAGAIN {
		t.Errorf("a message is there: %v", err)
	}
}

// TestWatchAsk: the answer comes after what happened before the question, and before what happens after it.
func TestWatchAsk(t *testing.T) {
	ns, c, _, index := tap(t)
	w := watch(t, ns)
	first := follow(t, w, ns, "port")
	last := first.Answer
	for i := range 20 {
		do(t, c.SetMTU(index, 1000+i))
		seq, err := w.Ask()
		do(t, err)
		if seq <= last {
			t.Fatalf("question %d after %d", seq, last)
		}
		last = seq
	}
	for i := range 20 {
		if m := next(t, w); m.Answer != 0 || m.Link.MTU != 1000+i {
			t.Fatalf("%d: %+v", i, m)
		}
		if m := next(t, w); m.Answer != last-19+uint32(i) || m.Link.MTU != 1000+i {
			t.Fatalf("answer %d: %+v, the last question was %d", i, m, last)
		}
	}
}

// TestWatchLoss: what the kernel had no room for is made good for by asking, once there is room, and said so.
func TestWatchLoss(t *testing.T) {
	ns, c, _, index := tap(t)
	w := watch(t, ns)
	follow(t, w, ns, "port")
	for _, bytes := range []int{1, 20000} {
		do(t, w.SetBuffer(bytes))
		for round := range 3 {
			var asked uint32
			for i := range 100 {
				do(t, c.SetMTU(index, 1000+i))
				var err error
				asked, err = w.Ask() // whose answers are lost too
				do(t, err)
			}
			n, mtu, m := 0, 0, rtnl.Message{}
			for ; !m.Resync || m.Answer <= asked; n++ {
				m = next(t, w)
				if m.Link.MTU < mtu {
					t.Fatalf("MTU %d after %d", m.Link.MTU, mtu)
				}
				mtu = m.Link.MTU
			}
			if mtu != 1099 || n >= 200 {
				t.Errorf("%d bytes, round %d: MTU %d after %d messages", bytes, round, mtu, n)
			}
			do(t, c.SetMTU(index, 900))
			if m := next(t, w); m.Resync || m.Link.MTU != 900 {
				t.Errorf("afterwards: %+v", m)
			}
		}
	}
	// Following somebody else, or anew, begins anew.
	do(t, w.SetBuffer(1))
	for i := range 100 {
		do(t, c.SetMTU(index, 1000+i))
	}
	if m := follow(t, w, ns, "port"); m.Link.MTU != 1099 {
		t.Errorf("%+v", m)
	}
	do(t, c.SetMTU(index, 900))
	if m := next(t, w); m.Resync || m.Link.MTU != 900 {
		t.Errorf("afterwards: %+v", m)
	}
}

// TestWatchElsewhere: an interface in another namespace is heard of, and that namespace is not kept alive.
func TestWatchElsewhere(t *testing.T) {
	home := nettest.NS(t)
	tapIn(t, home, "here")
	for range 3 {
		there, err := netns.New()
		do(t, err)
		t.Cleanup(func() { there.Close() }) // after its interface is gone
		tapIn(t, there, "port")
		c, err := rtnl.Dial(there.FD())
		do(t, err)
		w := watch(t, home)
		index := follow(t, w, there, "port").Link.Index
		if l, err := nettest.Conn(t, home).LinkByName("here"); err != nil || l.Index != index {
			t.Fatalf("the indices differ, %d and %d: the test does not test; %v", l.Index, index, err)
		} else {
			do(t, nettest.Conn(t, home).SetMTU(l.Index, 1200))
		}
		do(t, c.SetMTU(index, 1300))
		if m := next(t, w); m.Link.MTU != 1300 || m.Link.Name != "port" {
			t.Errorf("%+v", m)
		}
		follow(t, w, home, "here")
		do(t, c.SetMTU(index, 1350))
		do(t, nettest.Conn(t, home).SetMTU(index, 1400))
		if m := next(t, w); m.Link.MTU != 1400 || m.Link.Name != "here" {
			t.Errorf("%+v", m)
		}
		follow(t, w, there, "port")
		c.Close()
		w.Deafen()
		if _, err := w.Follow(there.FD(), "port"); !errors.Is(err, syscall.EPERM) {
			t.Errorf("without the capability: %v", err)
		}
		do(t, w.Close())
	}
}

// TestWatchNamespaceGone: the end of the interface's namespace is the end of the interface.
func TestWatchNamespaceGone(t *testing.T) {
	home := nettest.NS(t)
	w := watch(t, home)
	there, err := netns.New()
	do(t, err)
	follow(t, w, there, "lo")
	do(t, there.Close())
	for !next(t, w).Gone {
	}
}

// TestWatchNumberedHome: a namespace may have a number for itself.
func TestWatchNumberedHome(t *testing.T) {
	ns, c, _, index := tap(t)
	do(t, ns.Do(func() error { return netlink.SetNetNsIdByFd(ns.FD(), 5) }))
	w := watch(t, ns)
	follow(t, w, ns, "port")
	do(t, c.SetMTU(index, 1300))
	if m := next(t, w); m.Link.MTU != 1300 {
		t.Errorf("%+v", m)
	}
}

// TestWatchClose wakes who waits.
func TestWatchClose(t *testing.T) {
	ns, _, _, _ := tap(t)
	before := nettest.Leaks()
	w, err := rtnl.Watch(ns.FD())
	do(t, err)
	follow(t, w, ns, "port")
	ended := make(chan error)
	go func() {
		_, err := w.Next()
		ended <- err
	}()
	time.AfterFunc(10*time.Millisecond, func() { w.Close() }) // likely to be waiting by then; right in any case
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Next: %v", err)
	}
	do(t, w.Close())
	if _, err := w.Ask(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Ask: %v", err)
	}
	if _, err := w.Follow(ns.FD(), "port"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Follow: %v", err)
	}
	if _, err := w.Next(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Next: %v", err)
	}
	before.Check(t)
}

// TestWatchRefused: what is no namespace is refused, and nothing is left open.
func TestWatchRefused(t *testing.T) {
	before := nettest.Leaks()
	if _, err := rtnl.Watch(1 << 20); !errors.Is(err, syscall.EBADF) {
		t.Errorf("a descriptor that is none: %v", err)
	}
	w, err := rtnl.Watch(-1)
	do(t, err)
	if _, err := w.Follow(-1, "nosuch"); !errors.Is(err, rtnl.ErrNotFound) {
		t.Errorf("a name that is none: %v", err)
	}
	if m, err := w.Follow(-1, "lo"); err != nil || m.Link.Index != 1 {
		t.Errorf("lo: %+v, %v", m, err)
	}
	do(t, w.Close())
	before.Check(t)
}

func TestWatchUnprivileged(t *testing.T) {
	nettest.Unprivileged(t, func(t *testing.T) {
		w, err := rtnl.Watch(-1)
		do(t, err)
		defer w.Close()
		if m, err := w.Follow(-1, "lo"); err != nil || m.Link.Index != 1 {
			t.Errorf("lo: %+v, %v", m, err)
		}
	})
}
