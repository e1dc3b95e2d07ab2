// SPDX-License-Identifier: BSD-3-Clause

package telemetry

import (
	"bytes"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
)

// Bounds of a request, in bytes: DPDK's, but that what is longer is answered with null instead of being
// cut.
const (
	maxRequest = 1023
	maxCommand = 55
)

// command answers a request. A nil value is JSON's null.
type command struct {
	name, help string
	run        func(s *Server, params string) any
}

// commands in the order of the alphabet, as the C library lists them. It is a function because "/" is in it
// and reads it.
func commands() []command {
	return []command{
		{"/", "Returns list of available commands, Takes no parameters", (*Server).list},
		{"/eal/app_params", "Returns app commandline parameters used. Takes no parameters", appParams},
		{"/eal/params", "Returns EAL commandline parameters used. Takes no parameters", ealParams},
		{"/ethdev/info", "Returns the device info for a port. Parameters: int port_id", ofPort(ethdevInfo)},
		{"/ethdev/link_status", "Returns the link status for a port. Parameters: int port_id", ofPort(linkStatus)},
		{"/ethdev/list", "Returns list of available ethdev ports. Takes no parameters", (*Server).portIDs},
		{"/ethdev/stats", "Returns the common stats for a port. Parameters: int port_id", ofPort(ethdevStats)},
		{"/ethdev/xstats", "Returns the extended stats for a port. Parameters: int port_id," +
			"hide_zero=true|false (optional), first=N (optional: leaves out N, for those that a reply had no room for)", ofPort(xstats)},
		{"/help", "Returns help text for a command. Parameters: string command", help},
		{"/info", "Returns telemetry information. Takes no parameters", (*Server).info},
		{"/mempool/info", "Returns mempool info. Parameters: pool_name", (*Server).poolInfo},
		{"/mempool/list", "Returns list of available mempool. Takes no parameters", (*Server).poolNames},
		{"/rtap/info", "Returns all that rtap knows of a port. Parameters: int port_id", ofPort(portInfo)},
		{"/rtap/ports", "Returns id, name, interface, engine and offloads of all ports. Takes no parameters", (*Server).portList},
		{"/rtap/processes", "Returns the other processes that are attached, and the queues of a port that each has leased. Parameters: int port_id",
			ofPort(portProcesses)},
		{"/rtap/stats", "Returns the stats of a port and of each of its queue pairs. Parameters: int port_id", ofPort(portStats)},
	}
}

func find(name string) (command, bool) {
	for _, c := range commands() {
		if c.name == name {
			return c, true
		}
	}
	return command{}, false
}

// split takes a request apart. As in C, it ends at a NUL byte. ok is false if it is too long.
func split(request []byte) (name, params string, ok bool) {
	ok = len(request) <= maxRequest
	request, _, _ = bytes.Cut(request, []byte{0})
	name, params, _ = strings.Cut(string(request), ",")
	if name == "" {
		name = "none"
	}
	if len(name) > maxCommand {
		name, ok = name[:maxCommand], false
	}
	return name, params, ok
}

// reply answers one request with at most limit bytes.
func (s *Server) reply(request []byte, limit int) []byte {
	name, params, ok := split(request)
	c, known := find(name)
	if !ok || !known {
		return encode(name, nil, limit)
	}
	s.one.Lock()
	value := c.run(s, params)
	s.one.Unlock()
	return encode(name, value, limit)
}

// ofPort is for commands whose first parameter is a port.
func ofPort(run func(p *Port, more string) any) func(*Server, string) any {
	return func(s *Server, params string) any {
		id, more, _ := strings.Cut(params, ",")
		n, err := strconv.ParseUint(id, 10, 16)
		if err != nil {
			return nil
		}
		p := s.ports[int(n)]
		if p == nil {
			return nil
		}
		return run(p, more)
	}
}

func (s *Server) list(string) any {
	var a array
	for _, c := range commands() {
		a = append(a, c.name)
	}
	return a
}

func help(_ *Server, params string) any {
	if params == "" {
		params = "/help"
	}
	c, ok := find(params)
	if !ok {
		return nil
	}
	return dict{{c.name, c.help}}
}

func (s *Server) info(string) any { return s.hello(maxOutput) }

