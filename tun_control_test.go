// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"errors"
	"net"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// TestTUNInfo: what a TUN is, and what it has not.
func TestTUNInfo(t *testing.T) {
	p := startPort(t, Config{Mode: ModeTUN})
	i := p.Info()
	if i.Mode != ModeTUN || i.MinMTU != 68 || i.MaxMTU != 65535 || i.MaxRxPktLen != 65535 || i.MaxMACAddrs != 0 || i.MaxLROPktSize != 65535 {
		t.Errorf("%+v", i)
	}
	if s := p.status(); len(s.MAC) != 0 || s.MTU != DefaultMTU || !s.Running {
		t.Errorf("%+v", s)
	}
	for name, f := range map[string]func() error{
		"mac":          func() error { return p.SetMAC(net.HardwareAddr{2, 0, 0, 0, 0, 1}) },
		"promiscuous":  func() error { return p.SetPromiscuous(true) },
		"allmulticast": func() error { return p.SetAllMulticast(true) },
	} {
		err := f()
		wantIs(t, err, ErrNoLayer2)
		wantIs(t, err, errors.ErrUnsupported)
		if oe := (*OpError)(nil); !errors.As(err, &oe) || oe.Interface != "rtap0" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := p.status(); s.Promiscuous || s.AllMulticast {
		t.Errorf("what was refused was done: %+v", s)
	}
}

// TestTUNMTU: the MTU goes up to 65535, and packets of it pass.
func TestTUNMTU(t *testing.T) {
	p := startPort(t, Config{Mode: ModeTUN})
	for _, mtu := range []int{MinMTU, MaxTunMTU, 2000, MaxTunMTU - 1, DefaultMTU} {
		must(t, p.SetMTU(mtu))
		if s := p.status(); s.MTU != mtu {
			t.Fatalf("after MTU %d: %+v", mtu, s)
		}
		p.longest(mtu)
	}
	for _, bad := range []int{MinMTU - 1, MaxTunMTU + 1} {
		checkLinkError(t, p, p.SetMTU(bad), "mtu")
	}
}

// TestTUNStats: bytes are those of IP packets, sizes too, and there are no broadcast and multicast packets, whatever
// the IP addresses: the counters are of MAC addresses. The kernel refuses what is neither IPv4 nor IPv6.
func TestTUNStats(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Mode: ModeTUN, Engine: e})
		want := make([]QueueStats, 1)
		p.traffic(want)
		p.checkStats(want)
		must(t, p.ResetStats())

		multicast := p.flow(0, 64)
		copy(multicast[16:], []byte{224, 0, 0, 1})
		p.inject(multicast)
		p.receive(1)
		group := ipPacket(true, 64, 1)
		copy(group[24:], []byte{0xff, 2})
		ones := bytes.Repeat([]byte{0xff}, 64) // a broadcast address, if it were Ethernet
		p.send(0, multicast, group, ones, []byte{0x50, 60: 0}, []byte{0x00, 60: 0})
		s := p.stats()
		if s.IPackets != 1 || s.OPackets != 2 || s.OBytes != 128 || s.OErrors != 3 {
			t.Errorf("%+v", s)
		}
		for name, want := range map[string]uint64{
			"rx_q0_broadcast_packets": 0, "rx_q0_multicast_packets": 0, "tx_q0_broadcast_packets": 0, "tx_q0_multicast_packets": 0,
			"rx_q0_size_64_packets": 1, "tx_q0_size_64_packets": 2, "tx_q0_error_einval": 3,
		} {
			if got := p.xstat(name); got != want {
				t.Errorf("%s is %d, want %d", name, got, want)
			}
		}
	})
}

// TestTUNEvents: what happens to the interface is told as of a TAP.
func TestTUNEvents(t *testing.T) {
	p := startPort(t, Config{Mode: ModeTUN, Name: "first"})
	e := p.listen()
	c, i := p.conn, p.index
	for _, s := range []struct {
		set   error
		want  Change
		after func(s LinkStatus) bool
	}{
		{c.SetDown(i), ChangeUp | ChangeLink, isUp(false)},
		{c.SetName(i, "second"), ChangeName, func(s LinkStatus) bool { return s.Name == "second" && s.Index == i }},
		{c.SetUp(i), ChangeUp | ChangeLink, isUp(true)},
		{c.SetMTU(i, MaxTunMTU), ChangeMTU, func(s LinkStatus) bool { return s.MTU == MaxTunMTU }},
		{p.pairs[0].tap.SetCarrier(false), ChangeCarrier | ChangeLink, func(s LinkStatus) bool { return s.Up && !s.Carrier && !s.Running }},
	} { // they are all done by now
		must(t, s.set)
		e.expect(s.want, s.after)
	}
	must(t, p.SetCarrier(true))
	e.expect(ChangeCarrier|ChangeLink, func(s LinkStatus) bool { return s.Running })
	p.longest(MaxTunMTU) // it was followed
	must(t, c.Delete(i))
	e.expect(ChangeUp|ChangeLink, isUp(false))
	e.expect(ChangeRemoved, anything)
	e.closed()
}

