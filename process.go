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
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rtap-project/rtap/internal/ipc"
	"github.com/rtap-project/rtap/internal/shm"
	"github.com/rtap-project/rtap/mbuf"
)

// Several processes on one port: the primary's side. A port with a file prefix is published: other processes of the
// same user may attach to it (see Attach), look at it, and lease its queues.

// Process is another process that is attached to a port.
type Process struct {
	ID   int    `json:"id"`   // 1 to MaxSecondaries, unlike that of the others while it is attached
	PID  int    `json:"pid"`  // as this process sees it
	Name string `json:"name"` // AttachConfig.Name
}

func (p Process) String() string { return fmt.Sprintf("%s (process %d)", p.Name, p.PID) }

// MaxSecondaries is how many processes may be attached at the same time to the ports of one file prefix.
const MaxSecondaries = ipc.MaxPeers

// group is what this process publishes under one file prefix: ports, the pools of their mbufs, and the socket
// where others ask for them.
type group struct {
	key    groupKey
	log    *slog.Logger
	server *ipc.Server

	mu    sync.Mutex // never held while anything else is waited for
	ports map[uint16]*Device
	going map[*Device]bool // that are hidden, and not closed yet
	pools map[int]*mbuf.Pool
	peers map[*ipc.Peer]bool

	lastPool int
}

type groupKey struct{ base, prefix string }

// published are the groups of this process.
var published struct {
	sync.Mutex
	groups map[groupKey]*group
}

// publish reserves the port's number under the file prefix. Others do not see the port until show.
func (d *Device) publish() error {
	if d.cfg.FilePrefix == "" {
		return d.makeArea()
	}
	published.Lock()
	defer published.Unlock()
	key := groupKey{d.cfg.RuntimeDir, d.cfg.FilePrefix}
	g := published.groups[key]
	if g == nil {
		g = &group{key: key, log: d.cfg.Log, ports: map[uint16]*Device{}, going: map[*Device]bool{}, pools: map[int]*mbuf.Pool{}, peers: map[*ipc.Peer]bool{}}
		var err error
		g.server, err = ipc.Listen(ipc.ServerConfig{Base: key.base, Prefix: key.prefix, Build: build(), Handler: g, Log: d.cfg.Log})
		if err != nil {
			return err
		}
		if published.groups == nil {
			published.groups = map[groupKey]*group{}
		}
		published.groups[key] = g
	}
	if err := g.reserve(d.cfg.Port); err != nil {
		return err // there is a port, so the group stays
	}
	d.group = g
	return d.makeArea()
}

// makeArea makes the memory that other processes count in, if there may be any.
func (d *Device) makeArea() (err error) {
	if d.group != nil || d.cfg.Shared {
		d.area, err = newArea(fmt.Sprintf("port %d of %s", d.cfg.Port, cmp.Or(d.cfg.FilePrefix, d.cfg.Name)))
	}
	return err
}

func (g *group) reserve(port uint16) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, taken := g.ports[port]; taken {
		return &ConfigError{"Config.Port", port, "a number of its own, as this process has published it under " + g.key.prefix + " already"}
	}
	g.ports[port] = nil
	return nil
}

// show lets other processes see the port.
func (d *Device) show() {
	if d.group == nil {
		return
	}
	d.group.mu.Lock()
	defer d.group.mu.Unlock()
	d.group.ports[d.cfg.Port] = d
}

// hide keeps others from asking for the port.
func (g *group) hide(d *Device) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ports[d.cfg.Port], g.going[d] = nil, true
}

// dismiss takes the port from all other processes, and tells them that it goes. The caller does not hold mu, for which a
// request may be waiting.
func (d *Device) dismiss() error {
	g := d.group
	if g == nil || d.withdrawn.Load() {
		return nil
	}
	g.hide(d)
	err := d.Revoke(context.Background())
	d.mu.Lock()
	told := slices.Collect(maps.Keys(d.listeners))
	clear(d.listeners)
	d.mu.Unlock()
	for _, p := range told {
		if d.tell(context.Background(), p, "closed", request{}) == nil {
			d.vacateAll(p.ID())
		}
	}
	err = errors.Join(err, d.withdraw())
	d.soon(func() bool { return !d.othersRings() }) // else closing them fails
	return err
}

// soon waits until a process that has just ended is noticed to have, when done becomes true, but no longer than a second.
// It reports whether done is true, which it calls with mu held.
func (d *Device) soon(done func() bool) bool {
	for end := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		is := done()
		d.mu.Unlock()
		if is || time.Now().After(end) {
			return is
		}
	}
}

