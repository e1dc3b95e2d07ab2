// SPDX-License-Identifier: BSD-3-Clause

package metrics

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rtap-project/rtap"
)

const namespace = "rtap_"

// NewCollector returns a collector of what source names, for a program's own registry. Every scrape reads the
// ports anew; nothing is kept between scrapes. Scrapes may run at the same time.
func NewCollector(source Source) prometheus.Collector { return collector(source.read) }

type collector func() view

// Describe describes nothing: which metrics there are shows only when ports are read.
func (c collector) Describe(chan<- *prometheus.Desc) {}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	e := emitter{ch: ch, kinds: map[string]string{}, seen: map[string]bool{}}
	v := c()
	for _, p := range v.ports {
		s := p.sample()
		e.port(&s)
	}
	for _, p := range v.pools {
		e.pool(p)
	}
}

// emitter sends metrics. Whatever the statistics are called, no metric comes twice, with two types or two help texts,
// because one such would cost the whole scrape.
type emitter struct {
	ch    chan<- prometheus.Metric
	kinds map[string]string
	seen  map[string]bool
}

// labels are names and values in turn.
type labels []string

func (l labels) with(name, value string) labels { return append(l[:len(l):len(l)], name, value) }

func (l labels) split() (names, values []string) {
	for i := 0; i < len(l); i += 2 {
		names = append(names, l[i])
		values = append(values, strings.ToValidUTF8(l[i+1], "?"))
	}
	return names, values
}

// emit sends what build makes, unless it would be refused.
func (e *emitter) emit(kind, name, help string, l labels,
	build func(d *prometheus.Desc, values []string) (prometheus.Metric, error)) {
	names, values := l.split()
	kind = fmt.Sprint(kind, names, help)
	key := name + "\xff" + strings.Join(values, "\xff")
	if known, ok := e.kinds[name]; ok && known != kind || e.seen[key] {
		return
	}
	m, err := build(prometheus.NewDesc(namespace+name, help, names, nil), values)
	if err != nil {
		return
	}
	e.kinds[name], e.seen[key] = kind, true
	e.ch <- m
}

func (e *emitter) value(t prometheus.ValueType, name, help string, v float64, l labels) {
	e.emit(t.ToDTO().String(), name, help, l, func(d *prometheus.Desc, values []string) (prometheus.Metric, error) {
		return prometheus.NewConstMetric(d, t, v, values...)
	})
}

func (e *emitter) count(name, help string, v uint64, l labels) {
	e.value(prometheus.CounterValue, name, help, float64(v), l)
}

func (e *emitter) gauge(name, help string, v float64, l labels) {
	e.value(prometheus.GaugeValue, name, help, v, l)
}

func (e *emitter) flag(name, help string, on bool, l labels) {
	v := 0.0
	if on {
		v = 1
	}
	e.gauge(name, help, v, l)
}

func (e *emitter) port(s *sample) {
	l := labels{"port", s.name, "interface", s.link.Name}
	e.gauge("port_info", "What the port is: always 1.", 1, l.with("driver", s.info.Driver).
		with("engine", string(s.info.Engine)).with("mac", s.link.MAC.String()))
	e.flag("port_attached", "Whether the port has its interface: 0 once that was deleted or the port closed.", s.err == nil, l)
	e.flag("port_started", "Whether the port was started.", s.info.Started && s.err == nil, l)
	e.gauge("port_queues", "Queue pairs configured.", float64(s.info.RxQueues), l)
	if s.err == nil {
		e.flag("port_link_up", "Whether packets flow: the interface is up and has a carrier.", s.link.Running, l)
		e.flag("port_admin_up", "Whether the interface is set up (IFF_UP).", s.link.Up, l)
		e.flag("port_carrier", "Whether the interface has a carrier.", s.link.Carrier, l)
		e.gauge("port_mtu_bytes", "The interface's MTU.", float64(s.link.MTU), l)
		e.gauge("port_tx_queue_packets", "How many packets wait in the kernel for each Rx queue before it drops (txqueuelen).",
			float64(s.link.TxQueueLen), l)
	}
	e.offloads(l.with("direction", "receive"), rtap.RxOffloadNames(s.info.EnabledRxOffloads))
	e.offloads(l.with("direction", "transmit"), rtap.TxOffloadNames(s.info.EnabledTxOffloads))
	if !s.counts {
		return
	}
	e.counters("port_", &s.stats.QueueStats, l)
	e.count("port_receive_missed_packets_total", "Packets that the kernel dropped because their queue was full.", s.stats.IMissed, l)
	for i := range s.queues {
		e.counters("queue_", &s.queues[i], queueLabels(s, i))
	}
	for i := range s.hists {
		e.histogram(s, &s.hists[i])
	}
	for i := range s.xstats {
		e.xstat(s, &s.xstats[i])
	}
}

