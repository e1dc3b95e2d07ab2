// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/tuntap"
)

// TestZeroConfig: the zero Config makes a port with the documented defaults, in
// the calling thread's namespace, and packets flow.
func TestZeroConfig(t *testing.T) {
	ns := newNS(t)
	pool := newPool(t, sendPool)
	var d *Device
	must(t, ns.Do(func() (err error) {
		d, err = Start(Config{})
		return err
	}))
	p := newPort(t, ns, d, pool)
	l := p.kernel()
	if l.Name != "rtap0" || l.MTU != DefaultMTU || l.TxQueueLen != DefaultTxQueueLen || !l.Up || !l.Carrier || l.Persistent {
		t.Errorf("the interface is %+v", l)
	}
	if p.Name() != "rtap0" {
		t.Errorf("name is %q", p.Name())
	}
	p.exchange()
}

// TestConfigApplied: everything that Config says of the interface is so.
func TestConfigApplied(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		mac := net.HardwareAddr{2, 1, 2, 3, 4, 5}
		p := startPort(t, Config{Name: "blue", MTU: 9000, MAC: mac, TxQueueLen: 77, Engine: e, Queues: 3, NoCarrier: true, Port: 7})
		l := p.kernel()
		if l.Name != "blue" || l.MTU != 9000 || !bytes.Equal(l.MAC, mac) || l.TxQueueLen != 77 || l.Carrier || !l.Up {
			t.Errorf("the interface is %+v", l)
		}
		if got := p.Info().Engine; got != e {
			t.Errorf("engine is %s", got)
		}
		must(t, p.SetCarrier(true))
		p.exchange()
		p.inject(flow(1, 64)) // which exchange made queue 1's
		m := p.burst(1, 1)[0]
		if m.Port != 7 {
			t.Errorf("a received mbuf says port %d", m.Port)
		}
		m.Free()
	})
}

// TestNamePatterns: the kernel replaces %d by the first free number.
func TestNamePatterns(t *testing.T) {
	ns := newNS(t)
	for _, c := range []struct{ name, want string }{
		{"", "rtap0"}, {"", "rtap1"}, {"rtap%d", "rtap2"}, {"v%dx", "v0x"}, {"v%dx", "v1x"}, {"fifteen-bytes-x", "fifteen-bytes-x"},
	} {
		if p := openPortIn(t, ns, Config{Name: c.name}); p.Name() != c.want {
			t.Errorf("%q became %q, want %q", c.name, p.Name(), c.want)
		}
	}
}

// TestNameTaken: an interface of another kind is left alone.
func TestNameTaken(t *testing.T) {
	ns := newNS(t)
	_, err := Open(Config{Name: "lo", NetNS: nsPath(ns)})
	wantIs(t, err, tuntap.ErrForeign)
	var op *OpError
	if !errors.As(err, &op) || op.Op != "open" || op.Interface != "lo" {
		t.Errorf("error is %v", err)
	}
}

// TestNameBusy: a TAP that somebody uses is left alone, whether its queues are
// attached or not, and stays as it is.
func TestNameBusy(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := openPort(t, Config{Name: "mine", Engine: e, Persist: true})
		defer p.forget()
		for range 2 {
			d, err := Open(Config{Name: "mine", NetNS: nsPath(p.ns), TxQueueLen: 5})
			if err == nil {
				d.Close()
			}
			wantIs(t, err, syscall.EBUSY)
			if l := p.kernel(); l.TxQueueLen != DefaultTxQueueLen || l.TunQueues > 3 {
				t.Fatalf("the interface became %+v", l)
			}
			p.setUp(2, RxConfig{})
			p.exchange()
			must(t, p.Stop())
			must(t, p.Configure(PortConfig{RxQueues: 1, TxQueues: 1}))
		}
	})
}

