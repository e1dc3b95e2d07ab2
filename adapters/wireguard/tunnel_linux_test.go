// SPDX-License-Identifier: BSD-3-Clause

package wireguard_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/rtap-project/rtap/adapters/wireguard"
	"github.com/rtap-project/rtap/adapters/wireguard/wgtest"
	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tunnel is two of wireguard-go's devices, each in a namespace of the test's own.
type tunnel struct {
	*wgtest.Pair
	t     *testing.T
	conn  [2]*rtnl.Conn
	index [2]int // of the TUN interfaces

	// foreign says which ends are wireguard-go's own TUN device, zeros how many datagrams that has sent without a
	// checksum: see TestZeroChecksum.
	foreign [2]bool
	zeros   int
}

type create func(name string, mtu int) (tun.Device, error)

// connect makes a tunnel whose ends are of these kinds.
func connect(t *testing.T, ends [2]create) *tunnel {
	t.Helper()
	nettest.NeedTun(t)
	ns := [2]*netns.NS{nettest.NS(t), nettest.NS(t)}
	var over atomic.Bool
	log := &device.Logger{Verbosef: device.DiscardLogf, Errorf: func(format string, args ...any) {
		if !over.Load() { // a device that ends by itself may have something to say later
			t.Logf(format, args...)
		}
	}}
	w, i := &tunnel{t: t}, -1
	pair, err := wgtest.Connect(ns, func(name string, mtu int) (tun.Device, error) {
		i++
		d, err := ends[i](name, mtu)
		_, w.foreign[i] = d.(*tun.NativeTun)
		return d, err
	}, log)
	must(t, err)
	w.Pair = pair
	t.Cleanup(func() {
		over.Store(true)
		if err := pair.Close(); err != nil {
			t.Error(err)
		}
	})
	for i, e := range pair.Ends {
		w.conn[i] = nettest.Conn(t, e.NS)
		link, err := w.conn[i].LinkByName(wgtest.Name)
		must(t, err)
		w.index[i] = link.Index
	}
	return w
}

var ours = [2]create{wireguard.CreateTUN, wireguard.CreateTUN}

func (w *tunnel) context() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), nettest.Bound(60*time.Second))
	w.t.Cleanup(cancel)
	return ctx
}

// inner is an address in the tunnel.
func (w *tunnel) inner(end int, v6 bool) netip.Addr {
	if v6 {
		return w.Ends[end].Inner6.Addr()
	}
	return w.Ends[end].Inner4.Addr()
}

// reach waits until pings get through, both ways and with both versions of IP: the first makes the handshake.
func (w *tunnel) reach() { w.t.Helper(); w.reachFrom(0) }

// reachFrom says who pings first. The end that has lost its keys must: the other one tries them for 15 seconds.
func (w *tunnel) reachFrom(first int) {
	w.t.Helper()
	ctx := w.context()
	for _, from := range []int{first, 1 - first} {
		for _, v6 := range []bool{false, true} {
			nettest.Eventually(w.t, 40*time.Second, "an answer to a ping", func() bool {
				r, err := traffic.Ping(ctx, traffic.PingConfig{NS: w.Ends[from].NS, Dst: w.inner(1-from, v6), Timeout: 200 * time.Millisecond})
				return err == nil && r.Lost() == 0
			})
		}
	}
}

// transfer sends TCP both ways, with both versions, and compares what arrives.
func (w *tunnel) transfer(bytes int64) {
	w.t.Helper()
	for from := range 2 {
		for _, v6 := range []bool{false, true} {
			_, err := traffic.TCP(w.context(), traffic.TCPConfig{Client: w.Ends[from].NS, Server: w.Ends[1-from].NS,
				Addr: netip.AddrPortFrom(w.inner(1-from, v6), 0), Bytes: bytes, Hash: true})
			must(w.t, err)
		}
	}
}

// datagrams sends UDP both ways, with both versions; none may be lost, as only few are under way.
func (w *tunnel) datagrams(cfg traffic.UDPConfig) {
	w.t.Helper()
	for from := range 2 {
		for _, v6 := range []bool{false, true} {
			cfg.Client, cfg.Server = w.Ends[from].NS, w.Ends[1-from].NS
			cfg.Addr = netip.AddrPortFrom(w.inner(1-from, v6), 0)
			before := w.counters(1 - from).UDPInCsumErrors
			r, err := traffic.UDP(w.context(), cfg)
			must(w.t, err)
			zeros := 0
			if v6 && w.foreign[from] {
				zeros = int(w.counters(1-from).UDPInCsumErrors - before)
				w.zeros += zeros
			}
			if r.Received+zeros != r.Sent || r.Corrupt+r.Duplicates+r.Reordered != 0 {
				w.t.Errorf("v6=%v, %+v: %+v", v6, cfg, r)
			}
		}
	}
}

