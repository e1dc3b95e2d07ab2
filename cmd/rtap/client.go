// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/runtimedir"
	"github.com/rtap-project/rtap/telemetry"
)

// view is a verb that asks a running rtap: a T for each port.
type view[T any] struct {
	name, intro string
	json        string // what an element of "ports" has
	register    func(f *flags)
	read        func(c *telemetry.Client, p telemetry.PortInfo) (T, error)
	rates       func(before T, now *T, secs float64)            // of what happened since before
	table       func(before *reading[T], now reading[T]) string // before is nil at first
}

// reading is what a view has read, and --json prints.
type reading[T any] struct {
	FilePrefix string  `json:"file_prefix"`
	Version    string  `json:"version"`
	PID        int     `json:"pid"`
	Seconds    float64 `json:"seconds,omitempty"` // that the rates are over
	Ports      []T     `json:"ports"`

	at time.Time
}

// portID is what every view has of a port.
type portID struct {
	ID        int    `json:"port_id"`
	Name      string `json:"name"`
	Interface string `json:"interface"`
	IfIndex   int    `json:"ifindex"`
}

func identify(p telemetry.PortInfo) portID { return portID{p.ID, p.Name, p.Info.Name, p.IfIndex} }

// clientOptions are the flags that all views have.
type clientOptions struct {
	prefix string
	json   bool
	watch  period
}

const clientMore = `PORT is its number, its name or its interface; without it all ports are shown.

Examples:
  rtap %[1]s
  rtap %[1]s net_rtap0 --watch
  rtap %[1]s --file-prefix=blue --json

With --json standard output has one object: {"file_prefix", "version", "pid",
"ports": [{%[2]s}...]};
with --watch one a line, from the second on with "seconds" since the one before.
`

func (v view[T]) run(ctx context.Context, st streams, args []string) error {
	var o clientOptions
	f := newFlags(v.name, v.intro, fmt.Sprintf(clientMore, v.name, v.json))
	f.operandName = "PORT"
	f.StringVar(&o.prefix, "file-prefix", telemetry.DefaultFilePrefix, "NAME: which rtap, as it says when it starts")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.Var(&o.watch, "watch", "[=SECONDS]: again and again, with rates, until Ctrl-C (every second)")
	if v.register != nil {
		v.register(f)
	}
	if err := f.parse(args, st.out); err != nil {
		return err
	}
	if err := runtimedir.CheckPrefix(o.prefix); err != nil {
		return f.usage("--file-prefix: %v", err)
	}
	return v.show(ctx, st, o, f.operand)
}

// show prints a reading, or one after the other.
func (v view[T]) show(ctx context.Context, st streams, o clientOptions, port string) error {
	d := newDisplay(st.out)
	defer d.keep()
	var before *reading[T]
	var tick <-chan time.Time
	if o.watch.seconds > 0 {
		t := time.NewTicker(time.Duration(o.watch.seconds))
		defer t.Stop()
		tick = t.C
	}
	for {
		now, err := v.take(o.prefix, port)
		if err != nil {
			return err
		}
		if before != nil && (before.PID != now.PID || len(before.Ports) != len(now.Ports)) {
			before = nil // another process
		}
		if before != nil && v.rates != nil {
			now.Seconds = now.at.Sub(before.at).Seconds()
			for i := range now.Ports {
				v.rates(before.Ports[i], &now.Ports[i], now.Seconds)
			}
		}
		e := json.NewEncoder(st.out)
		switch {
		case o.json && tick == nil:
			e.SetIndent("", "  ")
			fallthrough
		case o.json:
			err = e.Encode(now)
		default:
			d.block(v.table(before, now))
		}
		if err != nil || tick == nil {
			return err
		}
		before = &now
		select {
		case <-ctx.Done():
			return nil
		case <-tick:
		}
	}
}

// take reads the ports, over a connection of its own: between readings may be hours.
func (v view[T]) take(prefix, port string) (reading[T], error) {
	s := reading[T]{FilePrefix: prefix, Ports: []T{}}
	c, err := telemetry.Dial("", prefix)
	if err != nil {
		return s, err
	}
	defer c.Close()
	s.Version, s.PID = c.Hello().Version, c.Hello().PID
	ids, err := c.Ports()
	if err != nil {
		return s, err
	}
	var there []string
	s.at = time.Now()
	for _, id := range ids {
		info, err := c.Info(id)
		if err != nil {
			return s, fmt.Errorf("file prefix %s is of %s, which is no rtap: %w", prefix, s.Version, err)
		}
		there = append(there, fmt.Sprintf("%d %s %s", id, info.Name, info.Info.Name))
		if port != "" && port != strconv.Itoa(id) && port != info.Name && port != info.Info.Name {
			continue
		}
		row, err := v.read(c, info)
		if err != nil {
			return s, err
		}
		s.Ports = append(s.Ports, row)
	}
	if port != "" && len(s.Ports) == 0 {
		return s, fmt.Errorf("there is no port %s; there are: %s", port, strings.Join(there, ", "))
	}
	return s, nil
}

