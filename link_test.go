// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/mbuf"
)

// status is Link, which must agree with what the kernel says by itself.
func (p *port) status() LinkStatus {
	p.t.Helper()
	s, err := p.Link()
	must(p.t, err)
	l := p.kernel()
	if s.Name != l.Name || s.Index != l.Index || !bytes.Equal(s.MAC, l.MAC) || s.MTU != l.MTU || s.TxQueueLen != l.TxQueueLen ||
		s.Up != l.Up || s.Carrier != l.Carrier || s.Promiscuous != l.Promisc || s.AllMulticast != l.AllMulti {
		p.t.Fatalf("link status is %+v, the kernel says %+v", s, l)
	}
	if s.Running != (s.Up && s.Carrier) {
		p.t.Fatalf("link status is %+v", s)
	}
	return s
}

// TestLinkUpDown: Start and Stop do it, and SetLinkUp and SetLinkDown at any
// time; packets flow when it is up.
func TestLinkUpDown(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := openPort(t, Config{Engine: e})
		wantUp := func(up bool) {
			t.Helper()
			if s := p.status(); s.Up != up || s.Running != up {
				t.Fatalf("link status is %+v", s)
			}
		}
		wantUp(false)
		must(t, p.SetLinkUp())
		wantUp(true)
		must(t, p.SetLinkDown())
		wantUp(false)
		p.setUp(1, RxConfig{})
		wantUp(true)
		p.exchange()
		must(t, p.SetLinkDown())
		wantUp(false)
		if err := p.injector().Inject(frame(60, 0)); !errors.Is(err, syscall.ENETDOWN) {
			t.Errorf("sent to an interface that is down: %v", err)
		}
		p.send(0, frame(60, 0), frame(60, 1))
		if s := p.stats(); s.OErrors != 2 || s.OPackets != 1 {
			t.Errorf("sent while down: %+v", s)
		}
		must(t, p.SetLinkUp())
		wantUp(true)
		p.exchange()
		must(t, p.Stop())
		wantUp(false)
	})
}

// TestNoLinkUp: Start leaves the link down, again and again, until somebody brings it up.
func TestNoLinkUp(t *testing.T) {
	p := startPort(t, Config{NoLinkUp: true})
	for range 2 {
		if s := p.status(); s.Up {
			t.Errorf("after Start: %+v", s)
		}
		must(t, p.SetLinkUp())
		p.exchange()
		must(t, p.Stop())
		must(t, p.Device.Start())
	}
}

// TestCarrier: it lasts over Stop, Start and new queues, whatever happens to it
// meanwhile, and can be set at any time.
func TestCarrier(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := openPort(t, Config{Engine: e, NoCarrier: true})
		wantCarrier := func(on bool) {
			t.Helper()
			if s := p.status(); s.Carrier != on || s.Running != (on && s.Up) {
				t.Fatalf("link status is %+v, want carrier %v", s, on)
			}
		}
		wantCarrier(false)
		p.setUp(1, RxConfig{})
		wantCarrier(false)
		must(t, p.SetCarrier(true))
		wantCarrier(true)
		p.exchange()
		must(t, p.Stop())
		wantCarrier(true)
		must(t, p.SetCarrier(false))
		wantCarrier(false)
		p.setUp(3, RxConfig{})
		wantCarrier(false)
		must(t, p.Stop())
		must(t, p.SetCarrier(true))
		wantCarrier(true)
		must(t, p.Device.Start())
		p.exchange()
		must(t, p.pairs[1].tap.SetCarrier(false)) // somebody else does
		wantCarrier(false)
		must(t, p.Stop())
		must(t, p.Device.Start())
		wantCarrier(true)
		p.exchange()
	})
}

// TestPromiscuous and allmulticast, whether the port is started or not.
func TestPromiscuous(t *testing.T) {
	p := openPort(t, Config{})
	for range 2 {
		for _, on := range []bool{true, false, false, true, true} {
			must(t, p.SetPromiscuous(on))
			must(t, p.SetAllMulticast(!on))
			if s := p.status(); s.Promiscuous != on || s.AllMulticast == on {
				t.Fatalf("after promiscuous %v, allmulticast %v: %+v", on, !on, s)
			}
		}
		if !p.Info().Started {
			p.setUp(1, RxConfig{})
		}
	}
}