func (w *tunnel) counters(end int) traffic.Counters {
	w.t.Helper()
	c, err := traffic.ReadCounters(w.Ends[end].NS)
	must(w.t, err)
	return c
}

// TestTunnel: handshake, pings, TCP and UDP both ways, with IPv4 and IPv6, and nothing that arrives is damaged; also where
// the other end is wireguard-go's own.
func TestTunnel(t *testing.T) {
	for name, ends := range map[string][2]create{"rtap": ours, "to wireguard-go's": {wireguard.CreateTUN, tun.CreateTUN}} {
		t.Run(name, func(t *testing.T) {
			w := connect(t, ends)
			w.reach()
			w.transfer(20 << 20)
			for _, size := range []int{8, 100, 1372} {
				w.datagrams(traffic.UDPConfig{Count: 400, SizeBytes: size})
			}
			w.datagrams(traffic.UDPConfig{Count: 640, SizeBytes: 1000, Segments: 32, Tail: 500, Window: 64, GRO: true})
			w.datagrams(traffic.UDPConfig{Count: 20, SizeBytes: 20000, Window: 1}) // fragments
			for i := range w.Ends {
				c := w.counters(i)
				if i == 0 { // the only one that hears of another kind of device
					c.UDPInCsumErrors -= uint64(w.zeros)
				}
				if c.TCPInErrs+c.TCPInCsumErrors+c.UDPInCsumErrors+c.ICMPInCsumErrors+c.IPInHdrErrors+c.IPInTruncatedPkts != 0 {
					t.Errorf("%+v", c)
				}
			}
		})
	}
}

