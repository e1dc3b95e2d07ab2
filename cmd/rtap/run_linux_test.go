// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
)

// engines are those that work here.
func engines() []string {
	if nettest.UringForbidden() {
		return []string{"syscall"}
	}
	return []string{"uring", "syscall"}
}

// parseReport reads what --json printed.
func (p *process) parseReport() report {
	p.t.Helper()
	var r report
	p.decode(&r)
	return r
}

// forwarding waits until all ports are open and packets move.
func (p *process) forwarding() {
	p.t.Helper()
	nettest.Eventually(p.t, 10*time.Second, "rtap run says what it does", func() bool {
		return strings.Contains(p.out.String()+p.err.String(), "worker 0: RX P=0/Q=0")
	})
}

// up waits until the command's interface is there and up, and returns it.
func (p *process) up(c *rtnl.Conn, name string) rtnl.Link {
	p.t.Helper()
	var link rtnl.Link
	nettest.Eventually(p.t, 10*time.Second, "interface "+name+" comes up", func() bool {
		l, err := c.LinkByName(name)
		link = l
		return err == nil && l.Up
	})
	return link
}

func TestRunJSON(t *testing.T) {
	for _, engine := range engines() {
		t.Run(engine, func(t *testing.T) {
			ns := nettest.NS(t)
			p := start(t, ns, "run", "--vdev=net_rtap7,iface=foo0,mac=02:00:00:00:00:07", "--forward-mode=txonly",
				"--txpkts=42,58", "--duration=0.2", "--json", "--engine="+engine, "--stats-period", "0.05")
			p.wait(exitDone)
			// The names that users' scripts rely on.
			for _, name := range []string{"name", "interface", "ifindex", "ipackets", "opackets", "ibytes", "obytes",
				"imissed", "ierrors", "oerrors", "rx_nombuf", "duration"} {
				if !strings.Contains(p.out.String(), `"`+name+`":`) {
					t.Errorf("no %q in %s", name, &p.out)
				}
			}
			if !strings.Contains(p.err.String(), "tx pkt/s") || !strings.Contains(p.err.String(), "Totals") {
				t.Errorf("no live table or no totals on stderr: %s", &p.err)
			}
			r := p.parseReport()
			port := r.Ports[0]
			if len(r.Ports) != 1 || port.Name != "net_rtap7" || port.Interface != "foo0" || port.IfIndex == 0 ||
				string(port.Engine) != engine || port.Error != "" {
				t.Errorf("ports are %+v", r.Ports)
			}
			if port.OPackets == 0 || port.OBytes != 100*port.OPackets || port.OErrors != 0 || r.Forward.TxPackets != port.OPackets {
				t.Errorf("statistics are %+v, forwarded %+v", port.Stats, r.Forward)
			}
			if r.Duration < 0.2 || r.Duration != r.DurationSeconds {
				t.Errorf("duration is %v, in seconds %v", r.Duration, r.DurationSeconds)
			}
		})
	}
}

// TestRunSignals: both signals end it well, and the interface goes, or stays.
func TestRunSignals(t *testing.T) {
	for _, c := range []struct {
		sig     syscall.Signal
		persist string
	}{{syscall.SIGINT, ""}, {syscall.SIGTERM, ",persist"}} {
		ns := nettest.NS(t)
		conn := nettest.Conn(t, ns)
		p := start(t, ns, "run", "--vdev=net_rtap0,iface=foo0,mtu=9000,txqlen=77"+c.persist)
		link := p.up(conn, "foo0")
		if link.MTU != 9000 || link.TxQueueLen != 77 {
			t.Errorf("the interface is %+v", link)
		}
		p.end(c.sig, exitDone)
		if !strings.Contains(p.out.String(), "Totals after") {
			t.Errorf("no totals: %s", &p.out)
		}
		_, err := conn.LinkByName("foo0")
		switch {
		case c.persist == "" && !errors.Is(err, rtnl.ErrNotFound):
			t.Errorf("%v: the interface is still there (%v)", c.sig, err)
		case c.persist != "" && err != nil:
			t.Errorf("%v: the persistent interface: %v", c.sig, err)
		case err == nil:
			if err := conn.Delete(link.Index); err != nil {
				t.Error(err)
			}
		}
	}
}

// cableEnd moves an interface to a namespace of its own and gives it an address
// there, as a user does with ip(8).
func cableEnd(t *testing.T, from *rtnl.Conn, link rtnl.Link, i int) *netns.NS {
	t.Helper()
	ns := nettest.NS(t)
	moveEnd(t, from, link, i, ns)
	return ns
}

