// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"context"
	"runtime"
)

// IdleFunc is called by a worker after every round in which none of its streams had a packet, with the
// worker's number and how many such rounds there were in a row, this one included. It runs on the data path:
// what it takes, the next packet waits. It may sleep until there is one, but no longer than until ctx is done.
type IdleFunc func(ctx context.Context, worker, emptyRounds int)

// Spin polls on without a pause: the shortest latency, and one CPU kept busy.
func Spin(context.Context, int, int) {}

// Yield lets goroutines that are ready, and timers that are due, run first (runtime.Gosched) and polls on.
// Goroutines that wait for a descriptor get no such turn: with all Ps polling, the runtime looks at its network
// poller every 10 ms only.
func Yield(context.Context, int, int) { runtime.Gosched() }

// Worker runs some of the streams, one goroutine for all of them.
//
// What it does when idle, unless Config.Idle says otherwise, depends on what is left for the rest of the
// program. Bursts are raw system calls, which Go's scheduler does not see, so a polling worker holds its P
// (see package runtime) until it is preempted, every 10 ms at the earliest. With fewer workers than GOMAXPROCS
// others have a P, and the policy is Spin: Yield would add some 90 ns to a round and wake idle threads of the
// runtime to look for work. With no P to spare it is Yield: on one P, a timer of 1 ms was late by 19 ms at the
// median with Spin, and by 1 µs with Yield. A worker that always has packets does not yield.
type Worker struct {
	id      int
	workers int
	streams []*Stream
	idle    IdleFunc
}

// ID returns the worker's number, from 0.
func (w *Worker) ID() int { return w.id }

// Streams returns the streams that the worker runs. The caller must not change the slice.
func (w *Worker) Streams() []*Stream { return w.streams }

// run polls the streams in turn until ctx is done, which it looks at before every burst.
func (w *Worker) run(ctx context.Context) {
	done, idle, empty := ctx.Done(), w.idleFunc(), 0
	for {
		busy := 0
		for _, s := range w.streams {
			select {
			case <-done:
				return
			default:
			}
			busy += s.burst()
		}
		if busy > 0 {
			empty = 0
			continue
		}
		empty++
		idle(ctx, w.id, empty)
	}
}

func (w *Worker) idleFunc() IdleFunc {
	switch {
	case w.idle != nil:
		return w.idle
	case w.workers < runtime.GOMAXPROCS(0):
		return Spin
	}
	return Yield
}
