// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/forward"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/traffic"
)

// enginePlain is no engine of the driver's: a loop of read(2) and write(2) on a
// TAP descriptor, as a program without the driver would have it.
const enginePlain rtap.Engine = "plain"

func openPing(engine rtap.Engine) (rig, error) {
	if engine == enginePlain {
		return openPlainPing()
	}
	l, err := newLab(1)
	if err != nil {
		return nil, err
	}
	r := &pingRig{lab: l}
	cfg := sessionConfig{
		forward: forward.Config{Mode: "icmpecho", Burst: rtap.DefaultBurst},
		ports:   []portConfig{{"net_rtap0", rtap.Config{Engine: engine, NetNS: l.path(0)}}},
	}
	if err := l.withoutIPv6(0); err != nil {
		return nil, errors.Join(err, r.close())
	}
	if r.s, err = openSession(cfg); err != nil {
		return nil, errors.Join(err, r.close())
	}
	if err := l.address(0, r.s.ports[0].dev, cable4[0]); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// pingRig is a port that answers the kernel's pings, polled without a pause.
type pingRig struct {
	lab lab
	s   *session
}

func (r *pingRig) close() error {
	var err error
	if r.s != nil {
		err = r.s.close()
	}
	return errors.Join(err, r.lab.close())
}

func (r *pingRig) round(ctx context.Context, _ cell, d time.Duration) (s sample, err error) {
	err = r.s.forwarding(ctx, func(ctx context.Context) (err error) {
		s, err = pingFor(ctx, r.lab[0], d)
		return err
	})
	return s, err
}

// pingGuess is about what a ping takes, and sizes a round.
const pingGuess = 10 * time.Microsecond

// pingFor pings the far end for about d. The sample is the median: one packet.
func pingFor(ctx context.Context, ns *netns.NS, d time.Duration) (sample, error) {
	cfg := traffic.PingConfig{NS: ns, Dst: cable4[1].Addr(), Count: max(1, int(d/pingGuess)), Spin: true}
	res, err := traffic.Ping(ctx, cfg)
	if err == nil && res.Lost() > 0 {
		err = fmt.Errorf("%d of %d pings were not answered", res.Lost(), res.Sent)
	}
	return sample{packets: 1, elapsed: res.Quantile(0.5)}, err
}