// TestZeroChecksum: a datagram whose UDP checksum comes to 0 has 0xffff in its place (RFC 768). One in 65536 is such a
// datagram, and with IPv6 the receiver drops one without a checksum (RFC 8200, 8.1): those of wireguard-go's own TUN device.
func TestZeroChecksum(t *testing.T) {
	w := connect(t, [2]create{wireguard.CreateTUN, tun.CreateTUN})
	w.reach()
	for from := range 2 {
		src, dst := netip.AddrPortFrom(w.inner(from, true), 4001), netip.AddrPortFrom(w.inner(1-from, true), 4002)
		in, out := listen(t, w.Ends[1-from].NS, dst), listen(t, w.Ends[from].NS, src)
		before := w.counters(1 - from).UDPInCsumErrors
		_, err := out.WriteToUDPAddrPort(payloadForZero(src, dst), dst)
		must(t, err)
		if w.foreign[from] {
			nettest.Eventually(t, 10*time.Second, "wireguard-go's datagram is dropped", func() bool {
				return w.counters(1-from).UDPInCsumErrors == before+1
			})
			continue
		}
		must(t, in.SetReadDeadline(time.Now().Add(nettest.Bound(10*time.Second))))
		if n, err := in.Read(make([]byte, 10)); n != 2 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}

func listen(t *testing.T, ns *netns.NS, addr netip.AddrPort) (c *net.UDPConn) {
	t.Helper()
	must(t, ns.Do(func() (err error) {
		c, err = net.ListenUDP("udp6", net.UDPAddrFromAddrPort(addr))
		return err
	}))
	t.Cleanup(func() { c.Close() })
	return c
}

// payloadForZero is two bytes for which the datagram's checksum is 0.
func payloadForZero(src, dst netip.AddrPort) []byte {
	const size, protocol = 8 + 2, 17
	b := append(src.Addr().AsSlice(), dst.Addr().AsSlice()...)
	for _, v := range []uint16{size, protocol, src.Port(), dst.Port(), size} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return binary.BigEndian.AppendUint16(nil, ^header.Sum(b))
}

// TestVXLAN: a network over the tunnel, whose packets the kernel may leave large.
func TestVXLAN(t *testing.T) {
	for name, ends := range map[string][2]create{"rtap": ours, "to wireguard-go's": {wireguard.CreateTUN, tun.CreateTUN}} {
		for _, c := range []struct {
			checksum bool
			port     int
		}{{false, 4789}, {true, 4789}, {true, 5555}} { // the last one is nobody's
			t.Run(fmt.Sprintf("%s checksum=%v port=%d", name, c.checksum, c.port), func(t *testing.T) {
				w := connect(t, ends)
				w.reach()
				over := [2]netip.Prefix{netip.MustParsePrefix("10.8.0.1/24"), netip.MustParsePrefix("10.8.0.2/24")}
				for i, e := range w.Ends {
					index, err := traffic.AddVXLAN(e.NS, w.index[i], "vxlan0", 7, c.port, w.inner(i, false), w.inner(1-i, false), c.checksum)
					nettest.NeedProbe(t, "VXLAN", func() error { return err })
					must(t, w.conn[i].SetMTU(index, device.DefaultMTU-50))
					must(t, w.conn[i].AddAddr(index, over[i]))
				}
				for from := range 2 {
					_, err := traffic.TCP(w.context(), traffic.TCPConfig{Client: w.Ends[from].NS, Server: w.Ends[1-from].NS,
						Addr: netip.AddrPortFrom(over[1-from].Addr(), 0), Bytes: 10 << 20, Hash: true})
					must(t, err)
				}
				for _, e := range w.Ends {
					c, err := traffic.ReadCounters(e.NS)
					must(t, err)
					if c.TCPInCsumErrors+c.UDPInCsumErrors+c.IPInHdrErrors != 0 {
						t.Errorf("%+v", c)
					}
				}
			})
		}
	}
}

// TestVXLANGPE: likewise in a tunnel that carries IP packets without Ethernet headers, and whose kind the driver cannot tell.
// A large frame that were dropped would be sent again, large, for ever.
func TestVXLANGPE(t *testing.T) {
	for _, checksum := range []bool{false, true} {
		t.Run(fmt.Sprintf("checksum=%v", checksum), func(t *testing.T) {
			w := connect(t, ours)
			w.reach()
			over := [2][2]netip.Addr{{netip.MustParseAddr("10.8.0.1"), netip.MustParseAddr("10.8.0.2")}, {netip.MustParseAddr("fd08::1"), netip.MustParseAddr("fd08::2")}}
			for i, e := range w.Ends {
				index, err := traffic.AddVXLANGPE(e.NS, "gpe0", 4790)
				nettest.NeedProbe(t, "VXLAN", func() error { return err })
				must(t, w.conn[i].SetMTU(index, device.DefaultMTU-36))
				for _, a := range over {
					must(t, w.conn[i].AddAddr(index, netip.PrefixFrom(a[i], a[i].BitLen())))
					nettest.NeedProbe(t, "routes into tunnels", func() error {
						return traffic.SetTunnelRoute(e.NS, netip.PrefixFrom(a[1-i], a[i].BitLen()), index, 7, w.inner(1-i, false), checksum)
					})
				}
			}
			for from := range w.Ends {
				for _, a := range over {
					_, err := traffic.TCP(w.context(), traffic.TCPConfig{Client: w.Ends[from].NS, Server: w.Ends[1-from].NS,
						Addr: netip.AddrPortFrom(a[1-from], 0), Bytes: 10 << 20, Hash: true})
					must(t, err)
				}
			}
			for _, e := range w.Ends {
				c, err := traffic.ReadCounters(e.NS)
				must(t, err)
				if c.TCPInCsumErrors+c.UDPInCsumErrors+c.IPInHdrErrors != 0 {
					t.Errorf("%+v", c)
				}
			}
		})
	}
}

// TestMTU: it changes while TCP flows, which goes on with packets of the new size.
func TestMTU(t *testing.T) {
	w := connect(t, ours)
	w.reach()
	done := make(chan error, 1)
	var info traffic.TCPInfo
	go func() {
		_, err := traffic.TCP(w.context(), traffic.TCPConfig{Client: w.Ends[0].NS, Server: w.Ends[1].NS,
			Addr: netip.AddrPortFrom(w.inner(1, false), 0), Duration: time.Second, Sender: &info})
		done <- err
	}()
	for _, mtu := range []int{1280, 1420, 1300} {
		for i := range w.Ends {
			before, err := w.conn[i].Link(w.index[i])
			must(t, err)
			must(t, w.conn[i].SetMTU(w.index[i], mtu))
			// Something went through with it.
			nettest.Eventually(t, 20*time.Second, "packets", func() bool {
				now, err := w.conn[i].Link(w.index[i])
				return err == nil && now.Stats.RxPackets > before.Stats.RxPackets+10
			})
			if got, err := w.Ends[i].Tun.MTU(); got != mtu || err != nil {
				t.Errorf("MTU %d, %v, want %d", got, err, mtu)
			}
		}
	}
	must(t, <-done)
	if info.PathMTU != 1300 {
		t.Errorf("%+v", info)
	}
	w.transfer(1 << 20)
	for i := range w.Ends {
		outer, err := w.conn[i].LinkByName(wgtest.Outer)
		must(t, err)
		must(t, w.conn[i].SetMTU(outer.Index, 9200))
		must(t, w.conn[i].SetMTU(w.index[i], 9000))
	}
	w.datagrams(traffic.UDPConfig{Count: 40, SizeBytes: 8900, Window: 4})
}

// get reads a line of what a device says of its peer.
func get(t *testing.T, e *wgtest.End, key string) string {
	t.Helper()
	text, err := e.Device.IpcGet()
	must(t, err)
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return v
		}
	}
	return ""
}

