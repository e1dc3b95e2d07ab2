// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"runtime"
	"sync/atomic"
	"time"
)

// gate lets one burst at a time into a queue, and none while the control plane
// holds it shut. It is what makes Stop and Close safe while bursts run. A burst
// never waits: it gets in or it does not.
type gate struct{ state atomic.Uint32 }

const (
	gateOpen = 1 << 0 // bursts may enter; a zero gate is shut
	gateBusy = 1 << 1 // a burst is inside
)

// enter reports whether the caller may run a burst; leave must follow.
func (g *gate) enter() bool { return g.state.CompareAndSwap(gateOpen, gateOpen|gateBusy) }

func (g *gate) leave() { g.state.And(^uint32(gateBusy)) }

func (g *gate) open() { g.state.Or(gateOpen) }

func (g *gate) isOpen() bool { return g.state.Load()&gateOpen != 0 }

// shut keeps bursts out and returns once none is inside. Bursts do not block,
// so that is soon.
func (g *gate) shut() {
	g.state.And(^uint32(gateOpen))
	for spins := 0; g.state.Load()&gateBusy != 0; spins++ {
		if spins < 100 {
			runtime.Gosched()
		} else {
			time.Sleep(50 * time.Microsecond)
		}
	}
}
