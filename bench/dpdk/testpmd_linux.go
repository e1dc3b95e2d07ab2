// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rtap-project/rtap/bench/internal/course"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
)

// sends is how many packets the kernel gets of testpmd.
func sends(ctx context.Context, o *options, r *rival) (float64, error) {
	return packets(ctx, o, r, "txonly", func(ns *netns.NS) (uint64, error) {
		rx, _, err := course.Packets(ns, course.IfA)
		return rx, err
	}, nil)
}

// receives is how many packets testpmd gets of a flood, as the kernel counts them: one that is read was sent.
func receives(ctx context.Context, o *options, r *rival) (float64, error) {
	return packets(ctx, o, r, "rxonly", func(ns *netns.NS) (uint64, error) {
		_, tx, err := course.Packets(ns, course.IfA)
		return tx, err
	}, flood)
}

// packets has testpmd run and reads a counter: millions a second.
func packets(ctx context.Context, o *options, r *rival, mode string, count func(*netns.NS) (uint64, error),
	meanwhile func(ctx context.Context, ns *netns.NS, index int) error) (rate float64, err error) {
	ns, err := course.NewNS()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	pmd, err := course.Start(ns, o.testpmd, r.pmd(o, mode, course.IfA))
	if err != nil {
		return 0, err
	}
	defer func() {
		if err = errors.Join(err, pmd.Stop()); err != nil {
			err = fmt.Errorf("%w\n%s", err, &pmd.Output)
		}
	}()
	if err := pmd.Says(ctx, ready); err != nil {
		return 0, err
	}
	conn, err := rtnl.Dial(ns.FD())
	if err != nil {
		return 0, err
	}
	link, err := pmd.Await(ctx, conn, course.IfA, true)
	if err = errors.Join(err, conn.Close()); err != nil {
		return 0, err
	}
	if meanwhile != nil {
		inner, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- meanwhile(inner, ns, link.Index) }()
		defer func() {
			cancel()
			err = errors.Join(err, <-ended)
		}()
	}
	return measure(ctx, pmd, ns, o.time, count)
}

// settle is for how long what has begun is not measured yet.
const settle = 300 * time.Millisecond

func measure(ctx context.Context, pmd *course.Child, ns *netns.NS, d time.Duration, count func(*netns.NS) (uint64, error)) (float64, error) {
	before, err := count(ns)
	for now := before; err == nil && now == before; now, err = count(ns) {
		if err = pause(ctx, pmd, 10*time.Millisecond); err != nil {
			return 0, fmt.Errorf("no packet came: %w", err)
		}
	}
	err = errors.Join(err, pause(ctx, pmd, settle))
	if err != nil {
		return 0, err
	}
	if before, err = count(ns); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err = pause(ctx, pmd, d); err != nil {
		return 0, err
	}
	after, err := count(ns)
	return float64(after-before) / time.Since(begin).Seconds() / 1e6, err
}

func pause(ctx context.Context, pmd *course.Child, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-pmd.Ended:
		return fmt.Errorf("testpmd ended: %v", pmd.Err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// frameSize is that of packets, in bytes.
const frameSize = 64

// frame is of the local experimental type, which the kernel throws away once it has seen that.
func frame() []byte {
	f := make([]byte, frameSize)
	copy(f, []byte{0x02, 0, 0, 0, 0, 0xbb, 0x02, 0, 0, 0, 0, 0xaa, 0x88, 0xb5})
	return f
}

// flood sends packets to the program behind an interface, as fast as a CPU can, until ctx is done.
func flood(ctx context.Context, ns *netns.NS, index int) error {
	in, err := traffic.NewInjector(ns, index)
	if err != nil {
		return err
	}
	_, err = in.Flood(ctx, traffic.FloodConfig{Frames: [][]byte{frame()}})
	return errors.Join(err, in.Close())
}
