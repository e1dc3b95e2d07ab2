// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

// benchPort is a rig of one port in a namespace of its own, with one queue pair
// that works out of one cache, as a run-to-completion program has it.
type benchPort struct {
	lab   lab
	pool  *mbuf.Pool
	cache *mbuf.Cache
	dev   *rtap.Device
	rx    *rtap.RxQueue
	tx    *rtap.TxQueue
	bufs  []*mbuf.Mbuf
}

const (
	// drainDepth is how many packets a full queue has.
	drainDepth = 4096
	// benchMbufs is enough for a ring, a burst and the cache.
	benchMbufs = 2048
	// timeCheck is how many packets pass between two looks at the clock.
	timeCheck = 1024
)

func openBenchPort(engine rtap.Engine) (*benchPort, error) {
	p := &benchPort{bufs: make([]*mbuf.Mbuf, benchMbufs)}
	if err := p.open(engine); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *benchPort) open(engine rtap.Engine) error {
	var err error
	if p.lab, err = newLab(1); err != nil {
		return err
	}
	if err := p.lab.withoutIPv6(0); err != nil {
		return err
	}
	if p.pool, err = mbuf.NewPool(mbuf.Config{Name: "bench", Count: benchMbufs}); err != nil {
		return err
	}
	p.cache = p.pool.NewCache(0)
	cfg := rtap.Config{Engine: engine, NetNS: p.lab.path(0), TxQueueLen: drainDepth}
	if p.dev, err = rtap.Open(cfg); err != nil {
		return err
	}
	if err := p.dev.Configure(rtap.PortConfig{RxQueues: 1, TxQueues: 1}); err != nil {
		return err
	}
	if err := p.dev.SetupRxQueue(0, rtap.RxConfig{Memory: p.cache}); err != nil {
		return err
	}
	if err := p.dev.SetupTxQueue(0, rtap.TxConfig{Free: p.cache}); err != nil {
		return err
	}
	p.rx, p.tx = p.dev.RxQueue(0), p.dev.TxQueue(0)
	return p.dev.Start()
}

func (p *benchPort) close() error {
	var err error
	if p.dev != nil {
		err = p.dev.Close()
	}
	if p.cache != nil {
		p.cache.Close()
	}
	if p.pool != nil {
		err = errors.Join(err, p.pool.Close())
	}
	return errors.Join(err, p.lab.close())
}

// benchFrame is a frame that the kernel throws away as soon as it has looked at
// its EtherType: 0x88b5, for local experiments (IEEE 802).
func benchFrame(size int) []byte {
	b := make([]byte, size)
	copy(b, []byte{0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1})
	binary.BigEndian.PutUint16(b[12:], 0x88b5)
	return b
}

// txRig sends.
type txRig struct {
	*benchPort
	bytes int // of the frame that all mbufs hold
}

func openTx(engine rtap.Engine) (rig, error) {
	p, err := openBenchPort(engine)
	if err != nil {
		return nil, err
	}
	return &txRig{benchPort: p}, nil
}

func (t *txRig) round(ctx context.Context, c cell, d time.Duration) (sample, error) {
	if err := t.write(c.bytes); err != nil {
		return sample{}, err
	}
	before, err := t.dev.Stats()
	if err != nil {
		return sample{}, err
	}
	var s sample
	for start := time.Now(); s.elapsed < d && ctx.Err() == nil; s.elapsed = time.Since(start) {
		for range max(1, timeCheck/c.burst) {
			s.packets += t.burst(c)
		}
	}
	after, err := t.dev.Stats()
	if sent := int(after.OPackets - before.OPackets); err == nil && sent != s.packets {
		err = fmt.Errorf("the port took %d packets, and the kernel %d of them", s.packets, sent)
	}
	return s, err
}

// write puts the frame into every mbuf once: what an mbuf holds survives being
// freed, and the rounds only set lengths.
func (t *txRig) write(size int) error {
	if t.bytes == size {
		return nil
	}
	t.cache.Flush()
	n := t.pool.AllocBulk(t.bufs)
	defer func() { t.pool.FreeBulk(t.bufs[:n]) }()
	for _, m := range t.bufs[:n] {
		if b := m.Append(size); b != nil {
			copy(b, benchFrame(size))
		}
	}
	t.bytes = size
	return nil
}

func (t *txRig) burst(c cell) int {
	bufs := t.bufs[:c.burst]
	n := t.cache.AllocBulk(bufs)
	for _, m := range bufs[:n] {
		m.DataLen, m.PktLen = uint16(c.bytes), uint32(c.bytes)
	}
	sent := t.tx.Burst(bufs[:n])
	if sent < n {
		t.cache.FreeBulk(bufs[sent:n])
	}
	return sent
}

// drainRig receives a queue that was filled before.
type drainRig struct {
	*benchPort
	in *traffic.Injector
}

func openDrain(engine rtap.Engine) (rig, error) {
	p, err := openBenchPort(engine)
	if err != nil {
		return nil, err
	}
	in, err := traffic.NewInjector(p.lab[0], p.dev.Info().IfIndex)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return &drainRig{p, in}, nil
}

func (r *drainRig) close() error { return errors.Join(r.in.Close(), r.benchPort.close()) }

func (r *drainRig) round(ctx context.Context, c cell, d time.Duration) (sample, error) {
	flood := traffic.FloodConfig{Frames: [][]byte{benchFrame(c.bytes)}, Count: drainDepth}
	var s sample
	for s.elapsed < d && ctx.Err() == nil {
		filled, err := r.in.Flood(ctx, flood)
		if err != nil {
			return s, err
		}
		start := time.Now()
		n := r.drain(c.burst, filled.Sent)
		s.elapsed += time.Since(start)
		s.packets += n
		if n < filled.Sent {
			return s, fmt.Errorf("%d of %d packets that the queue took came out of it", n, filled.Sent)
		}
	}
	return s, nil
}

// drain receives n packets, or as many as there are.
func (r *drainRig) drain(burst, n int) int {
	got := 0
	for empty := 0; got < n && empty < 10; {
		k := r.rx.Burst(r.bufs[:burst])
		r.cache.FreeBulk(r.bufs[:k])
		got += k
		empty++
		if k > 0 {
			empty = 0
		}
	}
	return got
}

// pollRig polls a queue that is empty.
type pollRig struct{ *benchPort }

func openPoll(engine rtap.Engine) (rig, error) {
	p, err := openBenchPort(engine)
	if err != nil {
		return nil, err
	}
	return pollRig{p}, nil
}

func (r pollRig) round(ctx context.Context, c cell, d time.Duration) (sample, error) {
	var s sample
	for start := time.Now(); s.elapsed < d && ctx.Err() == nil; s.elapsed = time.Since(start) {
		for range timeCheck {
			n := r.rx.Burst(r.bufs[:c.burst])
			r.cache.FreeBulk(r.bufs[:n])
		}
		s.packets += timeCheck
	}
	return s, nil
}
