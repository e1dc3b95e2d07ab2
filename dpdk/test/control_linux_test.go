// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
)

// receives sends some frames into the interface and waits until testpmd, forwarding "rxonly", has counted them.
func (p *testpmd) receives(port, n, size int) {
	p.t.Helper()
	before := p.stats(port)
	r, err := p.ports[port].injector().Flood(within(p.t, patience), traffic.FloodConfig{Frames: flows(8, size), Count: n})
	must(p.t, err)
	if r.Sent == 0 {
		p.t.Fatal("the interface took nothing")
	}
	nettest.Eventually(p.t, patience, fmt.Sprintf("%d frames to be received", r.Sent), func() bool {
		return p.stats(port)["RX-packets"] >= before["RX-packets"]+uint64(r.Sent)
	})
	want(p.t, "port", p.stats(port), map[string]uint64{"RX-packets": before["RX-packets"] + uint64(r.Sent),
		"RX-bytes": before["RX-bytes"] + uint64(r.Sent*size)})
}

// TestLifeOfAPort goes through what testpmd can do to a port, with packets after each step.
func TestLifeOfAPort(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 2})
	i := p.ports[0]
	p.all("set fwd rxonly", "start")
	p.receives(0, 500, 100)

	for range 3 { // stop, start
		p.stop()
		if l := i.link(); l.Up {
			t.Error("a stopped port's interface is up")
		}
		p.all("port start all", "start")
		p.receives(0, 300, 200)
	}

	// Other numbers of queues and descriptors.
	p.stop()
	p.all("port config all rxq 3", "port config all txq 3", "port config all rxd 64", "port config all txd 128", "port start all", "start")
	p.receives(0, 600, 64)
	if x := p.xstats(0); x["rx_q0_packets"] == 0 || x["rx_q2_packets"] == 0 {
		t.Errorf("three queues: %v", x)
	}
	if s := p.do("show rxq info 0 2"); !strings.Contains(s, "Number of RXDs: 64") || !strings.Contains(s, "mb_pool_0") {
		t.Errorf("show rxq info: %s", s)
	}
	if s := p.do("show txq info 0 2"); !strings.Contains(s, "Number of TXDs: 128") {
		t.Errorf("show txq info: %s", s)
	}

	if s := p.do("show txq info 0 2"); !strings.Contains(s, "Burst mode: uring") {
		t.Errorf("bursts are not by io_uring: %s", s)
	}

	// Statistics begin anew.
	p.do("clear port stats 0")
	want(t, "cleared", p.stats(0), map[string]uint64{"RX-packets": 0, "RX-bytes": 0, "TX-packets": 0})
	p.receives(0, 100, 128)
	p.do("clear port xstats 0")
	want(t, "cleared", p.xstats(0), map[string]uint64{"rx_good_packets": 0, "rx_q0_packets": 0, "rx_q0_size_128_to_255_packets": 0})

	// Close: the port and its interface are gone, the other port is not.
	p.stop()
	p.do("port close 0")
	if !i.gone() {
		t.Error("a closed port's interface is there")
	}
	if _, err := p.ports[1].conn.LinkByName(p.ports[1].name); err != nil {
		t.Errorf("the other port's interface: %v", err)
	}
	p.ports = p.ports[1:]
	p.quit()
}

// registered looks for memory that is registered with the program's rings, of which there are n at least.
func (p *testpmd) registered(n int) {
	p.t.Helper()
	rings := 0
	infos, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", p.cmd.Process.Pid))
	for _, path := range infos {
		info, err := os.ReadFile(path)
		_, bufs, ok := strings.Cut(string(info), "UserBufs:")
		if err != nil || !ok {
			continue
		}
		rings++
		if strings.Fields(bufs)[0] == "0" {
			p.t.Errorf("a ring has no memory registered: %s", info)
		}
	}
	if rings < n {
		p.t.Errorf("%d rings, want %d at least", rings, n)
	}
}

// TestRegisteredMemory looks at the rings that testpmd has: mbufs lie in memory that is registered with each, so that the
// kernel need not look their pages up one by one. testpmd sets up Tx queues before it says what Rx queues' memory is.
func TestRegisteredMemory(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 2})
	p.all("set fwd io", "start")
	p.registered(4)
	p.quit()
}

