// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"errors"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
)

// lives are the states in which something may happen to the interface.
var lives = map[string]func(p *port){
	"opened":     func(p *port) {},
	"configured": func(p *port) { must(p.t, p.Configure(PortConfig{RxQueues: 2, TxQueues: 2})) },
	"stopped":    func(p *port) { p.setUp(2, RxConfig{}); must(p.t, p.Stop()) },
	"started":    func(p *port) { p.setUp(2, RxConfig{}) },
}

func eachLife(t *testing.T, f func(t *testing.T, p *port)) {
	eachEngine(t, func(t *testing.T, e Engine) {
		for name, live := range lives {
			t.Run(name, func(t *testing.T) {
				p := openPort(t, Config{Engine: e})
				live(p)
				f(t, p)
			})
		}
	})
}

// TestDelete: after ip link del every operation says ErrGone, whichever comes
// first, bursts return 0, statistics are those of the last moment, and Close
// succeeds.
func TestDelete(t *testing.T) {
	eachLife(t, func(t *testing.T, p *port) {
		started := p.Info().Started
		if started {
			p.exchange()
			must(t, p.SetTxQueueLen(4))
			for range 10 { // some of which are missed
				p.injector().Inject(frame(60, 0))
			}
		}
		before := p.stats()
		must(t, p.conn.Delete(p.index))
		for op, f := range controls(p.Device) { // in a random order
			want := []error{ErrGone}
			switch {
			case started && (op == "start" || op == "configure"):
				want = []error{ErrStarted}
			case op == "start": // whichever it looks for first
				want = []error{ErrGone, ErrNotConfigured, ErrQueueNotSetUp}
			}
			if err := f(); err == nil || ignore(err, want) != nil {
				t.Errorf("%s of a deleted interface: %v", op, err)
			}
		}
		wantIs(t, p.Err(), ErrGone)
		if s := p.stats(); s != before {
			t.Errorf("statistics were %+v, are %+v", before, s)
		}
		p.burstNothing()
		must(t, p.Stop())
		wantIs(t, p.Device.Start(), ErrGone)
		wantIs(t, p.Configure(PortConfig{RxQueues: 9, TxQueues: 9}), ErrGone)
		p.burstNothing()
		must(t, p.Close())
		must(t, p.Close())
	})
}

// burstNothing checks that no queue gives or takes packets.
func (p *port) burstNothing() {
	p.t.Helper()
	m := p.mbufOf(frame(60, 0))
	defer m.Free()
	for i := range p.queues() {
		if rx := p.RxQueue(i); rx != nil && rx.Burst(p.bufs(4)) != 0 {
			p.t.Error("a queue gives packets")
		}
		if tx := p.TxQueue(i); tx != nil && tx.Burst(p.bufs(1, m)) != 0 {
			p.t.Fatal("a queue takes packets")
		}
	}
}

// TestDeleteFoundByBursts: the data path notices by itself, each way, and counts
// no errors but those of packets it lost.
func TestDeleteFoundByBursts(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		for name, burst := range map[string]func(p *port){
			"rx": func(p *port) { p.RxQueue(1).Burst(p.bufs(32)) },
			"tx": func(p *port) {
				bufs := p.bufs(2, p.mbufOf(frame(60, 0)), p.mbufOf(frame(60, 1)))
				n := p.TxQueue(1).Burst(bufs)
				for _, m := range bufs[n:] {
					m.Free()
				}
			},
		} {
			t.Run(name, func(t *testing.T) {
				p := startPort(t, Config{Engine: e, Queues: 2})
				must(t, p.Err())
				must(t, p.conn.Delete(p.index))
				nettest.Eventually(t, wait, "a burst to notice", func() bool {
					burst(p)
					return p.Err() != nil
				})
				wantIs(t, p.Err(), ErrGone)
				if s := p.stats(); s.IErrors != 0 || s.IPackets != 0 || s.OPackets != 0 {
					t.Errorf("statistics are %+v", s)
				}
			})
		}
	})
}

