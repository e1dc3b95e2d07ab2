// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"time"
)

// Change says what an [Event] is about, a bit for each thing that changed.
type Change uint32

// What changes. In DPDK, ChangeLink is RTE_ETH_EVENT_INTR_LSC and ChangeRemoved is
// RTE_ETH_EVENT_INTR_RMV; it has no events for the others.
const (
	ChangeLink         Change = 1 << iota // LinkStatus.Running: packets flow, or no longer
	ChangeUp                              // LinkStatus.Up: ip link set up, down
	ChangeCarrier                         // LinkStatus.Carrier: SetCarrier
	ChangeMTU                             // LinkStatus.MTU
	ChangeMAC                             // LinkStatus.MAC
	ChangeName                            // LinkStatus.Name
	ChangeNetNS                           // moved to another network namespace; LinkStatus.Index may differ
	ChangeTxQueueLen                      // LinkStatus.TxQueueLen
	ChangePromiscuous                     // LinkStatus.Promiscuous
	ChangeAllMulticast                    // LinkStatus.AllMulticast
	ChangeRemoved                         // deleted, or its namespace was: nothing comes after this
)

// changes are the names of the bits, in their order, and how each is seen; nil where a state does not tell.
var changes = [...]struct {
	name   string
	differ func(a, b *LinkStatus) bool
}{
	{"link", func(a, b *LinkStatus) bool { return a.Running != b.Running }},
	{"up", func(a, b *LinkStatus) bool { return a.Up != b.Up }},
	{"carrier", func(a, b *LinkStatus) bool { return a.Carrier != b.Carrier }},
	{"mtu", func(a, b *LinkStatus) bool { return a.MTU != b.MTU }},
	{"mac", func(a, b *LinkStatus) bool { return !bytes.Equal(a.MAC, b.MAC) }},
	{"name", func(a, b *LinkStatus) bool { return a.Name != b.Name }},
	{"netns", nil},
	{"txqueuelen", func(a, b *LinkStatus) bool { return a.TxQueueLen != b.TxQueueLen }},
	{"promiscuous", func(a, b *LinkStatus) bool { return a.Promiscuous != b.Promiscuous }},
	{"allmulticast", func(a, b *LinkStatus) bool { return a.AllMulticast != b.AllMulticast }},
	{"removed", nil},
}

// String gives "link,up".
func (c Change) String() string {
	var names []string
	for i, f := range changes {
		if c&(1<<i) != 0 {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, ",")
}

// difference is what changed from a to b.
func difference(a, b *LinkStatus) (c Change) {
	for i, f := range changes {
		if f.differ != nil && f.differ(a, b) {
			c |= 1 << i
		}
	}
	return c
}

// Event is one change of the interface, whoever made it: the program by a method of Device, or somebody else.
type Event struct {
	Changed Change

	// Before and After are the interface's state, all of it. Each event's Before is the After of the event
	// before it. The receiver owns them. After is empty if the interface was removed.
	Before, After LinkStatus

	// Resync means that the kernel dropped messages (ENOBUFS), and what was lost is the difference
	// between two states: several changes may be in one event, and a change that was undone is in none.
	// It is set for the events around the gap, of which a few may be whole.
	Resync bool

	Time time.Time // when the driver heard of it
}

// Subscription hands out a device's events through a channel.
type Subscription struct {
	// C gives the events in their order. It is closed after the last, which says ChangeRemoved, and by
	// Subscription.Close and Device.Close, with which events that were not received are dropped. It is
	// also closed after the last if the interface was moved to where this process may not follow, which
	// takes CAP_NET_ADMIN there and CAP_NET_BROADCAST; Config.Log says so then.
	C <-chan Event

	stop func()
}

// Close ends the subscription and closes C. Calling it again does nothing.
func (s *Subscription) Close() { s.stop() }

// Events subscribes to what happens to the interface from this call on. The kernel says what each change was:
// none is lost or comes twice, and changes made one after the other are events one after the other. (With the
// exception of Event.Resync; of what is done to the interface in another namespace before the driver has
// found it there, which is in the event that tells of the move; and of a change of carrier that another
// program makes while the interface is down, of which the kernel says nothing until its next change.)
//
// Events wait for a slow reader, for as long as it takes, in some 300 bytes of memory each, and nobody waits
// for it: each subscription has a queue and a goroutine of its own. Any goroutine may subscribe at any time;
// of a device that was closed or whose interface was removed, C is closed.
//
// The callback form is [Device.OnEvent]. (rte_eth_dev_callback_register)
func (d *Device) Events() *Subscription {
	c := make(chan Event)
	q := newFeed()
	q.done = make(chan struct{})
	go func() {
		defer close(q.done)
		defer close(c)
		q.run(func(e Event) {
			select {
			case c <- e:
			case <-q.quit:
			}
		})
	}()
	d.events.subscribe(q)
	return &Subscription{C: c, stop: func() { d.events.unsubscribe(q) }}
}

// OnEvent has f called with each event, as [Device.Events] says, until cancel is called, the device is closed
// or the interface is removed. f runs in a goroutine of the subscription's, never twice at once, and may call
// whatever it likes, cancel and Device.Close too. Neither of these waits for a call of f that has begun.
func (d *Device) OnEvent(f func(Event)) (cancel func()) {
	q := newFeed()
	go q.run(f)
	d.events.subscribe(q)
	return func() { d.events.unsubscribe(q) }
}

// feed is the queue of one subscription.
type feed struct {
	since uint32 // the answer after which it begins

	mu    sync.Mutex
	queue []Event
	ended bool          // nothing follows what is in queue
	more  chan struct{} // has something in it after queue or ended has changed
	quit  chan struct{} // closed when nobody wants what is in queue
	once  sync.Once     // for quit
	done  chan struct{} // closed when its goroutine has ended; nil if that may be in a callback
}

func newFeed() *feed { return &feed{more: make(chan struct{}, 1), quit: make(chan struct{})} }

// run hands out what comes until the end.
func (q *feed) run(deliver func(Event)) {
	for {
		batch, ended := q.take()
		for _, e := range batch {
			if q.isQuit() {
				return
			}
			deliver(e)
		}
		if ended {
			return
		}
		select {
		case <-q.more:
		case <-q.quit:
			return
		}
	}
}

func (q *feed) isQuit() bool {
	select {
	case <-q.quit:
		return true
	default:
		return false
	}
}

func (q *feed) take() (batch []Event, ended bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch, q.queue = q.queue, nil
	return batch, q.ended
}

// put queues a copy of e.
func (q *feed) put(e Event) {
	e.Before.MAC, e.After.MAC = slices.Clone(e.Before.MAC), slices.Clone(e.After.MAC)
	q.change(func() { q.queue = append(q.queue, e) })
}

// end lets the reader have what is in the queue, and then no more.
func (q *feed) end() { q.change(func() { q.ended = true }) }

func (q *feed) change(f func()) {
	q.mu.Lock()
	f()
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// cut ends it at once.
func (q *feed) cut() {
	q.once.Do(func() { close(q.quit) })
	if q.done != nil {
		<-q.done
	}
}