func appParams(*Server, string) any {
	a := array{}
	for _, arg := range os.Args {
		a = append(a, arg)
	}
	return a
}

// ealParams: there is no EAL.
func ealParams(*Server, string) any { return array{} }

func (s *Server) portIDs(string) any {
	a := array{}
	for _, p := range s.cfg.Ports {
		a = append(a, p.ID)
	}
	return a
}

// States of a device and of a queue (enum rte_eth_dev_state, RTE_ETH_QUEUE_STATE_*).
const (
	deviceAttached = 1
	deviceRemoved  = 2
	queueStarted   = 1
)

func ethdevInfo(p *Port, _ string) any {
	i := describe(p)
	stats, _ := p.Device.Stats() // of a closed port: 0
	state, mac, queues := deviceAttached, i.MAC, array{}
	if p.Device.Err() != nil {
		state = deviceRemoved
	}
	if mac == "" {
		mac = net.HardwareAddr(make([]byte, 6)).String()
	}
	for range i.RxQueues {
		queues = append(queues, flag(i.Started)*queueStarted)
	}
	return dict{
		{"name", i.Name}, {"state", state}, {"nb_rx_queues", i.RxQueues}, {"nb_tx_queues", i.TxQueues},
		{"port_id", i.ID}, {"mtu", i.MTU}, {"rx_mbuf_size_min", i.MinRxBufSize}, {"rx_mbuf_alloc_fail", stats.RxNoMbuf},
		{"mac_addr", strings.ToUpper(mac)}, {"promiscuous", flag(i.Promiscuous)},
		{"scattered_rx", flag(i.EnabledRxOffloads&rtap.RxOffloadScatter != 0)}, {"all_multicast", flag(i.AllMulticast)},
		{"dev_started", flag(i.Started)}, {"lro", flag(i.EnabledRxOffloads&(rtap.RxOffloadTCPLRO|rtap.RxOffloadUDPLRO) != 0)},
		{"dev_configured", flag(i.RxQueues > 0)}, {"rxq_state", queues}, {"txq_state", queues},
		{"numa_node", -1}, {"dev_flags", "0x0"},
		{"rx_offloads", upper(rtap.RxOffloadNames(i.EnabledRxOffloads))},
		{"tx_offloads", upper(rtap.TxOffloadNames(i.EnabledTxOffloads))}, {"ethdev_rss_hf", "0x0"},
	}
}

// flag is a bit field of struct rte_eth_dev_data.
func flag(on bool) int {
	if on {
		return 1
	}
	return 0
}

// upper are names of offloads as rte_eth_dev_rx_offload_name has them.
func upper(names []string) array {
	a := array{}
	for _, n := range names {
		a = append(a, strings.ToUpper(n))
	}
	return a
}

// linkSpeed is what DPDK's net_tap says of a TAP, in Mbit/s: it has none.
const linkSpeed = 10000

func linkStatus(p *Port, _ string) any {
	link, err := p.Device.Link()
	if err != nil || !link.Running {
		return dict{{"status", "DOWN"}}
	}
	return dict{{"status", "UP"}, {"speed", linkSpeed}, {"duplex", "full-duplex"}}
}

func ethdevStats(p *Port, _ string) any {
	s, err := readStats(p)
	if err != nil {
		return nil
	}
	d := dict{{"ipackets", s.IPackets}, {"opackets", s.OPackets}, {"ibytes", s.IBytes}, {"obytes", s.OBytes},
		{"imissed", s.IMissed}, {"ierrors", s.IErrors}, {"oerrors", s.OErrors}, {"rx_nombuf", s.RxNoMbuf}}
	for _, c := range []struct {
		name string
		of   func(q rtap.QueueStats) uint64
	}{
		{"q_ipackets", func(q rtap.QueueStats) uint64 { return q.IPackets }},
		{"q_opackets", func(q rtap.QueueStats) uint64 { return q.OPackets }},
		{"q_ibytes", func(q rtap.QueueStats) uint64 { return q.IBytes }},
		{"q_obytes", func(q rtap.QueueStats) uint64 { return q.OBytes }},
		{"q_errors", func(q rtap.QueueStats) uint64 { return q.IErrors }},
	} {
		a := array{}
		for _, q := range s.Queues {
			a = append(a, c.of(q))
		}
		d = append(d, entry{c.name, a})
	}
	return d
}