// TestNetNS: Config.NetNS says where; a path that is no namespace is refused.
func TestNetNS(t *testing.T) {
	p := startPort(t, Config{})
	if got := p.kernel().Name; got != p.Name() {
		t.Errorf("interface %d there is %q, want %q", p.index, got, p.Name())
	}
	for _, c := range []struct {
		path string
		want error
	}{{"/proc/self/ns/no-such", syscall.ENOENT}, {"/proc/self/ns/mnt", syscall.EINVAL}, {"/dev/null", syscall.EINVAL}} {
		d, err := Open(Config{NetNS: c.path})
		if err == nil {
			d.Close()
		}
		wantIs(t, err, c.want)
		if !strings.Contains(err.Error(), c.path) && c.want != syscall.EINVAL {
			t.Errorf("error does not name the path: %v", err)
		}
	}
}

// TestLog: the control plane says which engine it took and why.
func TestLog(t *testing.T) {
	var out bytes.Buffer
	p := openPort(t, Config{Log: slog.New(slog.NewTextHandler(&out, nil))})
	info := p.Info()
	for _, want := range []string{p.Name(), string(info.Engine), info.EngineReason, fmt.Sprint("ifindex=", p.index)} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log lacks %q: %s", want, out.String())
		}
	}
}

// TestSentinels: each operation out of its time is refused with its error, and
// changes nothing.
func TestSentinels(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := openPort(t, Config{Engine: e})
		rx := func(i int) error { return p.SetupRxQueue(i, RxConfig{}) }
		tx := func(i int) error { return p.SetupTxQueue(i, TxConfig{}) }

		// Not configured.
		wantIs(t, p.Device.Start(), ErrNotConfigured)
		wantIs(t, rx(0), ErrNotConfigured)
		wantIs(t, tx(0), ErrNotConfigured)
		wantIs(t, p.ReleaseRxQueue(0), ErrNotConfigured)
		must(t, p.Stop())
		if p.RxQueue(0) != nil || p.TxQueue(0) != nil {
			t.Error("there are queues before Configure")
		}

		// Configured, not set up.
		must(t, p.Configure(PortConfig{RxQueues: 2, TxQueues: 2}))
		wantIs(t, rx(2), ErrNotConfigured)
		wantIs(t, tx(-1), ErrNotConfigured)
		if _, err := p.QueueStats(2); !errors.Is(err, ErrNotConfigured) {
			t.Errorf("statistics of queue 2 of 2: %v", err)
		}
		if p.RxQueue(0) != nil || p.TxQueue(2) != nil || p.RxQueue(-1) != nil {
			t.Error("there are queues before they are set up")
		}
		for _, setUp := range []func() error{
			func() error { return rx(0) }, func() error { return rx(1) }, func() error { return tx(0) },
		} {
			wantIs(t, p.Device.Start(), ErrQueueNotSetUp)
			must(t, setUp())
		}
		err := p.Device.Start()
		wantIs(t, err, ErrQueueNotSetUp)
		if !strings.HasSuffix(err.Error(), "1") {
			t.Errorf("error does not name queue 1: %v", err)
		}
		must(t, tx(1))
		must(t, p.Device.Start())

		// Started.
		wantIs(t, p.Device.Start(), ErrStarted)
		wantIs(t, p.Configure(PortConfig{RxQueues: 1, TxQueues: 1}), ErrStarted)
		wantIs(t, rx(0), ErrStarted)
		wantIs(t, tx(0), ErrStarted)
		wantIs(t, p.ReleaseRxQueue(0), ErrStarted)
		wantIs(t, p.ReleaseTxQueue(0), ErrStarted)
		p.exchange()

		// Stopped again; released.
		must(t, p.Stop())
		must(t, p.Stop())
		must(t, p.ReleaseRxQueue(1))
		must(t, p.ReleaseRxQueue(1))
		wantIs(t, p.Device.Start(), ErrQueueNotSetUp)
		must(t, rx(1))
		must(t, p.ReleaseTxQueue(0))
		wantIs(t, p.Device.Start(), ErrQueueNotSetUp)
		must(t, tx(0))
		must(t, p.Device.Start())
		p.exchange()
	})
}

