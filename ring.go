// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rtap-project/rtap/internal/ipc"
	"github.com/rtap-project/rtap/internal/shm"
	"github.com/rtap-project/rtap/mbuf"
)

// Rings hand packets from one process to another. The primary makes them, by name; any process attached to the
// port, the primary too, takes one of the two ends.

// MakeRing makes a ring with room for size packets, rounded up to a power of two, of mbufs of pool; nil means the pool of
// Rx queue 0. It goes with the port. Only the primary can, of a port that is published.
func (d *Device) MakeRing(name string, size int, pool *mbuf.Pool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opErr("make ring "+name+" of", -1, d.makeRing(name, size, pool))
}

func (d *Device) makeRing(name string, size int, pool *mbuf.Pool) error {
	switch {
	case d.state == stateClosed:
		return ErrClosed
	case d.far != nil:
		return ErrSecondary
	case d.group == nil:
		return errNotPublished
	case d.rings[name] != nil:
		return &ConfigError{"name", name, "one that no ring of the port has"}
	}
	if pool == nil {
		if len(d.pairs) == 0 || d.pairs[0].rx == nil || sharable(d.pairs[0].rx.memory) == nil {
			return &ConfigError{"pool", "nil", "a pool, as Rx queue 0 has none"}
		}
		pool = sharable(d.pairs[0].rx.memory)
	}
	r, err := mbuf.NewRing(name, size, pool)
	if err != nil {
		return err
	}
	if d.rings == nil {
		d.rings = map[string]*ring{}
	}
	d.rings[name] = &ring{Ring: r, pool: pool}
	return nil
}

// ring is one, at either side.
type ring struct {
	*mbuf.Ring
	pool *mbuf.Pool // the primary's
	ends [2]bool    // a secondary's: which it has
}

// Producer takes the end of a ring at which packets go in. No other process has it until it is released, or the
// process ends. The error is ErrNoRing, or mbuf.ErrTaken, which names the process that has it.
func (d *Device) Producer(name string) (*mbuf.Producer, error) {
	r, err := d.openRing(name, mbuf.Producing)
	if err != nil {
		return nil, d.failed("open ring "+name+" of", err)
	}
	return r.Producer(), nil
}

// Consumer takes the end of a ring at which packets come out, as Producer.
func (d *Device) Consumer(name string) (*mbuf.Consumer, error) {
	r, err := d.openRing(name, mbuf.Consuming)
	if err != nil {
		return nil, d.failed("open ring "+name+" of", err)
	}
	return r.Consumer(), nil
}

