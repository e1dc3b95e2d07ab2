// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rtap-project/rtap/internal/ipc"
	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/mbuf"
)

// Several processes on one port: a secondary's side.

// AttachConfig says which port of another process to attach to.
type AttachConfig struct {
	// FilePrefix and Port are Config.FilePrefix and Config.Port of the primary.
	FilePrefix string
	Port       uint16

	// RuntimeDir is Config.RuntimeDir of the primary. Empty means as DPDK finds it.
	RuntimeDir string

	// Name is what the primary calls this process in messages, at most 64 bytes. Empty means the program's name.
	// Of several ports that a process attaches to under one prefix, the first one's counts.
	Name string

	// Engine to use for queues that are leased. Empty means EngineAuto.
	Engine Engine

	// Log gets what the control plane has to say. nil means nothing is logged.
	Log *slog.Logger
}

// attachWait bounds the handshake with the primary.
const attachWait = 10 * time.Second

// far is a secondary's connection to a primary. All ports that it attaches to under one file prefix share it, and the
// pools, which can be mapped once only.
type far struct {
	key    groupKey
	client *ipc.Client
	lost   atomic.Bool // the primary is gone

	mu    sync.Mutex // never held while the primary is asked
	ports map[uint16]*Device

	mapping sync.Mutex
	pools   map[int]*mbuf.Pool
}

// attached are the connections of this process.
var attached struct {
	sync.Mutex
	fars map[groupKey]*far
}

// Attach attaches to a port that another process, the primary, has opened with that file prefix and number.
// See [AttachWith].
func Attach(filePrefix string, port uint16) (*Device, error) {
	return AttachWith(AttachConfig{FilePrefix: filePrefix, Port: port})
}

// AttachWith attaches to a port of another process, the primary, which must run as the same user, or this one as root,
// and be the same build of rtap. What this process, a secondary, gets is a Device with which it can look: Stats, XStats,
// Link, Info, Events; and lease queues: see [Device.Lease]. Whatever configures the port is ErrSecondary.
//
// The primary's death ends it: bursts then return 0, and Err and the next control call are ErrPrimaryGone. Close gives
// back what was leased, without any effect on the port. Errors: ErrNoPrimary, ErrNoPort, ErrBuild, and that
// of a process that is not admitted. Linux only.
func AttachWith(cfg AttachConfig) (*Device, error) {
	cfg.Name = cmp.Or(cfg.Name, filepath.Base(os.Args[0]))
	cfg.Engine = cmp.Or(cfg.Engine, EngineAuto)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Device{revokedEarly: map[uint64]bool{}, cfg: Config{Port: cfg.Port, Engine: cfg.Engine, Log: cfg.Log, FilePrefix: cfg.FilePrefix, RuntimeDir: cfg.RuntimeDir}}
	if err := checkEngine(cfg.Engine); err != nil {
		return nil, d.opErr("attach to", -1, err)
	}
	if err := d.join(cfg); err != nil {
		return nil, d.opErr(fmt.Sprintf("attach to port %d of %s", cfg.Port, cfg.FilePrefix), -1, err)
	}
	return d, nil
}

func (d *Device) join(cfg AttachConfig) error {
	d.events = newFarEvents(d)
	attached.Lock()
	defer attached.Unlock()
	f, err := connect(cfg)
	if err != nil {
		return err
	}
	d.far = f
	if err := f.add(d); err != nil {
		return errors.Join(err, f.leaveIfLast())
	}
	var a attachment
	fds, err := d.askFor(context.Background(), "attach", request{}, &a)
	if err == nil {
		err = wantFiles(fds, 1)
	}
	if err == nil {
		d.area, err = attachArea(fds[0])
	}
	if err != nil {
		f.remove(d)
		return errors.Join(err, f.leaveIfLast())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.learn(a)
	return nil
}

// connect is the connection to a primary, which may be there already.
func connect(cfg AttachConfig) (*far, error) {
	key := groupKey{cfg.RuntimeDir, cfg.FilePrefix}
	if f := attached.fars[key]; f != nil && !f.lost.Load() {
		return f, nil
	}
	f := &far{key: key, ports: map[uint16]*Device{}, pools: map[int]*mbuf.Pool{}}
	ctx, cancel := context.WithTimeout(context.Background(), attachWait)
	defer cancel()
	var err error
	f.client, err = ipc.Dial(ctx, ipc.ClientConfig{Base: cfg.RuntimeDir, Prefix: cfg.FilePrefix, Build: build(), Name: cfg.Name,
		Request: f.request})
	if err != nil {
		return nil, err
	}
	if attached.fars == nil {
		attached.fars = map[groupKey]*far{}
	}
	attached.fars[key] = f
	go f.watch()
	return f, nil
}

func (f *far) add(d *Device) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ports[d.cfg.Port] != nil {
		return &ConfigError{"AttachConfig.Port", d.cfg.Port, "a port that this process is not attached to yet"}
	}
	f.ports[d.cfg.Port] = d
	return nil
}

