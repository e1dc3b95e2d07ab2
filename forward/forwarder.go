// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/rtap-project/rtap/mbuf"
)

// ErrRunning is returned by [Forwarder.Run] while another Run of the same Forwarder goes on.
var ErrRunning = errors.New("forward: already running")

// Forwarder is a set of streams between ports and the workers that run them.
type Forwarder struct {
	mode    Mode
	streams []*Stream
	workers []*Worker
	running atomic.Bool
}

// New plans the streams for ports, which are numbered in the order given, and spreads them over the workers.
// Nothing is received or sent before Run.
//
// Errors are a [*ConfigError], wrap [ErrUnknownMode], or name the ports whose numbers of queues do not match.
func New(c Config, ports ...*Port) (*Forwarder, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	mode, err := ModeByName(c.Mode)
	if err != nil {
		return nil, err
	}
	if mode.loop {
		c.Topology = Loop
	}
	rs, err := routes(&c, ports)
	if err != nil {
		return nil, err
	}
	if err := mode.suits(rs, ports); err != nil {
		return nil, err
	}
	f := &Forwarder{mode: mode}
	for _, r := range rs {
		f.streams = append(f.streams, newStream(r, ports, &c))
	}
	if err := f.staff(&c); err != nil {
		return nil, err
	}
	return f, nil
}

// suits says why the mode is not for these ports.
func (m Mode) suits(rs []Route, ports []*Port) error {
	for _, r := range rs {
		rx, tx := ports[r.RxPort], ports[r.TxPort]
		switch {
		case m.ether && (rx.ip || tx.ip):
			return &ConfigError{"Mode", m.Name, fmt.Sprintf("needs MAC addresses, and the packets of %s begin with their IP header: use io or csum", r)}
		case m.through && rx.ip != tx.ip:
			return &ConfigError{"Mode", m.Name,
				fmt.Sprintf("forwards packets with the headers they have, and of %s only one side has Ethernet headers: pair ports of the same kind", r)}
		}
	}
	return nil
}

// staff makes the workers, gives them their streams, and the streams their mode.
func (f *Forwarder) staff(c *Config) error {
	runs := spread(len(f.streams), c.Cores)
	rest := f.streams
	for id, n := range runs {
		w := &Worker{id: id, workers: len(runs), streams: rest[:n:n], idle: c.Idle}
		rest = rest[n:]
		f.workers = append(f.workers, w)
		if err := w.bind(f.mode, c); err != nil {
			return err
		}
	}
	return nil
}

func (w *Worker) bind(mode Mode, c *Config) error {
	var alloc mbuf.Allocator
	if mode.alloc {
		if c.Alloc != nil {
			alloc = c.Alloc(w.id)
		}
		if alloc == nil {
			return &ConfigError{"Alloc", "nil", "mode " + mode.Name + " needs mbufs to build packets from"}
		}
	}
	for _, s := range w.streams {
		burst, err := mode.bind(s, c, alloc)
		if err != nil {
			return fmt.Errorf("forward: %s: %w", s.route, err)
		}
		s.burst = burst
	}
	return nil
}

// Mode returns the forwarding mode.
func (f *Forwarder) Mode() Mode { return f.mode }

// Streams returns all streams, queue by queue. The caller must not change the slice.
func (f *Forwarder) Streams() []*Stream { return f.streams }

// Workers returns the workers. The caller must not change the slice.
func (f *Forwarder) Workers() []*Worker { return f.workers }

// Stats returns the sum over all streams. Any goroutine may call it at any time.
func (f *Forwarder) Stats() Stats {
	var sum Stats
	for _, s := range f.streams {
		sum.Add(s.Stats())
	}
	return sum
}

// Run starts a goroutine for each worker, and returns when ctx is done and all of them have finished the burst
// they were in. No mbuf is held by a stream then. It may be called again afterwards; the counters go on.
// The only error is [ErrRunning].
func (f *Forwarder) Run(ctx context.Context) error {
	if !f.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer f.running.Store(false)
	var wg sync.WaitGroup
	for _, w := range f.workers {
		wg.Go(func() { w.run(ctx) })
	}
	wg.Wait()
	return nil
}