// portRow is a port in rtap ports.
type portRow struct {
	telemetry.PortInfo
	RxOffloadNames []string `json:"rx_offload_names"` // that are on
	TxOffloadNames []string `json:"tx_offload_names"`

	Processes []telemetry.PortProcess `json:"processes"` // that are attached, and what they have leased
}

// portsVerb is rtap ports.
func portsVerb(ctx context.Context, st streams, args []string) error {
	return view[portRow]{
		name:  "ports",
		intro: "Lists the ports of a running rtap: interface, engine, queues, offloads, and the other\nprocesses that are attached, with the queues that each has leased.\n",
		json: `"port_id", "name", "interface",` + "\n" + `"if_index", "engine", "nb_rx_queues", "mtu", "mac_addr", "running", "rx_offload_names",` + "\n" +
			`"processes": [{"id", "pid", "name", "queues": [...]}...], ...`,
		read: func(c *telemetry.Client, p telemetry.PortInfo) (portRow, error) {
			others, err := c.Processes(p.ID)
			return portRow{p, append([]string{}, rtap.RxOffloadNames(p.EnabledRxOffloads)...),
				append([]string{}, rtap.TxOffloadNames(p.EnabledTxOffloads)...), others}, err
		},
		table: func(_ *reading[portRow], now reading[portRow]) string {
			t := newTable(20, "port", "name", "interface", "ifindex", "engine", "queues", "state", "link", "rx offloads", "tx offloads", "processes")
			for _, p := range now.Ports {
				state := map[bool]string{true: "started", false: "stopped"}[p.Started]
				if p.Error != "" {
					state = p.Error
				}
				t.add(strconv.Itoa(p.ID), p.PortInfo.Name, p.Info.Name, strconv.Itoa(p.IfIndex), string(p.Engine), strconv.Itoa(p.RxQueues),
					state, upDown(p.Running), orNone(p.RxOffloadNames), orNone(p.TxOffloadNames), processList(p.Processes))
			}
			return t.String()
		},
	}.run(ctx, st, args)
}

// processList says who is attached, and who has leased what.
func processList(all []telemetry.PortProcess) string {
	var list []string
	for _, p := range all {
		one := p.Process.String()
		if len(p.Queues) > 0 {
			one += ": " + strings.Trim(fmt.Sprint(p.Queues), "[]")
		}
		list = append(list, one)
	}
	return names(list)
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ",")
}

func upDown(up bool) string {
	if up {
		return "UP"
	}
	return "DOWN"
}

// statsRow is a port in rtap stats.
type statsRow struct {
	portID
	telemetry.PortStats
	Rates map[string]float64 `json:"rates,omitempty"` // per second
}

// statsVerb is rtap stats.
func statsVerb(ctx context.Context, st streams, args []string) error {
	return view[statsRow]{
		name:  "stats",
		intro: "Shows the statistics of a running rtap's ports; of one port, also of each queue pair.\n",
		json: `"port_id", "name", "interface",` + "\n" + `"ifindex", "ipackets", "opackets", "ibytes", "obytes", "imissed", "ierrors", "oerrors",` + "\n" +
			`"rx_nombuf", "queues": [{"ipackets", ...}...], "rates": {"ipackets": per second, ...}`,
		read: func(c *telemetry.Client, p telemetry.PortInfo) (statsRow, error) {
			s, err := c.Stats(p.ID)
			return statsRow{portID: identify(p), PortStats: s}, err
		},
		rates: func(before statsRow, now *statsRow, secs float64) {
			b, n := before.Stats, now.Stats
			now.Rates = map[string]float64{}
			for name, c := range map[string][2]uint64{
				"ipackets": {b.IPackets, n.IPackets}, "opackets": {b.OPackets, n.OPackets},
				"ibytes": {b.IBytes, n.IBytes}, "obytes": {b.OBytes, n.OBytes}, "imissed": {b.IMissed, n.IMissed},
				"ierrors": {b.IErrors, n.IErrors}, "oerrors": {b.OErrors, n.OErrors}, "rx_nombuf": {b.RxNoMbuf, n.RxNoMbuf},
			} {
				now.Rates[name] = perSecond(c[0], c[1], secs)
			}
		},
		table: statsTable,
	}.run(ctx, st, args)
}

// statsTable is what rtap run shows: rates, and totals.
func statsTable(before *reading[statsRow], now reading[statsRow]) string {
	text, r := "", statsReport(now, now.Seconds)
	if before != nil {
		text = rates(statsReport(*before, 0), r) + "\n"
	}
	text += r.totals()
	if len(now.Ports) == 1 {
		text += "\n" + queueTable(now.Ports[0].Queues)
	}
	return text
}