// TestDeleteUnderTraffic: with bursts and a flood running.
func TestDeleteUnderTraffic(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		testDeleteUnderTraffic(t, Config{Engine: e, Queues: 3})
	})
}

func testDeleteUnderTraffic(t *testing.T, cfg Config) {
	p := startPort(t, cfg)
	stop := p.hammer()
	p.floodToTheEnd(p.flow(0, 100), p.flow(1, 100))
	nettest.Eventually(t, wait, "traffic", func() bool { s := p.stats(); return s.IPackets > 50 && s.OPackets > 50 })
	must(t, p.conn.Delete(p.index))
	nettest.Eventually(t, wait, "the bursts to notice", func() bool { return p.Err() != nil })
	sent, got := stop()
	wantIs(t, p.Err(), ErrGone)
	if s := p.stats(); s.IPackets != got || s.OPackets+s.OErrors != sent || s.IErrors != 0 {
		t.Errorf("%d packets taken, %d given; statistics are %+v", sent, got, s)
	}
	must(t, p.Close())
}

// TestNamespaceGone: an interface goes with the namespace that it was moved to.
func TestNamespaceGone(t *testing.T) {
	p := startPort(t, Config{})
	ns, err := netns.New()
	must(t, err)
	must(t, p.conn.SetNetNS(p.index, ns.FD()))
	must(t, ns.Close())
	nettest.Eventually(t, wait, "the kernel to take the namespace down", func() bool {
		p.RxQueue(0).Burst(p.bufs(1))
		return p.Err() != nil
	})
	_, err = p.Link()
	wantIs(t, err, ErrGone)
	must(t, p.Close())
}

// rename gives the interface another name. Before Linux 6.2 it must be down.
func (p *port) rename(name string) {
	p.t.Helper()
	err := p.conn.SetName(p.index, name)
	if errors.Is(err, syscall.EBUSY) {
		must(p.t, p.conn.SetDown(p.index))
		must(p.t, p.conn.SetName(p.index, name))
		err = p.conn.SetUp(p.index)
	}
	must(p.t, err)
}

// TestRename: nothing depends on the name, not even when another interface gets
// the old one: bursts, control operations, new queues, Start.
func TestRename(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		ns := newNS(t)
		p := startPortIn(t, ns, Config{Name: "first", Engine: e, Queues: 2})
		stop := p.hammer()
		p.rename("second")
		other := startPortIn(t, ns, Config{Name: "first", Engine: e})
		must(t, p.SetMTU(1400))
		if s := p.status(); s.Name != "second" || s.Index != p.index || s.MTU != 1400 || p.Name() != "second" {
			t.Errorf("renamed, it is %+v", s)
		}
		if l := other.kernel(); l.MTU != DefaultMTU || l.TunQueues != 2 {
			t.Errorf("the other interface became %+v", l)
		}
		stop()
		p.poll()
		p.drop()
		p.exchange()

		p.rename("third")
		must(t, p.Stop())
		must(t, p.conn.SetName(p.index, "fourth"))
		p.setUp(4, RxConfig{})
		if l := other.kernel(); l.TunQueues != 2 {
			t.Errorf("the other interface got a queue: %+v", l)
		}
		p.exchange()
		other.exchange()
		must(t, p.Close())
		other.exchange()
	})
}

// drop begins a new capture.
func (p *port) drop() {
	if p.cap != nil {
		p.cap.Close()
		p.cap = nil
	}
}

// moved makes p look at the interface where it is now.
func (p *port) moved(ns *netns.NS) {
	p.t.Helper()
	s, err := p.Link()
	must(p.t, err)
	p.drop()
	if p.inj != nil {
		p.inj.Close()
		p.inj = nil
	}
	p.ns, p.conn, p.index = ns, nettest.Conn(p.t, ns), s.Index
	if s.Name != p.kernel().Name {
		p.t.Fatalf("interface %d in the new namespace is %q, want %q", s.Index, p.kernel().Name, s.Name)
	}
}

