// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/internal/tuntap"
)

// tap is an interface in a namespace of its own, where nothing but the test
// sends or receives.
type tap struct {
	*tuntap.Queue
	ns    *netns.NS
	conn  *rtnl.Conn
	index int
}

func newTap(t testing.TB) *tap {
	t.Helper()
	needRing(t)
	nettest.NeedTun(t)
	p := &tap{ns: nettest.NS(t)}
	err := p.ns.Do(func() (err error) {
		// IPv6 would send into the interface as soon as it is up.
		err = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		p.Queue, err = tuntap.Attach("port", tuntap.Options{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	p.conn = nettest.Conn(t, p.ns)
	l, err := p.conn.LinkByName("port")
	if err != nil {
		t.Fatal(err)
	}
	p.index = l.Index
	if err := p.conn.SetUp(p.index); err != nil {
		t.Fatal(err)
	}
	return p
}

// gone reports whether the interface has vanished by now.
func (p *tap) gone(t testing.TB) bool {
	t.Helper()
	_, err := p.conn.Link(p.index)
	if err != nil && !errors.Is(err, rtnl.ErrNotFound) {
		t.Fatal(err)
	}
	return err != nil
}

func (p *tap) inject(t testing.TB, frame []byte) {
	t.Helper()
	in, err := traffic.NewInjector(p.ns, p.index)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := in.Inject(frame); err != nil {
		t.Fatal(err)
	}
}

func (p *tap) capture(t testing.TB) *traffic.Capturer {
	t.Helper()
	c, err := traffic.NewCapturer(p.ns, p.index)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func next(t testing.TB, c *traffic.Capturer) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound())
	defer cancel()
	f, err := c.Next(ctx, isFrame)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const (
	hdrLen    = tuntap.VnetHdrSize
	etherType = 0x88b5 // IEEE 802 local experimental
)

// frame is an Ethernet broadcast of n bytes whose content depends on seed.
func frame(n, seed int) []byte {
	f := bytes.Repeat([]byte{0xff}, n)
	binary.BigEndian.PutUint16(f[12:], etherType)
	for i := 14; i < n; i++ {
		f[i] = byte(i*7 + seed)
	}
	f[6] = 0x02
	return f
}

func isFrame(f []byte) bool { return binary.BigEndian.Uint16(f[12:]) == etherType }
