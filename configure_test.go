// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// TestQueueCounts: up and down, to the most there can be, with packets on every
// queue each way.
func TestQueueCounts(t *testing.T) {
	eachEngineIfFast(t, func(t *testing.T, e Engine) {
		p := openPort(t, Config{Engine: e})
		pool := newPool(t, mbuf.Config{Name: "receive", Count: 2048})
		defer p.Close()
		for _, n := range []int{1, 4, MaxQueues, 2} {
			p.setUp(n, RxConfig{Ring: 8, Memory: pool})
			if info := p.Info(); info.RxQueues != n || info.TxQueues != n || !info.Started {
				t.Fatalf("with %d queue pairs: %+v", n, info)
			}
			if l := p.kernel(); l.TunQueues != n+1 {
				t.Fatalf("with %d queue pairs and the keep-alive, the interface has %d descriptors", n, l.TunQueues)
			}
			p.exchange()
			must(t, p.Stop())
		}
	})
}

// TestUnequalQueueCounts: refused, and the queues stay as they are.
func TestUnequalQueueCounts(t *testing.T) {
	p := startPort(t, Config{Queues: 2})
	must(t, p.Stop())
	err := p.Configure(PortConfig{RxQueues: 3, TxQueues: 2})
	checkConfigError(t, "3 and 2", err, "PortConfig.TxQueues", "3, as many as RxQueues")
	if !strings.Contains(err.Error(), "configure "+p.Name()) {
		t.Errorf("error does not name operation and interface: %v", err)
	}
	must(t, p.Device.Start())
	p.exchange()
}

// TestReconfigure: a hundred times, without anything piling up. Queues that stay
// keep their set-up.
func TestReconfigure(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e, Queues: 1})
		p.exchange()
		var before *nettest.Snapshot
		for round := range nettest.Scale(100) {
			n := 1 + round%5
			kept := p.RxQueue(0)
			must(t, p.Stop())
			must(t, p.Configure(PortConfig{RxQueues: n, TxQueues: n}))
			if p.RxQueue(0) != kept {
				t.Fatal("a queue that stays lost its set-up")
			}
			if n == 1 && before != nil {
				before.Check(t)
			} else if n == 1 {
				before = nettest.Leaks()
			}
			for i := range n {
				if p.RxQueue(i) == nil {
					must(t, p.SetupRxQueue(i, RxConfig{}))
					must(t, p.SetupTxQueue(i, TxConfig{}))
				}
			}
			must(t, p.Device.Start())
			p.exchange()
		}
	})
}

// TestSetUpAnew: pools that the device made for queues do not pile up when these
// are set up again and again, and none is taken away from the program.
func TestSetUpAnew(t *testing.T) {
	p := startPort(t, Config{})
	p.inject(frame(60, 1))
	held := p.burst(0, 1)[0] // of the first pool
	for round := range 2 * 3 {
		must(t, p.Stop())
		n := 1 + round%2
		must(t, p.Configure(PortConfig{RxQueues: n, TxQueues: n}))
		p.setUp(n, RxConfig{})
		p.exchange()
	}
	p.mu.Lock()
	pools := len(p.pools)
	p.mu.Unlock()
	if pools > 3 {
		t.Errorf("the device has %d pools: the one in use, the one before and the one that the program holds an mbuf of would do", pools)
	}
	if err := sameBytes(held.AppendTo(nil), frame(60, 1)); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err == nil || !strings.Contains(err.Error(), "1") {
		t.Errorf("closed with an mbuf in the program's hands: %v", err)
	}
	held.Free()
	must(t, p.Close())
}

// TestOwnPoolSize: the device's pool has twice the ring for each queue, whatever
// ring the first one has.
func TestOwnPoolSize(t *testing.T) {
	p := openPort(t, Config{})
	must(t, p.Configure(PortConfig{RxQueues: 2, TxQueues: 2}))
	for i, ring := range []int{1, MaxRingSize} {
		must(t, p.SetupRxQueue(i, RxConfig{Ring: ring}))
		if got := p.RxQueue(i).memory.(*mbuf.Pool).Count(); got < 2*2*ring {
			t.Errorf("queue %d with a ring of %d has a pool of %d mbufs", i, ring, got)
		}
	}
}

// TestNewMemory: a pool that takes the place of another, perhaps at its very
// addresses, is what packets go through then.
func TestNewMemory(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := openPort(t, Config{Engine: e})
		p.capturer()
		for round := range 3 {
			pool, err := mbuf.NewPool(mbuf.Config{Count: 1024})
			must(t, err)
			p.setUp(1, RxConfig{Memory: pool})
			for size := 60; size < 70; size++ { // several at once: not one by one, as single reads go
				p.inject(frame(size, round), frame(size, round+1), frame(size, round+2))
				got := p.burst(0, 3)
				for i, m := range got {
					if err := sameBytes(m.AppendTo(nil), frame(size, round+i)); err != nil {
						t.Fatalf("round %d: received: %v", round, err)
					}
				}
				if n := p.TxQueue(0).Burst(got); n != 3 {
					t.Fatalf("sent %d of 3", n)
				}
				for i, f := range p.captured(3) {
					if err := sameBytes(f, frame(size, round+i)); err != nil {
						t.Fatalf("round %d: sent: %v", round, err)
					}
				}
			}
			must(t, p.Stop())
			must(t, p.ReleaseRxQueue(0))
			must(t, p.ReleaseTxQueue(0))
			must(t, pool.Close())
		}
	})
}

