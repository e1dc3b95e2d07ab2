// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rtap-project/rtap/internal/ipc"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/mbuf"
)

type state int

const (
	stateOpen state = iota // no queues
	stateConfigured
	stateStarted
	stateClosed
)

// Device is a port: one TAP or TUN interface and its queues. Its methods may be called
// by any goroutine at any time.
type Device struct {
	cfg  Config
	gone atomic.Bool // set by whoever sees first that the interface was deleted
	shut atomic.Bool // set by Close

	events *events // what happens to the interface; it has a lock of its own

	mu    sync.Mutex // everything below
	state state

	// The keep-alive descriptor holds the interface while no queue does, and knows
	// where it is. It is detached from traffic, except for a moment in withKeep.
	keep *tuntap.Queue

	// Where the interface was last seen; locate follows it.
	ns    *netns.NS
	conn  *rtnl.Conn
	index int
	name  string
	mode  Mode // it never changes; a secondary learns it from the primary

	engine pktio.Engine
	reason string // why that engine

	capa   capabilities
	conf   PortConfig // as of Configure
	gsoMax int        // what the kernel was told last, 0: nothing

	adopted bool // the interface was there before Open
	carrier bool
	pairs   []*pair
	pools   []*mbuf.Pool // made by the device for queues that brought no memory
	shared  *mbuf.Pool   // the pool of pools that queues set up now use

	counters []*counters // of every queue pair there ever was
	link     linkStats

	// Of a published port.
	group     *group // nil if it is not published
	withdrawn atomic.Bool
	area      *area
	rings     map[string]*ring     // of a secondary: changed with leasing held as well
	listeners map[*ipc.Peer]func() // who is told of events, and how that ends
	lastLease uint64

	// Of a secondary.
	far          *far
	orphaned     atomic.Bool // the primary is gone
	leasing      sync.Mutex  // one operation at a time that asks the primary and changes things here; taken before mu
	mtu          int         // that the slots are fit for
	revokedEarly map[uint64]bool
}

// pair is a queue pair: one descriptor, one queue each way.
type pair struct {
	tap *tuntap.Queue // of a secondary, nil unless the queue is leased
	rx  *RxQueue
	tx  *TxQueue

	lease *lease // at the primary: who else polls it, nil if nobody does
	id    uint64 // at a secondary: of its lease
}

// Start opens the interface and starts it with cfg.Queues queue pairs. It is
// Open, Configure, SetupRxQueue and SetupTxQueue for each queue, and
// Device.Start in one call.
// If any of it fails, no interface is left behind that was not there before.
func Start(cfg Config) (*Device, error) {
	d, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	if err := d.startAll(); err != nil {
		return nil, errors.Join(err, d.Discard())
	}
	return d, nil
}

// Discard is Close for a program that has opened a port and cannot start it: an interface that Open made goes
// away, also with Config.Persist. One that was there before stays.
func (d *Device) Discard() error { return errors.Join(d.forget(), d.Close()) }

// forget makes an interface that Open made go away at Close in any case.
func (d *Device) forget() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.cfg.Persist || d.adopted || d.gone.Load() || d.keep == nil {
		return nil
	}
	return d.opErr("forget", -1, d.keep.SetPersist(false))
}

func (d *Device) startAll() error {
	n := d.cfg.Queues
	cfg := PortConfig{RxQueues: n, TxQueues: n,
		RxOffloads: d.cfg.RxOffloads, TxOffloads: d.cfg.TxOffloads, MaxLROPktSize: d.cfg.MaxLROPktSize}
	if err := d.Configure(cfg); err != nil {
		return err
	}
	for i := range n {
		if err := d.SetupRxQueue(i, RxConfig{Ring: d.cfg.RxRing, Memory: d.cfg.Memory}); err != nil {
			return err
		}
	}
	for i := range n {
		if err := d.SetupTxQueue(i, TxConfig{Ring: d.cfg.TxRing}); err != nil {
			return err
		}
	}
	return d.Start()
}