func (f *far) remove(d *Device) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.ports, d.cfg.Port)
}

// leaveIfLast says goodbye to the primary when no port is left, unless mbufs of its pools are still held here. The caller
// holds attached.
func (f *far) leaveIfLast() error {
	if len(f.devices()) > 0 {
		return nil
	}
	f.mapping.Lock()
	defer f.mapping.Unlock()
	for id, pool := range f.pools {
		if err := pool.Close(); err != nil {
			return err
		}
		delete(f.pools, id)
	}
	if attached.fars[f.key] == f {
		delete(attached.fars, f.key)
	}
	return f.client.Close()
}

// watch ends everything when the primary is gone.
func (f *far) watch() {
	<-f.client.Done()
	f.lost.Store(true)
	for _, d := range f.devices() {
		d.orphan()
	}
}

func (f *far) devices() (all []*Device) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.ports {
		all = append(all, d)
	}
	return all
}

// pool is the primary's pool of that number, mapped here.
func (f *far) pool(d *Device, id int) (*mbuf.Pool, error) {
	f.mapping.Lock()
	defer f.mapping.Unlock()
	if p := f.pools[id]; p != nil {
		return p, nil
	}
	var s sharedPool
	fds, err := d.askFor(context.Background(), "pool", request{Pool: id}, &s)
	if err == nil {
		err = wantFiles(fds, 1)
	}
	if err != nil {
		return nil, err
	}
	p, err := mbuf.AttachPool(fds[0], s.Base, f.client.ID())
	if err != nil {
		return nil, err
	}
	f.pools[id] = p
	return p, nil
}

// prune closes pools that the primary has no more, unless mbufs of them are still held here.
func (f *far) prune(open []int) {
	f.mapping.Lock()
	defer f.mapping.Unlock()
	maps.DeleteFunc(f.pools, func(id int, p *mbuf.Pool) bool { return !slices.Contains(open, id) && p.Close() == nil })
}

// request is what the primary wants done. It takes Device.mu, which nobody holds while the primary is asked.
func (f *far) request(op string, body json.RawMessage) (any, error) {
	var r request
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	f.mu.Lock()
	d := f.ports[r.Port]
	f.mu.Unlock()
	if d == nil {
		return nil, nil // detached meanwhile
	}
	switch op {
	case "revoke":
		return nil, d.revoked(r.Leases)
	case "fit":
		return nil, d.fitTo(r.MTU)
	case "event":
		d.happened(r.Event)
		return nil, nil
	case "closed":
		d.orphan()
		return nil, nil
	}
	return nil, fmt.Errorf("unknown request %q", op)
}

// ask has the primary do something for this port, and askFor something that has descriptors.
func (d *Device) ask(op string, r request, reply any) error {
	fds, err := d.askFor(context.Background(), op, r, reply)
	ipc.CloseAll(fds)
	return err
}

func (d *Device) askFor(ctx context.Context, op string, r request, reply any) ([]int, error) {
	if d.shut.Load() {
		return nil, ErrClosed
	}
	if d.orphaned.Load() {
		return nil, ErrPrimaryGone
	}
	ctx, cancel := context.WithTimeout(ctx, attachWait)
	defer cancel()
	r.Port = d.cfg.Port
	return d.far.client.Call(ctx, op, r, reply)
}

func wantFiles(fds []int, n int) error {
	if len(fds) == n {
		return nil
	}
	ipc.CloseAll(fds)
	return fmt.Errorf("the primary sent %d descriptors: want %d", len(fds), n)
}

// learn takes over what the primary says of the port. The caller holds mu.
func (d *Device) learn(a attachment) {
	d.name, d.index, d.mode, d.conf = a.Name, a.Index, a.Mode, a.Conf
	for len(d.counters) < a.Queues {
		d.counters = append(d.counters, newCounters(d.area.pair(len(d.counters))))
	}
	for len(d.pairs) < a.Queues {
		d.pairs = append(d.pairs, &pair{})
	}
}

