// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"syscall"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/forward"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/telemetry"
)

// sessionConfig says what ports to open and what to do with their packets. Zero
// sizes mean the defaults of the packages they are for.
type sessionConfig struct {
	ports    []portConfig
	forward  forward.Config
	rxd, txd int // ring sizes
	mbufSize int // bytes, headroom included
	mbufs    int // in all; 0: as many as the queues and workers can hold
	huge     bool
	offloads offloadSet
	rxMode   rxMode // "": poll

	// filePrefix is what other processes find the ports by, or this one those of another. "": none does.
	filePrefix string
	engine     rtap.Engine // of a secondary's queues; ports have their own

	log *slog.Logger // nil: nothing is logged
}

// portConfig is one port: rtap.Config.Queues is its number of queue pairs.
type portConfig struct {
	name string
	cfg  rtap.Config
}

// session is running ports, one pool of mbufs for all of them, and the forwarder
// between them.
type session struct {
	cfg     sessionConfig
	pool    *mbuf.Pool
	caches  []*mbuf.Cache // one for each worker
	packets packetMemory
	capture captureMemory
	far     bool // the ports are another process's
	opened  bool // all of it is there: what persists may stay
	// uncaptured is why rtap capture does not see what a secondary moves.
	uncaptured error
	ports      []*port
	sleep      sleepers
	ends       []*forward.Port // the ports as the forwarder has them
	fwd        *forward.Forwarder
}

// port is a port of a session.
type port struct {
	name string
	dev  *rtap.Device
	gone bool // its interface was deleted, and the user was told

	captured *captured // nil: what it moves cannot be captured

	leased []int             // a secondary's queues
	base   []rtap.QueueStats // of these, when they were leased
	last   portReport        // what was read
}

// planError is a configuration that the forwarder cannot work with.
type planError struct{ error }

// openSession opens and starts the ports. On an error nothing is left open.
func openSession(cfg sessionConfig) (*session, error) {
	s := &session{cfg: cfg.withDefaults()}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.opened = true
	return s, nil
}

func (c sessionConfig) withDefaults() sessionConfig {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.rxd, rtap.DefaultRingSize)
	def(&c.txd, rtap.DefaultRingSize)
	def(&c.mbufSize, c.defaultMbufSize())
	def(&c.forward.Cores, 1)
	def(&c.forward.NumProcs, 1)
	def(&c.forward.Burst, forward.DefaultBurst)
	for i := range c.ports {
		def(&c.ports[i].cfg.Queues, 1)
	}
	def(&c.mbufs, c.mbufsNeeded())
	return c
}

// smallMbuf takes a packet of the usual MTU.
const smallMbuf = mbuf.DefaultHeadroom + mbuf.DefaultDataRoom

// defaultMbufSize is that of packets, or of the largest frames where each is to
// have one mbuf.
func (c *sessionConfig) defaultMbufSize() int {
	if c.offloads.lro() && !c.offloads.scatter() {
		return mbuf.MaxBufLen
	}
	return smallMbuf
}

// largeMbuf is from where on mbufs are for frames of many packets each.
const largeMbuf = 16 << 10

// cacheSize is how many mbufs a worker's cache has: fewer large ones.
func (c *sessionConfig) cacheSize() int {
	if c.mbufSize >= largeMbuf {
		return mbuf.DefaultCacheSize / 4
	}
	return mbuf.DefaultCacheSize
}

// mbufsNeeded is how many mbufs queues and workers can hold, so that none ever
// goes without. A queue holds as many frames as one burst may bring.
func (c *sessionConfig) mbufsNeeded() int {
	held, longest := 0, 1
	for _, p := range c.ports {
		segs := c.segments(p.cfg)
		held += p.cfg.Queues * min(c.rxd, c.forward.Burst) * segs
		longest = max(longest, segs)
	}
	perWorker := c.cacheSize()*3/2 + c.forward.Burst*max(longest, len(c.forward.TxPkts))
	return held + c.forward.NumProcs*c.forward.Cores*perWorker + c.othersCaches()
}

// othersCaches is how many mbufs other processes hold for the queues that they lease: each has a cache of its own.
func (c *sessionConfig) othersCaches() int {
	queues := 0
	for _, p := range c.ports {
		queues += p.cfg.Queues - p.cfg.Queues/c.forward.NumProcs
	}
	return queues * min(c.rxd, mbuf.DefaultCacheSize) * 3 / 2
}

