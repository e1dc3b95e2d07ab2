// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/mbuf"
)

// Configure gives the port its queue pairs and its offloads
// (rte_eth_dev_configure). The port must be stopped. Queues that it had before and
// still has keep their set-up; the others are released, or must be set up. What the
// kernel does for the port shows at once (ethtool -k).
//
// An offload that this kernel lacks is an [*OffloadError].
func (d *Device) Configure(cfg PortConfig) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := cfg.check(); err != nil {
		return d.opErr("configure", -1, err)
	}
	if err := d.stopped(); err != nil {
		return d.opErr("configure", -1, err)
	}
	if err := d.checkOffloads(&cfg); err != nil {
		return d.opErr("configure", -1, err)
	}
	if err := d.applyOffloads(cfg); err != nil {
		return d.opErr("configure", -1, err)
	}
	return d.opErr("configure", -1, d.resize(cfg.RxQueues))
}

// stopped reports why a stopped, open device is not what we have.
func (d *Device) stopped() error {
	if d.far != nil {
		return ErrSecondary
	}
	switch d.state {
	case stateClosed:
		return ErrClosed
	case stateStarted:
		return ErrStarted
	}
	return nil
}

func (d *Device) resize(n int) error {
	configured := len(d.pairs)
	var err error
	for len(d.pairs) > n {
		last := len(d.pairs) - 1
		err = errors.Join(err, d.pairs[last].close())
		d.pairs = d.pairs[:last]
	}
	if err != nil {
		return err
	}
	before := len(d.pairs)
	if err := d.grow(n); err != nil {
		for _, p := range d.pairs[before:] {
			err = errors.Join(err, p.close())
		}
		d.pairs = d.pairs[:before]
		return err
	}
	d.state = stateConfigured
	if n != configured {
		d.shared = nil // later queues get a pool of the new size
	}
	d.reap()
	return nil
}