// Lease takes queue pairs of a port, which this process, a secondary, is attached to: until they are returned, or the
// primary takes them back, [Device.RxQueue] and [Device.TxQueue] give queues that work as the primary's do, at the same speed.
// The port must be started, and the queues must be no other secondary's. Their rings are as large as the primary's, and
// they receive into the primary's pool, which is mapped at the same address here.
//
// Either all are leased or, with an error, none: ErrLeased names who has one, ErrStopped, ErrLeaseDenied (by the primary's
// Config.MayLease), mbuf.ErrTaken if something else is mapped at the pool's address.
func (d *Device) Lease(queues ...int) error {
	if d.far == nil {
		return d.opErr("lease queues of", -1, ErrPrimary)
	}
	d.leasing.Lock()
	defer d.leasing.Unlock()
	return d.failed("lease queues of", d.lease(queues))
}

func (d *Device) lease(queues []int) error {
	var r leaseReply
	fds, err := d.askFor(context.Background(), "lease", request{Queues: queues}, &r)
	if err == nil {
		err = wantFiles(fds, len(r.Leased))
	}
	if err != nil {
		return err
	}
	taps, ids := make([]*tuntap.Queue, len(fds)), make([]uint64, len(fds))
	for i, l := range r.Leased {
		taps[i], ids[i] = tuntap.FromFD(fds[i]), l.ID
	}
	d.far.prune(r.Pools)
	pools, err := d.poolsFor(r.Leased)
	if err == nil {
		err = d.takeAll(&r, taps, pools)
	}
	if err == nil {
		return nil
	}
	for _, tap := range taps {
		err = errors.Join(err, tap.Close())
	}
	return errors.Join(err, ignoreGone(d.ask("return", request{Leases: ids}, nil)))
}

func (d *Device) poolsFor(all []leased) (pools []*mbuf.Pool, err error) {
	for _, l := range all {
		p, err := d.far.pool(d, l.Pool)
		if err != nil {
			return nil, err
		}
		pools = append(pools, p)
	}
	return pools, nil
}

// takeAll makes the queues and opens their gates.
func (d *Device) takeAll(r *leaseReply, taps []*tuntap.Queue, pools []*mbuf.Pool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.state == stateClosed:
		return ErrClosed
	case d.orphaned.Load():
		return ErrPrimaryGone
	}
	defer clear(d.revokedEarly)
	d.learn(r.attachment)
	d.mtu = max(d.mtu, r.MTU)
	err := d.choose(taps[0].FD())
	if err != nil {
		return err
	}
	for i, l := range r.Leased {
		if err = d.takeLease(l, taps[i], pools[i]); err != nil {
			break
		}
	}
	if err != nil {
		for _, l := range r.Leased {
			err = errors.Join(err, d.pairs[l.Queue].drop())
		}
		return err
	}
	for _, l := range r.Leased {
		if e := d.pairs[l.Queue].open(); e != nil {
			d.cfg.Log.Warn("interrupts of a leased queue", "interface", d.name, "queue", l.Queue, "error", e)
		}
	}
	return nil
}

// choose finds an engine by one of the descriptors that another process has sent, unless there is one.
func (d *Device) choose(fd int) (err error) {
	if d.engine == nil {
		d.engine, d.reason, err = pktio.Select(string(d.cfg.Engine), fd)
	}
	return err
}

// open lets bursts in.
func (p *pair) open() error {
	p.rx.gate.open()
	p.tx.gate.open()
	return p.rx.intr.run(true)
}

func (d *Device) takeLease(l leased, tap *tuntap.Queue, pool *mbuf.Pool) error {
	if d.revokedEarly[l.ID] {
		return fmt.Errorf("%w: queue %d", ErrRevoked, l.Queue)
	}
	d.pairs[l.Queue].id = l.ID
	return d.take(l.Queue, tap, RxConfig{Ring: l.RxRing, Memory: pool}, TxConfig{Ring: l.TxRing, Regions: pool.Regions()})
}

// take makes queue pair i on a descriptor that another process has sent. Its gates are shut.
func (d *Device) take(i int, tap *tuntap.Queue, rx RxConfig, tx TxConfig) (err error) {
	p := d.pairs[i]
	p.tap = tap
	if p.rx, err = d.newRxQueue(i, tap.FD(), rx); err != nil {
		return err
	}
	if p.tx, err = d.newTxQueue(i, tap.FD(), tx); err != nil {
		return err
	}
	return p.rx.fit(d.rxShape(d.mtu))
}