// TestMAC: set while stopped and started; a bad one is refused.
func TestMAC(t *testing.T) {
	p := openPort(t, Config{})
	for i := range 2 {
		mac := net.HardwareAddr{2, 0, 0, 0, 1, byte(i)}
		must(t, p.SetMAC(mac))
		if s := p.status(); !bytes.Equal(s.MAC, mac) {
			t.Fatalf("after MAC %v: %+v", mac, s)
		}
		for _, bad := range []net.HardwareAddr{nil, mac[:5], {1, 0, 0, 0, 0, 1}, make(net.HardwareAddr, 6)} {
			checkLinkError(t, p, p.SetMAC(bad), "mac")
		}
		if s := p.status(); !bytes.Equal(s.MAC, mac) {
			t.Fatalf("a bad MAC changed it to %v", s.MAC)
		}
		if !p.Info().Started {
			p.setUp(1, RxConfig{})
		}
	}
}

// checkLinkError wants a ConfigError that says what of which interface.
func checkLinkError(t *testing.T, p *port, err error, field string) {
	t.Helper()
	var ce *ConfigError
	if !errors.As(err, &ce) || ce.Field != field || !strings.Contains(err.Error(), "set "+field+" of "+p.Name()) {
		t.Errorf("error is %v, want a ConfigError about %s of %s", err, field, p.Name())
	}
}

// TestMTU: to the ends of the range, with the longest frames each way; the slots
// of the Rx queues follow at once when it grows, and at Start when it shrinks.
func TestMTU(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e, Queues: 1})
		for _, mtu := range []int{MinMTU, MaxMTU, MinMTU, 2000, 9000, MaxMTU - 1, DefaultMTU} {
			must(t, p.SetMTU(mtu))
			if s := p.status(); s.MTU != mtu {
				t.Fatalf("after MTU %d: %+v", mtu, s)
			}
			p.longest(mtu)
			must(t, p.Stop())
			must(t, p.Device.Start())
			rx := p.RxQueue(0)
			if want, _ := rx.slotFor(p.rxShape(mtu)); rx.segs != want {
				t.Fatalf("after Start with MTU %d, a slot has %d mbufs, want %d", mtu, rx.segs, want)
			}
			p.longest(mtu)
		}
		for _, bad := range []int{-1, 0, MinMTU - 1, MaxMTU + 1} {
			checkLinkError(t, p, p.SetMTU(bad), "mtu")
		}
		if s := p.status(); s.MTU != DefaultMTU {
			t.Fatalf("a bad MTU changed it to %d", s.MTU)
		}
	})
}

// longest exchanges frames as long as the MTU allows.
func (p *port) longest(mtu int) {
	p.t.Helper()
	p.capturer()
	f := frame(mtu+14, mtu)
	if p.layer2().isTUN() {
		f = ipPacket(mtu%2 == 0, mtu, mtu)
	}
	p.send(0, f)
	if err := sameBytes(p.captured(1)[0], f); err != nil {
		p.t.Fatalf("MTU %d: sent: %v", mtu, err)
	}
	p.inject(f)
	if err := sameBytes(p.receive(1)[0].frame, f); err != nil {
		p.t.Fatalf("MTU %d: received: %v", mtu, err)
	}
	if err := p.injector().Inject(append(f, 0)); !errors.Is(err, syscall.EMSGSIZE) {
		p.t.Fatalf("MTU %d: the kernel took %d bytes: %v", mtu, len(f)+1, err)
	}
	if s := p.stats(); s.IErrors != 0 {
		p.t.Fatalf("MTU %d: %+v", mtu, s)
	}
}

// TestMTUShrinks: longer frames that wait at that moment are received whole.
func TestMTUShrinks(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e, MTU: 9000})
		p.inject(frame(9014, 1), frame(9014, 2))
		must(t, p.SetMTU(DefaultMTU))
		for i, r := range p.receive(2) {
			if err := sameBytes(r.frame, frame(9014, i+1)); err != nil {
				t.Error(err)
			}
		}
		p.longest(DefaultMTU)
	})
}

// TestMTUBehindBack: what another program set is found at Start.
func TestMTUBehindBack(t *testing.T) {
	p := startPort(t, Config{})
	must(t, p.Stop())
	must(t, p.conn.SetMTU(p.index, 9000))
	must(t, p.Device.Start())
	p.longest(9000)
}