// othersRings reports whether another process has an end of a ring. The caller holds mu.
func (d *Device) othersRings() bool {
	for _, r := range d.rings {
		for _, e := range []mbuf.End{mbuf.Producing, mbuf.Consuming} {
			if proc, ok := r.Holder(e); ok && proc != 0 {
				return true
			}
		}
	}
	return false
}

// vacateAll frees the ends of rings that a process has, which knows that the port goes.
func (d *Device) vacateAll(proc int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.rings {
		r.Vacate(mbuf.Producing, proc)
		r.Vacate(mbuf.Consuming, proc)
	}
}

// withdraw undoes publish. The last port takes the socket along. The caller does not hold d.mu, for which a request may
// be waiting.
func (d *Device) withdraw() error {
	g := d.group
	if g == nil || d.withdrawn.Swap(true) {
		return nil
	}
	published.Lock()
	defer published.Unlock()
	g.mu.Lock()
	delete(g.ports, d.cfg.Port)
	delete(g.going, d)
	last := len(g.ports) == 0
	g.mu.Unlock()
	if !last {
		return nil
	}
	delete(published.groups, g.key)
	return g.server.Close()
}

// Join implements ipc.Handler.
func (g *group) Join(p *ipc.Peer) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.peers[p] = true
	g.log.Info("process attached", "prefix", g.key.prefix, "process", p.String(), "id", p.ID())
	return nil
}

// Leave implements ipc.Handler. It gives the ports their queues back, and the pools the mbufs.
func (g *group) Leave(p *ipc.Peer) {
	g.mu.Lock()
	ports, pools := slices.AppendSeq(g.devices(), maps.Keys(g.going)), slices.Collect(maps.Values(g.pools))
	g.mu.Unlock()
	queues, mbufs := 0, 0
	for _, d := range ports {
		queues += d.bereave(p)
	}
	if p.Left() { // else it lives, and may use its mbufs still
		for _, pool := range pools {
			mbufs += pool.Reclaim(p.ID())
		}
	}
	g.mu.Lock()
	delete(g.peers, p) // whom Processes no longer has, has nothing any more
	g.mu.Unlock()
	g.log.Info("process left", "prefix", g.key.prefix, "process", p.String(), "id", p.ID(), "queues", queues, "mbufs", mbufs)
}

// devices are the ports that others may see.
func (g *group) devices() (all []*Device) {
	for _, d := range g.ports {
		if d != nil {
			all = append(all, d)
		}
	}
	return all
}

// port is a port by its number.
func (g *group) port(n uint16) (*Device, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d := g.ports[n]; d != nil {
		return d, nil
	}
	var have []string
	for _, d := range g.devices() {
		have = append(have, fmt.Sprint(d.cfg.Port))
	}
	slices.Sort(have)
	return nil, fmt.Errorf("%w: %d: prefix %s has %s", ErrNoPort, n, g.key.prefix, strings.Join(have, ", "))
}

// poolID is the number that others know a pool by. It is never another pool's: they may have the other one mapped still.
func (g *group) poolID(pool *mbuf.Pool) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.pools, func(_ int, p *mbuf.Pool) bool { return p.FD() < 0 }) // closed
	for id, p := range g.pools {
		if p == pool {
			return id
		}
	}
	g.lastPool++
	g.pools[g.lastPool] = pool
	return g.lastPool
}

func (g *group) pool(id int) (*mbuf.Pool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.pools[id]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("there is no pool %d", id)
}