// drop gives up a queue that is another process's: its gates stay shut, its mbufs go to the pool.
func (p *pair) drop() error {
	if p.tap == nil {
		return nil
	}
	if p.rx != nil {
		p.rx.gate.shut()
	}
	if p.tx != nil {
		p.tx.gate.shut()
	}
	err := errors.Join(p.closeRx(), p.closeTx(), p.tap.Close())
	p.tap = nil
	return err
}

// Return gives queues back to the primary, all that are leased if none is named. Bursts that run are waited for. Packets that
// wait in the kernel stay there, for the primary.
func (d *Device) Return(queues ...int) error {
	if d.far == nil {
		return d.opErr("return queues of", -1, ErrPrimary)
	}
	d.leasing.Lock()
	defer d.leasing.Unlock()
	if d.orphaned.Load() {
		return d.failed("return queues of", ErrPrimaryGone)
	}
	ids, err := d.dropQueues(queues)
	if len(ids) > 0 {
		err = errors.Join(err, d.ask("return", request{Leases: ids}, nil))
	}
	return d.failed("return queues of", err)
}

// dropQueues gives up queues, all if none is named, and returns their leases.
func (d *Device) dropQueues(queues []int) (ids []uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, q := range queues {
		if q < 0 || q >= len(d.pairs) || d.pairs[q].tap == nil {
			return nil, &ConfigError{fmt.Sprintf("queues[%d]", i), q, "a queue that is leased"}
		}
	}
	for q, p := range d.pairs {
		if p.tap != nil && (len(queues) == 0 || slices.Contains(queues, q)) {
			ids = append(ids, p.id)
			err = errors.Join(err, p.drop())
		}
	}
	return ids, err
}

// revoked gives up what the primary takes back. It may come before lease is done with the primary's answer.
func (d *Device) revoked(ids []uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	for _, id := range ids {
		q := slices.IndexFunc(d.pairs, func(p *pair) bool { return p.tap != nil && p.id == id })
		if q < 0 {
			d.revokedEarly[id] = true
			continue
		}
		d.cfg.Log.Info("queue revoked", "interface", d.name, "queue", q)
		err = errors.Join(err, d.pairs[q].drop())
	}
	return err
}

// fitTo makes the slots of leased queues large enough for mtu.
func (d *Device) fitTo(mtu int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if mtu <= d.mtu {
		return nil
	}
	d.mtu = mtu
	return d.fitAll(mtu)
}

// happened passes on what the primary has heard of the interface.
func (d *Device) happened(e *Event) {
	if e == nil {
		return
	}
	d.mu.Lock()
	if e.Changed&ChangeRemoved != 0 {
		d.gone.Store(true)
	} else {
		d.name, d.index = e.After.Name, e.After.Index
	}
	d.mu.Unlock()
	d.events.post(e)
}

// orphan ends everything when the primary has closed the port, or has ended. The descriptors are closed at once: they
// would keep the interface, and a new primary from making it again.
func (d *Device) orphan() {
	d.orphaned.Store(true)
	d.mu.Lock()
	defer d.mu.Unlock()
	for q, p := range d.pairs {
		if err := p.drop(); err != nil {
			d.cfg.Log.Warn("queue of a primary that is gone", "interface", d.name, "queue", q, "error", err)
		}
	}
	for _, r := range d.rings {
		r.Shut()
	}
	for _, q := range d.events.end() {
		q.end()
	}
}

// closeFar is Close of a secondary.
func (d *Device) closeFar() error {
	d.events.stop()
	d.leasing.Lock()
	defer d.leasing.Unlock()
	err := error(nil)
	if ids, e := d.dropQueues(nil); len(ids) > 0 {
		err = errors.Join(e, ignoreGone(d.ask("return", request{Leases: ids}, nil)))
	}
	err = errors.Join(err, d.closeRings())
	d.shut.Store(true)
	d.mu.Lock()
	d.state = stateClosed
	engine := d.engine
	d.engine = nil
	d.mu.Unlock()
	if engine != nil {
		err = errors.Join(err, engine.Close())
	}
	attached.Lock()
	defer attached.Unlock()
	d.far.remove(d)
	err = errors.Join(err, d.far.leaveIfLast())
	if err == nil {
		err = d.area.close()
	}
	return d.opErr("close", -1, err)
}

// ignoreGone leaves out that a primary which is to be told something is gone.
func ignoreGone(err error) error {
	if errors.Is(err, ErrPrimaryGone) {
		return nil
	}
	return err
}
