// SPDX-License-Identifier: BSD-3-Clause

package rtnl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/internal/tuntap"
	"golang.org/x/sys/unix"
)

// tap is a TAP interface in a namespace of its own.
func tap(t testing.TB) (*netns.NS, *rtnl.Conn, *tuntap.Queue, int) {
	t.Helper()
	nettest.NeedTun(t)
	ns := nettest.NS(t)
	q := tapIn(t, ns, "port")
	c := nettest.Conn(t, ns)
	l, err := c.LinkByName("port")
	if err != nil {
		t.Fatal(err)
	}
	return ns, c, q, l.Index
}

func tapIn(t testing.TB, ns *netns.NS, name string) *tuntap.Queue {
	t.Helper()
	var q *tuntap.Queue
	err := ns.Do(func() (err error) {
		q, err = tuntap.Attach(name, tuntap.Options{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func get(t testing.TB, c *rtnl.Conn, index int) rtnl.Link {
	t.Helper()
	l, err := c.Link(index)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLinkAndItsSettings(t *testing.T) {
	_, c, _, index := tap(t)
	l := get(t, c, index)
	if l.Index != index || l.Name != "port" || l.Kind != "tun" || l.MTU != 1500 || l.MinMTU != 68 || l.MaxMTU != 65521 ||
		l.Up || l.OperUp || !l.Carrier || l.Promisc || l.AllMulti || l.Persistent || l.TunQueues != 1 || !gsoSizes(l, 65536) || l.TSOMaxSize != 65536 {
		t.Errorf("fresh: %+v", l)
	}
	mac := net.HardwareAddr{2, 0x11, 0x22, 0x33, 0x44, 0x55}
	for _, s := range []struct {
		what string
		set  func() error
		ok   func(rtnl.Link) bool
	}{
		{"MTU at the top", func() error { return c.SetMTU(index, 65521) }, func(l rtnl.Link) bool { return l.MTU == 65521 }},
		{"MTU at the bottom", func() error { return c.SetMTU(index, 68) }, func(l rtnl.Link) bool { return l.MTU == 68 }},
		{"MTU", func() error { return c.SetMTU(index, 1400) }, func(l rtnl.Link) bool { return l.MTU == 1400 }},
		{"MAC", func() error { return c.SetMAC(index, mac) }, func(l rtnl.Link) bool { return bytes.Equal(l.MAC, mac) }},
		{"tx queue length", func() error { return c.SetTxQueueLen(index, 123) }, func(l rtnl.Link) bool { return l.TxQueueLen == 123 }},
		{"GSO size", func() error { return c.SetGSOMaxSize(index, 9000) }, func(l rtnl.Link) bool { return gsoSizes(l, 9000) }},
		{"GSO size at the top", func() error { return c.SetGSOMaxSize(index, l.TSOMaxSize) }, func(l rtnl.Link) bool { return gsoSizes(l, 65536) }},
		{"promiscuous on", func() error { return c.SetPromisc(index, true) }, func(l rtnl.Link) bool { return l.Promisc && !l.AllMulti }},
		{"allmulticast on", func() error { return c.SetAllMulticast(index, true) }, func(l rtnl.Link) bool { return l.AllMulti && l.Promisc }},
		{"up", func() error { return c.SetUp(index) }, func(l rtnl.Link) bool { return l.Up && l.Promisc && l.AllMulti }},
		{"promiscuous off", func() error { return c.SetPromisc(index, false) }, func(l rtnl.Link) bool { return !l.Promisc && l.AllMulti && l.Up }},
		{"allmulticast off", func() error { return c.SetAllMulticast(index, false) }, func(l rtnl.Link) bool { return !l.AllMulti && l.Up }},
		{"MAC while up", func() error { return c.SetMAC(index, net.HardwareAddr{2, 0, 0, 0, 0, 9}) }, func(l rtnl.Link) bool { return l.MAC[5] == 9 }},
		{"name while up", func() error { return c.SetName(index, "other") }, func(l rtnl.Link) bool { return l.Name == "other" }},
		{"down", func() error { return c.SetDown(index) }, func(l rtnl.Link) bool { return !l.Up && !l.OperUp && l.MTU == 1400 }},
	} {
		err := s.set()
		if s.what == "name while up" && errors.Is(err, syscall.EBUSY) && nettest.IsLinux61() {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", s.what, err)
			continue
		}
		if l := get(t, c, index); !s.ok(l) {
			t.Errorf("%s: %+v", s.what, l)
		}
	}
}

// gsoSizes is whether the bounds are n. Linux 6.1 has none for IPv4 alone.
func gsoSizes(l rtnl.Link, n int) bool {
	return l.GSOMaxSize == n && (l.GSOIPv4MaxSize == n || l.GSOIPv4MaxSize == 0 && nettest.IsLinux61())
}

// Above 64 KiB, which no TAP has, the bound for IPv4 no longer follows the other by itself.
func TestGSOSizesOfLoopback(t *testing.T) {
	c := nettest.Conn(t, nettest.NS(t))
	const loopback, size = 1, 100000
	if err := c.SetGSOMaxSize(loopback, size); err != nil {
		t.Fatal(err)
	}
	if l := get(t, c, loopback); !gsoSizes(l, size) || l.TSOMaxSize <= size {
		t.Errorf("%+v", l)
	}
}

func TestOperUpFollowsCarrier(t *testing.T) {
	_, c, q, index := tap(t)
	if err := c.SetUp(index); err != nil {
		t.Fatal(err)
	}
	for _, on := range []bool{true, false, true} {
		if err := q.SetCarrier(on); err != nil {
			t.Fatal(err)
		}
		nettest.Eventually(t, 10*time.Second, fmt.Sprintf("OperUp and Carrier %v", on), func() bool {
			l := get(t, c, index)
			return l.OperUp == on && l.Carrier == on
		})
	}
}

func TestRefusals(t *testing.T) {
	ns, c, _, index := tap(t)
	tapIn(t, ns, "taken")
	for _, r := range []struct {
		err   error
		errno syscall.Errno
		says  string
	}{
		{c.SetMTU(index, 67), syscall.EINVAL, "set MTU of interface"},
		{c.SetMTU(index, 65522), syscall.EINVAL, "maximum"},
		{c.SetMAC(index, net.HardwareAddr{1, 0, 0, 0, 0, 1}), syscall.EADDRNOTAVAIL, "MAC"},
		{c.SetMAC(index, net.HardwareAddr{2, 0, 0}), syscall.EINVAL, "MAC"},
		{c.SetTxQueueLen(index, -1), syscall.EINVAL, "tx queue length"},
		{c.SetGSOMaxSize(index, -1), syscall.EINVAL, "set GSO size of interface"},
		{c.SetGSOMaxSize(index, 65537), syscall.EINVAL, "set GSO size of interface"},
		{c.SetName(index, "taken"), syscall.EEXIST, "set name"},
		{c.SetNetNS(index, -1), syscall.EBADF, "namespace"},
		{c.AddAddr(index, netip.Prefix{}), syscall.EINVAL, "add address"},
		{c.AddNeigh(index, netip.Addr{}, nil), syscall.EINVAL, "add neighbour"},
	} {
		var e *rtnl.Error
		switch {
		case !errors.Is(r.err, r.errno) && r.errno != syscall.EBADF, r.err == nil:
			t.Errorf("%v, want %v", r.err, r.errno)
		case !errors.As(r.err, &e) || !strings.Contains(r.err.Error(), r.says):
			t.Errorf("%v does not say %q", r.err, r.says)
		}
	}
}

func TestDeletedInterfaceIsNotFound(t *testing.T) {
	ns, c, _, index := tap(t)
	if err := c.Delete(index); err != nil {
		t.Fatal(err)
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	for _, index := range []int{index, 0, -1} {
		_, err := c.Link(index)
		for op, err := range map[string]error{
			"Link": err, "SetUp": c.SetUp(index), "SetDown": c.SetDown(index), "SetMTU": c.SetMTU(index, 1400),
			"SetMAC": c.SetMAC(index, mac), "SetPromisc": c.SetPromisc(index, true),
			"SetAllMulticast": c.SetAllMulticast(index, true), "SetTxQueueLen": c.SetTxQueueLen(index, 10),
			"SetName": c.SetName(index, "new"), "SetNetNS": c.SetNetNS(index, ns.FD()), "Delete": c.Delete(index),
			"AddAddr":  c.AddAddr(index, netip.MustParsePrefix("192.0.2.1/24")),
			"AddNeigh": c.AddNeigh(index, netip.MustParseAddr("192.0.2.2"), mac),
		} {
			if !errors.Is(err, rtnl.ErrNotFound) || !errors.Is(err, syscall.ENODEV) {
				t.Errorf("%s of %d: %v", op, index, err)
			}
		}
	}
	if _, err := c.LinkByName("port"); !errors.Is(err, rtnl.ErrNotFound) || !strings.Contains(err.Error(), `"port"`) {
		t.Errorf("LinkByName: %v", err)
	}
}

func TestMoveToAnotherNamespace(t *testing.T) {
	there := nettest.NS(t) // before the interface, so that it outlives it
	_, c, _, index := tap(t)
	d := nettest.Conn(t, there)
	if err := c.SetNetNS(index, there.FD()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Link(index); !errors.Is(err, rtnl.ErrNotFound) {
		t.Errorf("still here: %v", err)
	}
	if l, err := d.LinkByName("port"); err != nil || l.Index != index {
		t.Errorf("not there: %+v, %v", l, err)
	}
}

func TestLinks(t *testing.T) {
	ns, c, _, index := tap(t)
	for i := range 20 {
		tapIn(t, ns, fmt.Sprintf("more%d", i))
	}
	links, err := c.Links()
	if err != nil || len(links) != 22 {
		t.Fatalf("%d interfaces, %v", len(links), err)
	}
	for i, l := range links {
		if i > 0 && l.Index <= links[i-1].Index {
			t.Errorf("index %d after %d", l.Index, links[i-1].Index)
		}
	}
	if links[0].Name != "lo" || !links[0].Up || links[0].Kind != "" || links[1].Index != index {
		t.Errorf("%+v, %+v", links[0], links[1])
	}
}

func TestStats(t *testing.T) {
	ns, c, _, index := tap(t)
	if err := c.SetTxQueueLen(index, 10); err != nil {
		t.Fatal(err)
	}
	if err := c.SetUp(index); err != nil {
		t.Fatal(err)
	}
	in, err := traffic.NewInjector(ns, index)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	before := get(t, c, index).Stats
	frame := append(bytes.Repeat([]byte{0xff}, 12), 0x88, 0xb5)
	frame = append(frame, make([]byte, 86)...)
	if _, err := in.Flood(t.Context(), traffic.FloodConfig{Frames: [][]byte{frame}, Count: 50}); err != nil {
		t.Fatal(err)
	}
	// Nobody reads, so at most 10 are queued and all others are dropped; and the kernel may send a few of
	// its own. What is queued counts as sent when it is read.
	after := get(t, c, index).Stats
	if d := after.TxDropped - before.TxDropped; d < 40 || d > 60 {
		t.Errorf("%d dropped of 50, with 10 places: %+v", d, after)
	}
	if after.RxPackets != before.RxPackets || after.RxErrors != 0 || after.TxErrors != 0 {
		t.Errorf("%+v", after)
	}
}

func TestAddresses(t *testing.T) {
	ns, c, _, index := tap(t)
	if err := c.SetUp(index); err != nil {
		t.Fatal(err)
	}
	want := []string{"192.0.2.1/24", "192.0.2.200/32", "2001:db8::1/64"}
	for _, p := range want {
		for range 2 { // the second finds it there
			if err := c.AddAddr(index, netip.MustParsePrefix(p)); err != nil {
				t.Errorf("%s: %v", p, err)
			}
		}
	}
	err := ns.Do(func() error {
		ifc, err := net.InterfaceByIndex(index)
		if err != nil {
			return err
		}
		addrs, err := ifc.Addrs()
		if got := fmt.Sprint(addrs); err == nil {
			for _, p := range want {
				if !strings.Contains(got, p) {
					t.Errorf("%s is not in %s", p, got)
				}
			}
		}
		// Usable at once: no duplicate address detection is under way.
		l, err := net.Listen("tcp", "[2001:db8::1]:0")
		if err == nil {
			l.Close()
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// With a neighbour entry the kernel sends at once, to the address given, and asks nobody.
func TestNeighbours(t *testing.T) {
	ns, c, q, index := tap(t)
	if err := c.SetUp(index); err != nil {
		t.Fatal(err)
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0xaa, 0xbb}
	for _, n := range []struct{ own, peer string }{{"192.0.2.1/24", "192.0.2.2"}, {"2001:db8::1/64", "2001:db8::2"}} {
		peer := netip.MustParseAddr(n.peer)
		if err := c.AddAddr(index, netip.MustParsePrefix(n.own)); err != nil {
			t.Fatal(err)
		}
		if err := c.AddNeigh(index, peer, mac); err != nil {
			t.Fatal(err)
		}
		err := ns.Do(func() error {
			conn, err := net.Dial("udp", netip.AddrPortFrom(peer, 9).String())
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte("hello"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		nettest.Eventually(t, 10*time.Second, "a frame to "+n.peer, func() bool {
			buf := make([]byte, 2048)
			for {
				k, err := unix.Read(q.FD(), buf)
				if err != nil {
					return false
				}
				f := buf[tuntap.VnetHdrSize:k]
				if bytes.HasSuffix(f, []byte("hello")) {
					return bytes.Equal(f[:6], mac)
				}
			}
		})
	}
}

func TestDial(t *testing.T) {
	c, err := rtnl.Dial(-1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if l, err := c.LinkByName("lo"); err != nil || l.Index != 1 {
		t.Errorf("lo: %+v, %v", l, err)
	}
	if _, err := rtnl.Dial(1 << 20); !errors.Is(err, syscall.EBADF) {
		t.Errorf("a descriptor that is none: %v", err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := rtnl.Dial(int(f.Fd())); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a descriptor of something else: %v", err)
	}
	if _, err := f.Stat(); err != nil {
		t.Errorf("Dial closed the caller's descriptor: %v", err)
	}
}

func TestClose(t *testing.T) {
	before := nettest.Leaks()
	c, err := rtnl.Dial(-1)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Link(1); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Link after Close: %v", err)
	}
	before.Check(t)
}

func TestManyAtOnce(t *testing.T) {
	_, c, _, index := tap(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range nettest.Scale(50) {
				if err := c.SetTxQueueLen(index, 100+i); err != nil {
					t.Error(err)
				}
				if l, err := c.Link(index); err != nil || l.Index != index || l.TxQueueLen < 100 || l.TxQueueLen > 107 {
					t.Errorf("%+v, %v", l, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestUnprivileged(t *testing.T) {
	nettest.Unprivileged(t, func(t *testing.T) {
		c, err := rtnl.Dial(-1)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if l, err := c.Link(1); err != nil || l.Name != "lo" {
			t.Errorf("reading needs no privilege: %+v, %v", l, err)
		}
		if err := c.SetMTU(1, 1500); !errors.Is(err, syscall.EPERM) {
			t.Errorf("setting does: %v", err)
		}
	})
}

func TestDeletionWhileAsking(t *testing.T) {
	ns, c, _, index := tap(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := c.Links(); err != nil {
				t.Error(err)
			}
			if _, err := c.Link(index); err != nil {
				t.Error(err)
			}
		}
	})
	for range nettest.Scale(30) {
		err := ns.Do(func() error {
			q, err := tuntap.Attach("brief%d", tuntap.Options{})
			if err != nil {
				return err
			}
			return q.Close()
		})
		if err != nil {
			t.Error(err)
		}
	}
	cancel()
	wg.Wait()
}
