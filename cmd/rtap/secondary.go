// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/forward"
	"github.com/rtap-project/rtap/mbuf"
)

// attach opens the session of a secondary.
func (o *runOptions) attach(f *flags) (*session, error) {
	c := o.session
	c.filePrefix, c.ports = o.telemetry.prefix, nil
	c.offloads = offloadSet{all: true, tsoSegSize: o.offloads.tsoSegSize} // what the ports have on
	s, err := attachSession(c, o.procs.shares(f))
	if err != nil {
		return nil, err
	}
	if q := s.cfg.ports[0].cfg.Queues; (f.given("rxq") || f.given("txq")) && o.rxq != q {
		return nil, errors.Join(f.usage("--rxq is %d, and the primary's ports have %d: leave it out", o.rxq, q), s.close())
	}
	return s, nil
}

// attachSession attaches to all ports of a primary, and leases this process's share of their queues if it has one.
// On an error nothing is left attached.
func attachSession(cfg sessionConfig, shares bool) (*session, error) {
	s := &session{cfg: cfg, far: true, fwd: &forward.Forwarder{}}
	err := s.attach()
	if err == nil && shares {
		err = s.share()
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// startWait is how long a primary that is just starting may take.
const startWait = 10 * time.Second

// attach attaches to the ports, by number, until there is none of the next number. A primary that starts a port has
// opened all.
func (s *session) attach() error {
	for n := 0; ; n++ {
		cfg := rtap.AttachConfig{FilePrefix: s.cfg.filePrefix, Port: uint16(n), Name: "rtap run", Engine: s.cfg.engine, Log: s.cfg.log}
		dev, err := rtap.AttachWith(cfg)
		if errors.Is(err, rtap.ErrNoPort) && n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
		s.ports = append(s.ports, &port{name: strconv.Itoa(n), dev: dev})
		info := dev.Info()
		for end := time.Now().Add(startWait); !info.Started && dev.Err() == nil && time.Now().Before(end); info = dev.Info() {
			time.Sleep(10 * time.Millisecond)
		}
		s.cfg.ports = append(s.cfg.ports, portConfig{strconv.Itoa(n), rtap.Config{Mode: info.Mode, Queues: info.RxQueues}})
	}
}

// share leases this process's queues, and makes a forwarder for them.
func (s *session) share() error {
	if err := s.lease(); err != nil {
		return err
	}
	if err := s.seePool(); err != nil {
		return err
	}
	s.cfg = s.cfg.withDefaults()
	plan, err := s.plan()
	if err == nil {
		err = s.checkOffloads()
	}
	if err != nil {
		return planError{err}
	}
	if s.cfg.forward.Mode == "mtu" {
		if err := s.packets.open(&s.cfg, len(s.caches)); err != nil {
			return err
		}
	}
	if err := s.joinCapture(); err != nil {
		return err
	}
	if err := s.sleep.open(s.cfg.rxMode, plan, s.ports); err != nil {
		return err
	}
	return s.connect()
}

// lease leases the queues that are this process's, whatever the mode.
func (s *session) lease() error {
	cfg := s.cfg.forward
	cfg.Mode, cfg.Alloc = "io", nil
	plan, err := forward.New(cfg, s.stubs()...)
	if err != nil {
		return planError{err}
	}
	for n, p := range s.ports {
		var queues []int
		for _, stream := range plan.Streams() {
			if r := stream.Route(); r.RxPort == n {
				queues = append(queues, r.Queue)
			}
		}
		if err := p.lease(queues); err != nil {
			return err
		}
	}
	return nil
}

func (p *port) lease(queues []int) error {
	if err := p.dev.Lease(queues...); err != nil {
		return fmt.Errorf("port %s: %w", p.name, err)
	}
	p.leased = queues
	for _, q := range queues {
		base, err := p.dev.QueueStats(q)
		if err != nil {
			return err
		}
		p.base = append(p.base, base)
	}
	return nil
}

// checkOffloads refuses a mode that would lose packets, because ports lack what it takes to send what they receive.
func (s *session) checkOffloads() error {
	mode := s.cfg.forward.Mode
	as := mode
	if mode == "mtu" { // it merges only what can be cut
		as = "io"
	}
	for _, p := range s.ports {
		info := p.dev.Info()
		if missing := neededBy(as, info.EnabledRxOffloads) &^ info.EnabledTxOffloads; missing != 0 {
			return fmt.Errorf("port %s lacks Tx offloads %s, which mode %s needs to send what comes with Rx offloads %s: the primary has them with --offloads or --tx-offloads",
				p.name, names(rtap.TxOffloadNames(missing)), mode, names(rtap.RxOffloadNames(info.EnabledRxOffloads)))
		}
	}
	return nil
}

// seePool finds the pool that the leased queues receive into.
func (s *session) seePool() error {
	pools := s.ports[0].dev.Pools()
	if len(pools) == 0 {
		return errors.New("the primary's ports have no pool of mbufs")
	}
	s.pool = pools[0]
	s.cfg.mbufSize = s.pool.DataRoom() + s.pool.Headroom()
	return nil
}

// joinCapture has what this process moves be captured, if the primary knows that there are so many processes.
func (s *session) joinCapture() error {
	for _, p := range s.ports {
		ring, err := p.producer(captureRing(s.cfg.forward.ProcID))
		switch {
		case err == nil:
			p.captured = &captured{ring: ring, pool: ring.Pool()}
		case errors.Is(err, rtap.ErrNoRing), errors.Is(err, mbuf.ErrTaken):
			s.uncaptured = err
		default:
			return err
		}
	}
	return nil
}

// producer takes the end of a ring, if need be when the process that had it has been seen to have ended.
func (p *port) producer(name string) (ring *mbuf.Producer, err error) {
	for range 10 {
		if ring, err = p.dev.Producer(name); !errors.Is(err, mbuf.ErrTaken) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return ring, err
}

// detach gives the queues back.
func (s *session) detach() error {
	err := s.sleep.close()
	for _, p := range s.ports {
		if e := p.dev.Return(); !errors.Is(e, rtap.ErrPrimaryGone) {
			err = errors.Join(err, e)
		}
	}
	err = errors.Join(err, s.closeCaches())
	for _, p := range s.ports {
		if e := p.dev.Close(); !errors.Is(e, rtap.ErrPrimaryGone) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// orphaned reports whether the port's primary is gone.
func (p *port) orphaned() bool { return errors.Is(p.dev.Err(), rtap.ErrPrimaryGone) }

// aliveEvery is how often a secondary looks whether its primary is there, and sampleEvery how often at least it asks that
// what its queues have counted.
const (
	aliveEvery  = 100 * time.Millisecond
	sampleEvery = time.Second
)

// primaryAlive says when to look, in a secondary.
func (s *session) primaryAlive() (<-chan time.Time, func()) {
	if !s.far {
		return nil, func() {}
	}
	t := time.NewTicker(aliveEvery)
	return t.C, t.Stop
}