// segments is how many mbufs the longest frame of a port takes.
func (c *sessionConfig) segments(p rtap.Config) int {
	room, frame := c.mbufSize-mbuf.DefaultHeadroom, max(p.MTU, rtap.DefaultMTU)
	if c.offloads.lro() && c.offloads.scatter() {
		frame = max(frame, cmp.Or(c.offloads.maxLROPktSize, rtap.MaxLROPktSize))
	}
	return (frame + 64 + room - 1) / room // 64: Ethernet header, tags, virtio header
}

func (s *session) open() error {
	var err error
	s.pool, err = mbuf.NewPool(mbuf.Config{Name: "rtap", Count: s.cfg.mbufs,
		DataRoom: s.cfg.mbufSize - mbuf.DefaultHeadroom, Hugepages: s.cfg.huge})
	if err != nil {
		if errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ENOSPC) {
			err = fmt.Errorf("%w\nAsk for fewer (--total-num-mbufs) or smaller mbufs (--mbuf-size)", err)
		}
		return err
	}
	plan, err := s.plan()
	if err != nil {
		return planError{err}
	}
	if s.cfg.forward.Mode == "mtu" {
		if err := s.packets.open(&s.cfg, len(s.caches)); err != nil {
			return err
		}
	}
	for _, p := range s.cfg.ports {
		if err := s.openPort(p, plan); err != nil {
			return fmt.Errorf("port %s: %w", p.name, err)
		}
	}
	for _, p := range s.ports { // a secondary that sees one started may rely on all of them being there
		if err := p.dev.Start(); err != nil {
			return fmt.Errorf("port %s: %w", p.name, err)
		}
	}
	if err := s.sleep.open(s.cfg.rxMode, plan, s.ports); err != nil {
		return err
	}
	return s.connect()
}

// noQueue stands for a queue while the forwarder is planned.
type noQueue struct{}

func (noQueue) Burst([]*mbuf.Mbuf) int { return 0 }

// plan finds out which worker will poll which queue, before there are queues: an
// Rx queue's memory is that of its worker.
func (s *session) plan() (*forward.Forwarder, error) {
	cfg := s.cfg.forward
	cfg.Alloc = func(int) mbuf.Allocator { return s.pool }
	cfg.Csum = s.csum()
	plan, err := forward.New(cfg, s.stubs()...)
	if err != nil {
		return nil, err
	}
	for range plan.Workers() {
		s.caches = append(s.caches, s.pool.NewCache(s.cfg.cacheSize()))
	}
	return plan, nil
}

// stubs are the ports without their queues.
func (s *session) stubs() []*forward.Port {
	stubs := make([]*forward.Port, len(s.cfg.ports))
	for i, p := range s.cfg.ports {
		none := make([]noQueue, p.cfg.Queues)
		stubs[i] = endOf(p.cfg.Mode, make(net.HardwareAddr, 6), none, none)
	}
	return stubs
}

// endOf is a port as the forwarder has it.
func endOf[R forward.RxQueue, T forward.TxQueue](mode rtap.Mode, mac net.HardwareAddr, rx []R, tx []T) *forward.Port {
	if mode == rtap.ModeTUN {
		return forward.NewIPPort(rx, tx)
	}
	return forward.NewPort([6]byte(mac), rx, tx)
}

// csum is what mode csum leaves to the ports: what all of them have that are open,
// or what was asked for, before there are any.
func (s *session) csum() forward.CsumConfig {
	tx := s.cfg.offloads.tx
	if s.cfg.offloads.all {
		tx = ^uint64(0)
	}
	for _, p := range s.ports {
		tx &= p.dev.Info().EnabledTxOffloads
	}
	return s.cfg.offloads.csum(tx)
}

// openPort opens and sets up one port, the next in number.
func (s *session) openPort(p portConfig, plan *forward.Forwarder) error {
	n := len(s.ports)
	p.cfg.Port, p.cfg.FilePrefix = uint16(n), s.cfg.filePrefix
	if s.cfg.log != nil {
		p.cfg.Log = s.cfg.log.With("port", p.name)
	}
	dev, err := rtap.Open(p.cfg)
	if err != nil {
		return err
	}
	s.ports = append(s.ports, &port{name: p.name, dev: dev})
	conf := rtap.PortConfig{RxQueues: p.cfg.Queues, TxQueues: p.cfg.Queues, MaxLROPktSize: s.cfg.offloads.maxLROPktSize}
	conf.RxOffloads, conf.TxOffloads = s.cfg.offloads.of(dev.Info())
	if err := dev.Configure(conf); err != nil {
		return err
	}
	if err := s.setUpQueues(dev, n, plan); err != nil {
		return err
	}
	return s.openCapture(s.ports[n])
}

// alloc is what a worker builds packets from and gives sent ones back to.
func (s *session) alloc(worker int) mbuf.Allocator {
	if s.packets.pool != nil {
		return s.packets.caches[worker]
	}
	return s.caches[worker]
}