func queueLabels(s *sample, queue int) labels {
	return labels{"port", s.name, "queue", strconv.Itoa(queue)}
}

func (e *emitter) offloads(l labels, names []string) {
	for _, n := range names {
		e.gauge("port_offload_enabled", "An offload that is on: always 1.", 1, l.with("offload", n))
	}
}

func (e *emitter) counters(prefix string, q *rtap.QueueStats, l labels) {
	for _, c := range counters {
		e.count(prefix+c.name, c.help, c.of(q), l)
	}
}

// of is where a statistic belongs: the beginning of its name, and its labels.
func (x scope) of(s *sample) (prefix string, l labels) {
	prefix, l = "port_", labels{"port", s.name, "interface", s.link.Name}
	if x.queue >= 0 {
		prefix, l = "queue_", queueLabels(s, x.queue)
	}
	if x.dir != "" {
		prefix += x.dir + "_"
	}
	return prefix, l
}

func (e *emitter) xstat(s *sample, x *xstat) {
	if x.known() {
		return
	}
	prefix, l := x.scope.of(s)
	if reason, ok := reasonOf(x.what); ok {
		e.count(prefix+"failures_total", "Packets that were lost, by why: the kernel's error, or what the driver found.", x.value, l.with("reason", reason))
		return
	}
	name, isCounter := metricName(x.what)
	help := cmp.Or(xstatHelp[x.what], "The extended statistic "+x.what+".")
	switch {
	case name == "":
		level, _, _ := strings.Cut(prefix, "_")
		e.value(prometheus.UntypedValue, level+"_xstat", "An extended statistic whose name cannot be that of a metric.", float64(x.value),
			l.with("name", x.full))
	case isCounter:
		e.count(prefix+name, help, x.value, l)
	default:
		e.gauge(prefix+name, help, float64(x.value), l)
	}
}

// histogramNames has the metric of each kind.
var histogramNames = map[string]struct{ name, help string }{
	"size":  {"packet_size_bytes", "Sizes of packets, Ethernet headers included."},
	"burst": {"burst_packets", "How many packets a burst moved."},
}

// histogram's sum is counted elsewhere: sizes add up to the bytes, bursts to the packets.
func (e *emitter) histogram(s *sample, h *histogram) {
	prefix, l := h.scope.of(s)
	n := histogramNames[h.kind]
	atMost, count := h.cumulative()
	e.emit("HISTOGRAM", prefix+n.name, n.help, l, func(d *prometheus.Desc, values []string) (prometheus.Metric, error) {
		return prometheus.NewConstHistogram(d, count, float64(s.sum(h)), atMost, values...)
	})
}

// sums has the counter that a histogram's values add up to.
var sums = map[[2]string]func(q *rtap.QueueStats) uint64{
	{"receive", "size"}:   func(q *rtap.QueueStats) uint64 { return q.IBytes },
	{"transmit", "size"}:  func(q *rtap.QueueStats) uint64 { return q.OBytes },
	{"receive", "burst"}:  func(q *rtap.QueueStats) uint64 { return q.IPackets },
	{"transmit", "burst"}: func(q *rtap.QueueStats) uint64 { return q.OPackets },
}

func (s *sample) sum(h *histogram) uint64 {
	of, ok := sums[[2]string{h.dir, h.kind}]
	switch {
	case !ok || h.queue >= len(s.queues):
		return 0
	case h.queue < 0:
		return of(&s.stats.QueueStats)
	}
	return of(&s.queues[h.queue])
}

func (e *emitter) pool(p pool) {
	l := labels{"pool", p.name}
	e.gauge("mempool_mbufs", "Mbufs in the pool, free or not; 0 once it is closed.", float64(p.size()), l)
	e.gauge("mempool_free_mbufs", "Mbufs that are free, those in caches included.", float64(p.AvailCount()), l)
	e.gauge("mempool_memory_bytes", "Memory that the pool takes.", float64(p.memory()), l)
	e.count("mempool_exhausted_total", "Mbufs that were asked for in vain.", p.Exhausted(), l)
}

// size is Count, but 0 for a pool that is closed: then nothing is in use.
func (p pool) size() int {
	if p.FD() < 0 {
		return 0
	}
	return p.Count()
}

func (p pool) memory() uint64 {
	if p.FD() < 0 {
		return 0
	}
	return p.SizeBytes()
}
