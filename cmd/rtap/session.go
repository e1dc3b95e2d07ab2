// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/forward"
	"github.com/rtap-project/rtap/mbuf"
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
}

// portConfig is one port: rtap.Config.Queues is its number of queue pairs.
type portConfig struct {
	name string
	cfg  rtap.Config
}

// session is running ports, one pool of mbufs for all of them, and the forwarder
// between them.
type session struct {
	cfg    sessionConfig
	pool   *mbuf.Pool
	caches []*mbuf.Cache // one for each worker
	ports  []*port
	fwd    *forward.Forwarder
}

// port is a port of a session.
type port struct {
	name string
	dev  *rtap.Device
	gone bool // its interface was deleted, and the user was told
}

// planError is a configuration that the forwarder cannot work with.
type planError struct{ error }

// openSession opens and starts the ports. On an error nothing is left open.
func openSession(cfg sessionConfig) (*session, error) {
	s := &session{cfg: cfg.withDefaults()}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.close())
	}
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
	def(&c.mbufSize, mbuf.DefaultHeadroom+mbuf.DefaultDataRoom)
	def(&c.forward.Cores, 1)
	def(&c.forward.Burst, forward.DefaultBurst)
	for i := range c.ports {
		def(&c.ports[i].cfg.Queues, 1)
	}
	def(&c.mbufs, c.mbufsNeeded())
	return c
}

// mbufsNeeded is how many mbufs queues and workers can hold, so that none ever
// goes without.
func (c *sessionConfig) mbufsNeeded() int {
	room, held, longest := c.mbufSize-mbuf.DefaultHeadroom, 0, 1
	for _, p := range c.ports {
		mtu := max(p.cfg.MTU, rtap.DefaultMTU)
		segs := (mtu + 64 + room - 1) / room // 64: Ethernet header, tags, virtio header
		held += p.cfg.Queues * c.rxd * segs
		longest = max(longest, segs)
	}
	perWorker := mbuf.DefaultCacheSize*3/2 + c.forward.Burst*max(longest, len(c.forward.TxPkts))
	return held + c.forward.Cores*perWorker
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
	for _, p := range s.cfg.ports {
		if err := s.openPort(p, plan); err != nil {
			return fmt.Errorf("port %s: %w", p.name, err)
		}
	}
	return s.connect()
}

// noQueue stands for a queue while the forwarder is planned.
type noQueue struct{}

func (noQueue) Burst([]*mbuf.Mbuf) int { return 0 }

// plan finds out which worker will poll which queue, before there are queues: an
// Rx queue's memory is that of its worker.
func (s *session) plan() (*forward.Forwarder, error) {
	stubs := make([]*forward.Port, len(s.cfg.ports))
	for i, p := range s.cfg.ports {
		none := make([]noQueue, p.cfg.Queues)
		stubs[i] = forward.NewPort([6]byte{}, none, none)
	}
	cfg := s.cfg.forward
	cfg.Alloc = func(int) mbuf.Allocator { return s.pool }
	plan, err := forward.New(cfg, stubs...)
	if err != nil {
		return nil, err
	}
	for range plan.Workers() {
		s.caches = append(s.caches, s.pool.NewCache(0))
	}
	return plan, nil
}

// openPort opens and starts one port, the next in number.
func (s *session) openPort(p portConfig, plan *forward.Forwarder) error {
	n := len(s.ports)
	p.cfg.Port = uint16(n)
	dev, err := rtap.Open(p.cfg)
	if err != nil {
		return err
	}
	s.ports = append(s.ports, &port{name: p.name, dev: dev})
	if err := dev.Configure(rtap.PortConfig{RxQueues: p.cfg.Queues, TxQueues: p.cfg.Queues}); err != nil {
		return err
	}
	for _, w := range plan.Workers() {
		if err := s.setUpQueues(dev, n, w); err != nil {
			return err
		}
	}
	return dev.Start()
}

// setUpQueues sets up those queues of port n that worker w polls.
func (s *session) setUpQueues(dev *rtap.Device, n int, w *forward.Worker) error {
	cache := s.caches[w.ID()]
	for _, stream := range w.Streams() {
		r := stream.Route()
		if r.RxPort == n {
			if err := dev.SetupRxQueue(r.Queue, rtap.RxConfig{Ring: s.cfg.rxd, Memory: cache}); err != nil {
				return err
			}
		}
		if r.TxPort == n {
			tx := rtap.TxConfig{Ring: s.cfg.txd, Free: cache, Regions: s.pool.Regions()}
			if err := dev.SetupTxQueue(r.Queue, tx); err != nil {
				return err
			}
		}
	}
	return nil
}

// connect makes the forwarder that plan stood for.
func (s *session) connect() error {
	var ports []*forward.Port
	for i, p := range s.ports {
		link, err := p.dev.Link()
		if err != nil {
			return err
		}
		rx, tx := make([]*rtap.RxQueue, s.cfg.ports[i].cfg.Queues), make([]*rtap.TxQueue, s.cfg.ports[i].cfg.Queues)
		for q := range rx {
			rx[q], tx[q] = p.dev.RxQueue(q), p.dev.TxQueue(q)
		}
		ports = append(ports, forward.NewPort([6]byte(link.MAC), rx, tx))
	}
	cfg := s.cfg.forward
	cfg.Alloc = func(worker int) mbuf.Allocator { return s.caches[worker] }
	var err error
	s.fwd, err = forward.New(cfg, ports...)
	return err
}

// close removes the ports and gives the memory back. An error that mbufs are in
// use would mean that one got lost on its way.
func (s *session) close() error {
	var err error
	for _, p := range s.ports {
		err = errors.Join(err, p.dev.Close())
	}
	for _, c := range s.caches {
		c.Close()
	}
	if s.pool != nil {
		err = errors.Join(err, s.pool.Close())
	}
	return err
}
