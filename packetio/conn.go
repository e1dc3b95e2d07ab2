// SPDX-License-Identifier: BSD-3-Clause

package packetio

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/rtap-project/rtap"
)

// Conn is a queue pair of an interface: the only one, unless it comes from OpenQueues.
type Conn struct {
	port *port
	rx   reader
	tx   writer
}

var _ io.ReadWriteCloser = (*Conn)(nil)

// port is what the Conns of one interface share.
type port struct {
	dev   *rtap.Device
	conns []*Conn

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	once   sync.Once
	err    error // of Close
}

var errOwned = errors.New("a packetio.Conn has the queues")

// Open creates the interface that cfg describes, or takes over a persistent one, brings its link up unless
// cfg.NoLinkUp is set, and returns its packets. Config{} is a TAP with the first free name, Config{Mode: rtap.ModeTUN} a TUN.
//
// cfg.Memory, cfg.RxOffloads, cfg.TxOffloads and cfg.MaxLROPktSize must be zero, as plain bytes have no place for what
// would be left undone. cfg.Queues is 0 or 1: see [OpenQueues]. Errors are those of [rtap.Start], and leave no interface
// behind that was not there before. With cfg.FilePrefix other processes may look at the port, but lease its queues
// only if there is a cfg.MayLease that lets them: reads are rtap.ErrStopped meanwhile.
func Open(cfg rtap.Config) (*Conn, error) {
	if cfg.Queues > 1 {
		return nil, &rtap.ConfigError{Field: "Config.Queues", Value: cfg.Queues, Want: "0 or 1: OpenQueues opens several"}
	}
	conns, err := OpenQueues(cfg)
	if err != nil {
		return nil, err
	}
	return conns[0], nil
}

// OpenQueues is Open for an interface with cfg.Queues queue pairs, and returns a Conn for each: a goroutine can
// then work on each, and the kernel keeps the packets of a flow on one. All of them must be read. Closing one closes all.
func OpenQueues(cfg rtap.Config) ([]*Conn, error) {
	if err := check(&cfg); err != nil {
		return nil, err
	}
	if cfg.MayLease == nil {
		cfg.MayLease = func(rtap.Process, []int) error { return errOwned }
	}
	dev, err := rtap.Open(cfg)
	if err != nil {
		return nil, err
	}
	p := &port{dev: dev}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if err := p.start(&cfg); err != nil {
		return nil, errors.Join(err, p.end(p.dev.Discard))
	}
	return p.conns, nil
}

// check looks for what rtap.Open cannot know to be wrong.
func check(cfg *rtap.Config) error {
	for _, f := range []struct {
		name  string
		value any
		zero  bool
	}{
		{"Config.Memory", cfg.Memory, cfg.Memory == nil},
		{"Config.RxOffloads", cfg.RxOffloads, cfg.RxOffloads == 0},
		{"Config.TxOffloads", cfg.TxOffloads, cfg.TxOffloads == 0},
		{"Config.MaxLROPktSize", cfg.MaxLROPktSize, cfg.MaxLROPktSize == 0},
	} {
		if !f.zero {
			return &rtap.ConfigError{Field: f.name, Value: f.value, Want: "none: packetio has plain packets in memory of its own"}
		}
	}
	return nil
}

// start makes the queues and lets packets flow.
func (p *port) start(cfg *rtap.Config) error {
	n := cmp.Or(cfg.Queues, 1)
	if err := p.dev.Configure(rtap.PortConfig{RxQueues: n, TxQueues: n}); err != nil {
		return err
	}
	for i := range n {
		c := &Conn{port: p}
		p.conns = append(p.conns, c)
		if err := errors.Join(c.rx.setUp(p, i, cfg), c.tx.setUp(p, i, cfg)); err != nil {
			return err
		}
	}
	return p.dev.Start()
}

// Close removes the interface, unless it is persistent, and ends what reads and writes are going on, on all queues. Calling it
// again does nothing and returns the same.
func (c *Conn) Close() error { return c.port.end(c.port.dev.Close) }

// end ends what goes on, and then the device by shut.
func (p *port) end(shut func() error) error {
	p.once.Do(func() {
		p.cancel()
		for _, c := range p.conns { // from here on nobody is in a burst
			c.rx.mu.Lock()
			defer c.rx.mu.Unlock()
			c.tx.mu.Lock()
			defer c.tx.mu.Unlock()
			c.rx.free()
		}
		p.err = shut()
		for _, c := range p.conns {
			p.err = errors.Join(p.err, c.rx.mem.close(), c.tx.mem.close())
		}
	})
	return p.err
}

// Device is the driver's view of the interface: its name, MTU, events, statistics. Its queues belong to the Conns, and
// it is closed with them.
func (c *Conn) Device() *rtap.Device { return c.port.dev }

// Name is the interface's name as last known: it may have been renamed.
func (c *Conn) Name() string { return c.port.dev.Name() }

// failed makes err, of reading or writing, what is returned.
func (p *port) failed(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case p.ctx.Err() != nil:
		err = os.ErrClosed
	}
	return &os.PathError{Op: op, Path: p.dev.Name(), Err: err}
}

// why is the reason for which the queue did not take a packet.
func (p *port) why() error {
	if err := p.dev.Err(); err != nil {
		return err
	}
	if !p.dev.Info().Started {
		return rtap.ErrStopped
	}
	return syscall.ENOBUFS
}

// tooLong says of a packet's length that it is out of the question.
func tooLong(n int) error { return fmt.Errorf("packet of %d bytes: %w", n, syscall.EMSGSIZE) }