// statsReport is a reading as rtap run's tables take it.
func statsReport(s reading[statsRow], at float64) report {
	r := report{Duration: at}
	for _, p := range s.Ports {
		r.Ports = append(r.Ports, portReport{Name: p.Name, Interface: p.Interface, Stats: p.Stats})
	}
	return r
}

func queueTable(queues []rtap.QueueStats) string {
	t := newTable(1, "queue", "ipackets", "ibytes", "ierrors", "rx_nombuf", "opackets", "obytes", "oerrors")
	for i, q := range queues {
		row := []string{strconv.Itoa(i)}
		for _, n := range []uint64{q.IPackets, q.IBytes, q.IErrors, q.RxNoMbuf, q.OPackets, q.OBytes, q.OErrors} {
			row = append(row, strconv.FormatUint(n, 10))
		}
		t.add(row...)
	}
	return t.String()
}

// xstatsRow is a port in rtap xstats.
type xstatsRow struct {
	portID
	XStats []xstatRow `json:"xstats"`
}

type xstatRow struct {
	rtap.XStat
	Rate *float64 `json:"rate,omitempty"` // per second
}

// xstatsVerb is rtap xstats.
func xstatsVerb(ctx context.Context, st streams, args []string) error {
	nonzero := false
	return view[xstatsRow]{
		name:  "xstats",
		intro: "Shows the extended statistics of a running rtap's ports.\n",
		json:  `"port_id", "name", "interface",` + "\n" + `"ifindex", "xstats": [{"name", "value", "rate": per second}...]`,
		register: func(f *flags) {
			f.BoolVar(&nonzero, "nonzero", false, "only those that are not 0")
		},
		read: func(c *telemetry.Client, p telemetry.PortInfo) (xstatsRow, error) {
			row := xstatsRow{identify(p), []xstatRow{}}
			all, err := c.XStats(p.ID)
			for _, x := range all {
				if x.Value != 0 || !nonzero {
					row.XStats = append(row.XStats, xstatRow{XStat: x})
				}
			}
			return row, err
		},
		rates: func(before xstatsRow, now *xstatsRow, secs float64) {
			was := map[string]uint64{} // what is left out was 0
			for _, x := range before.XStats {
				was[x.Name] = x.Value
			}
			for i := range now.XStats {
				x := &now.XStats[i]
				r := perSecond(was[x.Name], x.Value, secs)
				x.Rate = &r
			}
		},
		table: xstatsTable,
	}.run(ctx, st, args)
}

func xstatsTable(before *reading[xstatsRow], now reading[xstatsRow]) string {
	var parts []string
	for _, p := range now.Ports {
		t := newTable(1, fmt.Sprintf("%s (%s)", p.Name, p.Interface), "value")
		if before != nil {
			t.rows[0] = append(t.rows[0], "per second")
		}
		for _, x := range p.XStats {
			t.add(x.Name, strconv.FormatUint(x.Value, 10))
			if x.Rate != nil {
				last := &t.rows[len(t.rows)-1]
				*last = append(*last, short(*x.Rate))
			}
		}
		parts = append(parts, t.String())
	}
	return strings.Join(parts, "\n")
}

// linkRow is a port in rtap link.
type linkRow struct {
	portID
	Status       string `json:"status"` // UP or DOWN: whether packets flow
	Up           bool   `json:"up"`
	Carrier      bool   `json:"carrier"`
	MTU          int    `json:"mtu"`
	MAC          string `json:"mac_addr"` // empty for a TUN
	Promiscuous  bool   `json:"promiscuous"`
	AllMulticast bool   `json:"all_multicast"`
}

// linkVerb is rtap link.
func linkVerb(ctx context.Context, st streams, args []string) error {
	return view[linkRow]{
		name:  "link",
		intro: "Shows the links of a running rtap's ports. Packets flow while a link is UP: set up, with carrier.\n",
		json: `"port_id", "name", "interface",` + "\n" +
			`"ifindex", "status", "up", "carrier", "mtu", "mac_addr", "promiscuous", "all_multicast"`,
		read: func(_ *telemetry.Client, p telemetry.PortInfo) (linkRow, error) {
			return linkRow{identify(p), upDown(p.Running), p.Up, p.Carrier, p.MTU, p.MAC, p.Promiscuous, p.AllMulticast}, nil
		},
		table: func(_ *reading[linkRow], now reading[linkRow]) string {
			onOff := map[bool]string{true: "on", false: "off"}
			t := newTable(20, "port", "name", "interface", "link", "set", "carrier", "mtu", "mac", "promiscuous", "allmulticast")
			for _, p := range now.Ports {
				t.add(strconv.Itoa(p.ID), p.Name, p.Interface, p.Status, strings.ToLower(upDown(p.Up)), onOff[p.Carrier],
					strconv.Itoa(p.MTU), p.MAC, onOff[p.Promiscuous], onOff[p.AllMulticast])
			}
			return t.String()
		},
	}.run(ctx, st, args)
}
