// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rtap-project/rtap/internal/epoll"
	"github.com/rtap-project/rtap/internal/tuntap"
)

// Rx interrupts are epoll(7) on the queue's descriptor. While interrupts are off the kernel's senders find nobody
// to wake, so that polling costs them nothing; to turn them on looks at the queue once more, so that no packet
// is overlooked that came in between. Both engines are served alike, as packets wait in the kernel and not in
// a ring.

// rxIntr is an Rx queue's part in it.
type rxIntr struct {
	mu      sync.Mutex // everything below; never held while waiting
	fd      int        // the queue's descriptor, -1 once the queue is released
	running bool       // the port is started
	own     *epoll.Set // of InterruptFD, nil before the first use
	enabled bool       // fd is in own
	waiters []*RxWaiter
	single  *RxWaiter // of RxQueue.Wait, nil before the first use
}

// EnableInterrupt makes [RxQueue.InterruptFD] readable while packets wait in the queue
// (rte_eth_dev_rx_intr_enable). Packets that are there already count, so one that comes between the last Burst and
// this call is not overlooked. It lasts until DisableInterrupt, and over Stop and Start. Enabling again does nothing.
// Any goroutine may call it.
//
// Leave interrupts disabled while polling: each packet that arrives wakes those who wait.
func (q *RxQueue) EnableInterrupt() error {
	return q.opErr("enable interrupt of", q.intr.locked(q.intr.enable))
}

// DisableInterrupt undoes EnableInterrupt (rte_eth_dev_rx_intr_disable). Disabling again does nothing.
func (q *RxQueue) DisableInterrupt() error {
	return q.opErr("disable interrupt of", q.intr.locked(q.intr.disable))
}

// InterruptFD is a descriptor for epoll(7), poll(2) or select(2), level-triggered and with nothing to read from it:
// it is readable while the interrupt is enabled and packets wait, or the port is stopped or has lost its
// interface (rte_eth_dev_rx_intr_ctl_q_get_fd). The queue keeps it and closes it when it is released; it is the
// same until then.
func (q *RxQueue) InterruptFD() (int, error) {
	if err := q.intr.locked(q.intr.make); err != nil {
		return -1, q.opErr("make interrupt of", err)
	}
	return q.intr.own.FD(), nil
}

func (i *rxIntr) locked(f func() error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return f()
}

func (i *rxIntr) make() error {
	if i.fd < 0 {
		return ErrReleased
	}
	if i.own != nil {
		return nil
	}
	var err error
	i.own, err = epoll.New()
	return err
}

func (i *rxIntr) enable() error {
	err := i.make()
	if err == nil && !i.enabled {
		err = i.own.Add(i.fd)
		i.enabled = err == nil
	}
	return errors.Join(err, i.ring())
}

func (i *rxIntr) disable() error {
	if i.fd < 0 || !i.enabled {
		return nil
	}
	i.enabled = false
	return errors.Join(i.own.Delete(i.fd), i.ring())
}

// run notes that the port was started or stopped, and tells whoever waits.
func (i *rxIntr) run(running bool) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.running = running
	for _, w := range i.waiters {
		w.set.Wake()
	}
	return i.ring()
}

// ring makes the descriptor of InterruptFD readable while the interrupt is enabled and the port does not run.
func (i *rxIntr) ring() error {
	if i.own == nil {
		return nil
	}
	return i.own.Ring(i.enabled && !i.running)
}

// release ends all waiting for a queue that goes away.
func (i *rxIntr) release() error {
	i.mu.Lock()
	single := i.single
	i.fd, i.running, i.enabled = -1, false, false
	for _, w := range i.waiters {
		w.set.Wake()
	}
	var err error
	if i.own != nil {
		err = i.own.Close()
	}
	i.mu.Unlock()
	if single != nil {
		err = errors.Join(err, single.Close())
	}
	return err
}

// Waiting reports whether a packet waits in the kernel for this queue: poll(2), without waiting. The kernel does not
// tell how many (rte_eth_rx_queue_count, rte_eth_rx_descriptor_status). It is false of a queue whose port is stopped
// or gone, that is released, or in which another goroutine is in a burst, and that goroutine's burst is 0 packets if
// it comes at the same moment: call it where you call Burst. Nothing is allocated.
func (q *RxQueue) Waiting() bool {
	if !q.gate.enter() {
		return false
	}
	defer q.gate.leave()
	return tuntap.Readable(q.intr.fd)
}

// Wait parks the goroutine until a packet is there (or was, when it looked). It holds no thread meanwhile. It
// returns nil then and when the port was stopped or lost its interface while it waited; at once, with an error
// that wraps ErrStopped, ErrGone or ErrReleased, if there is nothing to wait for; and ctx's error when that is
// done. One goroutine at a time waits. Nothing is allocated, unless ctx is another one than before.
func (q *RxQueue) Wait(ctx context.Context) error {
	return q.waiting(func(w *RxWaiter) error { return w.Wait(ctx) })
}

// Idle is [RxWaiter.Idle] for one queue.
func (q *RxQueue) Idle(ctx context.Context, rounds int) error {
	return q.waiting(func(w *RxWaiter) error { return w.Idle(ctx, rounds) })
}

func (q *RxQueue) waiting(wait func(*RxWaiter) error) error {
	w, err := q.waiter()
	if err == nil {
		err = wait(w)
	}
	if errors.Is(err, os.ErrClosed) { // with the queue
		err = q.opErr("wait for", q.down())
	}
	return err
}

