// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// TestOpenClose: 200 rounds, each with packets, leave no descriptor, no mapping,
// no goroutine and no interface, and the name is free at once.
func TestOpenClose(t *testing.T) {
	eachEngineIfFast(t, func(t *testing.T, e Engine) {
		ns := newNS(t)
		round := func() {
			d, err := Start(Config{NetNS: nsPath(ns), Name: "again", Engine: e, Queues: 2})
			must(t, err)
			d.RxQueue(0).Burst(make([]*mbuf.Mbuf, 8))
			must(t, d.Close())
		}
		conn := nettest.Conn(t, ns)
		for range 5 { // until the runtime has its memory
			round()
		}
		before, mappings := nettest.Leaks(), countMappings(t)
		rounds := nettest.Scale(200)
		for range rounds {
			round()
			if _, err := conn.LinkByName("again"); !errors.Is(err, syscall.ENODEV) {
				t.Fatalf("the interface is there after Close: %v", err)
			}
		}
		before.Check(t)
		runtime.GC()
		// The Go heap's own come and go: far fewer than one in two rounds.
		if now := countMappings(t); now > mappings+max(rounds/2, 20) {
			t.Errorf("%d mappings before %d rounds, %d after", mappings, rounds, now)
		}
	})
}

func countMappings(t *testing.T) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	return bytes.Count(maps, []byte("\n"))
}

// TestCloseUnmaps: what the queues had mapped is not any more. Anonymous mappings
// may merge, so that counting them finds too few.
func TestCloseUnmaps(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e})
		rx, tx := p.RxQueue(0), p.TxQueue(0)
		addrs := map[string]uintptr{
			"the Rx queue's iovecs":  rx.vec.Addr(0),
			"the Tx queue's iovecs":  tx.vec.Addr(0),
			"the device's own mbufs": rx.memory.Regions()[0].Base,
		}
		for what, a := range addrs {
			if !mapped(t, a) {
				t.Fatalf("%s are not mapped at first", what)
			}
		}
		must(t, p.Close())
		for what, a := range addrs {
			if mapped(t, a) {
				t.Errorf("%s are still mapped after Close", what)
			}
		}
	})
}

func mapped(t *testing.T, addr uintptr) bool {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	for line := range strings.Lines(string(maps)) {
		var lo, hi uintptr
		if _, err := fmt.Sscanf(line, "%x-%x", &lo, &hi); err == nil && lo <= addr && addr < hi {
			return true
		}
	}
	return false
}

// TestCloseInFlight: Close, from several goroutines, while bursts run on all
// queues, a flood comes in and statistics are read.
func TestCloseInFlight(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		ns := newNS(t)
		for range nettest.Scale(10) {
			memory := newPool(t, mbuf.Config{Count: 4096})
			p := startPortIn(t, ns, Config{Engine: e, Queues: 4, Memory: memory})
			stop := p.hammer()
			stopFlood := p.floodToTheEnd(flow(0, 100), flow(1, 1000), flow(2, 60), flow(3, 60))
			nettest.Eventually(t, wait, "traffic", func() bool { s := p.stats(); return s.IPackets > 50 && s.OPackets > 50 })
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					if err := p.Close(); err != nil {
						t.Error(err)
					}
				})
				wg.Go(func() { p.Stats(); p.Link() })
			}
			wg.Wait()
			stop()
			stopFlood()
			wantInUse(t, memory, 0)
			wantInUse(t, p.pool, 0)
		}
	})
}

// TestOpenFails: for want of descriptors leaves nothing; see also TestStartFails.
func TestOpenFails(t *testing.T) {
	ns := newNS(t)
	conn := nettest.Conn(t, ns)
	before := nettest.Leaks()
	if _, err := Open(Config{NetNS: nsPath(ns), Name: "x/y", Persist: true}); err == nil {
		t.Error("opened")
	}
	if _, err := Open(Config{NetNS: nsPath(ns), Name: "lo"}); err == nil {
		t.Error("opened")
	}
	before.Check(t)
	links, err := conn.Links()
	must(t, err)
	if len(links) != 1 {
		t.Errorf("left behind: %+v", links)
	}
}