// TestAttachDetach adds and removes ports while testpmd runs, several times, also one that failed.
func TestAttachDetach(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 1})
	fresh := newIface(t, p.ns, 1)
	var first map[string]int
	for round := range 10 {
		if s := p.do("port attach " + fresh.vdev(1, "")); !strings.Contains(s, "Port 1 is attached") {
			t.Fatalf("attach: %s", s)
		}
		fresh.find()
		p.do("port start 1")
		p.ports = append(p.ports, fresh)
		p.all("set fwd rxonly", "set portlist 0,1", "start")
		p.receives(1, 200, 300)
		p.receives(0, 200, 300)
		p.ports = p.ports[:1]
		p.all("stop", "set portlist 0", "port stop 1")
		detach := "port detach 1"
		if round%2 == 0 {
			p.do("port close 1")
			detach = "device detach " + driver + "1"
		}
		if s := p.do(detach); !strings.Contains(s, "is detached") {
			t.Errorf("%s: %s", detach, s)
		}
		if !fresh.gone() {
			t.Fatal("a detached port's interface is there")
		}
		if s := p.do("port attach " + driver + "1,iface=dp1,colour=red"); !strings.Contains(s, "colour") {
			t.Errorf("a wrong key is not named: %s", s)
		}
		if round == 0 {
			first = p.descriptors()
		}
	}
	for what, n := range p.descriptors() {
		if n > first[what] {
			t.Errorf("%d × %s after ten rounds, %d after the first", n, what, first[what])
		}
	}
	p.quit()
}

// TestMTU raises the MTU to jumbo frames and takes it back, and follows one that the administrator sets.
func TestMTU(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 1, args: []string{"--enable-scatter"}})
	i := p.ports[0]
	for _, mtu := range []int{9000, 1500, 68, 4000} {
		p.do("port stop 0")
		p.do(fmt.Sprintf("port config mtu 0 %d", mtu))
		p.do("port start 0")
		if got := i.link().MTU; got != mtu {
			t.Errorf("the interface's MTU is %d, want %d", got, mtu)
		}
		if got := p.info(0)["MTU"]; got != fmt.Sprint(mtu) {
			t.Errorf("testpmd's MTU is %s, want %d", got, mtu)
		}
		p.all("set fwd rxonly", "start")
		p.receives(0, 200, mtu+14)
		p.stop()
		p.do("port start 0")
	}
	// While it runs.
	p.all("start")
	p.do("port config mtu 0 2000")
	if got := i.link().MTU; got != 2000 {
		t.Errorf("the interface's MTU is %d, want 2000", got)
	}
	p.receives(0, 200, 2014)
	if s := p.do("port config mtu 0 65522"); !strings.Contains(s, "max MTU (65521)") {
		t.Errorf("an MTU of 65522: %s", s)
	}
	p.quit()
}

// TestModes switches promiscuous and all-multicast mode and the link, from testpmd, and looks at the interface.
func TestModes(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 1})
	i := p.ports[0]
	link := func(what string, ok func(l rtnl.Link) bool) {
		t.Helper()
		nettest.Eventually(t, patience, what, func() bool { return ok(i.link()) })
	}
	for _, on := range []bool{false, true, false} {
		word := map[bool]string{true: "on", false: "off"}[on]
		said := map[bool]string{true: "enabled", false: "disabled"}[on]
		p.do("set promisc 0 " + word)
		link("promiscuous mode "+word, func(l rtnl.Link) bool { return l.Promisc == on })
		p.do("set allmulti 0 " + word)
		link("all-multicast mode "+word, func(l rtnl.Link) bool { return l.AllMulti == on })
		if m := p.info(0); m["Promiscuous mode"] != said || m["Allmulticast mode"] != said {
			t.Errorf("modes are %v", m)
		}
		p.all("port stop 0", "port start 0")
		link("promiscuous mode after a restart", func(l rtnl.Link) bool { return l.Promisc == on && l.AllMulti == on })
	}
	// A TAP hands over all group addresses; applications may name some all the same.
	if s := p.do("mcast_addr add 0 01:00:5e:00:00:09"); strings.Contains(s, "failed") {
		t.Errorf("mcast_addr: %s", s)
	}
	p.do("set link-down port 0")
	link("the link to go down", func(l rtnl.Link) bool { return !l.OperUp })
	if got := p.info(0)["Link status"]; got != "down" {
		t.Errorf("link status %q after set link-down", got)
	}
	p.do("set link-up port 0")
	link("the link to go up", func(l rtnl.Link) bool { return l.OperUp })
	nettest.Eventually(t, patience, "testpmd to see the link up", func() bool { return p.info(0)["Link status"] == "up" })
	p.do("mac_addr set 0 02:00:00:00:12:34")
	if got := i.link().MAC.String(); got != "02:00:00:00:12:34" {
		t.Errorf("the interface's address is %s", got)
	}
	if got := p.info(0)["MAC address"]; got != "02:00:00:00:12:34" {
		t.Errorf("testpmd's address is %s", got)
	}
	p.all("set fwd rxonly", "start")
	p.receives(0, 200, 100)
	p.quit()
}