func (q *RxQueue) waiter() (*RxWaiter, error) {
	q.intr.mu.Lock()
	w, fd := q.intr.single, q.intr.fd
	q.intr.mu.Unlock()
	switch {
	case w != nil:
		return w, nil
	case fd < 0:
		return nil, q.opErr("wait for", ErrReleased)
	}
	w, err := NewRxWaiter(q)
	if err != nil {
		return nil, err
	}
	q.intr.mu.Lock()
	defer q.intr.mu.Unlock()
	q.intr.single = w
	return w, nil
}

// RxWaiter waits for packets on several Rx queues, of any ports. One goroutine at a time uses it; Close may be
// called by any.
type RxWaiter struct {
	// Spin is for how long Idle lets the caller poll before it sleeps. NewRxWaiter sets DefaultSpin.
	Spin time.Duration

	set    *epoll.Set
	queues []*RxQueue
	armed  []*RxQueue // which of them are in set
	failed *RxQueue   // whose interrupt could not be enabled
	arm    func() error
	idle   time.Time // since when Idle was called without a break
}

// DefaultSpin is for how long a poll loop that has become idle goes on polling: see docs/architecture.md for how it
// was found.
const DefaultSpin = 50 * time.Microsecond

// NewRxWaiter makes a waiter for queues, which must be different ones. It costs a descriptor and must be closed.
func NewRxWaiter(queues ...*RxQueue) (*RxWaiter, error) {
	if len(queues) == 0 {
		return nil, &ConfigError{"queues", "empty", "one or more"}
	}
	for i, q := range queues {
		if q == nil || slices.Contains(queues[:i], q) {
			return nil, &ConfigError{fmt.Sprintf("queues[%d]", i), "nil or there twice", "queues that are set up, each once"}
		}
	}
	set, err := epoll.New()
	if err != nil {
		return nil, queues[0].opErr("make a waiter for", err)
	}
	w := &RxWaiter{Spin: DefaultSpin, set: set, queues: slices.Clone(queues),
		armed: make([]*RxQueue, 0, len(queues))}
	w.arm = w.armAll
	for _, q := range w.queues {
		q.intr.mu.Lock()
		q.intr.waiters = append(q.intr.waiters, w)
		q.intr.mu.Unlock()
	}
	return w, nil
}

// Close ends a Wait and gives the descriptor back. Closing again does nothing.
func (w *RxWaiter) Close() error {
	for _, q := range w.queues {
		q.intr.mu.Lock()
		q.intr.waiters = slices.DeleteFunc(q.intr.waiters, func(o *RxWaiter) bool { return o == w })
		q.intr.mu.Unlock()
	}
	return w.set.Close()
}

// Wait is [RxQueue.Wait] for all the queues at once. Those are left out whose port is stopped, gone or closed, or
// that are released; if all are, the error is the first one's. It also returns when a port is started.
func (w *RxWaiter) Wait(ctx context.Context) error {
	w.armed, w.failed = w.armed[:0], nil
	err := w.set.Wait(ctx, w.arm)
	if w.failed != nil {
		err = w.failed.opErr("wait for", err)
	}
	if e := w.disarm(); e != nil {
		err = errors.Join(err, e)
	}
	return err
}

// armAll enables the interrupts of the queues that can have packets. It takes no lock of the device's: who releases a queue
// holds that, and waits for us.
func (w *RxWaiter) armAll() error {
	for _, q := range w.queues {
		can, err := q.arm(w.set)
		if err != nil {
			w.failed = q
			return err
		}
		if can {
			w.armed = append(w.armed, q)
		}
	}
	if len(w.armed) == 0 {
		w.failed = w.queues[0]
		return w.failed.down()
	}
	return nil
}

func (q *RxQueue) arm(set *epoll.Set) (bool, error) {
	q.intr.mu.Lock()
	defer q.intr.mu.Unlock()
	if !q.intr.running || q.dev.gone.Load() {
		return false, nil
	}
	err := set.Add(q.intr.fd)
	return err == nil, err
}

func (w *RxWaiter) disarm() (err error) {
	for _, q := range w.armed {
		if e := q.disarm(w.set); e != nil && !errors.Is(e, os.ErrClosed) { // closed: Wait has said so
			err = q.opErr("wait for", e)
		}
	}
	return err
}

func (q *RxQueue) disarm(set *epoll.Set) error {
	q.intr.mu.Lock()
	defer q.intr.mu.Unlock()
	if q.intr.fd < 0 {
		return nil
	}
	return set.Delete(q.intr.fd)
}

// down is why a queue cannot have packets.
func (q *RxQueue) down() error {
	if err := q.dev.Err(); err != nil {
		return err
	}
	q.intr.mu.Lock()
	defer q.intr.mu.Unlock()
	if q.intr.fd < 0 {
		return ErrReleased
	}
	return ErrStopped
}

// Idle is what an adaptive poll loop calls after every round in which none of the queues had a packet, with how
// many such rounds there were in a row, from 1. It returns at once for as long as Spin, and sleeps in Wait from then
// on: so a loop polls while it is busy and sleeps while it is not. With a Spin of 0 every call sleeps. Its errors
// are Wait's.
func (w *RxWaiter) Idle(ctx context.Context, rounds int) error {
	if w.Spin > 0 {
		if rounds == 1 {
			w.idle = time.Now()
			return nil
		}
		if time.Since(w.idle) < w.Spin {
			return nil
		}
	}
	return w.Wait(ctx)
}

// opErr is Device.opErr for what does not hold the device's lock, nor rxIntr's.
func (q *RxQueue) opErr(op string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, Interface: q.dev.Name(), Queue: q.index, Err: err}
}
