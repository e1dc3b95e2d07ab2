// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/packetio"
)

func TestMain(m *testing.M) { nettest.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestBridge: three kernels reach one another, by IPv4 and IPv6; a stream between two does not bother the third. It ends
// when an interface is deleted.
func TestBridge(t *testing.T) {
	nettest.NeedTun(t)
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(30*time.Second))
	defer cancel()
	var ports []*packetio.Conn
	var spaces []*netns.NS
	for i := range 3 {
		ns := nettest.NS(t)
		must(t, traffic.SetSysctl(ns, "ipv6/conf/default/accept_dad", "0"))
		p, err := packetio.Open(rtap.Config{NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.FD())})
		must(t, err)
		t.Cleanup(func() { must(t, p.Close()) })
		index := p.Device().Info().IfIndex
		for _, a := range addresses(i) {
			bits := 24
			if a.Is6() {
				bits = 64
			}
			must(t, nettest.Conn(t, ns).AddAddr(index, netip.PrefixFrom(a, bits)))
		}
		ports, spaces = append(ports, p), append(spaces, ns)
	}
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, ports) }()
	for from := range 3 {
		for _, to := range addresses((from + 1) % 3) {
			nettest.Eventually(t, 10*time.Second, "a ping to "+to.String(), func() bool {
				r, err := traffic.Ping(ctx, traffic.PingConfig{NS: spaces[from], Dst: to})
				return err == nil && r.Lost() == 0
			})
		}
	}
	sent := func(i int) uint64 {
		s, err := ports[i].Device().Stats()
		must(t, err)
		return s.OPackets
	}
	before := sent(2)
	_, err := traffic.TCP(ctx, traffic.TCPConfig{Server: spaces[0], Client: spaces[1], Addr: netip.AddrPortFrom(addresses(0)[0], 0), Bytes: 4 << 20})
	must(t, err)
	if n := sent(2) - before; n > 50 {
		t.Errorf("%d packets of a stream between two others came to the third port", n)
	}
	must(t, nettest.Conn(t, spaces[1]).Delete(ports[1].Device().Info().IfIndex))
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error when an interface was deleted")
		}
	case <-ctx.Done():
		t.Error("run goes on without an interface")
	}
}

// TestTooLong: whoever has a port may raise its MTU, and send what the bridge has no room for. That ends nothing.
func TestTooLong(t *testing.T) {
	nettest.NeedTun(t)
	var ports []*packetio.Conn
	var inj [2]*traffic.Injector
	var spaces [2]*netns.NS
	for i := range 2 {
		spaces[i] = nettest.QuietNS(t)
		p, err := packetio.Open(rtap.Config{NetNS: fmt.Sprintf("/proc/self/fd/%d", spaces[i].FD())})
		must(t, err)
		t.Cleanup(func() { must(t, p.Close()) })
		must(t, p.Device().SetMTU(60000))
		inj[i], err = traffic.NewQueuedInjector(spaces[i], p.Device().Info().IfIndex)
		must(t, err)
		defer inj[i].Close()
		ports = append(ports, p)
	}
	capt, err := traffic.NewCapturer(spaces[1], ports[1].Device().Info().IfIndex)
	must(t, err)
	defer capt.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, ports) }()
	for _, size := range []int{50000, maxFrame + 1, maxFrame} {
		frame := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5}, make([]byte, size-14)...)
		must(t, inj[0].Inject(frame))
	}
	wait, stop := context.WithTimeout(ctx, nettest.Bound(10*time.Second))
	defer stop()
	got, err := capt.Next(wait, nil)
	must(t, err)
	if len(got) != maxFrame {
		t.Errorf("a frame of %d bytes came, want %d", len(got), maxFrame)
	}
	cancel()
	must(t, <-ended)
}

// TestEnd: the end of the context is no error.
func TestEnd(t *testing.T) {
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	p, err := packetio.Open(rtap.Config{NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.FD())})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	must(t, run(ctx, []*packetio.Conn{p}))
}

func addresses(i int) []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i+1))}
}

// TestTable: addresses move, age, and are bounded in number; group addresses are not learnt.
func TestTable(t *testing.T) {
	b := &bridge{ports: make([]*packetio.Conn, 3), known: map[mac]place{}}
	now := time.Unix(1000, 0)
	frame := func(to, from byte) []byte {
		return append([]byte{to, 0, 0, 0, 0, 2, from, 0, 0, 0, 0, 2}, make([]byte, 48)...)
	}
	expect := func(what string, in int, f []byte, want ...int) {
		t.Helper()
		out := make([][][]byte, 3)
		b.forward(in, f, out, now)
		got := []int{}
		for i := range out {
			if len(out[i]) > 0 {
				got = append(got, i)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: goes to %v, want %v", what, got, want)
		}
	}
	expect("unknown", 0, frame(4, 8), 1, 2)
	expect("known", 1, frame(8, 4), 0)
	expect("known", 0, frame(4, 8), 1)
	expect("on the same port", 1, frame(4, 12))
	expect("broadcast", 2, frame(0xff, 4), 0, 1)
	expect("moved", 0, frame(4, 8), 2)
	expect("from a group", 0, frame(0xff, 0xff), 1, 2)
	expect("to a group that sent", 1, frame(0xff, 4), 0, 2)
	now = now.Add(maxAge)
	expect("aged", 0, frame(4, 16), 1, 2)
	expect("short", 0, make([]byte, 13))
	for i := range 3 * maxKnown {
		f := frame(4, 2)
		f[8], f[9] = byte(i>>8), byte(i)
		b.forward(0, f, make([][][]byte, 3), now)
	}
	if len(b.known) > maxKnown {
		t.Errorf("%d addresses are known", len(b.known))
	}
}
