// SPDX-License-Identifier: BSD-3-Clause

package tuntap_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/tuntap"
	"golang.org/x/sys/unix"
)

func TestFeatures(t *testing.T) {
	q := attach(t, nettest.NS(t), "port", tuntap.Options{})
	f, err := q.Features()
	const want = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE
	if err != nil || f&want != want {
		t.Errorf("features %#x, %v", f, err)
	}
}

func TestPersist(t *testing.T) {
	ns := nettest.NS(t)
	c := nettest.Conn(t, ns)
	q := attach(t, ns, "port", tuntap.Options{})
	index := indexOf(t, q)
	if err := q.SetPersist(true); err != nil {
		t.Fatal(err)
	}
	q.Close()
	if l := link(t, c, index); !l.Persistent || l.Carrier {
		t.Errorf("without a descriptor: persistent %v, carrier %v", l.Persistent, l.Carrier)
	}
	q = attach(t, ns, "port", tuntap.Options{})
	if l := link(t, c, indexOf(t, q)); l.Index != index || !l.Carrier {
		t.Errorf("taken up again: index %d, was %d; carrier %v", l.Index, index, l.Carrier)
	}
	if err := q.SetPersist(false); err != nil {
		t.Fatal(err)
	}
	q.Close()
	if _, err := c.Link(index); !errors.Is(err, rtnl.ErrNotFound) {
		t.Errorf("no longer persistent: %v", err)
	}
}

func TestCarrier(t *testing.T) {
	ns := nettest.NS(t)
	c := nettest.Conn(t, ns)
	q := attach(t, ns, "port", tuntap.Options{})
	index := indexOf(t, q)
	for _, on := range []bool{false, true} {
		if err := q.SetCarrier(on); err != nil {
			t.Fatal(err)
		}
		if got := link(t, c, index).Carrier; got != on {
			t.Errorf("set %v, is %v", on, got)
		}
	}
	if err := q.Disable(); err != nil {
		t.Fatal(err)
	}
	if err := q.SetCarrier(true); !errors.Is(err, syscall.EPERM) {
		t.Errorf("with no queue enabled: %v", err)
	}
}

func TestOffloadsAndHeaderSizes(t *testing.T) {
	q := attach(t, nettest.NS(t), "port", tuntap.Options{})
	all := tuntap.OffloadCsum | tuntap.OffloadTSO4 | tuntap.OffloadTSO6 | tuntap.OffloadTSOECN
	for _, o := range []uint32{tuntap.OffloadCsum, all, 0} {
		if err := q.SetOffload(o); err != nil {
			t.Errorf("offloads %#x: %v", o, err)
		}
	}
	if err := q.SetOffload(1 << 30); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("an offload that does not exist: %v", err)
	}
	for _, n := range []int{10, 12, 20, 24} {
		if err := q.SetVnetHdrSize(n); err != nil {
			t.Errorf("header of %d bytes: %v", n, err)
		}
	}
	if err := q.SetVnetHdrSize(9); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("header of 9 bytes: %v", err)
	}
}

// A disabled queue keeps the interface alive and knows all about it: the port's keep-alive descriptor.
func TestDisabledQueueFollowsItsInterface(t *testing.T) {
	ns, there := nettest.NS(t), nettest.NS(t)
	keep := attach(t, ns, "port", tuntap.Options{})
	index := indexOf(t, keep)
	if err := keep.Disable(); err != nil {
		t.Fatal(err)
	}
	if err := keep.Disable(); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("disabled twice: %v", err)
	}
	q := attach(t, ns, "port", tuntap.Options{IfIndex: index})
	q.Close()
	c := nettest.Conn(t, ns)
	if err := c.SetName(index, "renamed"); err != nil {
		t.Fatal(err)
	}
	if nameOf(t, keep) != "renamed" || indexOf(t, keep) != index {
		t.Errorf("renamed: %q, index %d", nameOf(t, keep), indexOf(t, keep))
	}
	if err := c.SetNetNS(index, there.FD()); err != nil {
		t.Fatal(err)
	}
	if nameOf(t, keep) != "renamed" || !nsOf(t, keep).Equal(there) {
		t.Errorf("moved: %q, there %v", nameOf(t, keep), nsOf(t, keep).Equal(there))
	}
	if err := keep.Enable(); err != nil {
		t.Error(err)
	}
	if err := keep.Enable(); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("enabled twice: %v", err)
	}
	attach(t, there, "renamed", tuntap.Options{IfIndex: indexOf(t, keep)})
}