// Open creates the interface, down and without queues, or takes over a
// persistent one of that name and mode that nobody else has open. The error is a
// *ConfigError, or an *OpError that says what to do: which capability is
// missing, that /dev/net/tun is, that the name is taken.
func Open(cfg Config) (*Device, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("rtap: open: %w", err)
	}
	d := &Device{cfg: cfg, name: cfg.Name, mode: cfg.Mode, carrier: !cfg.NoCarrier}
	if err := d.publish(); err != nil {
		return nil, errors.Join(d.opErr("open", -1, err), d.withdraw(), d.release())
	}
	if err := d.open(); err != nil {
		d.events.stop()
		return nil, errors.Join(d.opErr("open", -1, err), d.withdraw(), d.release())
	}
	d.show()
	cfg.Log.Info("port opened", "interface", d.name, "ifindex", d.index, "engine", d.engine.Name(), "reason", d.engineReason())
	return d, nil
}

func (d *Device) open() error {
	if err := d.create(); err != nil {
		return err
	}
	if err := d.follow(d.keep); err != nil {
		return err
	}
	if err := d.setUpLink(); err != nil {
		return err
	}
	var err error
	if d.engine, d.reason, err = pktio.Select(string(d.cfg.Engine), d.keep.FD()); err != nil {
		return err
	}
	if err := d.probe(); err != nil {
		return err
	}
	if err := d.keep.Disable(); err != nil {
		return err
	}
	if d.events, err = d.watch(); err != nil {
		return err
	}
	if d.cfg.Persist { // last: nothing is left behind when the rest fails
		return d.keep.SetPersist(true)
	}
	return nil
}

// engineReason says why the engine was taken, and how it works here.
func (d *Device) engineReason() string { return d.reason + "; " + d.engine.Notes() }

// create makes the interface in the namespace that the configuration names.
func (d *Device) create() error {
	if d.cfg.NetNS == "" {
		return d.attach()
	}
	ns, err := netns.Open(d.cfg.NetNS)
	if err != nil {
		return err
	}
	return errors.Join(ns.Do(d.attach), ns.Close())
}

// attach is attachOnce. Under a file prefix, a primary that has just died may have left secondaries, which keep the
// interface until they notice.
func (d *Device) attach() (err error) {
	const patience, pause = 2 * time.Second, 10 * time.Millisecond
	for begin := time.Now(); ; time.Sleep(pause) {
		err = d.attachOnce()
		again := errors.Is(err, syscall.EBUSY) && d.group != nil || errors.Is(err, rtnl.ErrNotFound) // went just now
		if !again || time.Since(begin) > patience {
			return err
		}
	}
}

// attachOnce makes the interface or, if there is one of that name, adopts it.
func (d *Device) attachOnce() (err error) {
	d.keep, err = tuntap.Attach(d.cfg.Name, tuntap.Options{TUN: d.layer2().isTUN(), Exclusive: true})
	if !errors.Is(err, syscall.EBUSY) {
		return err
	}
	if err := unused(d.cfg.Name); err != nil {
		return err
	}
	d.adopted = true
	d.keep, err = tuntap.Attach(d.cfg.Name, tuntap.Options{TUN: d.layer2().isTUN()})
	return err
}

// unused refuses an interface that has descriptors: to attach one more would take some
// of its packets from whoever has it, and change its settings.
func unused(name string) error {
	conn, err := rtnl.Dial(-1)
	if err != nil {
		return err
	}
	link, err := conn.LinkByName(name)
	if err == nil && link.TunQueues > 0 {
		err = fmt.Errorf("%w: another program uses it; choose another name", syscall.EBUSY)
	}
	return errors.Join(err, conn.Close())
}

// setUpLink gives the interface what the configuration asks for.
func (d *Device) setUpLink() error {
	if err := d.conn.SetTxQueueLen(d.index, d.cfg.TxQueueLen); err != nil {
		return err
	}
	if d.cfg.MTU != 0 {
		if err := d.conn.SetMTU(d.index, d.cfg.MTU); err != nil {
			return err
		}
	}
	if d.cfg.MAC != nil {
		if err := d.conn.SetMAC(d.index, d.cfg.MAC); err != nil {
			return err
		}
	}
	return d.keep.SetCarrier(d.carrier)
}

// locate finds the interface again: it may have been renamed, or moved to
// another namespace, where it may have another index. The keep-alive descriptor
// always knows. The caller holds mu.
func (d *Device) locate() error {
	switch {
	case d.far != nil:
		return ErrSecondary
	case d.state == stateClosed:
		return ErrClosed
	case d.gone.Load():
		return ErrGone
	}
	return d.follow(d.keep)
}

