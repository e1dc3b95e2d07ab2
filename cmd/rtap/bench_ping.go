// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
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
		return openPlainPing((*plainPing).echo)
	}
	return openPingRig(engine, pingRig{mode: rxPoll})
}

// openWake is openPing for workers that sleep, and pings that are far apart.
func openWake(engine rtap.Engine) (rig, error) {
	if engine == enginePlain {
		r, err := openPlainPing((*plainPing).echoAsleep)
		if err == nil {
			r.interval = wakeInterval
		}
		return r, err
	}
	return openPingRig(engine, pingRig{mode: rxAdaptive, interval: wakeInterval})
}

// wakeInterval is long enough for every worker to have gone to sleep.
const wakeInterval = 2 * time.Millisecond

func openPingRig(engine rtap.Engine, r pingRig) (rig, error) {
	l, err := newLab(1)
	if err != nil {
		return nil, err
	}
	r.lab = l
	cfg := sessionConfig{
		rxMode:  r.mode,
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
	return &r, nil
}

// pingRig is a port that answers the kernel's pings.
type pingRig struct {
	lab      lab
	s        *session
	mode     rxMode
	interval time.Duration // between pings; 0: the next follows the reply
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
		s, err = pingFor(ctx, r.lab[0], d, r.interval)
		return err
	})
	return s, err
}

// pingGuess is about what a ping takes, and sizes a round.
const pingGuess = 10 * time.Microsecond

// pingFor pings the far end for about d. The sample is the median: one packet.
func pingFor(ctx context.Context, ns *netns.NS, d, interval time.Duration) (sample, error) {
	cfg := traffic.PingConfig{NS: ns, Dst: cable4[1].Addr(), Count: max(1, int(d/max(interval, pingGuess))), Interval: interval}
	ping := pingElsewhere
	if interval == 0 {
		cfg.Spin = true
		ping = traffic.Ping
	}
	res, err := ping(ctx, cfg)
	if err == nil && res.Lost() > 0 {
		err = fmt.Errorf("%d of %d pings were not answered", res.Lost(), res.Sent)
	}
	return sample{packets: 1, elapsed: res.Quantile(0.5), tail: res.Quantile(0.99)}, err
}

// pingElsewhere pings from a process of its own. Go's runtime puts a goroutine to sleep and wakes it up together with
// all others of its process; those of one that does nothing but ping would not be where a network's other end is.
func pingElsewhere(ctx context.Context, cfg traffic.PingConfig) (res traffic.PingResult, err error) {
	self, err := os.Executable()
	if err != nil {
		return res, err
	}
	ns := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), cfg.NS.FD())
	cmd := exec.CommandContext(ctx, self, benchPing, ns, strconv.Itoa(cfg.Count), cfg.Interval.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return res, fmt.Errorf("a process that pings: %w", err)
	}
	return res, json.Unmarshal(out, &res)
}

// benchPing is the verb of pingElsewhere's process. It is in no help text.
const benchPing = "bench-ping"

// benchPingVerb pings from a namespace as often as it is told, and prints what came of it.
func benchPingVerb(ctx context.Context, st streams, args []string) error {
	if len(args) != 3 {
		return &usageError{" " + benchPing, "it is for rtap bench"}
	}
	ns, err := netns.Open(args[0])
	if err != nil {
		return err
	}
	defer ns.Close()
	count, countErr := strconv.Atoi(args[1])
	interval, intervalErr := time.ParseDuration(args[2])
	if err := errors.Join(countErr, intervalErr); err != nil {
		return &usageError{" " + benchPing, err.Error()}
	}
	res, err := traffic.Ping(ctx, traffic.PingConfig{NS: ns, Dst: cable4[1].Addr(), Count: count, Interval: interval})
	res.Unreachable = nil // an error has no JSON
	return errors.Join(err, json.NewEncoder(st.out).Encode(res))
}