func nsOf(t testing.TB, q *tuntap.Queue) *netns.NS {
	t.Helper()
	fd, err := q.NetNS()
	if err != nil {
		t.Fatal(err)
	}
	if fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || fl&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v", fl, err)
	}
	ns, err := netns.FromFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// The index is an identity within one namespace only, and the socket's namespace is not the
// interface's.
func TestMoveToWhereTheIndexIsTaken(t *testing.T) {
	ns, there := nettest.NS(t), nettest.NS(t)
	q := attach(t, ns, "port", tuntap.Options{})
	other := attach(t, there, "other", tuntap.Options{})
	index := indexOf(t, q)
	if indexOf(t, other) != index {
		t.Fatalf("indices %d and %d: the test needs equal ones", index, indexOf(t, other))
	}
	if err := nettest.Conn(t, ns).SetNetNS(index, there.FD()); err != nil {
		t.Fatal(err)
	}
	now := indexOf(t, q)
	if now == index || link(t, nettest.Conn(t, there), now).Name != "port" {
		t.Errorf("index %d, was %d", now, index)
	}
	fd, err := unix.IoctlRetInt(q.FD(), unix.SIOCGSKNS)
	if err != nil {
		t.Fatal(err)
	}
	sock, err := netns.FromFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	if !sock.Equal(ns) || !nsOf(t, q).Equal(there) {
		t.Error("SIOCGSKNS should give the old namespace, and NetNS the new")
	}
}

func TestDeletedInterface(t *testing.T) {
	ns := nettest.NS(t)
	q := attach(t, ns, "port", tuntap.Options{})
	index := indexOf(t, q)
	off := attach(t, ns, "port", tuntap.Options{IfIndex: index})
	if err := off.Disable(); err != nil {
		t.Fatal(err)
	}
	if err := nettest.Conn(t, ns).Delete(index); err != nil {
		t.Fatal(err)
	}
	for _, q := range []*tuntap.Queue{q, off} {
		_, nameErr := q.Name()
		_, nsErr := q.NetNS()
		_, indexErr := q.IfIndex()
		for what, err := range map[string]error{
			"Name": nameErr, "NetNS": nsErr, "IfIndex": indexErr, "SetPersist": q.SetPersist(true),
			"SetCarrier": q.SetCarrier(true), "SetOffload": q.SetOffload(0), "SetVnetHdrSize": q.SetVnetHdrSize(10),
		} {
			if !errors.Is(err, syscall.EBADFD) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := q.Enable(); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("Enable: %v", err)
		}
		if _, err := q.Features(); err != nil {
			t.Errorf("Features: %v", err)
		}
		for range 2 {
			if err := q.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		if q.FD() != -1 {
			t.Error("a descriptor after Close")
		}
	}
}

func TestClosedQueue(t *testing.T) {
	q := attach(t, nettest.NS(t), "port", tuntap.Options{})
	q.Close()
	if _, err := q.Name(); !errors.Is(err, syscall.EBADF) {
		t.Errorf("Name: %v", err)
	}
	if err := q.Enable(); !errors.Is(err, syscall.EBADF) {
		t.Errorf("Enable: %v", err)
	}
}

func TestAttachLeavesNothing(t *testing.T) {
	ns := nettest.NS(t)
	nettest.NeedTun(t)
	before := nettest.Leaks()
	for range nettest.Scale(200) {
		q, err := try(ns, "port", tuntap.Options{Exclusive: true})
		if err != nil {
			t.Fatal(err)
		}
		index := indexOf(t, q)
		if _, err := try(ns, "port", tuntap.Options{Exclusive: true}); err == nil {
			t.Fatal("attached twice")
		}
		if _, err := try(ns, "gone", tuntap.Options{IfIndex: index}); err == nil {
			t.Fatal("made an interface")
		}
		q.Close()
	}
	before.Check(t)
}
