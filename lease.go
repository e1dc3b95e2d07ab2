// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rtap-project/rtap/internal/ipc"
	"github.com/rtap-project/rtap/internal/shm"
	"github.com/rtap-project/rtap/mbuf"
)

// A queue pair is polled by one process at a time: the primary, unless a secondary has leased it. While it has, the
// primary's own bursts on that queue return 0. The queue comes back when the secondary returns it, when it is revoked,
// and when the secondary dies; the primary's bursts then work again, on the same RxQueue and TxQueue.

// Lease is a queue pair that another process polls.
type Lease struct {
	Process Process
	Queue   int
}

// lease is one, at the primary.
type lease struct {
	peer  *ipc.Peer
	queue int
	id    uint64 // no two leases of a port have the same
}

// tellWait bounds how long a secondary may take to do as it is told.
const tellWait = time.Second

// Leases are the queues that other processes poll, in order.
func (d *Device) Leases() []Lease {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []Lease
	for _, l := range d.leases(nil) {
		all = append(all, Lease{processOf(l.peer), l.queue})
	}
	return all
}

// leases are those that f is true of, all if it is nil.
func (d *Device) leases(f func(*lease) bool) (all []*lease) {
	for _, p := range d.pairs {
		if p.lease != nil && (f == nil || f(p.lease)) {
			all = append(all, p.lease)
		}
	}
	return all
}

// unleased is an error that names the processes which have leased queues.
func (d *Device) unleased() error {
	all := d.leases(nil)
	if len(all) == 0 {
		return nil
	}
	var who []string
	for _, l := range all {
		who = append(who, fmt.Sprintf("queue %d by %v", l.queue, processOf(l.peer)))
	}
	return fmt.Errorf("%w: %s: Revoke takes them back", ErrLeased, strings.Join(who, ", "))
}

// leased is a queue as the secondary gets it.
type leased struct {
	Queue          int
	ID             uint64
	Pool           int
	RxRing, TxRing int
}

type leaseReply struct {
	attachment
	MTU    int
	Leased []leased
	Pools  []int // all that the primary has
}