// TestMove: an interface that is moved to another namespace while bursts run, and
// gets another index there, is still the port's, for bursts, control operations,
// statistics, new queues, Stop and Start; and so it is after it was moved back
// without anybody looking meanwhile.
func TestMove(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		a, b := newNS(t), newNS(t)
		p := startPortIn(t, a, Config{Name: "mover", Engine: e, Queues: 2})
		there := startPortIn(t, b, Config{Name: "there", Engine: e})
		if there.index != p.index {
			t.Fatalf("the indices are %d and %d: the test does not test", p.index, there.index)
		}
		old := p.index
		stop := p.hammer()
		must(t, p.conn.SetNetNS(p.index, b.FD()))
		must(t, p.SetLinkUp()) // a move takes it down
		stop()
		p.poll()
		p.moved(b)
		if p.index == old {
			t.Fatalf("the index is still %d: the test does not test", old)
		}
		p.everything()
		p.rename("rover")
		p.everything()
		there.untouched()

		// And back, where its old index is somebody else's, or nobody's.
		here := startPortIn(t, a, Config{Name: "here", Engine: e})
		must(t, p.conn.SetNetNS(p.index, a.FD()))
		must(t, p.SetLinkUp())
		p.moved(a)
		p.everything()

		// To and fro unseen, with another index again: the old one is taken there.
		first := p.index
		openPortIn(t, b, Config{})
		must(t, p.conn.SetNetNS(p.index, b.FD()))
		link, err := there.conn.LinkByName("rover")
		must(t, err)
		must(t, there.conn.SetNetNS(link.Index, a.FD()))
		must(t, p.SetLinkUp())
		p.moved(a)
		if p.index == first {
			t.Fatalf("the index is %d again: the test does not test", first)
		}
		p.everything()
		here.untouched()
		there.untouched()
	})
}

// everything does all that a port can, Stop and more queues among it.
func (p *port) everything() {
	t := p.t
	t.Helper()
	p.exchange()
	before := p.stats()
	for _, f := range controls(p.Device) {
		if err := f(); err != nil && !errors.Is(err, ErrStarted) {
			t.Fatal(err)
		}
	}
	must(t, p.SetLinkUp())
	must(t, p.SetCarrier(true))
	if s := p.status(); s.MTU != 1400 || s.TxQueueLen != 10 || !s.Promiscuous {
		t.Fatalf("the settings are not the interface's: %+v", s)
	}
	p.exchange()
	if s := p.stats(); s.IPackets <= before.IPackets || s.OPackets <= before.OPackets {
		t.Fatalf("statistics were %+v, are %+v", before, s)
	}
	must(t, p.Stop())
	if p.kernel().Up {
		t.Fatal("Stop left it up")
	}
	p.setUp(p.queues()%4+1, RxConfig{})
	p.exchange()
}

// untouched checks that a port is as it was opened, and works.
func (p *port) untouched() {
	p.t.Helper()
	if s := p.status(); s.MTU != DefaultMTU || s.TxQueueLen != DefaultTxQueueLen || s.Promiscuous || !s.Running || p.kernel().TunQueues != 2 {
		p.t.Fatalf("the other interface became %+v", s)
	}
	p.exchange()
}

// TestMoveStopped: as TestMove, in every state; the interface is found again.
func TestMoveStopped(t *testing.T) {
	eachLife(t, func(t *testing.T, p *port) {
		b := newNS(t)
		must(t, p.conn.SetNetNS(p.index, b.FD()))
		must(t, p.Stop())
		p.setUp(3, RxConfig{})
		p.moved(b)
		p.exchange()
		must(t, p.Close())
	})
}

// TestIndexChanges: the interface's index is looked up each time, even where it
// was before: it may have been away.
func TestIndexChanges(t *testing.T) {
	p := startPort(t, Config{})
	p.mu.Lock()
	p.Device.index += 1000 // as if it had been another when last seen
	p.mu.Unlock()
	must(t, p.SetMTU(1300))
	if s := p.status(); s.MTU != 1300 || s.Index != p.index {
		t.Errorf("link status is %+v", s)
	}
}
