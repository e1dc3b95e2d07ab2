// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/forward"
	"github.com/rtap-project/rtap/internal/traffic"
)

// cable is two ports in io mode, each in a namespace of its own, with addresses.
type cable struct {
	lab lab
	s   *session
}

// The addresses of a cable's ends.
var (
	cable4 = [2]netip.Prefix{netip.MustParsePrefix("10.77.0.1/24"), netip.MustParsePrefix("10.77.0.2/24")}
	cable6 = [2]netip.Prefix{netip.MustParsePrefix("fd77::1/64"), netip.MustParsePrefix("fd77::2/64")}
)

// openCable opens the ports; prepare is called for each namespace before.
func openCable(engine rtap.Engine, burst int, prepare func(l lab, i int) error) (*cable, error) {
	c := &cable{}
	if err := c.open(engine, burst, prepare); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *cable) open(engine rtap.Engine, burst int, prepare func(l lab, i int) error) error {
	var err error
	if c.lab, err = newLab(2); err != nil {
		return err
	}
	cfg := sessionConfig{forward: forward.Config{Burst: burst}}
	for i, name := range []string{"left", "right"} {
		if err := prepare(c.lab, i); err != nil {
			return err
		}
		cfg.ports = append(cfg.ports, portConfig{"net_rtap" + strconv.Itoa(i), rtap.Config{Name: name, Engine: engine, NetNS: c.lab.path(i)}})
	}
	if c.s, err = openSession(cfg); err != nil {
		return err
	}
	for i, p := range c.s.ports {
		if err := c.lab.address(i, p.dev, cable4[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *cable) close() error {
	var err error
	if c.s != nil {
		err = c.s.close()
	}
	return errors.Join(err, c.lab.close())
}

// forwarding runs f while the session forwards.
func (s *session) forwarding(ctx context.Context, f func(ctx context.Context) error) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- s.fwd.Run(running) }()
	err := f(ctx)
	stop()
	return errors.Join(err, <-done)
}

// forwardRig sends TCP through a cable.
type forwardRig struct{ *cable }

func openForward(engine rtap.Engine) (rig, error) {
	c, err := openCable(engine, rtap.DefaultBurst, lab.withoutIPv6)
	if err != nil {
		return nil, err
	}
	return forwardRig{c}, nil
}

// forwardGrace is how much longer than asked a transfer may take.
const forwardGrace = 30 * time.Second

func (r forwardRig) round(ctx context.Context, _ cell, d time.Duration) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, d+forwardGrace)
	defer cancel()
	var t traffic.Transfer
	before, err := r.delivered()
	if err != nil {
		return sample{}, err
	}
	err = r.s.forwarding(ctx, func(ctx context.Context) (err error) {
		t, err = traffic.TCP(ctx, traffic.TCPConfig{Client: r.lab[0], Server: r.lab[1],
			Addr: netip.AddrPortFrom(cable4[1].Addr(), 0), Duration: d, NoVerify: true})
		return err
	})
	after, e := r.delivered()
	return sample{packets: int(after - before), elapsed: t.Elapsed, gbps: t.BitsPerSecond() / 1e9}, errors.Join(err, e)
}

// delivered is how many packets went the way of the data. Acknowledgements are
// not counted: how many a stream needs is TCP's affair.
func (r forwardRig) delivered() (uint64, error) {
	stats, err := r.s.ports[1].dev.Stats()
	return stats.OPackets, err
}