// TestInfo compares what testpmd says of a port with the interface.
func TestInfo(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 1})
	m, l := p.info(0), p.ports[0].link()
	for k, v := range map[string]string{
		"Device name": driver + "0", "Link status": "up", "Link speed": "10 Gbps", "Link duplex": "full-duplex", "Autoneg status": "Off",
		"MTU": "1500", "Maximum number of MAC addresses": "1", "Maximum configurable length of RX packet": "65543",
	} {
		if m[k] != v {
			t.Errorf("%s: %q, want %q", k, m[k], v)
		}
	}
	if !strings.EqualFold(m["MAC address"], l.MAC.String()) {
		t.Errorf("address %s, the interface has %s", m["MAC address"], l.MAC)
	}
	if !strings.Contains(m["Firmware-version"], "rtap") {
		t.Errorf("firmware version %q", m["Firmware-version"])
	}
	if s := p.do("show port 0 rx_offload capabilities"); !strings.Contains(s, "TCP_LRO") || !strings.Contains(s, "SCATTER") {
		t.Errorf("rx offloads: %s", s)
	}
	if s := p.do("show port 0 tx_offload capabilities"); !strings.Contains(s, "TCP_TSO") || !strings.Contains(s, "MULTI_SEGS") {
		t.Errorf("tx offloads: %s", s)
	}
	if s := p.do("show port 0 ptypes"); !strings.Contains(s, "L4_TCP") && !strings.Contains(s, "tcp") && !strings.Contains(s, "TCP") {
		t.Errorf("packet types: %s", s)
	}
	p.quit()
}

// TestDescriptors: a packet that waits can be seen without taking it. The kernel does not say how many do.
func TestDescriptors(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 1})
	says := func(command, text string) {
		t.Helper()
		if s := p.do(command); !strings.Contains(s, text) {
			t.Errorf("%s: %q, want %q", command, s, text)
		}
	}
	says("show port 0 rxq 0 desc used count", "Used desc count = 0")
	says("show port 0 rxq 0 desc 0 status", "AVAILABLE")
	says("show port 0 txq 0 desc 0 status", "DONE")
	must(t, p.ports[0].injector().Inject(flow(0, 100)))
	says("show port 0 rxq 0 desc used count", "Used desc count = 1")
	says("show port 0 rxq 0 desc 0 status", "DONE")
	says("show port 0 rxq 0 desc 256 status", "Invalid")
	p.all("set fwd rxonly", "start")
	nettest.Eventually(t, patience, "the packet to be received", func() bool { return p.stats(0)["RX-packets"] == 1 })
	p.do("stop")
	says("show port 0 rxq 0 desc used count", "Used desc count = 0")
	p.do("port cleanup 0 txq 0 0")
	p.quit()
}

// TestLinkEvents has the administrator change the link; testpmd is called back, and removal is one too.
func TestLinkEvents(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 1})
	i := p.ports[0]
	p.all("set fwd rxonly", "start")
	for range 3 {
		at := p.mark()
		must(t, i.conn.SetDown(i.index))
		p.read(at, "link state change event", patience)
		nettest.Eventually(t, patience, "link down", func() bool { return p.info(0)["Link status"] == "down" })
		at = p.mark()
		must(t, i.conn.SetUp(i.index))
		p.read(at, "link state change event", patience)
		nettest.Eventually(t, patience, "link up", func() bool { return p.info(0)["Link status"] == "up" })
		p.receives(0, 100, 100)
	}
	p.quit()
}

// TestRemovedInterface has the administrator delete the interface. testpmd is told, and goes on.
func TestRemovedInterface(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 2})
	i := p.ports[0]
	p.all("set fwd rxonly", "start")
	p.receives(0, 100, 100)
	// Not while it forwards: it would start again by itself, on EAL's interrupt thread, and not stop when told to.
	p.do("stop")
	at := p.mark()
	must(t, i.conn.Delete(i.index))
	p.read(at, "device removal event", patience)
	// On an alarm of its own, testpmd closes and detaches the port.
	nettest.Eventually(t, patience, "the port to go", func() bool {
		return !strings.Contains(p.do("show port summary all"), driver+"0")
	})
	p.ports[0] = p.ports[1]
	p.do("start")
	p.receives(1, 100, 100)
	p.ports = p.ports[1:]
	p.quit()
}

