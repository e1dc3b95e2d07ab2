// SPDX-License-Identifier: BSD-3-Clause

package course

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

// IfA and IfB are the names of the interfaces.
const IfA, IfB = "bench0", "bench1"

// Config says what is between the two ends, and what runs.
type Config struct {
	// A command that makes both interfaces and forwards between them, until it gets SIGTERM. Raises says that it
	// also brings them up, and that it is not ready before; Ready is what it says when it is, if anything.
	Path   string
	Args   []string
	Raises bool
	Ready  string
	// Or a direct connection.
	Connect func(a, b *netns.NS) error

	Sender string        // of Senders
	Time   time.Duration // that the stream is sent
}

// The addresses of the two ends.
var addresses = [2]netip.Prefix{netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("10.9.0.2/24")}

// How long what ought to happen soon is waited for.
const (
	readyLimit = 20 * time.Second
	grace      = 30 * time.Second
	pollPeriod = 10 * time.Millisecond
)

// Result is what one round came to.
type Result struct {
	Gbps        float64       // payload
	Retransmits int           // TCP segments, of both ends
	Ping        time.Duration // median round trip before the transfer
}

// course is the namespaces of one round: the two ends, and, for a command, the one
// it makes its interfaces in. They have no names and vanish with it, however it ends.
type course struct {
	ends    [2]*netns.NS
	middle  *netns.NS
	forward *Child // nil for a direct connection
}

// Race has one TCP stream run once, between two new namespaces.
func Race(ctx context.Context, cfg Config) (res Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyLimit+cfg.Time+grace)
	defer cancel()
	c := &course{}
	defer func() {
		closeErr := c.close()
		if err != nil && c.forward != nil {
			err = fmt.Errorf("%w\n%s", err, strings.TrimSpace(c.forward.Output.String()))
		}
		err = errors.Join(err, closeErr)
	}()
	if err := c.open(ctx, &cfg); err != nil {
		return Result{}, err
	}
	return c.measure(ctx, &cfg)
}

// open makes the namespaces and has the rival connect them.
func (c *course) open(ctx context.Context, cfg *Config) (err error) {
	for _, ns := range []**netns.NS{&c.ends[0], &c.ends[1], &c.middle} {
		if *ns, err = NewNS(); err != nil {
			return err
		}
	}
	if cfg.Connect != nil {
		err = cfg.Connect(c.ends[0], c.ends[1])
	} else {
		err = c.start(ctx, cfg)
	}
	if err != nil {
		return err
	}
	return errors.Join(address(c.ends[0], IfA, addresses[0]), address(c.ends[1], IfB, addresses[1]))
}

// NewNS is a namespace without IPv6.
func NewNS() (*netns.NS, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	if err := withoutIPv6(ns); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
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
func (c *course) start(ctx context.Context, cfg *Config) error {
	var err error
	if c.forward, err = Start(c.middle, cfg.Path, cfg.Args); err != nil {
		return err
	}
	if err := c.forward.Says(ctx, cfg.Ready); err != nil {
		return err
	}
	conn, err := rtnl.Dial(c.middle.FD())
	if err != nil {
		return err
	}
	defer conn.Close()
	for i, name := range []string{IfA, IfB} {
		link, err := c.forward.Await(ctx, conn, name, cfg.Raises)
		if err != nil {
			return err
		}
		if err := conn.SetNetNS(link.Index, c.ends[i].FD()); err != nil {
			return err
		}
	}
	return nil
}

// Await waits for an interface to exist, and to be up if it must.
func (c *Child) Await(ctx context.Context, conn *rtnl.Conn, name string, up bool) (rtnl.Link, error) {
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
		case <-c.Ended:
			return link, fmt.Errorf("the command ended: %v", c.Err)
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
func (c *course) measure(ctx context.Context, cfg *Config) (Result, error) {
	dst := addresses[1].Addr()
	if err := c.answered(ctx, dst); err != nil {
		return Result{}, err
	}
	pings, err := traffic.Ping(ctx, traffic.PingConfig{NS: c.ends[0], Dst: dst, Count: 20, Interval: 5 * time.Millisecond})
	if err != nil {
		return Result{}, err
	}
	before, err := c.retransmits()
	if err != nil {
		return Result{}, err
	}
	rate, err := streams[cfg.Sender](ctx, c.ends[0], c.ends[1], dst, cfg.Time)
	if err != nil {
		return Result{}, err
	}
	after, err := c.retransmits()
	return Result{Gbps: rate / 1e9, Retransmits: after - before, Ping: pings.Quantile(0.5)}, err
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

// Packets are what an interface in ns has counted: received and sent by the kernel.
func Packets(ns *netns.NS, name string) (rx, tx uint64, err error) {
	var text []byte
	if err = ns.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/dev")
		return err
	}); err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			var n [10]uint64 // bytes, packets and six more of each way
			for i, field := range strings.Fields(rest)[:len(n)] {
				if n[i], err = strconv.ParseUint(field, 10, 64); err != nil {
					return 0, 0, err
				}
			}
			return n[1], n[9], nil
		}
	}
	return 0, 0, fmt.Errorf("there is no interface %s", name)
}

// close ends the command and gives the namespaces up.
func (c *course) close() error {
	var err error
	if c.forward != nil {
		err = c.forward.Stop()
	}
	for _, ns := range []*netns.NS{c.ends[0], c.ends[1], c.middle} {
		if ns != nil {
			err = errors.Join(err, ns.Close())
		}
	}
	return err
}