// TestClosed: Close may come at any time and again; nothing else works then.
func TestClosed(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		for name, life := range map[string]func(p *port){
			"opened":     func(p *port) {},
			"configured": func(p *port) { must(t, p.Configure(PortConfig{RxQueues: 2, TxQueues: 2})) },
			"set up":     func(p *port) { p.setUp(2, RxConfig{}); must(t, p.Stop()) },
			"started":    func(p *port) { p.setUp(2, RxConfig{}) },
		} {
			t.Run(name, func(t *testing.T) {
				p := openPort(t, Config{Engine: e})
				life(p)
				rx, tx := p.RxQueue(0), p.TxQueue(0)
				must(t, p.Close())
				// At once, not when some worker of the kernel gets to it.
				if _, err := p.conn.Link(p.index); !errors.Is(err, syscall.ENODEV) {
					t.Errorf("the interface is still there: %v", err)
				}
				must(t, p.Close())
				checkClosed(t, p)
				if rx == nil {
					return
				}
				m := p.mbufOf(frame(60, 0))
				defer m.Free()
				if rx.Burst(p.bufs(1)) != 0 || tx.Burst(p.bufs(1, m)) != 0 {
					t.Error("a closed queue takes packets")
				}
			})
		}
	})
}

func checkClosed(t *testing.T, p *port) {
	t.Helper()
	for op, f := range controls(p.Device) {
		if err := f(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s of a closed device: %v", op, err)
		}
	}
	if err := p.Err(); err != ErrClosed {
		t.Errorf("Err of a closed device: %v", err)
	}
	if p.RxQueue(0) != nil || p.TxQueue(0) != nil {
		t.Error("a closed device has queues")
	}
	if info := p.Info(); info.RxQueues != 0 || info.Started || info.Engine != "" {
		t.Errorf("a closed device says %+v", info)
	}
}

// controls are the operations that need the interface.
func controls(d *Device) map[string]func() error {
	return map[string]func() error{
		"start":        d.Start,
		"link":         func() error { _, err := d.Link(); return err },
		"up":           d.SetLinkUp,
		"down":         d.SetLinkDown,
		"promiscuous":  func() error { return d.SetPromiscuous(true) },
		"allmulticast": func() error { return d.SetAllMulticast(true) },
		"mac":          func() error { return d.SetMAC(net.HardwareAddr{2, 0, 0, 0, 0, 9}) },
		"mtu":          func() error { return d.SetMTU(1400) },
		"txqueuelen":   func() error { return d.SetTxQueueLen(10) },
		"carrier":      func() error { return d.SetCarrier(false) },
		"configure":    func() error { return d.Configure(PortConfig{RxQueues: 5, TxQueues: 5}) },
	}
}

// TestStopStart: packets flow again, on every queue, however often; what waited
// in the kernel meanwhile does not come.
func TestStopStart(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e, Queues: 3})
		for i := range nettest.Scale(20) {
			p.exchange()
			p.inject(frame(100, i))
			must(t, p.Stop())
			if l := p.kernel(); l.Up {
				t.Fatal("the interface of a stopped port is up")
			}
			if got := p.poll(); got != nil {
				t.Fatalf("a stopped port received %v", got)
			}
			must(t, p.Device.Start())
			if got := p.poll(); got != nil {
				t.Fatalf("received %v, which was sent before Stop", got)
			}
		}
		p.exchange()
	})
}

// TestStopWhileSending: what a burst takes is sent, and counts as no error,
// though the port stops and starts under it.
func TestStopWhileSending(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e, Queues: 2})
		stop := p.hammer()
		for range nettest.Scale(50) {
			must(t, p.Stop())
			must(t, p.Device.Start())
		}
		sent, _ := stop()
		s := p.stats()
		if s.OErrors != 0 || s.OPackets != sent {
			t.Errorf("%d packets were taken; statistics are %+v", sent, s)
		}
	})
}