// TestRegisteredMemoryStays: the device does not close a pool of its own while a
// Tx queue that stayed has it registered: another could be mapped there.
func TestRegisteredMemoryStays(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e})
		p.capturer()
		must(t, p.Stop())
		for range 2 { // the second time, no Rx queue uses the first pool
			must(t, p.Configure(PortConfig{RxQueues: 2, TxQueues: 2}))
			must(t, p.SetupRxQueue(0, RxConfig{}))
		}
		must(t, p.SetupRxQueue(1, RxConfig{}))
		must(t, p.SetupTxQueue(1, TxConfig{}))
		must(t, p.Device.Start())
		pool := newPool(t, mbuf.Config{Count: 1024}) // as large as the first
		bufs := make([]*mbuf.Mbuf, 3)
		for i := range bufs {
			bufs[i] = mbufFrom(t, pool, frame(200, i))
		}
		if n := p.TxQueue(0).Burst(bufs); n != len(bufs) {
			t.Fatalf("sent %d of %d", n, len(bufs))
		}
		for i, f := range p.captured(len(bufs)) {
			if err := sameBytes(f, frame(200, i)); err != nil {
				t.Fatalf("packet %d: %v", i, err)
			}
		}
		must(t, p.Close())
	})
}

// TestQueueConfigErrors: as TestConfigErrors.
func TestQueueConfigErrors(t *testing.T) {
	p := openPort(t, Config{})
	small := newPool(t, mbuf.Config{Count: 8, DataRoom: minDataRoom - 1})
	must(t, p.Configure(PortConfig{RxQueues: 1, TxQueues: 1}))
	for _, ring := range []int{-1, MaxRingSize + 1} {
		checkConfigError(t, fmt.Sprint("rx ring ", ring), p.SetupRxQueue(0, RxConfig{Ring: ring}), "RxConfig.Ring", "1 to 4096")
		checkConfigError(t, fmt.Sprint("tx ring ", ring), p.SetupTxQueue(0, TxConfig{Ring: ring}), "TxConfig.Ring", "1 to 4096")
	}
	err := p.SetupRxQueue(0, RxConfig{Memory: small})
	checkConfigError(t, "small mbufs", err, "RxConfig.Memory.DataRoom", "at least 128")
	if !strings.Contains(err.Error(), "set up rx "+p.Name()+" queue 0") {
		t.Errorf("error does not name operation, interface and queue: %v", err)
	}
}

// TestStartFails: for want of descriptors, at each point where they may run
// out. Nothing is left, not even an interface that was to be persistent; one that was
// there before stays.
func TestStartFails(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		ns := newNS(t)
		old := startPortIn(t, ns, Config{Name: "old", Persist: true, Engine: e})
		defer old.forget()
		must(t, old.Close())
		before := nettest.Leaks()
		fails := 0
		for room := 0; ; room++ {
			d, err := startWith(room, Config{NetNS: nsPath(ns), Name: "new", Persist: true, Engine: e, Queues: 3})
			if err == nil {
				must(t, old.conn.Delete(d.Info().IfIndex))
				must(t, d.Close())
				break
			}
			fails++
			wantIs(t, err, syscall.EMFILE)
			if _, err := old.conn.LinkByName("new"); !errors.Is(err, syscall.ENODEV) {
				t.Fatalf("with room for %d descriptors, the interface is still there: %v", room, err)
			}
			if _, err := startWith(room, Config{NetNS: nsPath(ns), Name: "old", Persist: true, Engine: e, Queues: 3}); err == nil {
				t.Fatalf("with room for %d descriptors, an old interface starts, but not a new one", room)
			}
			if l := old.kernel(); !l.Persistent {
				t.Fatal("an interface that was there before was deleted")
			}
		}
		if fails < 5 {
			t.Errorf("Start failed only %d times", fails)
		}
		before.Check(t)
	})
}

// TestDiscard: what Open has made goes, also if it was to be persistent; what was there before stays.
func TestDiscard(t *testing.T) {
	ns := newNS(t)
	for _, cfg := range []Config{{Name: "new", Persist: true}, {Name: "gone", Persist: true}, {Name: "plain"}} {
		p := openPortIn(t, ns, cfg)
		if cfg.Name == "gone" {
			must(t, p.conn.Delete(p.Info().IfIndex))
		}
		must(t, p.Discard())
		must(t, p.Discard()) // as Close
		if _, err := p.conn.LinkByName(cfg.Name); !errors.Is(err, syscall.ENODEV) {
			t.Errorf("%s is still there: %v", cfg.Name, err)
		}
	}
	old := openPortIn(t, ns, Config{Name: "old", Persist: true})
	must(t, old.Close())
	p := openPortIn(t, ns, Config{Name: "old", Persist: true})
	must(t, p.Discard())
	if l := old.kernel(); !l.Persistent || l.TunQueues != 0 {
		t.Errorf("the interface that was there before is %+v", l)
	}
	must(t, old.conn.Delete(old.kernel().Index))
}

// startWith is Start with room for so many descriptors more.
func startWith(room int, cfg Config) (*Device, error) {
	top, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0) // the lowest that is free
	if err != nil {
		return nil, err
	}
	defer unix.Close(top)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		return nil, err
	}
	limit := unix.Rlimit{Cur: uint64(top + room), Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	return Start(cfg)
}

// TestStartFailsLate: queues attached before the one that fails are detached
// again, and the port can be started once the cause is gone.
func TestStartFailsLate(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e, Queues: 3})
		must(t, p.Stop())
		must(t, p.pairs[2].tap.Enable()) // which Start then cannot
		wantIs(t, p.Device.Start(), syscall.EINVAL)
		if p.Info().Started || p.RxQueue(0).gate.isOpen() || p.kernel().Up {
			t.Fatal("the port is half started")
		}
		must(t, p.Device.Start())
		p.exchange()
	})
}