// TestDevargsErrors: what is wrong is named, there is no port, and nothing is left.
func TestDevargsErrors(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 1})
	for args, names := range map[string]string{
		"colour=red":                "colour",
		"iface=":                    "iface",
		"iface=far-too-long-a-name": "far-too-long-a-name",
		"iface=a/b":                 "a/b",
		"persist=maybe":             "maybe",
		"mtu=1":                     "mtu",
		"mtu=large":                 "large",
		"mac=1:2":                   "1:2",
		"engine=steam":              "steam",
		"txqlen=0":                  "txqlen",
		"netns=/nowhere/to/go":      "/nowhere/to/go",
		"queues=4":                  "queues",
		"iface=x,iface=y":           "twice",
	} {
		s := p.do("port attach " + driver + "7," + args)
		if !strings.Contains(s, names) || strings.Contains(s, "is attached") {
			t.Errorf("%s: %s", args, s)
		}
	}
	links, err := nettest.Conn(t, p.ns).Links()
	must(t, err)
	for _, l := range links {
		if l.Kind == "tun" {
			t.Errorf("interface %s is left", l.Name)
		}
	}
	if s := p.do("show port summary all"); !strings.Contains(s, "Number of available ports: 1") {
		t.Errorf("there is another port: %s", s)
	}
	p.all("set fwd rxonly", "start")
	p.receives(0, 100, 100)
	p.quit()
}

// TestDevargsErrorsAtStart: EAL goes on without the port, or not, but nothing is left.
func TestDevargsErrorsAtStart(t *testing.T) {
	ns := nettest.QuietNS(t)
	p := start(t, program{path: nettest.NeedProgram(t, "dpdk-testpmd"), ns: ns, eal: alone(driver + "0,iface=dp0,colour=red"),
		args: []string{"--total-num-mbufs=" + mbufs}})
	p.in.Close() // it would wait for a key
	select {
	case <-p.done:
	case <-time.After(nettest.Bound(patience)):
		t.Fatal("testpmd does not end")
	}
	if s := p.out.String(); !strings.Contains(s, "colour") {
		t.Errorf("the key is not named: %s", s)
	}
}

// TestAliasAndPersist uses the driver's other name, and leaves the interface there, which is then used again.
func TestAliasAndPersist(t *testing.T) {
	ns := nettest.QuietNS(t)
	conn := nettest.Conn(t, ns)
	var index int
	for range 2 {
		p := &testpmd{process: start(t, program{path: nettest.NeedProgram(t, "dpdk-testpmd"), ns: ns,
			eal: alone(strings.Replace(driver, "net_", "eth_", 1) + "3,iface=keep0,persist"), args: []string{"-i", "--total-num-mbufs=" + mbufs}})}
		p.awaitPrompt(0)
		p.ports = []*iface{{t: t, name: "keep0", ns: ns, conn: conn}}
		p.ports[0].find()
		if index != 0 && index != p.ports[0].index {
			t.Errorf("the interface is another one: %d, was %d", p.ports[0].index, index)
		}
		index = p.ports[0].index
		if m := p.info(0); m["Device name"] != strings.Replace(driver, "net_", "eth_", 1)+"3" {
			t.Errorf("%v", m)
		}
		p.all("set fwd rxonly", "start")
		p.receives(0, 100, 100)
		p.ports = nil
		p.quit()
		if l, err := conn.Link(index); err != nil || !l.Persistent {
			t.Fatalf("the interface has not stayed: %+v, %v", l, err)
		}
	}
	must(t, conn.Delete(index))
}

// TestSignals: testpmd ends in good order by SIGINT and SIGTERM, and leaves no interface when it is killed.
func TestSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			p := startTestpmd(t, pmdConfig{ports: 1})
			p.all("set fwd txonly", "start")
			// Again and again: one that comes just before it reads its input makes testpmd read on.
			nettest.Eventually(t, patience, "testpmd to end", func() bool {
				return p.cmd.Process.Signal(sig) != nil
			})
			<-p.done
			if s := p.out.String(); sig != syscall.SIGKILL && !strings.Contains(s, "Bye...") {
				t.Errorf("testpmd did not end in good order: %v", p.err)
			}
			nettest.Eventually(t, patience, "the interface to go", p.ports[0].gone)
		})
	}
}
