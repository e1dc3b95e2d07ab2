// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

// timings are what BenchmarkProcesses has each process do with a queue, and how long that took.
var timings = map[string]func(rx *RxQueue, tx *TxQueue, pool *mbuf.Pool, n int) (time.Duration, error){
	"tx": func(_ *RxQueue, tx *TxQueue, pool *mbuf.Pool, n int) (time.Duration, error) {
		cache := pool.NewCache(0)
		defer cache.Close()
		f, bufs := frame(64, 0), make([]*mbuf.Mbuf, 64)
		begin := time.Now()
		for left := n; left > 0; left -= len(bufs) {
			cache.AllocBulk(bufs)
			for _, m := range bufs {
				copy(m.Append(len(f)), f[:14])
			}
			if tx.Burst(bufs) != len(bufs) {
				return 0, errors.New("not all were sent")
			}
		}
		return time.Since(begin), nil
	},
	"rx": func(rx *RxQueue, _ *TxQueue, _ *mbuf.Pool, n int) (time.Duration, error) {
		bufs := make([]*mbuf.Mbuf, 64)
		begin := time.Now()
		for got := 0; got < n; {
			k := rx.Burst(bufs)
			mbuf.FreeBulk(bufs[:k])
			if got += k; k == 0 && time.Since(begin) > wait {
				return 0, errors.New("not all were received")
			}
		}
		return time.Since(begin), nil
	},
	"poll": func(rx *RxQueue, _ *TxQueue, _ *mbuf.Pool, n int) (time.Duration, error) {
		bufs := make([]*mbuf.Mbuf, 64)
		begin := time.Now()
		for range n {
			rx.Burst(bufs)
		}
		return time.Since(begin), nil
	},
}

// timing is one of them, without a garbage collection in its midst, and on the CPU that everything of the benchmark runs on: else
// the one process would find in its caches what the kernel has allocated for packets, and the other one not.
func timing(what string, rx *RxQueue, tx *TxQueue, pool *mbuf.Pool, n int) (time.Duration, error) {
	defer pin()()
	runtime.GC()
	return timings[what](rx, tx, pool, n)
}

// pin keeps the calling goroutine on the first CPU that it may use, until the function that it returns is called.
func pin() (release func()) {
	runtime.LockOSThread()
	var all, one unix.CPUSet
	if unix.SchedGetaffinity(0, &all) != nil {
		return runtime.UnlockOSThread
	}
	for cpu := 0; one.Count() == 0 && cpu < 1024; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	_ = unix.SchedSetaffinity(0, &one) // a benchmark can do without
	return func() {
		_ = unix.SchedSetaffinity(0, &all)
		runtime.UnlockOSThread()
	}
}

// BenchmarkProcesses compares bursts of 64 in a secondary with those in the primary, on a queue of the same port each, in turn.
// An operation is a round of both; the metrics are medians over the rounds.
func BenchmarkProcesses(b *testing.B) {
	for _, what := range []string{"tx", "rx", "poll"} {
		b.Run(what, func(b *testing.B) {
			s := newStage(b, 2, func(c *Config) { c.TxQueueLen = drainQueue; c.RxRing, c.TxRing = 0, 0 })
			a := s.agent("bench")
			a.attach(0)
			a.lease(0, 1)
			n := nettest.Scale(65536)
			if what == "rx" {
				n = drainQueue
			}
			s.send(0, flow(0, 64))
			a.do(order{Op: "say", Queues: []int{1}, N: 1})
			fill := func(queue int) {
				if what == "rx" {
					defer pin()()
					r, err := s.injector().Flood(context.Background(), traffic.FloodConfig{Frames: [][]byte{flow(queue, 64)}, Count: n})
					if err != nil || r.Sent != n {
						b.Fatalf("the queue took %d packets of %d: %v", r.Sent, n, err)
					}
				}
			}
			var primary, secondary []float64
			rounds := []func(){
				func() {
					fill(0)
					d, err := timing(what, s.RxQueue(0), s.TxQueue(0), s.pool, n)
					must(b, err)
					primary = append(primary, float64(d)/float64(n))
				},
				func() {
					fill(1)
					d := a.do(order{Op: "time", Ring: what, Queues: []int{1}, N: n})
					secondary = append(secondary, float64(d.N)/float64(n))
				},
			}
			for i := range b.N {
				rounds[i%2]()
				rounds[1-i%2]()
			}
			p, q := median(primary), median(secondary)
			b.ReportMetric(p, "primary-ns/op")
			b.ReportMetric(q, "secondary-ns/op")
			b.ReportMetric(q/p, "secondary/primary")
			b.ReportMetric(0, "ns/op")
			a.quit()
		})
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