// ReleaseRing gives up an end of a ring, which is not used any more. What is in the ring stays there for who takes
// its end next.
func (d *Device) ReleaseRing(name string, end mbuf.End) error {
	if d.far != nil {
		d.leasing.Lock()
		defer d.leasing.Unlock()
		return d.failed("release ring "+name+" of", d.vacate(name, end))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r, err := d.ring(name, end)
	if err == nil {
		r.Vacate(end, 0)
	}
	return d.opErr("release ring "+name+" of", -1, err)
}

func (d *Device) openRing(name string, end mbuf.End) (*mbuf.Ring, error) {
	if d.far != nil {
		d.leasing.Lock()
		defer d.leasing.Unlock()
		return d.farRing(name, end)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r, err := d.ring(name, end)
	if err != nil {
		return nil, err
	}
	return r.Ring, d.assign(r, end, 0)
}

// assign is Ring.Assign with an error that names the process.
func (d *Device) assign(r *ring, end mbuf.End, proc int) error {
	err := r.Assign(end, proc)
	holder, taken := r.Holder(end)
	if errors.Is(err, mbuf.ErrTaken) && !taken { // no longer
		err = r.Assign(end, proc)
	}
	if !errors.Is(err, mbuf.ErrTaken) {
		return err
	}
	all := d.Processes()
	if i := slices.IndexFunc(all, func(p Process) bool { return p.ID == holder }); i >= 0 {
		return fmt.Errorf("%w: by %v", mbuf.ErrTaken, all[i])
	}
	return fmt.Errorf("%w: by the primary", mbuf.ErrTaken)
}

// ring is the primary's ring of that name.
func (d *Device) ring(name string, end mbuf.End) (*ring, error) {
	if d.state == stateClosed {
		return nil, ErrClosed
	}
	if end != mbuf.Producing && end != mbuf.Consuming {
		return nil, &ConfigError{"end", int(end), "mbuf.Producing or mbuf.Consuming"}
	}
	if r := d.rings[name]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrNoRing, name)
}

// ringReply says which pool a ring's mbufs are of.
type ringReply struct{ Pool int }

func (d *Device) serveRing(p *ipc.Peer, r *request) (answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ring, err := d.ring(r.Ring, r.End)
	if err != nil {
		return answer{}, err
	}
	fd, err := shm.Dup(ring.FD())
	if err != nil {
		return answer{}, err
	}
	if err := d.assign(ring, r.End, p.ID()); err != nil {
		ipc.CloseAll([]int{fd})
		return answer{}, err
	}
	return answer{ringReply{d.group.poolID(ring.pool)}, []int{fd}}, nil
}

func (d *Device) serveVacate(p *ipc.Peer, r *request) (answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ring, err := d.ring(r.Ring, r.End)
	if err == nil {
		ring.Vacate(r.End, p.ID())
	}
	return answer{}, err
}

// farRing opens a ring in a secondary. The caller holds leasing.
func (d *Device) farRing(name string, end mbuf.End) (*mbuf.Ring, error) {
	if r := d.rings[name]; r != nil && r.ends[end] {
		return r.Ring, nil
	}
	var reply ringReply
	fds, err := d.askFor(context.Background(), "ring", request{Ring: name, End: end}, &reply)
	if err == nil {
		err = wantFiles(fds, 1)
	}
	if err != nil {
		return nil, err
	}
	if d.rings[name] == nil {
		err = d.mapRing(name, fds[0], reply.Pool)
	} else {
		ipc.CloseAll(fds)
	}
	if err != nil {
		return nil, errors.Join(err, d.ask("vacate", request{Ring: name, End: end}, nil))
	}
	d.rings[name].ends[end] = true
	return d.rings[name].Ring, nil
}

// mapRing takes fd over.
func (d *Device) mapRing(name string, fd, poolID int) error {
	pool, err := d.far.pool(d, poolID)
	if err != nil {
		ipc.CloseAll([]int{fd})
		return err
	}
	r, err := mbuf.AttachRing(fd, pool)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rings == nil {
		d.rings = map[string]*ring{}
	}
	d.rings[name] = &ring{Ring: r}
	return nil
}

// vacate gives up an end in a secondary, and with the last the ring.
func (d *Device) vacate(name string, end mbuf.End) error {
	r := d.rings[name]
	if r == nil || !r.ends[end] {
		return fmt.Errorf("%w: %q is not open", ErrNoRing, name)
	}
	r.ends[end] = false
	var err error
	if !r.ends[1-end] {
		d.mu.Lock()
		delete(d.rings, name)
		d.mu.Unlock()
		err = r.Close()
	}
	return errors.Join(err, ignoreGone(d.ask("vacate", request{Ring: name, End: end}, nil)))
}

// closeRings gives up all rings: a secondary's ends, or the primary's rings with what is in them.
func (d *Device) closeRings() error {
	var err error
	for name, r := range d.rings {
		if d.far == nil {
			r.Vacate(mbuf.Producing, 0)
			r.Vacate(mbuf.Consuming, 0)
			if e := r.Close(); e != nil {
				err = errors.Join(err, e)
				continue
			}
			delete(d.rings, name)
			continue
		}
		for end, has := range r.ends {
			if has {
				err = errors.Join(err, d.vacate(name, mbuf.End(end)))
			}
		}
	}
	return err
}