// withKeep attaches the keep-alive descriptor for the duration of f, while no
// queue is attached.
func (d *Device) withKeep(f func(*tuntap.Queue) error) error {
	switch err := d.keep.Enable(); {
	case errors.Is(err, syscall.EINVAL): // its interface was deleted
		return d.markGone()
	case err != nil:
		return err
	}
	err := f(d.keep)
	if e := d.keep.Disable(); e != nil && !d.gone.Load() {
		err = errors.Join(err, e)
	}
	return err
}

func (d *Device) markGone() error {
	d.gone.Store(true)
	return ErrGone
}

// lookups bounds how often follow asks again when the interface is renamed or
// moved meanwhile.
const lookups = 10

// follow sees where the interface of descriptor q is now. Even in the namespace
// where it was it may have another index, after a round trip.
func (d *Device) follow(q *tuntap.Queue) (err error) {
	for range lookups {
		if err = d.enter(q); err != nil {
			break
		}
		if err = d.identify(q); !errors.Is(err, rtnl.ErrNotFound) {
			break
		}
	}
	if errors.Is(err, tuntap.Gone) {
		return d.markGone()
	}
	return err
}

// enter connects to the namespace that the interface is in, unless that is done.
func (d *Device) enter(q *tuntap.Queue) error {
	fd, err := q.NetNS()
	if err != nil {
		return err
	}
	ns, err := netns.FromFD(fd)
	if err != nil {
		return err
	}
	if d.ns != nil && ns.Equal(d.ns) {
		return ns.Close()
	}
	conn, err := rtnl.Dial(ns.FD())
	if err != nil {
		return errors.Join(err, ns.Close())
	}
	old, oldNS := d.conn, d.ns
	d.ns, d.conn = ns, conn
	if old != nil {
		return errors.Join(old.Close(), oldNS.Close())
	}
	return nil
}

// identify finds the interface's name and index in the namespace that it was
// last seen in. The name may change hands between the questions, so it must be
// the same before and after.
func (d *Device) identify(q *tuntap.Queue) error {
	name, err := q.Name()
	if err != nil {
		return err
	}
	link, err := d.conn.LinkByName(name)
	if err != nil {
		return err
	}
	after, err := q.Name()
	if err != nil {
		return err
	}
	if after != name {
		return rtnl.ErrNotFound
	}
	d.name, d.index = name, link.Index
	return nil
}

// Err says whether the port still has its interface: nil, ErrGone or ErrClosed.
// It takes no lock and costs next to nothing, so a poll loop may ask it each time.
func (d *Device) Err() error {
	switch {
	case d.shut.Load():
		return ErrClosed
	case d.gone.Load():
		return ErrGone
	case d.orphaned.Load():
		return ErrPrimaryGone
	}
	return nil
}

// Close stops the port if it runs, takes back every mbuf that its queues hold
// and removes the interface, unless it is persistent. Calling it again does
// nothing. Bursts may run meanwhile; they return 0 from then on. Subscriptions end
// first: what Close does to the interface is no event.
//
// An error says what could not be given back; Close again tries that again. In
// particular, mbufs of the device's own pool that the program still holds keep
// that pool mapped.
//
// Processes that are attached lose the port: what they have leased is revoked first. Of a secondary, Close
// gives back what it leased and detaches; see AttachWith.
func (d *Device) Close() error {
	if d.far != nil {
		return d.closeFar()
	}
	d.events.stop() // without the lock, for which it may be waiting
	err := d.dismiss()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut.Store(true)
	err = errors.Join(err, d.closeRings())
	if d.state == stateStarted {
		err = errors.Join(err, d.stop())
	}
	for i := range d.pairs {
		err = errors.Join(err, d.pairs[i].close())
	}
	d.pairs = nil
	err = errors.Join(err, d.resetOffloads())
	d.state = stateClosed
	return d.opErr("close", -1, errors.Join(err, d.release()))
}

// release gives back what open took.
func (d *Device) release() error {
	var err error
	closeIt := func(c interface{ Close() error }) { err = errors.Join(err, c.Close()) }
	if d.engine != nil {
		closeIt(d.engine)
		d.engine = nil
	}
	if d.keep != nil {
		closeIt(d.keep)
		d.keep = nil
	}
	if d.conn != nil {
		closeIt(d.conn)
		closeIt(d.ns)
		d.conn, d.ns = nil, nil
	}
	d.pools = slices.DeleteFunc(d.pools, func(p *mbuf.Pool) bool {
		e := p.Close()
		err = errors.Join(err, e)
		return e == nil
	})
	err = errors.Join(err, d.area.close())
	d.area = nil
	return err
}