// moveEnd is cableEnd with a namespace that is there.
func moveEnd(t *testing.T, from *rtnl.Conn, link rtnl.Link, i int, ns *netns.NS) {
	t.Helper()
	if err := from.SetNetNS(link.Index, ns.FD()); err != nil {
		t.Fatal(err)
	}
	c := nettest.Conn(t, ns)
	l, err := c.LinkByName(link.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.SetUp(l.Index), c.AddAddr(l.Index, cable4[i])); err != nil {
		t.Fatal(err)
	}
}

// TestRunForwards sends the kernel's own traffic through a forwarder whose
// interfaces were moved to other namespaces while it ran.
func TestRunForwards(t *testing.T) {
	for _, c := range []struct{ name, more string }{
		{"one queue", ""},
		{"queues and cores", "--rxq=3 --nb-cores=2 --burst=7 --rxd=16 --txd=5"},
		{"small mbufs", "--mbuf-size=384"},
	} {
		for _, engine := range engines() {
			t.Run(c.name+"/"+engine, func(t *testing.T) {
				ns := nettest.NS(t)
				conn := nettest.Conn(t, ns)
				args := append([]string{"run", "--json", "--engine", engine, "--vdev=net_rtap0,iface=foo0", "--vdev", "eth_rtap1,iface=foo1"},
					strings.Fields(c.more)...)
				p := start(t, ns, args...)
				a := cableEnd(t, conn, p.up(conn, "foo0"), 0)
				b := cableEnd(t, conn, p.up(conn, "foo1"), 1)
				through(t, a, b, int64(nettest.Scale(2<<20)))
				p.end(syscall.SIGINT, exitDone)
				checkForwarded(t, p.parseReport(), int64(nettest.Scale(2<<20)))
			})
		}
	}
}

// through sends pings and a TCP stream from a to b.
func through(t *testing.T, a, b *netns.NS, bytes int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(20*time.Second))
	defer cancel()
	r, err := traffic.Ping(ctx, traffic.PingConfig{NS: a, Dst: cable4[1].Addr(), Count: 5, Timeout: nettest.Bound(time.Second)})
	if err != nil || r.Lost() > 0 {
		t.Fatalf("%d of %d pings lost (%v), %v", r.Lost(), r.Sent, r.Unreachable, err)
	}
	if _, err := traffic.TCP(ctx, traffic.TCPConfig{Client: a, Server: b, Addr: netip.AddrPortFrom(cable4[1].Addr(), 0), Bytes: bytes}); err != nil {
		t.Fatal(err)
	}
}

func checkForwarded(t *testing.T, r report, bytes int64) {
	t.Helper()
	if len(r.Ports) != 2 {
		t.Fatalf("%d ports", len(r.Ports))
	}
	foo0, foo1 := r.Ports[0], r.Ports[1]
	// The first end to come up announces itself by IPv6; if the other is still down, that counts in oerrors.
	if foo0.IBytes < uint64(bytes) || foo1.IPackets < 5 ||
		foo0.IPackets != foo1.OPackets+foo1.OErrors || foo1.IPackets != foo0.OPackets+foo0.OErrors {
		t.Errorf("the ports counted %+v and %+v", foo0.Stats, foo1.Stats)
	}
	if foo0.IErrors+foo1.IErrors+foo0.RxNoMbuf+foo1.RxNoMbuf > 0 || foo0.Error+foo1.Error != "" {
		t.Errorf("errors: %+v, %+v", foo0, foo1)
	}
	if foo0.Interface != "foo0" || foo1.Interface != "foo1" || foo1.Name != "eth_rtap1" || foo0.IfIndex == 0 {
		t.Errorf("the ports are %+v, %+v", foo0, foo1)
	}
}

// TestRunInterfaceDeleted: the other port goes on, and the exit code says that
// something was wrong.
func TestRunInterfaceDeleted(t *testing.T) {
	ns := nettest.NS(t)
	conn := nettest.Conn(t, ns)
	p := start(t, ns, "run", "--json", "--forward-mode=icmpecho", "--vdev=net_rtap0,iface=foo0", "--vdev=net_rtap1,iface=foo1")
	p.forwarding()
	foo0, foo1 := p.up(conn, "foo0"), p.up(conn, "foo1")
	if err := errors.Join(conn.Delete(foo0.Index), conn.AddAddr(foo1.Index, cable4[0])); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(10*time.Second))
	defer cancel()
	r, err := traffic.Ping(ctx, traffic.PingConfig{NS: ns, Dst: cable4[1].Addr(), Count: 3, Timeout: nettest.Bound(time.Second)})
	if err != nil || r.Lost() > 0 {
		t.Errorf("the other port does not answer: %+v, %v", r, err)
	}
	p.end(syscall.SIGINT, exitFailed)
	if !strings.Contains(p.err.String(), "foo0 was deleted; 1 port left") || !strings.Contains(p.err.String(), "lost its interface foo0") {
		t.Errorf("stderr: %s", &p.err)
	}
	rep := p.parseReport()
	if rep.Ports[0].Error == "" || rep.Ports[1].Error != "" || rep.Ports[1].IPackets < 3 {
		t.Errorf("ports: %+v", rep.Ports)
	}
}