// TestTUNPersist: a persistent TUN stays, with its MTU, and is taken over.
func TestTUNPersist(t *testing.T) {
	ns := newNS(t)
	p := startPortIn(t, ns, Config{Mode: ModeTUN, Name: "keep", Persist: true, MTU: 2000, Queues: 2, RxOffloads: relayRx})
	p.exchange()
	must(t, p.Close())
	if l := p.kernel(); !l.Persistent || l.Up || l.TunQueues != 0 {
		t.Fatalf("left behind: %+v", l)
	}
	q := startPortIn(t, ns, Config{Mode: ModeTUN, Name: "keep"})
	defer q.forget()
	if l := q.kernel(); q.index != p.index || l.MTU != 2000 {
		t.Errorf("taken over as %+v", l)
	}
	q.exchange()
}

func TestTUNDeleteUnderTraffic(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		testDeleteUnderTraffic(t, Config{Mode: ModeTUN, Engine: e, Queues: 3})
	})
}

// TestTUNProcesses: a secondary learns the mode with the port, and what it leases receives and sends IP packets.
func TestTUNProcesses(t *testing.T) {
	s := newStage(t, 1, func(c *Config) { c.Mode = ModeTUN })
	s.capturer()
	a := s.agent("one")
	got := a.attach(0)
	lookAlike(t, "info", got.Info, s.Info())
	a.lease(0, 0)
	a.echo(0, 0)
	for _, v6 := range []bool{false, true} {
		packet := ipPacket(v6, 100, 1)
		s.inject(packet)
		if got := s.captured(1)[0]; !bytes.Equal(got, packet) {
			t.Fatalf("sent back % x, want % x", got, packet)
		}
	}
	s.deafen()
	must(t, s.SetMTU(MaxTunMTU)) // its slots are fitted first
	long := ipPacket(false, MaxTunMTU, 2)
	s.inject(long)
	if got := s.captured(1)[0]; !bytes.Equal(got, long) {
		t.Fatalf("sent back %d bytes", len(got))
	}
	a.do(order{Op: "rest"})
	for _, name := range []string{"rx_q0_multicast_packets", "rx_q0_broadcast_packets", "tx_q0_multicast_packets"} {
		if n := s.xstat(name); n != 0 {
			t.Errorf("%s is %d", name, n)
		}
	}
	a.restore(0, 0)
	s.exchange()
	a.quit()
	s.attached(0)
	s.accounts(0, s.port)
}

// TestTUNBurstsAllocateNothing: received, sent, and refused.
func TestTUNBurstsAllocateNothing(t *testing.T) {
	const burst = 32
	eachWay(t, func(t *testing.T, w way) {
		pool := newPool(t, mbuf.Config{Name: "alloc", Count: 1024})
		p := w.start(t, Config{Mode: ModeTUN}, 1, RxConfig{Memory: pool})
		rx, tx := p.RxQueue(0), p.TxQueue(0)
		bufs := make([]*mbuf.Mbuf, burst)
		packet, inj := ipPacket(true, 100, 1), p.injector()
		for _, first := range []byte{packet[0], 0x70} {
			wantNoAllocs(t, "tx", nettest.Scale(50), func() {
				fill(t, pool, bufs, len(packet))
				for _, m := range bufs {
					copy(m.Bytes(), packet)
					m.Bytes()[0] = first
				}
				if n := tx.Burst(bufs); n != burst {
					t.Fatalf("sent %d packets of %d", n, burst)
				}
			})
		}
		wantNoAllocs(t, "rx", nettest.Scale(50), func() {
			for range burst {
				if err := inj.Inject(packet); err != nil {
					t.Fatal(err)
				}
			}
			n := 0
			for polls := 0; n < burst && polls < 1000*burst; polls++ {
				k := rx.Burst(bufs)
				mbuf.FreeBulk(bufs[:k])
				n += k
			}
			if n != burst {
				t.Fatalf("received %d packets of %d", n, burst)
			}
		})
	})
}
