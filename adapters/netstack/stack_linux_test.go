// SPDX-License-Identifier: BSD-3-Clause

package netstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/adapters/netstack/internal/rig"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
)

// UDP in both directions, in fragments where it does not fit the MTU; with each way of making checksums.
func TestUDP(t *testing.T) {
	for name, cfg := range map[string]Config{
		"TAP":           {},
		"TUN":           {Port: rtap.Config{Mode: rtap.ModeTUN}},
		"all checksums": {TXChecksumOffload: true},
		"router":        {Router: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, cfg)
			for _, v := range []int{4, 6} {
				var conn net.Conn
				must(t, p.ns.Do(func() (err error) {
					conn, err = net.Dial("udp", netip.AddrPortFrom(rig.Stack[v], 7).String())
					return err
				}))
				defer conn.Close()
				must(t, conn.SetDeadline(time.Now().Add(nettest.Bound(wait))))
				local := tcpip.FullAddress{NIC: rig.NIC, Addr: tcpip.AddrFromSlice(rig.Stack[v].AsSlice()), Port: 7}
				inside, err := gonet.DialUDP(p.s, &local, nil, rig.Network(v))
				must(t, err)
				defer inside.Close()
				go func() {
					buf := make([]byte, 1<<16)
					for {
						n, from, err := inside.ReadFrom(buf)
						if err != nil {
							return
						}
						inside.WriteTo(buf[:n], from)
					}
				}()
				buf := make([]byte, 1<<16)
				for _, n := range []int{1, 2, 100, 1400, 1452, 1472, 8000, 40000} {
					if cfg.TXChecksumOffload && v == 6 && n > 1452 {
						continue // as Config.TXChecksumOffload says
					}
					payload := bytes.Repeat([]byte{byte(n), 2, 3}, n/3+1)[:n]
					_, err := conn.Write(payload)
					must(t, err)
					k, err := conn.Read(buf)
					if err != nil || !bytes.Equal(buf[:k], payload) {
						t.Fatalf("IPv%d, %d bytes: %d came back, %v; %+v", v, n, k, err, p.ep.Stats())
					}
				}
			}
			c, err := traffic.ReadCounters(p.ns)
			must(t, err)
			if c.UDPInCsumErrors != 0 || p.s.Stats().UDP.ChecksumErrors.Value() != 0 || (p.ep.Stats() != Stats{}) {
				t.Errorf("wrong checksums: the kernel %d, the stack %d, the endpoint %+v", c.UDPInCsumErrors,
					p.s.Stats().UDP.ChecksumErrors.Value(), p.ep.Stats())
			}
		})
	}
}

// What the kernel has cut and summed is right also where the stack looks itself.
func TestVerifiedByStack(t *testing.T) {
	p := newPair(t, Config{Router: true})
	kernel, inside := p.connect(4)
	must(t, transfer(kernel, inside, int64(nettest.Scale(16<<20))))
	if n := p.s.Stats().TCP.ChecksumErrors.Value(); n != 0 {
		t.Errorf("%d segments with a wrong checksum", n)
	}
}

// Each engine, several queues, an MTU of each kind, all in the same small transfer.
func TestVariants(t *testing.T) {
	for name, port := range map[string]rtap.Config{
		"syscall":    {Engine: rtap.EngineSyscall},
		"queues":     {Queues: 4},
		"jumbo":      {MTU: 9000},
		"largest":    {MTU: rtap.MaxMTU},
		"small":      {MTU: 1280},
		"LRO of 4 K": {MaxLROPktSize: 4096},
		"tiny ring":  {RxRing: 1, TxRing: 1},
		"full ring":  {RxRing: 256, TxRing: 256},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, Config{Port: port, Spin: -1})
			for _, v := range []int{4, 6} {
				kernel, inside := p.connect(v)
				n := int64(nettest.Scale(16<<20)) / slow
				if err := errors.Join(transfer(kernel, inside, n), transfer(inside, kernel, n)); err != nil {
					t.Errorf("IPv%d: %v; %+v", v, err, p.ep.Stats())
				}
			}
		})
	}
}

// The caller's port may have any of the offloads.
func TestDeviceOffloads(t *testing.T) {
	nettest.NeedTun(t)
	for name, rx := range map[string]uint64{
		"none":     0,
		"LRO":      rtap.RxOffloadTCPLRO,
		"TCP":      rtap.RxOffloadTCPCksum,
		"UDP":      rtap.RxOffloadUDPCksum,
		"IP":       rtap.RxOffloadIPv4Cksum,
		"checksum": rtap.RxOffloadChecksum,
	} {
		for _, tx := range []uint64{rtap.TxOffloadTCPTSO, rtap.TxOffloadTCPCksum, rtap.TxOffloadTCPTSO | rtap.TxOffloadTCPCksum} {
			t.Run(fmt.Sprintf("%s,%v", name, rtap.TxOffloadNames(tx)), func(t *testing.T) {
				ns := nettest.NS(t)
				dev, err := rtap.Start(rtap.Config{NetNS: nsPath(ns), RxOffloads: rx, TxOffloads: tx})
				must(t, err)
				t.Cleanup(func() { dev.Close() })
				p := newPairIn(t, ns, Config{Device: dev})
				kernel, inside := p.connect(4)
				n := int64(nettest.Scale(1 << 20))
				if err := errors.Join(transfer(kernel, inside, n), transfer(inside, kernel, n)); err != nil {
					t.Errorf("%v; %+v", err, p.ep.Stats())
				}
			})
		}
	}
}

