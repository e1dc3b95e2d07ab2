// SPDX-License-Identifier: BSD-3-Clause

// Package metrics shows ports to Prometheus and on a page.
//
// [NewCollector] is for a program that has a registry of its own. [NewHandler] is all there is over HTTP:
//
//	/           the live page: one file, nothing from outside
//	/metrics    for Prometheus, with the customary go_* and process_*
//	/healthz    200 while every port has its interface, else 503; JSON says which has not
//	/api/ports  what the page polls, as JSON
//
// [Listen] serves it. Nothing that a request can say changes anything, and the data path does not notice: all
// is read at the moment of the request, by what [rtap.Device] has for any goroutine to call.
//
// # Names and labels
//
// What the program counts of a port is rtap_port_*{port,interface}, of a queue rtap_queue_*{port,queue}, of a
// pool rtap_mempool_*{pool}. Extended statistics are named after themselves: rx_q0_lro_packets becomes
// rtap_queue_receive_lro_packets_total{queue="0"}, the sizes of packets and bursts become histograms, and a name
// that is no good for a metric is a label of rtap_port_xstat or rtap_queue_xstat.
//
// The number of series is bounded by what is there: ports, queues (128 a port at most) and pools, times the
// statistics; reason is one of the driver's names for why a packet was lost; an interface has one name at a time, and what was counted
// under another ends there. Nothing of a packet is ever in a label. One port with one queue makes about 95 series
// (each bucket of a histogram is one), each further queue about 75.
//
// Counters begin at 0 when a port is opened or its statistics are reset, as Prometheus expects.
package metrics

import (
	"strconv"
	"strings"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/telemetry"
)

// View is what is shown. The devices and pools stay the program's own; each may be closed, or lose its
// interface, at any time, and is then shown as such for as long as it is in the view.
type View struct {
	Ports []telemetry.Port
	Pools []*mbuf.Pool
}

// Source returns what there is now. It is asked at every scrape, by several goroutines at a time.
type Source func() View

// device is what is read of a port: [rtap.Device].
type device interface {
	Err() error
	Info() rtap.Info
	Link() (rtap.LinkStatus, error)
	Stats() (rtap.Stats, error)
	QueueStats(i int) (rtap.QueueStats, error)
	XStats() ([]rtap.XStat, error)
}

// port is a port under a name of its own.
type port struct {
	id   int
	name string
	dev  device
}

// view is a View whose names can be labels.
type view struct {
	ports []port
	pools []pool
}

// pool is a pool under a name of its own.
type pool struct {
	name string
	*mbuf.Pool
}

// read asks the source. Whatever names there are, those of the view differ.
func (s Source) read() view {
	all, v := s(), view{}
	taken := map[string]bool{}
	for _, p := range all.Ports {
		if p.Device != nil {
			v.ports = append(v.ports, port{p.ID, unique(taken, p.Name, "port"), p.Device})
		}
	}
	taken = map[string]bool{}
	for _, p := range all.Pools {
		if p != nil {
			v.pools = append(v.pools, pool{unique(taken, p.Name(), "pool"), p})
		}
	}
	return v
}

// unique is name, or what without one stands for it, with a number if it is taken.
func unique(taken map[string]bool, name, without string) string {
	if name == "" {
		name = without
	}
	name = strings.ToValidUTF8(name, "?")
	free := name
	for i := 1; taken[free]; i++ {
		free = name + "-" + strconv.Itoa(i)
	}
	taken[free] = true
	return free
}

// sample is a port at one moment. What cannot be read any more is zero.
type sample struct {
	port
	err    error // why it cannot be used: rtap.ErrGone, rtap.ErrClosed, ...
	info   rtap.Info
	link   rtap.LinkStatus
	counts bool // the counters below could be read
	stats  rtap.Stats
	queues []rtap.QueueStats
	xstats []xstat
	hists  []histogram
}

// sample reads a port.
func (p port) sample() sample {
	s := sample{port: p, info: p.dev.Info()}
	s.readLink()
	var err error
	if s.stats, err = p.dev.Stats(); err != nil {
		return s
	}
	s.counts = true
	for i := range max(s.info.RxQueues, s.info.TxQueues) {
		q, err := p.dev.QueueStats(i)
		if err != nil {
			break // configured away meanwhile
		}
		s.queues = append(s.queues, q)
	}
	if all, err := p.dev.XStats(); err == nil {
		s.xstats, s.hists = parseXStats(all)
	}
	return s
}

func (s *sample) readLink() {
	s.link, s.err = s.dev.Link()
	if err := s.dev.Err(); err != nil { // says it in fewer words; that an interface is gone, Link finds out
		s.err = err
	}
	if s.err != nil {
		s.link = rtap.LinkStatus{Name: s.info.Name, Index: s.info.IfIndex}
	}
}

// counter is one of the driver's own counters, which every queue and every port has.
type counter struct {
	name, help string
	of         func(q *rtap.QueueStats) uint64
}

var counters = []counter{
	{"receive_packets_total", "Packets received.", func(q *rtap.QueueStats) uint64 { return q.IPackets }},
	{"receive_bytes_total", "Bytes received, Ethernet headers included, FCS not.", func(q *rtap.QueueStats) uint64 { return q.IBytes }},
	{"receive_errors_total", "Packets lost on reading, such as one longer than the MTU that the port knows.",
		func(q *rtap.QueueStats) uint64 { return q.IErrors }},
	{"receive_mbuf_exhausted_total", "Mbufs that a burst wanted and the memory did not have.",
		func(q *rtap.QueueStats) uint64 { return q.RxNoMbuf }},
	{"transmit_packets_total", "Packets that the kernel accepted.", func(q *rtap.QueueStats) uint64 { return q.OPackets }},
	{"transmit_bytes_total", "Bytes sent, Ethernet headers included, FCS not.", func(q *rtap.QueueStats) uint64 { return q.OBytes }},
	{"transmit_errors_total", "Packets taken by a burst that the kernel refused.", func(q *rtap.QueueStats) uint64 { return q.OErrors }},
}