func (d *Device) serveLease(p *ipc.Peer, r *request) (answer, error) {
	if may := d.cfg.MayLease; may != nil {
		if err := may(processOf(p), r.Queues); err != nil {
			return answer{}, fmt.Errorf("%w: %w", ErrLeaseDenied, err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.mayLease(r.Queues); err != nil {
		return answer{}, err
	}
	if err := d.locate(); err != nil {
		return answer{}, err
	}
	link, err := d.conn.Link(d.index)
	if err != nil {
		return answer{}, err
	}
	reply, fds := leaseReply{attachment: d.attachment(), MTU: link.MTU}, []int(nil)
	for _, q := range r.Queues {
		l, fd, err := d.lend(p, q)
		if err != nil {
			ipc.CloseAll(fds)
			return answer{}, errors.Join(err, d.regainAll(func(l *lease) bool { return l.peer == p && slices.Contains(r.Queues, l.queue) }))
		}
		reply.Leased, fds = append(reply.Leased, l), append(fds, fd)
	}
	reply.Pools = d.group.openPools()
	d.cfg.Log.Info("queues leased", "interface", d.name, "process", p.String(), "queues", r.Queues)
	return answer{reply, fds}, nil
}

// mayLease says why queues cannot be leased.
func (d *Device) mayLease(queues []int) error {
	switch {
	case d.state == stateClosed:
		return ErrClosed
	case d.gone.Load():
		return ErrGone
	case d.state != stateStarted:
		return ErrStopped
	case len(queues) == 0:
		return &ConfigError{"queues", "empty", "one or more"}
	}
	for i, q := range queues {
		if q < 0 || q >= len(d.pairs) || slices.Contains(queues[:i], q) {
			return &ConfigError{fmt.Sprintf("queues[%d]", i), q, fmt.Sprintf("0 to %d, each once", len(d.pairs)-1)}
		}
		if l := d.pairs[q].lease; l != nil {
			return fmt.Errorf("%w: queue %d by %v", ErrLeased, q, processOf(l.peer))
		}
		if sharable(d.pairs[q].rx.memory) == nil {
			return fmt.Errorf("queue %d receives into memory of the program's own: only an mbuf.Pool can be shared", q)
		}
	}
	return nil
}

// sharable is the pool that a queue's memory comes from, nil if that is something else.
func sharable(m Memory) *mbuf.Pool {
	switch m := m.(type) {
	case *mbuf.Pool:
		return m
	case *mbuf.Cache:
		return m.Pool()
	}
	return nil
}

// lend hands queue q out. Its mbufs go back to the pool, where the other process will find them.
func (d *Device) lend(peer *ipc.Peer, q int) (l leased, fd int, err error) {
	p := d.pairs[q]
	if fd, err = shm.Dup(p.tap.FD()); err != nil {
		return l, -1, err
	}
	p.rx.gate.shut()
	p.tx.gate.shut()
	p.rx.rest()
	d.lastLease++
	p.lease = &lease{peer, q, d.lastLease}
	if err = p.rx.intr.run(false); err != nil {
		ipc.CloseAll([]int{fd})
		return l, -1, err
	}
	return leased{Queue: q, ID: p.lease.id, Pool: d.group.poolID(sharable(p.rx.memory)), RxRing: p.rx.depth, TxRing: len(p.tx.descs)}, fd, nil
}

// regainAll has the primary poll queues again: of the leases that f is true of.
func (d *Device) regainAll(f func(*lease) bool) error {
	var err error
	for _, l := range d.leases(f) {
		p := d.pairs[l.queue]
		p.lease = nil
		d.area.pairs[l.queue].mend()
		if d.state == stateStarted {
			p.rx.gate.open()
			p.tx.gate.open()
			err = errors.Join(err, p.rx.intr.run(true))
		}
	}
	return err
}

func (d *Device) serveReturn(p *ipc.Peer, r *request) (answer, error) {
	return answer{}, d.returned(p, r.Leases)
}

// returned gives the primary back what peer has given up.
func (d *Device) returned(peer *ipc.Peer, ids []uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.regainAll(func(l *lease) bool { return l.peer == peer && slices.Contains(ids, l.id) })
}

// bereave takes everything back from a process that has left, and returns how many queues that were.
func (d *Device) bereave(peer *ipc.Peer) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if cancel := d.listeners[peer]; cancel != nil {
		cancel()
		delete(d.listeners, peer)
	}
	its := func(l *lease) bool { return l.peer == peer }
	queues := len(d.leases(its))
	if err := d.regainAll(its); err != nil {
		d.cfg.Log.Warn("queues of a process that has left", "interface", d.name, "process", peer.String(), "error", err)
	}
	return queues
}

// Revoke takes queues back from the processes that have leased them, all queues if none is named; those that are not
// leased are left alone. It waits until these processes have given them up, which they do by themselves, between two
// bursts; but no longer than a second, nor than ctx. One that does not answer, because it is being held (SIGSTOP) or
// debugged, keeps its queues and is named in the error; they come back when it ends.
func (d *Device) Revoke(ctx context.Context, queues ...int) error {
	holders, err := d.holders(queues)
	for peer, ids := range holders {
		mine := func(l *lease) bool { return l.peer == peer && slices.Contains(ids, l.id) }
		if e := d.tell(ctx, peer, "revoke", request{Leases: ids}); e != nil {
			if errors.Is(e, ipc.ErrPeerGone) && d.soon(func() bool { return len(d.leases(mine)) == 0 }) {
				continue // it has just ended
			}
			err = errors.Join(err, fmt.Errorf("%w: %v does not give queues back: %w", ErrLeased, processOf(peer), e))
			continue
		}
		err = errors.Join(err, d.returned(peer, ids))
	}
	return d.failed("revoke queues of", err)
}

// holders are the processes that have leased some of queues, all if none is named, and the leases.
func (d *Device) holders(queues []int) (map[*ipc.Peer][]uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.far != nil {
		return nil, ErrSecondary
	}
	for i, q := range queues {
		if q < 0 || q >= len(d.pairs) {
			return nil, &ConfigError{fmt.Sprintf("queues[%d]", i), q, fmt.Sprintf("0 to %d", len(d.pairs)-1)}
		}
	}
	all := map[*ipc.Peer][]uint64{}
	for _, l := range d.leases(func(l *lease) bool { return len(queues) == 0 || slices.Contains(queues, l.queue) }) {
		all[l.peer] = append(all[l.peer], l.id)
	}
	return all, nil
}

// tell has a secondary do something, in bounded time. The caller does not hold mu.
func (d *Device) tell(ctx context.Context, p *ipc.Peer, op string, r request) error {
	ctx, cancel := context.WithTimeout(ctx, tellWait)
	defer cancel()
	r.Port = d.cfg.Port
	return p.Call(ctx, op, r, nil)
}

// fitLeases has the processes that lease queues make their slots large enough for mtu.
func (d *Device) fitLeases(mtu int) error {
	holders, err := d.holders(nil)
	for p := range holders {
		if e := d.tell(context.Background(), p, "fit", request{MTU: mtu}); e != nil {
			err = errors.Join(err, fmt.Errorf("%v cannot receive frames of that MTU: %w", processOf(p), e))
		}
	}
	return err
}
