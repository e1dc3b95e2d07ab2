// SPDX-License-Identifier: BSD-3-Clause

package metrics

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/rtap-project/rtap"
)

// fake is a port without a kernel: what it counts, and how it fails.
type fake struct {
	mu        sync.Mutex
	info      rtap.Info
	link      rtap.LinkStatus
	err       error // of Err
	linkErr   error
	statsErr  error
	queues    []rtap.QueueStats
	xstats    []rtap.XStat
	xstatsErr error
}

// newFake is a port with all the statistics that the driver has, each with another value.
func newFake(queues int) *fake {
	f := &fake{
		info: rtap.Info{Driver: "net_rtap", Name: "foo0", IfIndex: 7, Engine: rtap.EngineUring, EngineReason: "io_uring works here",
			RxQueues: queues, TxQueues: queues, Started: true,
			EnabledRxOffloads: rtap.RxOffloadTCPLRO | rtap.RxOffloadTCPCksum, EnabledTxOffloads: rtap.TxOffloadTCPTSO},
		link: rtap.LinkStatus{Name: "foo0", Index: 7, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7}, MTU: 1500, TxQueueLen: 1000,
			Up: true, Carrier: true, Running: true},
	}
	n := uint64(0)
	next := func() uint64 { n++; return n }
	for range queues {
		f.queues = append(f.queues, rtap.QueueStats{IPackets: next(), OPackets: next(), IBytes: next(), OBytes: next(),
			IErrors: next(), OErrors: next(), RxNoMbuf: next()})
	}
	for _, name := range allXStats(queues) {
		f.xstats = append(f.xstats, rtap.XStat{Name: name, Value: next()})
	}
	return f
}

// allXStats are the names of the driver's statistics: those of its golden file for one queue, and the queue's once
// more for each further one.
func allXStats(queues int) []string {
	file, err := os.ReadFile("../testdata/xstats-1.txt")
	if err != nil {
		panic(err)
	}
	var names []string
	for name := range strings.FieldsSeq(string(file)) {
		if !strings.Contains(name, "_q0_") {
			names = append(names, name)
			continue
		}
		for q := range queues {
			names = append(names, strings.Replace(name, "_q0_", fmt.Sprintf("_q%d_", q), 1))
		}
	}
	return names
}

// set changes the fake while it is being read.
func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *fake) Info() rtap.Info {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.info
}

func (f *fake) Link() (rtap.LinkStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.link, f.linkErr
}

func (f *fake) Stats() (rtap.Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := rtap.Stats{IMissed: 99}
	for _, q := range f.queues {
		s.IPackets += q.IPackets
		s.OPackets += q.OPackets
		s.IBytes += q.IBytes
		s.OBytes += q.OBytes
		s.IErrors += q.IErrors
		s.OErrors += q.OErrors
		s.RxNoMbuf += q.RxNoMbuf
	}
	return s, f.statsErr
}

func (f *fake) QueueStats(i int) (rtap.QueueStats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i >= len(f.queues) {
		return rtap.QueueStats{}, rtap.ErrNotConfigured
	}
	return f.queues[i], nil
}

func (f *fake) XStats() ([]rtap.XStat, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.xstats, f.xstatsErr
}

// fakes is a view of ports called net_rtap0, net_rtap1, ...
func fakes(devices ...device) func() view {
	return func() view {
		var v view
		for i, d := range devices {
			v.ports = append(v.ports, port{i, fmt.Sprintf("net_rtap%d", i), d})
		}
		return v
	}
}
