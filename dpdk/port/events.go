// SPDX-License-Identifier: BSD-3-Clause

package port

import (
	"sync"

	"github.com/rtap-project/rtap"
)

// eventGate lets events through to the application until the port is closed.
type eventGate struct {
	mu     sync.Mutex
	ended  bool
	cancel func()
}

// listen tells the application what happens to the interface (RTE_ETH_EVENT_INTR_LSC and _RMV).
func (e *eth) listen() {
	cancel := e.dev.OnEvent(func(ev rtap.Event) {
		if what := eventsOf(&ev); what != 0 {
			e.tell(what)
		}
	})
	e.events.mu.Lock()
	defer e.events.mu.Unlock()
	e.events.cancel = cancel
}

// eventsOf is what DPDK has a word for.
func eventsOf(ev *rtap.Event) (what Events) {
	if ev.Changed&rtap.ChangeRemoved != 0 {
		what = EventRemoved
	}
	if ev.Changed&rtap.ChangeLink != 0 {
		what |= EventLink
	}
	return what
}

func (e *eth) tell(what Events) {
	e.events.mu.Lock()
	defer e.events.mu.Unlock()
	if !e.events.ended {
		e.ports.host.Event(e.id, what)
	}
}

// end ends the subscription. Nothing is told any more when it returns: the port's number may be another's soon.
func (g *eventGate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	if g.cancel != nil {
		g.cancel()
	}
}