// TestMTUWhileTrafficFlows: every packet that the kernel took is received, whole,
// while the MTU changes. Receiving and sending share a cache that belongs to their
// goroutine, which the changes must leave alone; that is for the race detector.
func TestMTUWhileTrafficFlows(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := openPort(t, Config{Engine: e})
		pool := newPool(t, mbuf.Config{Count: 8192})
		cache := pool.NewCache(256)
		defer cache.Close()
		must(t, p.Configure(PortConfig{RxQueues: 1, TxQueues: 1}))
		must(t, p.SetupRxQueue(0, RxConfig{Memory: cache}))
		must(t, p.SetupTxQueue(0, TxConfig{Free: cache}))
		must(t, p.Device.Start())

		frames := [][]byte{frame(60, 0), frame(1514, 0), frame(1000, 0)}
		var done atomic.Bool
		var got uint64
		var wg sync.WaitGroup
		wg.Go(func() { got = p.echo(cache, frames, &done) })
		stop := p.flood(frames...)
		nettest.Eventually(t, wait, "packets to be received", func() bool { return p.stats().IPackets > 100 })
		for i := range nettest.Scale(60) {
			must(t, p.SetMTU([]int{9000, DefaultMTU, MaxMTU}[i%3]))
			if i%10 == 9 {
				must(t, p.SetLinkDown()) // that flushes nothing
				must(t, p.SetLinkUp())
			}
		}
		taken := uint64(stop())
		nettest.Eventually(t, wait, "the last packets to be received", func() bool {
			s := p.stats()
			return s.IPackets+s.IMissed == taken
		})
		done.Store(true)
		wg.Wait()
		if s := p.stats(); s.IErrors != 0 || s.IPackets != got {
			t.Errorf("%d packets were taken by the kernel, %d received: %+v", taken, got, s)
		}
		must(t, p.Close())
	})
}

// echo receives and sends back until done, and returns how many packets came. Each
// must be one of frames.
func (p *port) echo(cache *mbuf.Cache, frames [][]byte, done *atomic.Bool) (got uint64) {
	rx, tx := p.RxQueue(0), p.TxQueue(0)
	bufs := make([]*mbuf.Mbuf, 32)
	var content []byte
	for !done.Load() {
		n := rx.Burst(bufs)
		for _, m := range bufs[:n] {
			content = m.AppendTo(content[:0])
			if !isOneOf(content, frames) {
				p.t.Errorf("received %d bytes that were not sent: % x", len(content), content[:min(32, len(content))])
				done.Store(true)
			}
		}
		got += uint64(n)
		sent := tx.Burst(bufs[:n])
		cache.FreeBulk(bufs[sent:n])
	}
	return got
}

func isOneOf(f []byte, frames [][]byte) bool {
	for _, g := range frames {
		if bytes.Equal(f, g) {
			return true
		}
	}
	return false
}

// TestTxQueueLen: as many packets wait as it says, and stay when it changes.
func TestTxQueueLen(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e, TxQueueLen: 10})
		fill := func() (n int) {
			for n < 1000 && p.injector().Inject(frame(60, n)) == nil {
				n++
			}
			return n
		}
		if n := fill(); n != 10 {
			t.Fatalf("%d packets wait, want 10", n)
		}
		must(t, p.SetTxQueueLen(50))
		if n := fill(); n != 40 {
			t.Fatalf("%d more packets wait, want 40", n)
		}
		if s := p.status(); s.TxQueueLen != 50 {
			t.Fatalf("link status is %+v", s)
		}
		p.receive(50)
		for _, bad := range []int{-1, 0, 1<<20 + 1} {
			checkLinkError(t, p, p.SetTxQueueLen(bad), "tx queue length")
		}
		must(t, p.SetTxQueueLen(1))
		must(t, p.Stop())
		must(t, p.Device.Start())
		if n := fill(); n != 1 {
			t.Fatalf("%d packets wait, want 1", n)
		}
	})
}

// TestControlFindsInterface: an operation that meets the interface in the middle
// of a move looks for it again.
func TestControlFindsInterface(t *testing.T) {
	p := openPort(t, Config{})
	asked := 0
	must(t, p.control("try", func(*rtnl.Conn, int) error {
		if asked++; asked == 1 {
			return rtnl.ErrNotFound
		}
		return nil
	}))
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}