// The MTU changes, from either end, while a stream runs.
func TestMTUInTransfer(t *testing.T) {
	p := newPair(t, Config{})
	conn := nettest.Conn(t, p.ns)
	index := p.ep.Device().Info().IfIndex
	kernel, inside := p.connect(4)
	done := make(chan error, 1)
	go func() { done <- transfer(kernel, inside, int64(nettest.Scale(128<<20)/slow)) }()
	sizes := []int{1400, 9000, 1280, 1500, 65000, 1500}
	for i := 0; ; i++ {
		select {
		case err := <-done:
			must(t, err)
			if i == 0 {
				t.Error("the MTU was not changed meanwhile")
			}
			return
		default:
		}
		if mtu := sizes[i%len(sizes)]; i%2 == 0 {
			must(t, conn.SetMTU(index, mtu))
		} else if err := p.s.SetNICMTU(rig.NIC, uint32(mtu)); err != nil {
			t.Error(err)
		}
	}
}

// Many connections at once, each with its own data, to and fro.
func TestConcurrent(t *testing.T) {
	eachMode(t, func(t *testing.T, mode rtap.Mode) {
		const conns = 200
		p := newPair(t, Config{Port: rtap.Config{Mode: mode, Queues: 4}})
		ctx := p.context(2 * time.Minute)
		var wg sync.WaitGroup
		for _, v := range []int{4, 6} {
			l, err := rig.Listen(p.s, v, 7)
			must(t, err)
			defer l.Close()
			go rig.Each(l, rig.Echo)
			for i := range conns / 2 {
				wg.Go(func() {
					if err := echo(ctx, p.ns, v, 7, nettest.Scale(256<<10)+i); err != nil {
						t.Errorf("IPv%d, connection %d: %v", v, i, err)
					}
				})
			}
		}
		wg.Wait()
	})
}

// echo sends n bytes from the kernel to an echo server of the stack's and compares what comes back.
func echo(ctx context.Context, ns *netns.NS, version int, port uint16, n int) error {
	c, err := rig.DialKernel(ctx, ns, version, port)
	if err != nil {
		return err
	}
	defer c.Close()
	if d, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(d); err != nil {
			return err
		}
	}
	return transfer(c, c, int64(n))
}

// Connections are opened and closed, in both directions, thousands of them, and leave nothing behind.
func TestChurn(t *testing.T) { churn(t, nettest.Scale(3000)/slow) }

func churn(t *testing.T, count int) {
	p := newPair(t, Config{Port: rtap.Config{Queues: 2}})
	shortTimeWait(t, p.s)
	must(t, traffic.SetSysctl(p.ns, "ipv4/tcp_max_tw_buckets", "1000")) // likewise of the kernel's, which has 28000 ports
	ctx := p.context(time.Duration(count) * 50 * time.Millisecond)
	l, err := rig.Listen(p.s, 4, 7)
	must(t, err)
	go rig.Each(l, rig.Echo)
	kl, port, err := rig.ListenKernel(p.ns, 6)
	must(t, err)
	go rig.Each(kl, rig.Echo)
	goroutines := runtime.NumGoroutine()
	const workers = 8
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := 0; i < count/workers && !t.Failed(); i++ {
				var err error
				if (w+i)%2 == 0 {
					err = echo(ctx, p.ns, 4, 7, 1+i%5000)
				} else {
					err = dialOut(ctx, p.s, port, 1+i%5000)
				}
				if err != nil {
					t.Errorf("connection %d of worker %d: %v", i, w, err)
				}
			}
		})
	}
	wg.Wait()
	nettest.Eventually(t, wait, "the goroutines of closed connections to end", func() bool {
		return runtime.NumGoroutine() <= goroutines+10
	})
	nettest.Eventually(t, wait, "the stack's connections to go", func() bool { return len(p.s.RegisteredEndpoints()) < 50 })
	l.Close()
	kl.Close()
	if n := p.ep.txPool.InUseCount(); n > 0 {
		t.Errorf("%d mbufs are in use without traffic", n)
	}
}

// dialOut is echo in the other direction.
func dialOut(ctx context.Context, s *stack.Stack, port uint16, n int) error {
	c, err := rig.Dial(ctx, s, 6, port)
	if err != nil {
		return err
	}
	defer c.Close()
	return transfer(c, c, int64(n))
}

// shortTimeWait has closed connections be forgotten soon.
func shortTimeWait(t testing.TB, s *stack.Stack) {
	t.Helper()
	d := tcpip.TCPTimeWaitTimeoutOption(100 * time.Millisecond)
	if err := s.SetTransportProtocolOption(header.TCPProtocolNumber, &d); err != nil {
		t.Fatal(err)
	}
}

