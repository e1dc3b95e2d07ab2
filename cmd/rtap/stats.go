// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"strconv"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/forward"
)

// portReport is a port's part of the report of rtap run.
type portReport struct {
	Name      string      `json:"name"`      // as in --vdev
	Interface string      `json:"interface"` // its name now
	IfIndex   int         `json:"ifindex"`   // in the namespace where it is now
	Engine    rtap.Engine `json:"engine"`
	rtap.Stats
	RxOffloads []string `json:"rx_offloads"` // that are on, by name
	TxOffloads []string `json:"tx_offloads"`
	Error      string   `json:"error,omitempty"`
}

// report is what --json prints.
type report struct {
	Ports    []portReport  `json:"ports"`
	Forward  forward.Stats `json:"forward"`
	Duration float64       `json:"duration"` // seconds
	// The same under a name with its unit.
	DurationSeconds float64 `json:"duration_seconds"`
}

// sample reads every port.
func (s *session) sample(elapsed time.Duration) report {
	r := report{Forward: s.fwd.Stats(), Duration: elapsed.Seconds(), DurationSeconds: elapsed.Seconds()}
	for _, p := range s.ports {
		r.Ports = append(r.Ports, p.report())
	}
	return r
}

// report reads one port. What cannot be read any more is as it was last seen.
func (p *port) report() portReport {
	stats, statsErr := p.stats()
	link, linkErr := p.dev.Link()
	info := p.dev.Info()
	r := portReport{Name: p.name, Interface: info.Name, IfIndex: info.IfIndex, Engine: info.Engine, Stats: stats,
		RxOffloads: append([]string{}, rtap.RxOffloadNames(info.EnabledRxOffloads)...),
		TxOffloads: append([]string{}, rtap.TxOffloadNames(info.EnabledTxOffloads)...)}
	if linkErr == nil {
		r.Interface, r.IfIndex = link.Name, link.Index
	}
	for _, err := range []error{statsErr, linkErr} {
		if err != nil {
			r.Error = err.Error()
		}
	}
	if why := r.Error; statsErr != nil && p.last.Name != "" {
		r = p.last
		r.Error = why
	}
	p.last = r
	return r
}

// stats are the port's counters, or, in a secondary that leases queues of it, what these have counted since.
func (p *port) stats() (rtap.Stats, error) {
	if len(p.leased) == 0 {
		return p.dev.Stats()
	}
	var s rtap.Stats
	for i, q := range p.leased {
		now, err := p.dev.QueueStats(q)
		if err != nil {
			return s, err
		}
		addSince(&s.QueueStats, now, p.base[i])
	}
	return s, nil
}

// addSince adds to sum what was counted from base to now. A counter that was reset meanwhile counts from there.
func addSince(sum *rtap.QueueStats, now, base rtap.QueueStats) {
	for _, c := range []struct {
		sum       *uint64
		now, base uint64
	}{
		{&sum.IPackets, now.IPackets, base.IPackets}, {&sum.OPackets, now.OPackets, base.OPackets},
		{&sum.IBytes, now.IBytes, base.IBytes}, {&sum.OBytes, now.OBytes, base.OBytes},
		{&sum.IErrors, now.IErrors, base.IErrors}, {&sum.OErrors, now.OErrors, base.OErrors},
		{&sum.RxNoMbuf, now.RxNoMbuf, base.RxNoMbuf},
	} {
		if c.now < c.base {
			c.base = 0
		}
		*c.sum += c.now - c.base
	}
}

// totals is the table at the end.
func (r *report) totals() string {
	t := newTable(2, "port", "interface", "ipackets", "ibytes", "imissed", "ierrors", "rx_nombuf", "opackets", "obytes", "oerrors")
	var sum [8]uint64
	add := func(name, iface string, counts [8]uint64) {
		row := []string{name, iface}
		for i, n := range counts {
			row = append(row, strconv.FormatUint(n, 10))
			sum[i] += n
		}
		t.add(row...)
	}
	for _, p := range r.Ports {
		add(p.Name, p.Interface, [8]uint64{p.IPackets, p.IBytes, p.IMissed, p.IErrors, p.RxNoMbuf, p.OPackets, p.OBytes, p.OErrors})
	}
	if len(r.Ports) > 1 {
		add("all", "", sum)
	}
	return t.String()
}

// rates is the live table: what happened between two samples.
func rates(before, now report) string {
	secs := now.Duration - before.Duration
	per := func(a, b uint64) float64 { return perSecond(a, b, secs) }
	t := newTable(2, "port", "interface", "rx pkt/s", "rx bit/s", "tx pkt/s", "tx bit/s", "missed/s", "errors/s")
	for i, p := range now.Ports {
		b := before.Ports[i]
		t.add(p.Name, p.Interface,
			short(per(b.IPackets, p.IPackets)), short(8*per(b.IBytes, p.IBytes)),
			short(per(b.OPackets, p.OPackets)), short(8*per(b.OBytes, p.OBytes)),
			short(per(b.IMissed, p.IMissed)), short(per(b.errors(), p.errors())))
	}
	return t.String()
}

// perSecond is how fast a counter went from a to b. One that was reset meanwhile
// counts as still.
func perSecond(a, b uint64, secs float64) float64 {
	if b < a {
		return 0
	}
	return float64(b-a) / max(secs, 1e-9)
}

// errors is everything that the live table has no column for.
func (p *portReport) errors() uint64 { return p.IErrors + p.OErrors + p.RxNoMbuf }