// regions is all the memory that packets may lie in.
func (s *session) regions() []mbuf.Region {
	if s.packets.pool != nil {
		return slices.Concat(s.pool.Regions(), s.packets.pool.Regions())
	}
	return s.pool.Regions()
}

// setUpQueues sets up the queues of port n for the workers of plan. Those that other processes are to poll have no
// worker here, and the pool itself.
func (s *session) setUpQueues(dev *rtap.Device, n int, plan *forward.Forwarder) error {
	queues := s.cfg.ports[n].cfg.Queues
	memory, free := make([]rtap.Memory, queues), make([]mbuf.Allocator, queues)
	for q := range queues {
		memory[q], free[q] = s.pool, s.pool
	}
	for _, w := range plan.Workers() {
		for _, stream := range w.Streams() {
			r := stream.Route()
			if r.RxPort == n {
				memory[r.Queue] = s.caches[w.ID()]
			}
			if r.TxPort == n {
				free[r.Queue] = s.alloc(w.ID())
			}
		}
	}
	for q := range queues {
		if err := dev.SetupRxQueue(q, rtap.RxConfig{Ring: s.cfg.rxd, Memory: memory[q]}); err != nil {
			return err
		}
		if err := dev.SetupTxQueue(q, rtap.TxConfig{Ring: s.cfg.txd, Free: free[q], Regions: s.regions()}); err != nil {
			return err
		}
	}
	return nil
}

// connect makes the forwarder that plan stood for.
func (s *session) connect() error {
	for i, p := range s.ports {
		link, err := p.dev.Link()
		if err != nil {
			return err
		}
		rx, tx := make([]forward.RxQueue, s.cfg.ports[i].cfg.Queues), make([]forward.TxQueue, s.cfg.ports[i].cfg.Queues)
		for q := range rx {
			rx[q], tx[q] = p.captured.rx(p.dev.RxQueue(q), q), p.captured.tx(p.dev.TxQueue(q), q)
		}
		s.ends = append(s.ends, endOf(p.dev.Info().Mode, link.MAC, rx, tx))
	}
	cfg := s.cfg.forward
	cfg.Alloc = s.alloc
	cfg.Csum = s.csum()
	cfg.Idle = s.sleep.idle()
	var err error
	s.fwd, err = forward.New(cfg, s.ends...)
	return err
}

// telemetryPorts are the ports, for those who show them.
func (s *session) telemetryPorts() []telemetry.Port {
	var ports []telemetry.Port
	for i, p := range s.ports {
		ports = append(ports, telemetry.Port{ID: i, Name: p.name, Device: p.dev})
	}
	return ports
}

// pools are all pools of mbufs, for those who show them.
func (s *session) pools() []*mbuf.Pool {
	return slices.DeleteFunc([]*mbuf.Pool{s.pool, s.packets.pool}, func(p *mbuf.Pool) bool { return p == nil })
}

// close removes the ports and gives the memory back. An error that mbufs are in
// use would mean that one got lost on its way.
func (s *session) close() error {
	if s.far {
		return s.detach()
	}
	err := s.sleep.close()
	end := (*rtap.Device).Discard
	if s.opened {
		end = (*rtap.Device).Close
	}
	for _, p := range s.ports {
		err = errors.Join(err, end(p.dev))
	}
	err = errors.Join(err, s.closeCaches(), s.capture.close())
	if s.pool != nil {
		err = errors.Join(err, s.pool.Close())
	}
	return err
}

func (s *session) closeCaches() error {
	for _, c := range s.caches {
		c.Close()
	}
	return s.packets.close()
}

// packetMemory is what mode mtu cuts frames into: small mbufs, while frames are
// received into large ones.
type packetMemory struct {
	pool   *mbuf.Pool
	caches []*mbuf.Cache // one for each worker
}

// perFrame is how many packets a frame may become without a burst of such frames
// going short of mbufs: 46 is usual.
const perFrame = 64

func (m *packetMemory) open(cfg *sessionConfig, workers int) error {
	var err error
	perWorker := mbuf.DefaultCacheSize*3/2 + cfg.forward.Burst*perFrame
	if m.pool, err = mbuf.NewPool(mbuf.Config{Name: "rtap packets", Count: workers * perWorker, Hugepages: cfg.huge}); err != nil {
		return err
	}
	for range workers {
		m.caches = append(m.caches, m.pool.NewCache(mbuf.DefaultCacheSize))
	}
	return nil
}

func (m *packetMemory) close() error {
	for _, c := range m.caches {
		c.Close()
	}
	if m.pool == nil {
		return nil
	}
	return m.pool.Close()
}
