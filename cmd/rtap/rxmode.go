// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/forward"
)

// rxMode is what a worker does when there is nothing to receive.
type rxMode string

const (
	rxPoll      rxMode = "poll"      // it looks again at once
	rxInterrupt rxMode = "interrupt" // it sleeps until there is
	rxAdaptive  rxMode = "adaptive"  // it looks for a while longer, then sleeps
)

var rxModes = []string{string(rxAdaptive), string(rxPoll), string(rxInterrupt)}

func (m rxMode) check() error {
	if !slices.Contains(rxModes, string(m)) {
		return fmt.Errorf("%q: want %s", string(m), strings.Join(rxModes, ", "))
	}
	return nil
}

// retryIdle is how often a worker looks whether ports have come back, when all of its ports are stopped or gone.
const retryIdle = 10 * time.Millisecond

// sleepers are the workers' waiters, none where they poll.
type sleepers []*rtap.RxWaiter

// open makes a waiter for each worker of plan, for the queues that it polls.
func (l *sleepers) open(mode rxMode, plan *forward.Forwarder, ports []*port) error {
	if mode == "" || mode == rxPoll || !plan.Mode().Receives() {
		return nil
	}
	for _, w := range plan.Workers() {
		var queues []*rtap.RxQueue
		for _, s := range w.Streams() {
			queues = append(queues, ports[s.Route().RxPort].dev.RxQueue(s.Route().Queue))
		}
		waiter, err := rtap.NewRxWaiter(queues...)
		if err != nil {
			return err
		}
		if mode == rxInterrupt {
			waiter.Spin = 0
		}
		*l = append(*l, waiter)
	}
	return nil
}

// idle is the workers' policy, nil for the forwarder's own.
func (l sleepers) idle() forward.IdleFunc {
	if len(l) == 0 {
		return nil
	}
	crowded := len(l) >= runtime.GOMAXPROCS(0)
	return func(ctx context.Context, worker, rounds int) {
		if crowded { // see forward.Worker
			runtime.Gosched()
		}
		if err := l[worker].Idle(ctx, rounds); err != nil && ctx.Err() == nil {
			pause(ctx, retryIdle)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (l sleepers) close() error {
	var err error
	for _, w := range l {
		err = errors.Join(err, w.Close())
	}
	return err
}