// grow adds descriptors until there are n. They are opened where the interface
// is now, because a descriptor finds it by name in its own namespace.
func (d *Device) grow(n int) error {
	if len(d.pairs) == n {
		return nil
	}
	if err := d.locate(); err != nil {
		return err
	}
	return d.ns.Do(func() error {
		for len(d.pairs) < n {
			q, err := tuntap.Attach(d.name, tuntap.Options{TUN: d.layer2().isTUN(), IfIndex: d.index})
			if err != nil {
				return err
			}
			d.pairs = append(d.pairs, &pair{tap: q})
			if len(d.counters) < len(d.pairs) {
				d.counters = append(d.counters, newCounters(d.area.pair(len(d.counters))))
			}
			if err := q.Disable(); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *pair) close() error {
	err := errors.Join(p.closeRx(), p.closeTx())
	return errors.Join(err, p.tap.Close())
}

func (p *pair) closeRx() error {
	if p.rx == nil {
		return nil
	}
	rx := p.rx
	p.rx = nil
	return rx.close()
}

func (p *pair) closeTx() error {
	if p.tx == nil {
		return nil
	}
	tx := p.tx
	p.tx = nil
	return tx.close()
}

// isDetached reports whether Disable failed because there was nothing to do.
func isDetached(err error) bool { return errors.Is(err, syscall.EINVAL) }

// setupQueue runs f for queue i of a stopped, configured device.
func (d *Device) setupQueue(op string, i int, f func(p *pair) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.stopped(); err != nil {
		return d.opErr(op, i, err)
	}
	if i < 0 || i >= len(d.pairs) {
		return d.opErr(op, i, fmt.Errorf("%w with a queue %d: it has %d", ErrNotConfigured, i, len(d.pairs)))
	}
	return d.opErr(op, i, f(d.pairs[i]))
}

// SetupRxQueue gives Rx queue i its memory and its ring
// (rte_eth_rx_queue_setup). The port must be stopped. A queue that was set up
// before is released first.
func (d *Device) SetupRxQueue(i int, cfg RxConfig) error {
	return d.setupQueue("set up rx", i, func(p *pair) error {
		if cfg.Ring == 0 {
			cfg.Ring = DefaultRingSize
		}
		if err := checkRange("RxConfig.Ring", cfg.Ring, 1, MaxRingSize); err != nil {
			return err
		}
		if err := p.closeRx(); err != nil {
			return err
		}
		if cfg.Memory == nil {
			pool, err := d.ownPool(cfg.Ring)
			if err != nil {
				return err
			}
			cfg.Memory = pool
		}
		rx, err := d.newRxQueue(i, p.tap.FD(), cfg)
		p.rx = rx
		return err
	})
}

// ownPool is the pool for queues that brought no memory.
func (d *Device) ownPool(ring int) (*mbuf.Pool, error) {
	cfg := mbuf.Config{Name: d.name, Count: max(1024, 2*ring*len(d.pairs)), DataRoom: mbuf.DefaultDataRoom}
	if d.conf.lro() && d.conf.RxOffloads&RxOffloadScatter == 0 {
		// Whole frames, for which a few do: each is worth some forty packets.
		cfg.Count, cfg.DataRoom = 2*ring*len(d.pairs), mbuf.MaxBufLen-mbuf.DefaultHeadroom
	}
	if d.shared != nil && d.shared.Count() >= cfg.Count && d.shared.DataRoom() == cfg.DataRoom {
		return d.shared, nil
	}
	pool, err := mbuf.NewPool(cfg)
	if err != nil {
		return nil, err
	}
	d.pools = append(d.pools, pool)
	d.shared = pool
	return pool, nil
}

// reap closes the device's own pools that no queue uses any more, so that
// reconfiguring does not pile them up. One whose mbufs the program still holds
// stays for the next time.
func (d *Device) reap() {
	d.pools = slices.DeleteFunc(d.pools, func(pool *mbuf.Pool) bool {
		return pool != d.shared && !slices.ContainsFunc(d.pairs, func(p *pair) bool { return p.uses(pool) }) && pool.Close() == nil
	})
}

// uses reports whether a queue receives into pool or has it registered.
func (p *pair) uses(pool *mbuf.Pool) bool {
	if p.rx != nil && p.rx.memory == Memory(pool) {
		return true
	}
	return p.tx != nil && slices.ContainsFunc(pool.Regions(), func(r mbuf.Region) bool { return slices.Contains(p.tx.regions, r) })
}

// SetupTxQueue gives Tx queue i its ring (rte_eth_tx_queue_setup). The port
// must be stopped. A queue that was set up before is released first.
func (d *Device) SetupTxQueue(i int, cfg TxConfig) error {
	return d.setupQueue("set up tx", i, func(p *pair) error {
		if cfg.Ring == 0 {
			cfg.Ring = DefaultRingSize
		}
		if err := checkRange("TxConfig.Ring", cfg.Ring, 1, MaxRingSize); err != nil {
			return err
		}
		if err := p.closeTx(); err != nil {
			return err
		}
		if cfg.Regions == nil {
			cfg.Regions = d.rxRegions()
		}
		tx, err := d.newTxQueue(i, p.tap.FD(), cfg)
		p.tx = tx
		return err
	})
}

// SetTxRegions has Tx queue i register other memory with the kernel than it has now: see TxConfig.Regions. It is for
// memory that comes and goes while the port is started: what must not stay registered is what is to be unmapped. Packets may
// flow meanwhile; a burst that comes at the moment of the change returns 0. If it fails, nothing has changed.
func (d *Device) SetTxRegions(i int, regions []mbuf.Region) error {
	const op = "set regions of tx"
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.far != nil:
		return d.opErr(op, i, ErrSecondary)
	case d.state == stateClosed:
		return d.opErr(op, i, ErrClosed)
	case i < 0 || i >= len(d.pairs):
		return d.opErr(op, i, fmt.Errorf("%w with a queue %d: it has %d", ErrNotConfigured, i, len(d.pairs)))
	case d.pairs[i].tx == nil:
		return d.opErr(op, i, ErrQueueNotSetUp)
	}
	p := d.pairs[i]
	return d.opErr(op, i, p.tx.register(p.tap.FD(), regions))
}

// rxRegions is the memory of the Rx queues that are set up, each region once.
func (d *Device) rxRegions() []mbuf.Region {
	var all []mbuf.Region
	seen := map[mbuf.Region]bool{}
	for _, p := range d.pairs {
		if p.rx == nil {
			continue
		}
		for _, r := range p.rx.memory.Regions() {
			if !seen[r] {
				seen[r] = true
				all = append(all, r)
			}
		}
	}
	return all
}

func pktioRegions(regions []mbuf.Region) []pktio.Region {
	out := make([]pktio.Region, len(regions))
	for i, r := range regions {
		out[i] = pktio.Region(r)
	}
	return out
}

// ReleaseRxQueue frees what SetupRxQueue made (rte_eth_dev_rx_queue_release).
// The port must be stopped. Releasing a queue that is not set up does nothing.
func (d *Device) ReleaseRxQueue(i int) error {
	return d.setupQueue("release rx", i, (*pair).closeRx)
}

// ReleaseTxQueue frees what SetupTxQueue made, as ReleaseRxQueue.
func (d *Device) ReleaseTxQueue(i int) error {
	return d.setupQueue("release tx", i, (*pair).closeTx)
}

// RxQueue is the port's i-th Rx queue, or nil if there is none or it is not set
// up. It is valid until the queue is released or set up anew.
func (d *Device) RxQueue(i int) *RxQueue {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i < 0 || i >= len(d.pairs) {
		return nil
	}
	return d.pairs[i].rx
}

// TxQueue is the port's i-th Tx queue, as RxQueue.
func (d *Device) TxQueue(i int) *TxQueue {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i < 0 || i >= len(d.pairs) {
		return nil
	}
	return d.pairs[i].tx
}

// Start lets packets flow and brings the link up, unless Config.NoLinkUp says otherwise (rte_eth_dev_start). Every
// queue must be set up. Starting a started port is ErrStarted.
func (d *Device) Start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opErr("start", -1, d.start())
}

func (d *Device) start() error {
	if err := d.stopped(); err != nil {
		return err
	}
	if d.gone.Load() {
		return ErrGone
	}
	if d.state == stateOpen {
		return ErrNotConfigured
	}
	for i, p := range d.pairs {
		if p.rx == nil || p.tx == nil {
			return fmt.Errorf("%w: %d", ErrQueueNotSetUp, i)
		}
	}
	if err := d.shapeQueues(); err != nil {
		return err
	}
	if err := d.attachQueues(); err != nil {
		return errors.Join(err, d.detachQueues())
	}
	d.state = stateStarted
	if err := d.openGates(); err != nil {
		return errors.Join(err, d.stop())
	}
	return nil
}

// shapeQueues fits the queues to the interface and the configuration, and the
// kernel's frames to the queues, before the first can come.
func (d *Device) shapeQueues() error {
	if err := d.locate(); err != nil {
		return err
	}
	link, err := d.conn.Link(d.index)
	if err != nil {
		return err
	}
	for _, p := range d.pairs {
		if err := p.rx.fit(d.rxShape(link.MTU)); err != nil {
			return err
		}
		p.tx.fit(&d.conf)
	}
	return d.boundLRO()
}

// attachQueues attaches in order, because the kernel numbers queues as they come.
func (d *Device) attachQueues() error {
	for _, p := range d.pairs {
		if err := p.tap.Enable(); err != nil {
			if e := d.locate(); e != nil {
				return e
			}
			return err
		}
	}
	return d.pairs[0].tap.SetCarrier(d.carrier) // whatever was done to it meanwhile
}

// detachQueues detaches from the last to the first, so that none is renumbered.
// It skips those that are detached already.
func (d *Device) detachQueues() error {
	var err error
	for i := len(d.pairs) - 1; i >= 0; i-- {
		if e := d.pairs[i].tap.Disable(); e != nil && !isDetached(e) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (d *Device) openGates() error {
	if err := d.locate(); err != nil {
		return err
	}
	link, err := d.conn.Link(d.index)
	if err != nil {
		return err
	}
	d.link.start(link)
	if !d.cfg.NoLinkUp { // first: the kernel refuses what is sent while it is down
		if err := d.conn.SetUp(d.index); err != nil {
			return err
		}
	}
	for _, p := range d.pairs {
		p.rx.gate.open()
		p.tx.gate.open()
	}
	return d.interrupts(true)
}

// interrupts tells the Rx queues, and those who wait for them, that the port runs or that it stopped.
func (d *Device) interrupts(running bool) error {
	var err error
	for _, p := range d.pairs {
		err = errors.Join(err, p.rx.intr.run(running))
	}
	return err
}

// Stop brings the link down and ends the flow of packets (rte_eth_dev_stop).
// Packets that wait in the kernel's queues are dropped. Bursts that run are
// waited for; later ones return 0. The queues' mbufs go back to their memory: a stopped port
// holds none. Stopping a stopped port does nothing. While other
// processes have leased queues it is ErrLeased, which names them: see Revoke.
func (d *Device) Stop() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.far != nil:
		return d.opErr("stop", -1, ErrSecondary)
	case d.state == stateClosed:
		return d.opErr("stop", -1, ErrClosed)
	case d.state != stateStarted:
		return nil
	}
	if err := d.unleased(); err != nil {
		return d.opErr("stop", -1, err)
	}
	return d.opErr("stop", -1, d.stop())
}

func (d *Device) stop() error {
	for _, p := range d.pairs {
		p.rx.gate.shut()
		p.tx.gate.shut()
		p.rx.rest()
	}
	err := d.locate()
	if err == nil {
		err = d.linkDown()
	}
	if !d.gone.Load() {
		err = errors.Join(err, d.detachQueues())
	}
	err = errors.Join(err, d.interrupts(false))
	d.state = stateConfigured
	if errors.Is(err, ErrGone) {
		return nil // stopped it is
	}
	return err
}

func (d *Device) linkDown() error {
	err := d.conn.SetDown(d.index)
	link, e := d.conn.Link(d.index)
	if e == nil {
		d.link.stop(link)
	}
	return errors.Join(err, e)
}
