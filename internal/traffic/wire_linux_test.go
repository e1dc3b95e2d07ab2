// SPDX-License-Identifier: BSD-3-Clause

package traffic_test

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/tuntap"
	"golang.org/x/sys/unix"
)

// end is one end of a wire: a TAP interface, up and with addresses, in a namespace of its own.
type end struct {
	ns    *netns.NS
	conn  *rtnl.Conn
	q     *tuntap.Queue
	index int
	v4    netip.Addr
	v6    netip.Addr
}

func newEnd(t testing.TB, v4, v6 string) *end {
	t.Helper()
	nettest.NeedTun(t)
	e := &end{ns: nettest.NS(t)}
	e.conn = nettest.Conn(t, e.ns)
	err := e.ns.Do(func() (err error) {
		e.q, err = tuntap.Attach("wire", tuntap.Options{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.q.Close() })
	if e.index, err = e.q.IfIndex(); err != nil {
		t.Fatal(err)
	}
	if err := e.conn.SetUp(e.index); err != nil {
		t.Fatal(err)
	}
	for _, p := range []netip.Prefix{netip.MustParsePrefix(v4), netip.MustParsePrefix(v6)} {
		if err := e.conn.AddAddr(e.index, p); err != nil {
			t.Fatal(err)
		}
	}
	e.v4, e.v6 = netip.MustParsePrefix(v4).Addr(), netip.MustParsePrefix(v6).Addr()
	return e
}

// meddle sees every frame on the wire, with its virtio header, and says what arrives instead. It is
// called from a goroutine for each direction.
type meddle func(frame []byte) [][]byte

// wire connects two ends by copying frames. m may be nil.
func wire(t testing.TB, m meddle) (a, b *end) {
	t.Helper()
	a, b = newEnd(t, "192.0.2.1/24", "2001:db8::1/64"), newEnd(t, "192.0.2.2/24", "2001:db8::2/64")
	var stop [2]int
	if err := unix.Pipe2(stop[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, p := range [][2]*end{{a, b}, {b, a}} {
		wg.Go(func() { carry(t, p[0].q.FD(), p[1].q.FD(), stop[0], m) })
	}
	t.Cleanup(func() {
		unix.Close(stop[1])
		wg.Wait()
		unix.Close(stop[0])
	})
	return a, b
}

// carry copies frames until the other end of the pipe stop is closed.
func carry(t testing.TB, from, to, stop int, m meddle) {
	buf := make([]byte, 1<<16+64)
	p := []unix.PollFd{{Fd: int32(from), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
			t.Error(err)
			return
		}
		if p[1].Revents != 0 || p[0].Revents&unix.POLLERR != 0 {
			return
		}
		for {
			n, err := unix.Read(from, buf)
			if err != nil {
				break
			}
			frames := [][]byte{buf[:n]}
			if m != nil {
				frames = m(buf[:n])
			}
			for _, f := range frames {
				_, _ = unix.Write(to, f) // an end that is down loses it, as a wire does
			}
		}
	}
}
