// SPDX-License-Identifier: BSD-3-Clause

package metrics

import (
	"fmt"
	"net"
	"slices"
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

// allXStats are the names of the driver's statistics.
func allXStats(queues int) []string {
	names := []string{"rx_good_packets", "tx_good_packets", "rx_good_bytes", "tx_good_bytes", "rx_missed_errors", "rx_errors", "tx_errors",
		"rx_mbuf_allocation_errors"}
	both := []string{"packets", "bytes", "errors", "broadcast_packets", "multicast_packets", "unicast_packets", "multiseg_packets",
		"size_64_packets", "size_65_to_127_packets", "size_128_to_255_packets", "size_256_to_511_packets", "size_512_to_1023_packets",
		"size_1024_to_1518_packets", "size_1519_to_4095_packets", "size_4096_to_16383_packets", "size_16384_to_max_packets",
		"burst_1", "burst_2_to_3", "burst_4_to_7", "burst_8_to_15", "burst_16_to_31", "burst_32_to_63", "burst_64_to_max",
		"enters", "syscalls", "error_EIO", "error_EINVAL"}
	rx := []string{"burst_0", "lro_packets", "checksum_good", "checksum_none", "checksum_bad", "mbuf_alloc_failed", "empty_reads", "window"}
	tx := []string{"tso_packets", "checksum_offload", "ring_full"}
	for q := range queues {
		for _, what := range slices.Concat(both, rx) {
			names = append(names, fmt.Sprintf("rx_q%d_%s", q, what))
		}
		for _, what := range slices.Concat(both, tx) {
			names = append(names, fmt.Sprintf("tx_q%d_%s", q, what))
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