// TestPersist: the interface stays, down, and a later port takes it over with
// what it was given.
func TestPersist(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		ns := newNS(t)
		p := startPortIn(t, ns, Config{Name: "keep", Persist: true, MTU: 2000, Engine: e, Queues: 2})
		p.exchange()
		mac := p.kernel().MAC
		must(t, p.Close())
		l := p.kernel()
		if !l.Persistent || l.Up || l.TunQueues != 0 {
			t.Fatalf("left behind: %+v", l)
		}

		q := startPortIn(t, ns, Config{Name: "keep", Engine: e})
		defer q.forget()
		if l := q.kernel(); q.index != p.index || l.MTU != 2000 || !bytes.Equal(l.MAC, mac) {
			t.Errorf("taken over as %+v", l)
		}
		q.exchange()
		must(t, q.Close())
		if l := q.kernel(); !l.Persistent {
			t.Error("taking over made it vanish")
		}
	})
}

// forget deletes a persistent interface.
func (p *port) forget() {
	p.t.Helper()
	if err := p.conn.Delete(p.index); err != nil && !errors.Is(err, syscall.ENODEV) {
		p.t.Error(err)
	}
}

// TestTwoPorts: two ports in one program, in one namespace, share nothing.
func TestTwoPorts(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		ns := newNS(t)
		a := startPortIn(t, ns, Config{Engine: e, Queues: 2, Port: 1})
		b := startPortIn(t, ns, Config{Engine: e, Queues: 3, Port: 2})
		for range 3 {
			a.exchange()
			b.exchange()
		}
		a.inject(frame(77, 1))
		if got := b.poll(); got != nil {
			t.Errorf("the other port received %v", got)
		}
		a.receive(1)
		must(t, a.Close())
		b.exchange()
	})
}

// TestConcurrentControl: control operations from many goroutines at once, with
// bursts running, do not disturb each other. It is for the race detector.
func TestConcurrentControl(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e, Queues: 2})
		stop := p.hammer()
		allowed := []error{nil, ErrStarted, ErrQueueNotSetUp}
		var wg sync.WaitGroup
		for op, f := range with(controls(p.Device), map[string]func() error{
			"stop":  p.Stop,
			"reset": p.ResetStats,
			"stats": func() error { _, err := p.Stats(); return err },
			"info":  func() error { p.Info(); p.Name(); return p.Err() },
			"queue": func() error { _, err := p.QueueStats(0); return err },
			"set up": func() error {
				return errors.Join(ignore(p.SetupRxQueue(0, RxConfig{}), allowed), ignore(p.SetupTxQueue(0, TxConfig{}), allowed))
			},
		}) {
			wg.Go(func() {
				for range nettest.Scale(10) {
					if err := ignore(f(), allowed); err != nil {
						t.Errorf("%s: %v", op, err)
					}
				}
			})
		}
		wg.Wait()
		stop()
	})
}

func with(a, b map[string]func() error) map[string]func() error {
	for k, f := range b {
		a[k] = f
	}
	return a
}

// ignore drops errors that are allowed.
func ignore(err error, allowed []error) error {
	for _, a := range allowed {
		if errors.Is(err, a) {
			return nil
		}
	}
	return err
}

// TestErrAnswersAtOnce: a poll loop that asks Err does not wait for a control
// operation under way.
func TestErrAnswersAtOnce(t *testing.T) {
	p := startPort(t, Config{})
	p.mu.Lock()
	defer p.mu.Unlock()
	answer := make(chan error, 1)
	go func() { answer <- p.Err() }()
	var err error
	nettest.Eventually(t, wait, "Err to return", func() bool {
		select {
		case err = <-answer:
			return true
		default:
			return false
		}
	})
	must(t, err)
}