// TestRunAllDeleted: with no port left it ends by itself.
func TestRunAllDeleted(t *testing.T) {
	ns := nettest.NS(t)
	conn := nettest.Conn(t, ns)
	p := start(t, ns, "run", "--vdev=net_rtap0,iface=foo0")
	p.forwarding()
	if err := conn.Delete(p.up(conn, "foo0").Index); err != nil {
		t.Fatal(err)
	}
	p.wait(exitFailed)
	if !strings.Contains(p.err.String(), "lost its interface foo0") || !strings.Contains(p.out.String(), "0 ports left") {
		t.Errorf("stderr: %s", &p.err)
	}
}

// TestRunErrors: what cannot work says what to do, with exit code 1.
func TestRunErrors(t *testing.T) {
	ns := nettest.NS(t)
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"foreign interface", []string{"--vdev=net_rtap0,iface=lo"}, []string{"lo", "not a multi-queue TAP", "choose another name"}},
		{"foreign interface, TUN", []string{"--vdev=net_rtap0,iface=lo,mode=tun"}, []string{"lo", "not a multi-queue TUN", "choose another name"}},
		{"no memory", []string{"--vdev=net_rtap0", "--mbuf-size=65535", fmt.Sprint("--total-num-mbufs=", 1<<26-2)}, []string{"bytes", "--total-num-mbufs"}},
		{"no namespace", []string{"--vdev=net_rtap0,netns=/nowhere"}, []string{"/nowhere", "no such file"}},
		{"taken twice", []string{"--vdev=net_rtap0,iface=foo0,persist", "--vdev=net_rtap1,iface=foo0"}, []string{"port net_rtap1", "foo0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := start(t, ns, append([]string{"run", "--duration=0.1"}, c.args...)...)
			p.wait(exitFailed)
			for _, w := range c.want {
				if !strings.Contains(p.err.String(), w) {
					t.Errorf("stderr does not say %q: %s", w, &p.err)
				}
			}
			if _, err := nettest.Conn(t, ns).LinkByName("foo0"); !errors.Is(err, rtnl.ErrNotFound) {
				t.Errorf("an interface is left: %v", err)
			}
		})
	}
	// What only shows when everything is put together is a usage error, too.
	p := start(t, ns, "run", "--vdev=net_rtap0", "--forward-mode=fly")
	p.wait(exitUsage)
	p = start(t, ns, "run", "--vdev=net_rtap0,queues=2", "--vdev=net_rtap1", "--duration=1")
	p.wait(exitUsage)
	p = start(t, ns, "run", "--vdev=net_rtap0,mode=tun", "--forward-mode=macswap", "--duration=1")
	p.wait(exitUsage)
	wantText(t, p.err.String(), "needs MAC addresses")
	p = start(t, ns, "run", "--vdev=net_rtap0,mode=tun", "--vdev=net_rtap1", "--duration=1")
	p.wait(exitUsage)
	wantText(t, p.err.String(), "pair ports of the same kind")
	p = start(t, ns, "run", "--vdev=net_rtap0,mode=tun,mac=02:00:00:00:00:01", "--duration=1")
	p.wait(exitUsage)
	wantText(t, p.err.String(), "a TUN has no MAC address")
}

// startWithoutPrivileges starts the command with no capabilities: as an unknown
// user of a user namespace of its own.
func startWithoutPrivileges(t *testing.T, args ...string) *process {
	t.Helper()
	p := prepare(t, args...)
	if os.Geteuid() == 0 {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	}
	nettest.NeedProbe(t, "user namespaces", func() error {
		err := p.startIn(nil)
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSPC) {
			return errors.Join(err, errors.ErrUnsupported)
		}
		return err
	})
	return p
}

func TestWithoutPrivileges(t *testing.T) {
	nettest.NeedTun(t)
	p := startWithoutPrivileges(t, "run", "--vdev=net_rtap0", "--duration=1")
	p.wait(exitFailed)
	if !strings.Contains(p.err.String(), "CAP_NET_ADMIN") || !strings.Contains(p.err.String(), "root") {
		t.Errorf("run: %s", &p.err)
	}
	for _, verb := range []string{"bench", "demo"} {
		p := startWithoutPrivileges(t, verb)
		p.wait(exitFailed)
		if !strings.Contains(p.err.String(), "CAP_SYS_ADMIN") {
			t.Errorf("%s: %s", verb, &p.err)
		}
	}
	p = startWithoutPrivileges(t, "info", "--json")
	p.wait(exitDone)
	r := p.parseInfo()
	if r.Works || !strings.Contains(r.Reason, "CAP_NET_ADMIN") {
		t.Errorf("info: works is %v, reason %q", r.Works, r.Reason)
	}
}
