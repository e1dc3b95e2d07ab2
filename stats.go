// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/rtap-project/rtap/internal/rtnl"
)

// QueueStats are the counters of one queue pair since the device was opened or
// ResetStats.
type QueueStats struct {
	IPackets uint64 `json:"ipackets"`  // packets received
	OPackets uint64 `json:"opackets"`  // packets that the kernel accepted
	IBytes   uint64 `json:"ibytes"`    // bytes received, Ethernet header included, no FCS
	OBytes   uint64 `json:"obytes"`    // bytes sent, likewise
	IErrors  uint64 `json:"ierrors"`   // packets lost on reading, such as one longer than the MTU that the port knows
	OErrors  uint64 `json:"oerrors"`   // packets taken by Burst that the kernel refused
	RxNoMbuf uint64 `json:"rx_nombuf"` // mbufs that a burst wanted and the memory did not have
}

// Stats are a port's counters (struct rte_eth_stats): the sums over its queues,
// and what only the interface knows.
type Stats struct {
	QueueStats
	// IMissed is how many packets the kernel dropped while the port was
	// started, because the queue that they were for was full: the interface's
	// tx_dropped, in ip's terms.
	IMissed uint64 `json:"imissed"`
}

func (s *QueueStats) add(o QueueStats) {
	s.IPackets += o.IPackets
	s.OPackets += o.OPackets
	s.IBytes += o.IBytes
	s.OBytes += o.OBytes
	s.IErrors += o.IErrors
	s.OErrors += o.OErrors
	s.RxNoMbuf += o.RxNoMbuf
}

// counters of queue pair i outlive its queues, so that a port's totals survive
// reconfiguration. The Rx half is written by the goroutine that polls, the Tx
// half by the one that sends; any may read.
type counters struct {
	rx *rxCounters
	tx *txCounters

	base pairCounts // as of ResetStats; under Device.mu
}

func newCounters(p *pairCounters) *counters { return &counters{rx: &p.rx, tx: &p.tx} }

// pairCounters are the counters themselves, which may be in memory that processes share. Each half
// has cache lines of its own.
type pairCounters struct {
	rx rxCounters
	_  [64]byte
	tx txCounters
	_  [64]byte
}

type rxCounters struct {
	tally
	window atomic.Uint32 // packets that the next burst looks for
}

type txCounters struct{ tally }

// pairCounts are what a queue pair has counted.
type pairCounts struct{ rx, tx counts }

// load is what was counted since ResetStats.
func (c *counters) load() pairCounts {
	return pairCounts{c.rx.load().since(&c.base.rx), c.tx.load().since(&c.base.tx)}
}

func (c *counters) reset() { c.base = pairCounts{c.rx.tally.load(), c.tx.tally.load()} }

func (c *pairCounts) stats() QueueStats {
	return QueueStats{
		IPackets: c.rx.packets(),
		OPackets: c.tx.packets(),
		IBytes:   c.rx[cntBytes],
		OBytes:   c.tx[cntBytes],
		IErrors:  c.rx.rxErrors(),
		OErrors:  c.tx.txErrors(),
		RxNoMbuf: c.rx[cntNoMbuf],
	}
}

// linkStats follows the interface's drop counter, which also counts while the
// port is stopped.
type linkStats struct {
	running   bool
	startedAt uint64 // the counter at Start
	missed    uint64 // up to the last Stop
	latest    uint64 // missed when last seen
	base      uint64 // missed at ResetStats
}

func (s *linkStats) start(l rtnl.Link) {
	s.running, s.startedAt = true, l.Stats.TxDropped
}

func (s *linkStats) stop(l rtnl.Link) {
	s.missed = s.see(l)
	s.running = false
}

func (s *linkStats) see(l rtnl.Link) uint64 {
	s.latest = s.missed
	if s.running {
		s.latest += l.Stats.TxDropped - s.startedAt
	}
	return s.latest
}

// Stats reads the port's counters. Bursts may run meanwhile and are not slowed.
// Of a deleted interface, IMissed is what was last seen.
func (d *Device) Stats() (Stats, error) {
	if d.far != nil {
		var s Stats
		err := d.ask("stats", request{}, &s)
		return s, d.failed("read stats of", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s, _, err := d.readStats()
	return s, d.opErr("read stats of", -1, err)
}

// readStats reads the port's counters, and what of them each queue pair has counted.
func (d *Device) readStats() (s Stats, pairs []pairCounts, err error) {
	if d.state == stateClosed {
		return s, nil, ErrClosed
	}
	missed, err := d.missed()
	if err != nil {
		return s, nil, err
	}
	s.IMissed = missed - d.link.base
	pairs = make([]pairCounts, len(d.counters))
	for i, c := range d.counters {
		pairs[i] = c.load()
		s.add(pairs[i].stats())
	}
	return s, pairs, nil
}

func (d *Device) missed() (uint64, error) {
	if !d.link.running {
		return d.link.missed, nil
	}
	var link rtnl.Link
	err := d.locate()
	if err == nil {
		link, err = d.conn.Link(d.index)
	}
	switch {
	case err == nil:
		return d.link.see(link), nil
	case errors.Is(err, ErrGone), errors.Is(err, rtnl.ErrNotFound): // deleted before or since locate
		return d.link.latest, nil
	}
	return 0, err
}

// QueueStats reads the counters of queue pair i, which may have been
// configured away meanwhile.
func (d *Device) QueueStats(i int) (QueueStats, error) {
	if d.far != nil {
		var s QueueStats
		err := d.ask("queue stats", request{Queues: []int{i}}, &s)
		return s, d.failed("read stats of", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == stateClosed {
		return QueueStats{}, d.opErr("read stats of", i, ErrClosed)
	}
	if i < 0 || i >= len(d.counters) {
		return QueueStats{}, d.opErr("read stats of", i, fmt.Errorf("%w with a queue %d", ErrNotConfigured, i))
	}
	now := d.counters[i].load()
	return now.stats(), nil
}

// ResetStats makes the counters start at 0 again, the extended ones too, but for the
// window (rte_eth_stats_reset and rte_eth_xstats_reset, which are one here). Bursts may
// run meanwhile; each counts wholly before or wholly after.
func (d *Device) ResetStats() error {
	if d.far != nil {
		return d.failed("reset stats of", d.ask("reset stats", request{}, nil))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == stateClosed {
		return d.opErr("reset stats of", -1, ErrClosed)
	}
	missed, err := d.missed()
	if err != nil {
		return d.opErr("reset stats of", -1, err)
	}
	d.link.base = missed
	for _, c := range d.counters {
		c.reset()
	}
	return nil
}