// xstats leaves out what "first" says, and zeros if "hide_zero" says so; what else is asked for it ignores,
// as DPDK does.
func xstats(p *Port, params string) any {
	all, err := p.Device.XStats()
	if err != nil {
		return nil
	}
	hideZero, first := false, uint64(0)
	for param := range strings.SplitSeq(params, ",") {
		switch key, value, _ := strings.Cut(param, "="); key {
		case "hide_zero":
			hideZero = value == "true"
		case "first":
			first, _ = strconv.ParseUint(value, 10, 31)
		}
	}
	d := dict{}
	for _, x := range all {
		if !hideZero || x.Value != 0 {
			d = append(d, entry{x.Name, x.Value})
		}
	}
	return d[min(int(first), len(d)):]
}

func (s *Server) poolNames(string) any {
	a := array{}
	for _, p := range s.cfg.Pools {
		a = append(a, p.Name())
	}
	return a
}

// poolInfo has DPDK's fields, of which the last ones describe a memory zone, and two of its own. What is
// in caches counts in common_pool_count.
func (s *Server) poolInfo(name string) any {
	if name == "" {
		return nil
	}
	for i, p := range s.cfg.Pools {
		if p.Name() != name {
			continue
		}
		inUse, exhausted := p.InUseCount(), p.Exhausted()
		return dict{{"name", name}, {"pool_id", i}, {"flags", 0}, {"socket_id", -1}, {"size", p.Count()},
			{"elt_size", mbuf.Size + p.Headroom() + p.DataRoom()}, {"populated_size", p.Count()},
			{"total_cache_count", 0}, {"common_pool_count", p.Count() - inUse},
			{"mz_name", name}, {"mz_len", p.SizeBytes()}, {"in_use_count", inUse}, {"exhausted", exhausted}}
	}
	return dict{} // as DPDK
}

// describe reads all of a port but its counters.
func describe(p *Port) PortInfo {
	i := PortInfo{ID: p.ID, Name: p.Name, Info: p.Device.Info()}
	if link, err := p.Device.Link(); err == nil {
		i.Info.Name, i.IfIndex = link.Name, link.Index
		i.MTU, i.MAC = link.MTU, link.MAC.String()
		i.Up, i.Carrier, i.Running = link.Up, link.Carrier, link.Running
		i.Promiscuous, i.AllMulticast = link.Promiscuous, link.AllMulticast
	}
	if err := p.Device.Err(); err != nil {
		i.Error = err.Error()
	}
	return i
}

func portInfo(p *Port, _ string) any { return describe(p) }

func (s *Server) portList(string) any {
	a := array{}
	for _, p := range s.cfg.Ports {
		i := describe(&p)
		a = append(a, dict{{"port_id", i.ID}, {"name", i.Name}, {"interface", i.Info.Name}, {"engine", i.Engine},
			{"rx_offloads", upper(rtap.RxOffloadNames(i.EnabledRxOffloads))},
			{"tx_offloads", upper(rtap.TxOffloadNames(i.EnabledTxOffloads))}})
	}
	return a
}

func portProcesses(p *Port, _ string) any {
	all := []PortProcess{}
	for _, other := range p.Device.Processes() {
		all = append(all, PortProcess{Process: other, Queues: []int{}})
	}
	for _, l := range p.Device.Leases() {
		if i := slices.IndexFunc(all, func(o PortProcess) bool { return o.ID == l.Process.ID }); i >= 0 {
			all[i].Queues = append(all[i].Queues, l.Queue)
		}
	}
	return all
}

func portStats(p *Port, _ string) any {
	s, err := readStats(p)
	if err != nil {
		return nil
	}
	return s
}

// readStats reads a port's counters and those of its queue pairs, which may become fewer meanwhile.
func readStats(p *Port) (PortStats, error) {
	total, err := p.Device.Stats()
	s := PortStats{Stats: total, Queues: []rtap.QueueStats{}}
	for i := range p.Device.Info().RxQueues {
		q, err := p.Device.QueueStats(i)
		if err != nil {
			break
		}
		s.Queues = append(s.Queues, q)
	}
	return s, err
}