// openPools are the numbers of the pools that are there.
func (g *group) openPools() (ids []int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, p := range g.pools {
		if p.FD() >= 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// Processes are those that are attached to the ports of this port's file prefix, or have ended and not been taken everything
// back from yet.
func (d *Device) Processes() []Process {
	g := d.group
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []Process
	for p := range g.peers {
		all = append(all, processOf(p))
	}
	slices.SortFunc(all, func(a, b Process) int { return a.ID - b.ID })
	return all
}

func processOf(p *ipc.Peer) Process { return Process{p.ID(), p.PID(), p.Name()} }

// request is what a secondary asks; each operation has its use of some fields.
type request struct {
	Port   uint16   `json:"port"`
	Queues []int    `json:"queues,omitempty"`
	Leases []uint64 `json:"leases,omitempty"`
	Pool   int      `json:"pool,omitempty"`
	Ring   string   `json:"ring,omitempty"`
	End    mbuf.End `json:"end,omitempty"`
	MTU    int      `json:"mtu,omitempty"`
	Event  *Event   `json:"event,omitempty"`
}

// answer is what the primary gives. The descriptors are duplicates, which whoever sends them closes.
type answer struct {
	body any
	fds  []int
}

// requests are the operations. Each is called without locks.
var requests = map[string]func(d *Device, p *ipc.Peer, r *request) (answer, error){
	"attach":      (*Device).serveAttach,
	"lease":       (*Device).serveLease,
	"return":      (*Device).serveReturn,
	"pool":        (*Device).servePool,
	"ring":        (*Device).serveRing,
	"vacate":      (*Device).serveVacate,
	"stats":       func(d *Device, _ *ipc.Peer, _ *request) (answer, error) { return replied(d.Stats()) },
	"queue stats": (*Device).serveQueueStats,
	"counts":      (*Device).serveCounts,
	"link":        func(d *Device, _ *ipc.Peer, _ *request) (answer, error) { return replied(d.Link()) },
	"info":        func(d *Device, _ *ipc.Peer, _ *request) (answer, error) { return answer{body: d.Info()}, nil },
	"reset stats": func(d *Device, _ *ipc.Peer, _ *request) (answer, error) { return answer{}, d.ResetStats() },
}

func replied[T any](v T, err error) (answer, error) { return answer{body: v}, err }

// Request implements ipc.Handler.
func (g *group) Request(p *ipc.Peer, op string, body json.RawMessage) (any, []int, error) {
	serve := requests[op]
	if serve == nil {
		return nil, nil, fmt.Errorf("unknown request %q", op)
	}
	var r request
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, nil, fmt.Errorf("request %s: %w", op, err)
	}
	d, err := g.port(r.Port)
	if err != nil {
		return nil, nil, err
	}
	a, err := serve(d, p, &r)
	return a.body, a.fds, err
}

// attachment is what a secondary has to know of a port before it can do anything.
type attachment struct {
	Name   string
	Index  int
	Mode   Mode
	Queues int
	Conf   PortConfig
}

func (d *Device) serveAttach(p *ipc.Peer, _ *request) (answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == stateClosed {
		return answer{}, ErrClosed
	}
	fd, err := shm.Dup(d.area.memory.FD())
	if err != nil {
		return answer{}, err
	}
	d.tellEvents(p)
	return answer{d.attachment(), []int{fd}}, nil
}

func (d *Device) attachment() attachment {
	return attachment{d.name, d.index, d.mode, len(d.pairs), d.conf}
}

// tellEvents has a secondary hear of what happens to the interface.
func (d *Device) tellEvents(p *ipc.Peer) {
	if d.listeners[p] != nil {
		return
	}
	if d.listeners == nil {
		d.listeners = map[*ipc.Peer]func(){}
	}
	d.listeners[p] = d.OnEvent(func(e Event) {
		if err := d.tell(context.Background(), p, "event", request{Event: &e}); err != nil {
			d.cfg.Log.Debug("event not told", "process", p.String(), "error", err)
		}
	})
}

// sharedPool is a pool's file and where it must be mapped.
type sharedPool struct{ Base uintptr }

func (d *Device) servePool(_ *ipc.Peer, r *request) (answer, error) {
	g := d.group
	if g == nil {
		return answer{}, ErrClosed
	}
	pool, err := g.pool(r.Pool)
	if err != nil {
		return answer{}, err
	}
	fd, err := pool.DupFD()
	if err != nil {
		return answer{}, err
	}
	return answer{sharedPool{pool.Base()}, []int{fd}}, nil
}

func (d *Device) serveQueueStats(_ *ipc.Peer, r *request) (answer, error) {
	if len(r.Queues) != 1 {
		return answer{}, &ConfigError{"queues", r.Queues, "one"}
	}
	return replied(d.QueueStats(r.Queues[0]))
}

// countsReply has the counters of some queue pairs, from the one that was asked for.
type countsReply struct {
	Stats  Stats
	Queues int // the port's
	Pairs  []pairReply
}

type pairReply struct {
	Rx, Tx []uint64
	Window uint32
}

// pairsAPage is how many queue pairs' counters fit a message.
const pairsAPage = 16

func (d *Device) serveCounts(_ *ipc.Peer, r *request) (answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	stats, pairs, err := d.readStats()
	if err != nil {
		return answer{}, err
	}
	c := countsReply{Stats: stats, Queues: len(d.pairs)}
	from := 0
	if len(r.Queues) > 0 {
		from = min(max(r.Queues[0], 0), len(pairs))
	}
	for i := from; i < min(from+pairsAPage, len(pairs)); i++ {
		c.Pairs = append(c.Pairs, pairReply{pairs[i].rx[:], pairs[i].tx[:], d.counters[i].rx.window.Load()})
	}
	return answer{body: c}, nil
}

// errNotPublished is of operations that need other processes.
var errNotPublished = errors.New("the port is not published: set Config.FilePrefix")
