// SPDX-License-Identifier: BSD-3-Clause

package metrics

import (
	"errors"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/rtap-project/rtap"
)

// apiPorts is /api/ports: everything that the page shows. Counters are as they stand; the page makes rates of them.
type apiPorts struct {
	Version  string    `json:"version"`
	Instance int64     `json:"instance"` // differs after a restart
	NowMS    int64     `json:"now_ms"`   // since the start, by a clock that never jumps
	UptimeS  float64   `json:"uptime_s"` // seconds since the start
	Ports    []apiPort `json:"ports"`    // in the program's order
	Pools    []apiPool `json:"pools"`    //
}

type apiPort struct {
	ID           int      `json:"id"`
	Name         string   `json:"name"`
	Interface    string   `json:"interface"`
	IfIndex      int      `json:"ifindex"`
	Mode         string   `json:"mode"`   // tap or tun
	Status       string   `json:"status"` // ok, gone, closed, unreadable
	Error        string   `json:"error,omitempty"`
	Started      bool     `json:"started"`
	Up           bool     `json:"up"`
	Carrier      bool     `json:"carrier"`
	Running      bool     `json:"running"`
	MTU          int      `json:"mtu"`
	MAC          string   `json:"mac"`
	TxQueueLen   int      `json:"txqlen"`
	Engine       string   `json:"engine"`
	EngineReason string   `json:"engine_reason"`
	RxOffloads   []string `json:"rx_offloads"` // that are on
	TxOffloads   []string `json:"tx_offloads"`

	Stats  *rtap.Stats         `json:"stats"` // null once the port is closed
	Queues []rtap.QueueStats   `json:"queues"`
	Sizes  map[string][]apiBin `json:"sizes"` // by direction, over all queues
	Bursts map[string][]apiBin `json:"bursts"`
	XStats []rtap.XStat        `json:"xstats"` // the others
}

// apiBin is a bar of a histogram. Hi is 0 where there is no limit.
type apiBin struct {
	Lo uint64 `json:"lo"`
	Hi uint64 `json:"hi"`
	N  uint64 `json:"n"`
}

type apiPool struct {
	Name      string `json:"name"`
	Size      int    `json:"size"` // mbufs
	Free      int    `json:"free"`
	Bytes     uint64 `json:"bytes"`
	Exhausted uint64 `json:"exhausted"`
}

// status is a port's state in a word.
func (s *sample) status() string {
	switch {
	case s.err == nil:
		return "ok"
	case errors.Is(s.err, rtap.ErrClosed):
		return "closed"
	case errors.Is(s.err, rtap.ErrGone):
		return "gone"
	}
	return "unreadable"
}

func (h *handler) ports(w http.ResponseWriter, _ *http.Request) {
	up := time.Since(h.started)
	a := apiPorts{Version: h.version, Instance: h.started.UnixNano() / 1000, NowMS: up.Milliseconds(), UptimeS: up.Seconds(),
		Ports: []apiPort{}, Pools: []apiPool{}}
	v := h.read()
	for _, p := range v.ports {
		s := p.sample()
		a.Ports = append(a.Ports, s.api())
	}
	for _, p := range v.pools {
		a.Pools = append(a.Pools, apiPool{p.name, p.size(), p.AvailCount(), p.memory(), p.Exhausted()})
	}
	writeJSON(w, http.StatusOK, a)
}

func (s *sample) api() apiPort {
	a := apiPort{ID: s.id, Name: s.name, Interface: s.link.Name, IfIndex: s.link.Index, Mode: string(s.info.Mode), Status: s.status(),
		Started: s.info.Started, Up: s.link.Up, Carrier: s.link.Carrier, Running: s.link.Running,
		MTU: s.link.MTU, MAC: s.link.MAC.String(), TxQueueLen: s.link.TxQueueLen,
		Engine: string(s.info.Engine), EngineReason: s.info.EngineReason,
		RxOffloads: append([]string{}, rtap.RxOffloadNames(s.info.EnabledRxOffloads)...),
		TxOffloads: append([]string{}, rtap.TxOffloadNames(s.info.EnabledTxOffloads)...),
		Queues:     append([]rtap.QueueStats{}, s.queues...),
		Sizes:      s.bins("size"), Bursts: s.bins("burst"), XStats: []rtap.XStat{}}
	if s.err != nil {
		a.Error = s.err.Error()
	}
	if s.counts {
		a.Stats = &s.stats
	}
	for _, x := range s.xstats {
		if !x.known() {
			a.XStats = append(a.XStats, rtap.XStat{Name: x.full, Value: x.value})
		}
	}
	return a
}

// bins are the port's histograms of a kind by direction: the queues' added up, or the port's own where the queues
// have none.
func (s *sample) bins(kind string) map[string][]apiBin {
	sums := map[string]*histogram{}
	perQueue := slices.ContainsFunc(s.hists, func(h histogram) bool { return h.kind == kind && h.queue >= 0 })
	for _, h := range s.hists {
		if h.kind != kind || perQueue != (h.queue >= 0) {
			continue
		}
		if sums[h.dir] == nil {
			sums[h.dir] = &histogram{}
		}
		for _, b := range h.buckets {
			sums[h.dir].add(b)
		}
	}
	all := map[string][]apiBin{}
	for dir, h := range sums {
		for _, b := range h.buckets {
			bin := apiBin{Lo: uint64(b.lo), N: b.n}
			if !math.IsInf(b.hi, 1) {
				bin.Hi = uint64(b.hi)
			}
			all[dir] = append(all[dir], bin)
		}
	}
	return all
}

// health is /healthz.
type health struct {
	Status string       `json:"status"` // ok or failing
	Ports  []portHealth `json:"ports"`
}

type portHealth struct {
	Port      string `json:"port"`
	Interface string `json:"interface"`
	Status    string `json:"status"`
	Error     string `json:"error,omitempty"`
}

func (h *handler) healthz(w http.ResponseWriter, _ *http.Request) {
	out, code := health{Status: "ok", Ports: []portHealth{}}, http.StatusOK
	for _, p := range h.read().ports {
		s := sample{port: p, info: p.dev.Info()}
		s.readLink()
		ph := portHealth{Port: p.name, Interface: s.link.Name, Status: s.status()}
		if s.err != nil {
			ph.Error = s.err.Error()
			out.Status, code = "failing", http.StatusServiceUnavailable
		}
		out.Ports = append(out.Ports, ph)
	}
	writeJSON(w, code, out)
}