// The stack is destroyed, or the NIC removed, under full load in both directions.
func TestDestroyedUnderLoad(t *testing.T) {
	nettest.NeedTun(t)
	for i := range nettest.Scale(10) {
		ns := nettest.NS(t)
		p := newPairIn(t, ns, Config{Port: rtap.Config{Queues: 2, Mode: modes[i%2]}})
		var wg sync.WaitGroup
		for range 2 {
			kernel, inside := p.connect(4)
			for _, f := range []func(){func() { rig.Source(inside) }, func() { rig.Sink(inside) }, func() { rig.Sink(kernel) }, func() { rig.Source(kernel) }} {
				wg.Go(f)
			}
			defer func() { kernel.Close() }()
		}
		nettest.Eventually(t, wait, "traffic", func() bool {
			st, err := p.ep.Device().Stats()
			return err == nil && st.IBytes > 1<<20 && st.OBytes > 1<<20
		})
		if i%4 < 2 {
			if err := p.s.RemoveNIC(rig.NIC); err != nil {
				t.Fatal(err)
			}
			p.ep.Wait()
		}
		p.close()
	}
}

// A stack that forwards between two interfaces: TCP of the kernel's, from namespace to namespace.
func TestRouter(t *testing.T) {
	nettest.NeedTun(t)
	nets := [2]netip.Prefix{netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("10.2.0.1/24")}
	s := stack.New(stack.Options{NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol}})
	defer noRefs(t)
	defer s.Destroy()
	var ns [2]*netns.NS
	for i, prefix := range nets {
		ns[i] = nettest.NS(t)
		ep, err := New(Config{Router: true, Port: rtap.Config{Mode: rtap.ModeTUN, NetNS: nsPath(ns[i])}})
		must(t, err)
		id := tcpip.NICID(i + 1)
		if err := s.CreateNIC(id, ep); err != nil {
			t.Fatal(err)
		}
		if _, err := s.SetNICForwarding(id, ipv4.ProtocolNumber, true); err != nil {
			t.Fatal(err)
		}
		gw := tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(prefix.Addr().Next().AsSlice()), PrefixLen: 24}
		if err := s.AddProtocolAddress(id, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: gw}, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
		s.AddRoute(tcpip.Route{Destination: gw.Subnet(), NIC: id})
		conn, err := rtnl.Dial(ns[i].FD())
		must(t, err)
		index := ep.Device().Info().IfIndex
		must(t, errors.Join(conn.AddAddr(index, prefix), conn.Close()))
		must(t, traffic.SetRoute(ns[i], nets[1-i].Masked(), netip.Addr{}, index, 0))
	}
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(time.Minute))
	defer cancel()
	for i := range nets {
		if _, err := traffic.TCP(ctx, traffic.TCPConfig{Server: ns[i], Client: ns[1-i], Addr: netip.AddrPortFrom(nets[i].Addr(), 0),
			Bytes: int64(nettest.Scale(16<<20)) / slow}); err != nil {
			t.Errorf("to %v: %v", nets[i], err)
		}
	}
}

// A web server on the stack, and net/http's client in the kernel's namespace.
func TestHTTP(t *testing.T) {
	p := newPair(t, Config{})
	l, err := rig.Listen(p.s, 6, 80)
	must(t, err)
	body := bytes.Repeat([]byte("0123456789abcdef"), nettest.Scale(1<<20))
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			io.Copy(w, r.Body)
			return
		}
		w.Write(body)
	})}
	go srv.Serve(l)
	defer srv.Close()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return rig.DialKernel(ctx, p.ns, 6, 80)
	}}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr, Timeout: nettest.Bound(wait)}
	for range 3 {
		for _, do := range []func() (*http.Response, error){
			func() (*http.Response, error) { return client.Get("http://stack/") },
			func() (*http.Response, error) { return client.Post("http://stack/", "", bytes.NewReader(body)) },
		} {
			resp, err := do()
			must(t, err)
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("%d bytes, want %d: %v", len(got), len(body), err)
			}
		}
	}
}

// An idle endpoint sleeps: its goroutines use next to no CPU.
func TestIdleSleeps(t *testing.T) {
	e := newLone(t, Config{Port: rtap.Config{Queues: 4}})
	r := make(recorder, 4)
	e.Attach(r)
	reads := func() (n uint64) {
		xs, err := e.Device().XStats()
		must(t, err)
		for _, x := range xs {
			if bytes.HasSuffix([]byte(x.Name), []byte("empty_reads")) {
				n += x.Value
			}
		}
		return n
	}
	last := reads()
	nettest.Eventually(t, wait, "polling to end", func() bool {
		now := reads()
		same := now == last && now > 0
		last = now
		return same
	})
	must(t, e.in.Inject(frame(us, header.IPv4ProtocolNumber, udp(4, nil)))) // and it wakes up
	r.next(t)
}