// TestRoaming: one end's address outside changes, and its version of IP; the other end follows as soon as it hears of it.
func TestRoaming(t *testing.T) {
	w := connect(t, ours)
	w.reach()
	a, b := w.Ends[0], w.Ends[1]
	outer, err := w.conn[0].LinkByName(wgtest.Outer)
	must(t, err)
	other := netip.MustParsePrefix("192.0.2.101/24")
	for _, step := range []struct {
		name string
		once func()
		// again is done before each ping: an end that hears from the other one answers to where that came from.
		again func()
		want  string
	}{
		{"at first", nil, nil, "192.0.2.1:51820"},
		{"another port", func() { must(t, a.Device.IpcSet("listen_port=51821\n")) }, nil, "192.0.2.1:51821"},
		{"another address", func() {
			must(t, w.conn[0].Delete(outer.Index))
			indexA, indexB, err := traffic.AddVeth(a.NS, wgtest.Outer, b.NS, wgtest.Outer)
			must(t, err)
			must(t, w.conn[0].AddAddr(indexA, other))
			must(t, w.conn[0].AddAddr(indexA, a.Outer6))
			must(t, w.conn[1].AddAddr(indexB, b.Outer4))
			must(t, w.conn[1].AddAddr(indexB, b.Outer6))
			must(t, a.Device.IpcSet("listen_port=51822\n"))
		}, nil, "192.0.2.101:51822"},
		{"IPv6", nil, func() {
			must(t, a.Device.IpcSet(fmt.Sprintf("public_key=%s\nendpoint=[%s]:%d\n", b.PublicKey(), b.Outer6.Addr(), wgtest.Port)))
		}, "[fd00::1]:51822"},
	} {
		if step.once != nil {
			step.once()
		}
		nettest.Eventually(t, 20*time.Second, step.name+": an answer, to "+step.want, func() bool {
			if step.again != nil {
				step.again()
			}
			r, err := traffic.Ping(w.context(), traffic.PingConfig{NS: a.NS, Dst: w.inner(1, false), Timeout: 200 * time.Millisecond})
			return err == nil && r.Lost() == 0 && get(t, b, "endpoint") == step.want
		})
		w.transfer(1 << 20)
	}
}

// TestDownUp: the interface goes down, and wireguard-go with it; likewise up. A device of wireguard-go's that is
// brought down by itself comes up again, too.
func TestDownUp(t *testing.T) {
	w := connect(t, ours)
	w.reach()
	answers := func(want bool) {
		t.Helper()
		nettest.Eventually(t, 10*time.Second, fmt.Sprintf("pings answered: %v", want), func() bool {
			r, _ := traffic.Ping(w.context(), traffic.PingConfig{NS: w.Ends[0].NS, Dst: w.inner(1, false), Timeout: 50 * time.Millisecond})
			return (r.Lost() == 0) == want
		})
	}
	must(t, w.conn[1].SetDown(w.index[1]))
	answers(false)
	must(t, w.conn[1].SetUp(w.index[1]))
	must(t, w.conn[1].AddAddr(w.index[1], w.Ends[1].Inner6)) // which the kernel took away
	w.reachFrom(1)
	must(t, w.Ends[1].Device.Down())
	answers(false)
	must(t, w.Ends[1].Device.Up())
	w.reachFrom(1)
	w.transfer(1 << 20)
}

// TestDeleted: wireguard-go's device ends when its interface is deleted under traffic.
func TestDeleted(t *testing.T) {
	w := connect(t, ours)
	w.reach()
	ctx, cancel := context.WithCancel(w.context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		traffic.UDP(ctx, traffic.UDPConfig{Client: w.Ends[0].NS, Server: w.Ends[1].NS, Addr: netip.AddrPortFrom(w.inner(1, false), 0), Count: 1 << 20,
			Linger: 10 * time.Millisecond})
	}()
	nettest.Eventually(t, 10*time.Second, "packets", func() bool {
		l, err := w.conn[1].Link(w.index[1])
		return err == nil && l.Stats.RxPackets > 1000
	})
	must(t, w.conn[1].Delete(w.index[1]))
	select {
	case <-w.Ends[1].Device.Wait():
	case <-time.After(nettest.Bound(10 * time.Second)):
		t.Error("the device does not end")
	}
	cancel()
	<-done
}
