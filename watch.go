// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/tuntap"
)

// events turns what the kernel says of the interface into events. Its goroutine runs from Open to Close, or
// until the interface is gone. It knows the last state, and makes of each message the difference from that:
// what the kernel says twice is an event once.
//
// It waits for Device.mu now and then, so who holds that never waits for it.
type events struct {
	dev  *Device
	keep *tuntap.Queue // Device's; it is closed after the goroutine has ended
	w    *rtnl.Watcher // nil in a secondary
	done chan struct{} // closed when the goroutine has ended

	// The goroutine's.
	last     LinkStatus
	answered uint32 // the last question whose answer has come

	mu    sync.Mutex
	feeds []*feed
	ended bool
}

// watch begins to watch the interface.
func (d *Device) watch() (*events, error) {
	w, err := rtnl.Watch(d.ns.FD())
	if err != nil {
		return nil, err
	}
	e := &events{dev: d, keep: d.keep, w: w, done: make(chan struct{})}
	m, err := e.find()
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	e.last, e.answered = statusOf(m.Link), m.Answer
	go e.run()
	return e, nil
}

// newFarEvents is for a port of another process, which says what happens: there is no goroutine.
func newFarEvents(d *Device) *events { return &events{dev: d} }

// stop ends the goroutine and all subscriptions. It may be called more than once, and by a callback, but not by
// who holds Device.mu.
func (e *events) stop() {
	if e == nil {
		return
	}
	if e.w != nil {
		e.w.Close()
		<-e.done
	}
	for _, q := range e.end() {
		q.cut()
	}
}

// end makes sure that nobody subscribes any more, and returns who has.
func (e *events) end() []*feed {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	return slices.Clone(e.feeds)
}

// subscribe has events queued in q that happen from now on. What the kernel has said already, and the
// goroutine has not read yet, comes before the answer to a question that is asked now.
func (e *events) subscribe(q *feed) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		q.end()
		return
	}
	if e.w != nil {
		q.since, _ = e.w.Ask() // after Close it is about to end
	}
	e.feeds = append(e.feeds, q)
}

func (e *events) unsubscribe(q *feed) {
	q.cut()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.feeds = slices.DeleteFunc(e.feeds, func(f *feed) bool { return f == q })
}

// ask has the goroutine look at the interface as it is now. If that fails there is nobody who would.
func (e *events) ask() { _, _ = e.w.Ask() }

func (e *events) run() {
	defer close(e.done)
	err := e.follow()
	e.w.Close()
	if !errors.Is(err, os.ErrClosed) && !errors.Is(err, ErrGone) {
		e.dev.cfg.Log.Warn("link events have ended", "interface", e.last.Name, "error", err)
	}
	for _, q := range e.end() {
		q.end()
	}
}

// follow handles messages until the interface is gone or the Watcher is closed.
func (e *events) follow() error {
	for {
		m, err := e.w.Next()
		if err != nil {
			return err
		}
		if m.Gone {
			if err := e.move(m.Resync); err != nil {
				return err
			}
			continue
		}
		e.see(m.Link, 0, m.Resync)
		e.answered = max(e.answered, m.Answer)
	}
}

// move handles that the interface has left the place where it was.
func (e *events) move(resync bool) error {
	m, err := e.find()
	if errors.Is(err, ErrGone) {
		e.remove()
		return err
	}
	if err != nil {
		return err
	}
	e.answered = max(e.answered, m.Answer) // nobody misses the move
	e.see(m.Link, ChangeNetNS, resync)
	return nil
}

// see makes an event of what has changed, unless nothing has. The driver is the first to act on it.
func (e *events) see(l rtnl.Link, also Change, resync bool) {
	after := statusOf(l)
	what := also | difference(&e.last, &after)
	ev := Event{Changed: what, Before: e.last, After: after, Resync: resync, Time: time.Now()}
	if ev.Changed == 0 {
		return
	}
	e.dev.followLink(&ev)
	e.dev.cfg.Log.Info("link changed", "interface", after.Name, "changed", ev.Changed.String(), "ifindex", after.Index,
		"up", after.Up, "running", after.Running, "mtu", after.MTU, "mac", after.MAC.String())
	e.post(&ev)
}

// remove makes the last event.
func (e *events) remove() {
	e.dev.gone.Store(true)
	e.dev.cfg.Log.Warn("interface removed", "interface", e.last.Name, "ifindex", e.last.Index)
	after := LinkStatus{}
	what := ChangeRemoved | difference(&e.last, &after)&(ChangeLink|ChangeUp)
	e.post(&Event{Changed: what, Before: e.last, Time: time.Now()})
}

func (e *events) post(ev *Event) {
	e.last = ev.After
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, q := range e.feeds {
		if q.since <= e.answered {
			q.put(*ev)
		}
	}
}

// findTries bounds how often find looks for an interface that is moved or renamed each time, some seconds.
const findTries = 1000

// sure is how often in a row find must find the same: look can be fooled by an interface that has the name for
// just the moment in between.
const sure = 3

// find looks for the interface, wherever it is, and watches it there. ErrGone if there is none any more.
func (e *events) find() (m rtnl.Message, err error) {
	index, times := 0, 0
	for i := 0; i < findTries && times < sure; i++ {
		m, err = e.look()
		switch {
		case errors.Is(err, tuntap.Gone):
			return m, ErrGone
		case errors.Is(err, rtnl.ErrNotFound):
			times = 0
		case err != nil:
			return m, err
		case m.Link.Index == index:
			times++
		default:
			index, times = m.Link.Index, 1
		}
		if i >= lookups && times == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if err == nil && times < sure {
		err = rtnl.ErrNotFound
	}
	return m, err
}

// look watches what has the interface's name in the interface's namespace. If it still has them afterwards, that
// is the interface; else it is rtnl.ErrNotFound.
func (e *events) look() (m rtnl.Message, err error) {
	ns, err := e.where()
	if err != nil {
		return m, err
	}
	defer ns.Close()
	name, err := e.keep.Name()
	if err != nil {
		return m, err
	}
	if m, err = e.w.Follow(ns.FD(), name); err != nil {
		return m, err
	}
	now, err := e.where()
	if err != nil {
		return m, err
	}
	defer now.Close()
	after, err := e.keep.Name()
	if err == nil && (after != m.Link.Name || !now.Equal(ns)) {
		err = rtnl.ErrNotFound
	}
	return m, err
}

// where is the namespace that the interface is in.
func (e *events) where() (*netns.NS, error) {
	fd, err := e.keep.NetNS()
	if errors.Is(err, syscall.EINVAL) {
		// That namespace is being destroyed (get_net_ns in net/core/net_namespace.c), and the interface with it.
		return nil, tuntap.Gone
	}
	if err != nil {
		return nil, err
	}
	return netns.FromFD(fd)
}

// followLink does what the driver itself has to do about an event.
func (d *Device) followLink(ev *Event) {
	if ev.Changed&(ChangeName|ChangeNetNS) != 0 {
		d.mu.Lock()
		d.name, d.index = ev.After.Name, ev.After.Index
		d.mu.Unlock()
	}
	if ev.After.MTU > ev.Before.MTU {
		if err := d.followMTU(ev.After.MTU); err != nil && !errors.Is(err, ErrGone) {
			d.cfg.Log.Warn("frames of the new MTU cannot be received", "interface", ev.After.Name,
				"mtu", ev.After.MTU, "error", err)
		}
		d.followMTUElsewhere(ev.After.MTU)
	}
}
