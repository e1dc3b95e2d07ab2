// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
)

// The addresses of the two ends.
var addresses = [2]netip.Prefix{netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("10.9.0.2/24")}

// How long what ought to happen soon is waited for.
const (
	readyLimit = 20 * time.Second
	grace      = 30 * time.Second
	pollPeriod = 10 * time.Millisecond
)

// result is what one round came to.
type result struct {
	gbps        float64       // payload
	retransmits int           // TCP segments, of both ends
	ping        time.Duration // median round trip before the transfer
}

// course is the namespaces of one round: the two ends, and, for a command, the one
// it makes its interfaces in. They have no names and vanish with it, however it ends.
type course struct {
	ends    [2]*netns.NS
	middle  *netns.NS
	forward *child // nil for a direct connection
}

// race lets one rival run once.
func race(ctx context.Context, r rival, o options) (res result, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyLimit+o.time+grace)
	defer cancel()
	c := &course{}
	defer func() {
		closeErr := c.close()
		if err != nil && c.forward != nil {
			err = fmt.Errorf("%w\n%s", err, strings.TrimSpace(c.forward.output.String()))
		}
		err = errors.Join(err, closeErr)
	}()
	if err := c.open(ctx, r, o.programs); err != nil {
		return result{}, err
	}
	return c.measure(ctx, o)
}

// open makes the namespaces and has the rival connect them.
func (c *course) open(ctx context.Context, r rival, where programs) (err error) {
	for _, ns := range []**netns.NS{&c.ends[0], &c.ends[1], &c.middle} {
		if *ns, err = netns.New(); err != nil {
			return err
		}
		if err := withoutIPv6(*ns); err != nil {
			return err
		}
	}
	if r.connect != nil {
		err = r.connect(c.ends[0], c.ends[1])
	} else {
		err = c.start(ctx, r, where[r.program])
	}
	if err != nil {
		return err
	}
	return errors.Join(address(c.ends[0], ifA, addresses[0]), address(c.ends[1], ifB, addresses[1]))
}

// withoutIPv6 keeps interfaces that come into ns from announcing themselves. Where
// the setting does not exist there is no IPv6.
func withoutIPv6(ns *netns.NS) error {
	err := ns.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// start runs the rival's command and moves its interfaces to the two ends.
func (c *course) start(ctx context.Context, r rival, path string) error {
	var err error
	if c.forward, err = startChild(c.middle, path, r.args); err != nil {
		return err
	}
	conn, err := rtnl.Dial(c.middle.FD())
	if err != nil {
		return err
	}
	defer conn.Close()
	for i, name := range []string{ifA, ifB} {
		link, err := c.await(ctx, conn, name, r.raises)
		if err != nil {
			return err
		}
		if err := conn.SetNetNS(link.Index, c.ends[i].FD()); err != nil {
			return err
		}
	}
	return nil
}

// await waits for an interface to exist, and to be up if it must.
func (c *course) await(ctx context.Context, conn *rtnl.Conn, name string, up bool) (rtnl.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for {
		link, err := conn.LinkByName(name)
		if err == nil && (link.Up || !up) {
			return link, nil
		}
		select {
		case <-ctx.Done():
			return link, fmt.Errorf("interface %s did not come up: %w", name, context.Cause(ctx))
		case <-c.forward.ended:
			return link, fmt.Errorf("the command ended: %v", c.forward.err)
		case <-tick.C:
		}
	}
}

// address gives an end its address and brings it up.
func address(ns *netns.NS, name string, prefix netip.Prefix) error {
	conn, err := rtnl.Dial(ns.FD())
	if err != nil {
		return err
	}
	defer conn.Close()
	link, err := conn.LinkByName(name)
	if err != nil {
		return err
	}
	return errors.Join(conn.AddAddr(link.Index, prefix), conn.SetUp(link.Index))
}

// measure pings, then sends one TCP stream.
func (c *course) measure(ctx context.Context, o options) (result, error) {
	dst := addresses[1].Addr()
	if err := c.answered(ctx, dst); err != nil {
		return result{}, err
	}
	pings, err := traffic.Ping(ctx, traffic.PingConfig{NS: c.ends[0], Dst: dst, Count: 20, Interval: 5 * time.Millisecond})
	if err != nil {
		return result{}, err
	}
	before, err := c.retransmits()
	if err != nil {
		return result{}, err
	}
	rate, err := streams[o.sender](ctx, c.ends[0], c.ends[1], dst, o.time)
	if err != nil {
		return result{}, err
	}
	after, err := c.retransmits()
	return result{gbps: rate / 1e9, retransmits: after - before, ping: pings.Quantile(0.5)}, err
}

// answered waits until the way is open: interfaces do not come up at once.
func (c *course) answered(ctx context.Context, dst netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for {
		r, err := traffic.Ping(ctx, traffic.PingConfig{NS: c.ends[0], Dst: dst, Timeout: 200 * time.Millisecond})
		if err == nil && r.Lost() == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no ping gets through: %w", errors.Join(context.Cause(ctx), r.Unreachable))
		}
		if err != nil && !unreachableYet(err) {
			return err
		}
	}
}

// unreachableYet reports whether an error may pass: the interface is not up yet.
func unreachableYet(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETDOWN)
}

// retransmits is how many TCP segments the ends have sent again.
func (c *course) retransmits() (int, error) {
	sum := 0
	for _, ns := range c.ends {
		var text []byte
		err := ns.Do(func() (err error) {
			text, err = os.ReadFile("/proc/thread-self/net/snmp")
			return err
		})
		if err != nil {
			return 0, err
		}
		n, err := snmpValue(string(text), "Tcp:", "RetransSegs")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// snmpValue finds a counter in /proc/net/snmp: a line of names, then one of values.
func snmpValue(text, group, name string) (int, error) {
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] != group:
		case names == nil:
			names = fields
		default:
			for i, n := range names {
				if n == name && i < len(fields) {
					return strconv.Atoi(fields[i])
				}
			}
		}
	}
	return 0, fmt.Errorf("/proc/net/snmp has no %s %s", group, name)
}

// close ends the command and gives the namespaces up.
func (c *course) close() error {
	var err error
	if c.forward != nil {
		err = c.forward.stop()
	}
	for _, ns := range []*netns.NS{c.ends[0], c.ends[1], c.middle} {
		if ns != nil {
			err = errors.Join(err, ns.Close())
		}
	}
	return err
}
