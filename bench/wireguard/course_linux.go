// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/rtap-project/rtap/adapters/wireguard"
	"github.com/rtap-project/rtap/adapters/wireguard/wgtest"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
)

// create makes a TUN interface.
type create func(name string, mtu int) (tun.Device, error)

// rival is who makes it.
type rival struct {
	name string
	create
}

// rivals take turns in this order. The ratios are to the first.
var rivals = []rival{
	{"tun", tun.CreateTUN},
	{"rtap", wireguard.CreateTUN},
}

// contest is one way to use what a rival has made.
type contest struct {
	name, help string
	load       load
	vxlan      bool // the load goes through a VXLAN over the tunnel
	plain      bool // no WireGuard: what is read from one interface is written to the other
	target     float64
}

var contests = []contest{
	{"tcp", "WireGuard, one TCP stream", tcp, false, false, 1},
	{"udp", "WireGuard, UDP datagrams, sent one by one", udp, false, false, 1.25},
	{"vxlan", "WireGuard, a TCP stream in VXLAN", tcp, true, false, 1.25},
	{"tun-tcp", "no WireGuard, Read to Write between two interfaces: one TCP stream", tcp, false, true, 0},
	{"tun-udp", "likewise, UDP datagrams", udp, false, true, 0},
	{"tun-vxlan", "likewise, a TCP stream in VXLAN", tcp, true, true, 0},
}

// result is one round of a rival.
type result struct {
	gbps float64
	cpu  float64 // seconds of CPU for each Gb, the kernel's work and the sender's and receiver's included
}

// limit bounds a round, but for the time that the load takes.
const limit = 30 * time.Second

// ends are the addresses of VXLAN's ends.
var ends = [2]netip.Prefix{netip.MustParsePrefix("10.8.0.1/24"), netip.MustParsePrefix("10.8.0.2/24")}

// race lets one rival run once.
func race(ctx context.Context, c *contest, make create, o *options) (res result, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.time+limit)
	defer cancel()
	var ns [2]*netns.NS
	for i := range ns {
		if ns[i], err = netns.New(); err != nil {
			return res, err
		}
		defer ns[i].Close()
	}
	way, err := open(c, ns, make)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, way.close()) }()
	dst := way.addrs[1].Addr()
	if c.vxlan {
		dst = ends[1].Addr()
		if err := addVXLAN(ns, way.addrs); err != nil {
			return res, err
		}
	}
	if err := answered(ctx, ns[0], dst); err != nil {
		return res, err
	}
	before, start := cpu(), time.Now()
	bytes, err := c.load(ctx, ns[0], ns[1], dst, o)
	gb, took := float64(bytes)*8/1e9, time.Since(start).Seconds()
	return result{gb / took, (cpu() - before) / gb}, err
}

// cpu is the seconds that the process has used.
func cpu() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// way is what is between the two namespaces.
type way struct {
	addrs [2]netip.Prefix
	close func() error
}

func open(c *contest, ns [2]*netns.NS, make create) (*way, error) {
	if c.plain {
		return openPlain(ns, make)
	}
	p, err := wgtest.Connect(ns, make, device.NewLogger(device.LogLevelError, ""))
	if err != nil {
		return nil, err
	}
	return &way{[2]netip.Prefix{p.Ends[0].Inner4, p.Ends[1].Inner4}, p.Close}, nil
}

// openPlain makes two interfaces, and has what is read from either written to the other.
func openPlain(ns [2]*netns.NS, create create) (*way, error) {
	var tuns [2]tun.Device
	w := &way{addrs: [2]netip.Prefix{netip.MustParsePrefix("10.7.0.1/24"), netip.MustParsePrefix("10.7.0.2/24")}}
	done := make(chan struct{}, 2)
	running := 0
	w.close = func() (err error) {
		for _, t := range tuns {
			if t != nil {
				err = errors.Join(err, t.Close())
			}
		}
		for range running {
			<-done
		}
		return err
	}
	for i := range tuns {
		err := ns[i].Do(func() (err error) { tuns[i], err = create(wgtest.Name, device.DefaultMTU); return err })
		if err == nil {
			go drain(tuns[i])
			err = setUp(ns[i], w.addrs[i])
		}
		if err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	for i := range tuns {
		running++
		go func() { forward(tuns[i], tuns[1-i]); done <- struct{}{} }()
	}
	return w, nil
}

// drain takes a device's events, which it may wait for.
func drain(t tun.Device) {
	for range t.Events() {
	}
}

func setUp(ns *netns.NS, addr netip.Prefix) error {
	c, err := rtnl.Dial(ns.FD())
	if err != nil {
		return err
	}
	defer c.Close()
	link, err := c.LinkByName(wgtest.Name)
	if err != nil {
		return err
	}
	return errors.Join(c.AddAddr(link.Index, addr), c.SetUp(link.Index))
}

// forward does what wireguard-go does with packets, but for WireGuard.
func forward(from, to tun.Device) {
	const offset = device.MessageTransportHeaderSize
	bufs, sizes := make([][]byte, from.BatchSize()), make([]int, from.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, device.MaxMessageSize)
	}
	batch := make([][]byte, 0, len(bufs))
	for {
		n, err := from.Read(bufs, sizes, offset)
		if err != nil && !errors.Is(err, tun.ErrTooManySegments) {
			return
		}
		batch = batch[:0]
		for i := range n {
			batch = append(batch, bufs[i][:offset+sizes[i]])
		}
		if _, err := to.Write(batch, offset); errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

// addVXLAN puts a VXLAN over the tunnel.
func addVXLAN(ns [2]*netns.NS, under [2]netip.Prefix) error {
	for i := range ns {
		c, err := rtnl.Dial(ns[i].FD())
		if err != nil {
			return err
		}
		defer c.Close()
		link, err := c.LinkByName(wgtest.Name)
		if err != nil {
			return err
		}
		index, err := traffic.AddVXLAN(ns[i], link.Index, "vxlan0", 7, 4789, under[i].Addr(), under[1-i].Addr(), true)
		if err != nil {
			return err
		}
		if err := errors.Join(c.SetMTU(index, link.MTU-50), c.AddAddr(index, ends[i])); err != nil {
			return err
		}
	}
	return nil
}

// answered waits until the way is open.
func answered(ctx context.Context, from *netns.NS, dst netip.Addr) error {
	for {
		r, err := traffic.Ping(ctx, traffic.PingConfig{NS: from, Dst: dst, Timeout: 200 * time.Millisecond})
		if err == nil && r.Lost() == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("no ping gets through: %w", err)
		}
	}
}
