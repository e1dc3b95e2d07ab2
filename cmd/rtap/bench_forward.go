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

// cable is two ports with a forwarder between them, each in a namespace of its own, with addresses.
type cable struct {
	lab lab
	s   *session
}

// The addresses of a cable's ends.
var (
	cable4 = [2]netip.Prefix{netip.MustParsePrefix("10.77.0.1/24"), netip.MustParsePrefix("10.77.0.2/24")}
	cable6 = [2]netip.Prefix{netip.MustParsePrefix("fd77::1/64"), netip.MustParsePrefix("fd77::2/64")}
)

// openCable opens the ports, which forward as cfg says; prepare is called for each
// namespace before.
func openCable(engine rtap.Engine, cfg sessionConfig, prepare func(l lab, i int) error) (*cable, error) {
	c := &cable{}
	if err := c.open(engine, cfg, prepare); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *cable) open(engine rtap.Engine, cfg sessionConfig, prepare func(l lab, i int) error) error {
	var err error
	if c.lab, err = newLab(2); err != nil {
		return err
	}
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
type forwardRig struct {
	*cable
	// count is how many packets of data there were, of what was delivered.
	count func(frames uint64, t traffic.Transfer) int
}

// engineNoOffloads is no engine of the driver's: the one that it chooses, of ports
// without offloads in io mode, beside which the workloads with offloads are measured.
const engineNoOffloads rtap.Engine = "no-offloads"

func openForward(engine rtap.Engine) (rig, error) {
	c, err := openCable(engine, sessionConfig{forward: forward.Config{Burst: rtap.DefaultBurst}}, lab.withoutIPv6)
	if err != nil {
		return nil, err
	}
	return forwardRig{c, func(frames uint64, _ traffic.Transfer) int { return int(frames) }}, nil
}

// openForwardMode returns what opens ports with all offloads in a forwarding mode.
func openForwardMode(mode string) func(rtap.Engine) (rig, error) {
	return func(engine rtap.Engine) (rig, error) {
		cfg := sessionConfig{forward: forward.Config{Mode: mode, Burst: rtap.DefaultBurst}, offloads: offloadSet{all: true}}
		if engine == engineNoOffloads {
			engine = rtap.EngineAuto
			cfg.offloads, cfg.forward.Mode = offloadSet{}, "io"
		}
		c, err := openCable(engine, cfg, lab.withoutIPv6)
		if err != nil {
			return nil, err
		}
		return forwardRig{c, fullSegments}, nil
	}
}

// fullSegments is how many packets a stream is in which each is as long as the MTU
// of 1500 allows: 20 bytes of IPv4 header, 32 of TCP's with its timestamps.
func fullSegments(_ uint64, t traffic.Transfer) int { return int(t.Bytes / (rtap.DefaultMTU - 52)) }

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
	return sample{packets: r.count(after-before, t), elapsed: t.Elapsed, gbps: t.BitsPerSecond() / 1e9}, errors.Join(err, e)
}

// delivered is how many packets went the way of the data. Acknowledgements are
// not counted: how many a stream needs is TCP's affair.
func (r forwardRig) delivered() (uint64, error) {
	stats, err := r.s.ports[1].dev.Stats()
	return stats.OPackets, err
}
