// SPDX-License-Identifier: BSD-3-Clause

package netns_test

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"golang.org/x/sys/unix"
)

// here is the namespace of the calling thread.
func here(t testing.TB) netns.ID {
	t.Helper()
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	return idOf(t, ns)
}

func idOf(t testing.TB, ns *netns.NS) netns.ID {
	t.Helper()
	id, err := ns.ID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestNewIsAnotherNamespaceWithLoopbackUp(t *testing.T) {
	home := here(t)
	a, b := nettest.NS(t), nettest.NS(t)
	if idOf(t, a) == home || idOf(t, b) == home || a.Equal(b) || !a.Equal(a) {
		t.Errorf("home %v, a %v, b %v", home, idOf(t, a), idOf(t, b))
	}
	if got := here(t); got != home {
		t.Errorf("New left the caller in %v, not %v", got, home)
	}
	err := a.Do(func() error {
		lo, err := net.InterfaceByName("lo")
		if err == nil && lo.Flags&net.FlagUp == 0 {
			t.Error("lo is down")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestDoGoesThereAndBack(t *testing.T) {
	home, a, b := here(t), nettest.NS(t), nettest.NS(t)
	oops := errors.New("oops")
	err := a.Do(func() error {
		if got := here(t); got != idOf(t, a) {
			t.Errorf("in %v, not %v", got, idOf(t, a))
		}
		err := b.Do(func() error {
			if got := here(t); got != idOf(t, b) {
				t.Errorf("nested: in %v, not %v", got, idOf(t, b))
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if got := here(t); got != idOf(t, a) {
			t.Errorf("after nesting: in %v, not %v", got, idOf(t, a))
		}
		return oops
	})
	if err != oops {
		t.Errorf("error %v, want the function's own", err)
	}
	if got := here(t); got != home {
		t.Errorf("back in %v, not %v", got, home)
	}
}

// No thread that was elsewhere may serve other goroutines from there.
func TestDoFromManyGoroutines(t *testing.T) {
	home := here(t)
	spaces := []*netns.NS{nettest.NS(t), nettest.NS(t), nettest.NS(t)}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range nettest.Scale(50) {
				ns := spaces[(i+j)%len(spaces)]
				err := ns.Do(func() error {
					if here(t) != idOf(t, ns) {
						t.Error("in the wrong namespace")
					}
					return nil
				})
				if err != nil || here(t) != home {
					t.Errorf("error %v, or not home", err)
				}
			}
		})
	}
	wg.Wait()
}

func TestDoPassesOnPanicAndGoexit(t *testing.T) {
	ns, home := nettest.NS(t), here(t)
	func() {
		defer func() {
			p, ok := recover().(string)
			if !ok || !strings.HasPrefix(p, "boom") || !strings.Contains(p, "netns_linux_test.go") {
				t.Errorf("recovered %q, want boom with its stack", p)
			}
		}()
		_ = ns.Do(func() error { panic("boom") })
	}()
	after := make(chan bool, 1)
	go func() {
		gone := true
		defer func() { after <- gone }()
		_ = ns.Do(func() error { runtime.Goexit(); return nil })
		gone = false
	}()
	if !<-after {
		t.Error("Goexit in Do did not end the caller")
	}
	if here(t) != home {
		t.Error("not home")
	}
}

// Package net makes its sockets on the thread that calls it, so in the namespace.
func TestSocketsOfPackageNetStayInside(t *testing.T) {
	ns := nettest.NS(t)
	var ln net.Listener
	err := ns.Do(func() (err error) {
		ln, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		nsfd, err := unix.IoctlRetInt(int(fd), unix.SIOCGSKNS)
		if err != nil {
			t.Error(err)
			return
		}
		of, err := netns.FromFD(nsfd)
		if err != nil {
			t.Error(err)
			return
		}
		defer of.Close()
		if !of.Equal(ns) {
			t.Error("the listener is in another namespace")
		}
	})
	if err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		c.Close()
		t.Error("the listener can be reached from outside")
	}
}

func TestClose(t *testing.T) {
	nettest.NeedRoot(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	other := nettest.NS(t)
	for range 2 {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	}
	ran := false
	if err := ns.Do(func() error { ran = true; return nil }); !errors.Is(err, os.ErrClosed) || ran {
		t.Errorf("Do after Close: %v, ran %v", err, ran)
	}
	if _, err := ns.ID(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("ID after Close: %v", err)
	}
	if ns.FD() != -1 || ns.Equal(ns) || ns.Equal(other) || other.Equal(ns) {
		t.Error("a closed NS has a descriptor, or equals something")
	}
}

func TestWhatIsNoNetworkNamespaceIsRefused(t *testing.T) {
	before := nettest.Leaks()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[1])
	if _, err := netns.FromFD(p[0]); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a pipe: %v", err)
	}
	if err := unix.Close(p[0]); err != unix.EBADF {
		t.Errorf("FromFD has not closed what it refused: %v", err)
	}
	if _, err := netns.FromFD(-1); err == nil {
		t.Error("-1 is a namespace")
	}
	if _, err := netns.Open("/proc/self/ns/uts"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a UTS namespace: %v", err)
	}
	if _, err := netns.Open("/nonexistent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	unix.Close(p[1])
	before.Check(t)
}

func TestOpen(t *testing.T) {
	ns, err := netns.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if idOf(t, ns) != here(t) {
		t.Error("not this process's namespace")
	}
	link, err := os.Readlink("/proc/self/ns/net")
	if err != nil || idOf(t, ns).String() != link {
		t.Errorf("String gives %q, the kernel %q", idOf(t, ns), link)
	}
}

func TestUnprivileged(t *testing.T) {
	nettest.Unprivileged(t, func(t *testing.T) {
		_, err := netns.New()
		if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") {
			t.Errorf("New: %v", err)
		}
		ns, err := netns.Current()
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		ran := false // where it is already, nobody needs privileges to go
		if err := ns.Do(func() error { ran = true; return nil }); err != nil || !ran {
			t.Errorf("Do in the process's own namespace: ran %v, %v", ran, err)
		}
	})
}

func TestNewLeavesNothing(t *testing.T) {
	nettest.NeedRoot(t)
	before := nettest.Leaks()
	for range nettest.Scale(100) {
		ns, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		if err := ns.Do(func() error { return nil }); err != nil {
			t.Error(err)
		}
		ns.Close()
	}
	before.Check(t)
}
