// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/bench/internal/course"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

// What a packet costs in bursts of 32, by this program and by cost/burst.c, which does the same with DPDK's functions. Each
// is a process of its own, whose thread is on one CPU.

const (
	nativeFlag = "-native"
	burst      = 32
	waiting    = 960 // packets that wait when a drain begins: what a TAP takes is 1000
	costCPU    = 1
)

// costs measures one direction.
func costs(way string) func(ctx context.Context, o *options, r *rival) (float64, error) {
	return func(ctx context.Context, o *options, r *rival) (ns float64, err error) {
		space, err := course.NewNS()
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, space.Close()) }()
		seconds := fmt.Sprint(o.time.Seconds())
		var cmd *exec.Cmd
		if r.name == nativeRival {
			cmd = exec.CommandContext(ctx, "/proc/self/exe", nativeFlag, way+" "+seconds)
		} else {
			args := append(r.eal(o, fmt.Sprint(costCPU), course.IfA), "--", way, course.IfA, seconds)
			cmd = exec.CommandContext(ctx, o.burst, args...)
		}
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
		if err := space.Do(cmd.Start); err != nil {
			return 0, err
		}
		if err := cmd.Wait(); err != nil {
			return 0, fmt.Errorf("%w\n%s", err, &out)
		}
		for line := range strings.Lines(out.String()) {
			if _, err := fmt.Sscanf(line, "ns/packet %g", &ns); err == nil {
				return ns, nil
			}
		}
		return 0, fmt.Errorf("it says nothing of ns/packet:\n%s", &out)
	}
}

// native is the process of Go's own bursts. what is a direction and for how many seconds.
func native(what string) error {
	var way string
	var seconds float64
	if _, err := fmt.Sscanf(what, "%s %g", &way, &seconds); err != nil {
		return err
	}
	runtime.LockOSThread()
	var cpu unix.CPUSet
	cpu.Set(min(costCPU, runtime.NumCPU()-1))
	if err := unix.SchedSetaffinity(0, &cpu); err != nil {
		return err
	}
	pool, err := mbuf.NewPool(mbuf.Config{Name: "bench", Count: 2047})
	if err != nil {
		return err
	}
	d, err := rtap.Start(rtap.Config{Name: course.IfA, Memory: pool})
	if err != nil {
		return errors.Join(err, pool.Close())
	}
	cache := pool.NewCache(256)
	measure := sendAll
	if way == "rx" {
		measure = drainAll
	}
	ns, err := measure(d, cache, time.Duration(seconds*float64(time.Second)))
	cache.Close()
	if err = errors.Join(err, d.Close(), pool.Close()); err == nil {
		fmt.Fprintf(os.Stdout, "ns/packet %.2f\n", ns)
	}
	return err
}

// now is the time that this thread has had a CPU: what else the machine does costs others.
func now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0 // there is one, of a thread
	}
	return time.Duration(t.Nano())
}

func sendAll(d *rtap.Device, cache *mbuf.Cache, length time.Duration) (float64, error) {
	q, f, bufs := d.TxQueue(0), frame(), make([]*mbuf.Mbuf, burst)
	begin, packets, spent := now(), 0, time.Duration(0)
	for ; spent < length; spent = now() - begin {
		for range 64 {
			if cache.AllocBulk(bufs) != burst {
				return 0, errors.New("the pool is empty")
			}
			for _, m := range bufs {
				copy(m.Append(frameSize), f[:14])
			}
			if q.Burst(bufs) != burst {
				return 0, errors.New("not all packets were sent")
			}
			packets += burst
		}
	}
	return float64(spent.Nanoseconds()) / float64(packets), nil
}

func drainAll(d *rtap.Device, cache *mbuf.Cache, length time.Duration) (ns float64, err error) {
	in, err := traffic.NewInjector(nil, d.Info().IfIndex)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	q, f, bufs := d.RxQueue(0), frame(), make([]*mbuf.Mbuf, burst)
	packets, spent := 0, time.Duration(0)
	for end := now() + length; now() < end; packets += waiting {
		for range waiting {
			if err := in.Inject(f); err != nil {
				return 0, err
			}
		}
		begin := now()
		for got := 0; got < waiting; {
			n := q.Burst(bufs)
			cache.FreeBulk(bufs[:n])
			got += n
		}
		spent += now() - begin
	}
	return float64(spent.Nanoseconds()) / float64(packets), nil
}
