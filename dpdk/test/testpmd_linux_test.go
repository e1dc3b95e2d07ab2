// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
)

const (
	prompt   = "testpmd> "
	patience = 30 * time.Second // for a command
)

// testpmd is dpdk-testpmd, which takes commands.
type testpmd struct {
	*process
	ports []*iface
}

// iface is a port's interface, in a namespace of its own, in which the kernel says nothing unasked.
type iface struct {
	t     testing.TB
	name  string
	ns    *netns.NS
	conn  *rtnl.Conn
	index int
}

// vdev is how --vdev describes the port.
func (i *iface) vdev(n int, more string) string {
	if driver == "net_tap" {
		return fmt.Sprintf("net_tap%d,iface=%s%s", n, i.name, more)
	}
	return fmt.Sprintf("%s%d,iface=%s,netns=/proc/%d/fd/%d%s", driver, n, i.name, os.Getpid(), i.ns.FD(), more)
}

// newIface says where a port's interface will be. DPDK's own driver knows only its program's namespace.
func newIface(t testing.TB, ns *netns.NS, n int) *iface {
	t.Helper()
	if ns == nil || driver != "net_tap" {
		ns = nettest.QuietNS(t)
	}
	return &iface{t: t, name: fmt.Sprintf("dp%d", n), ns: ns, conn: nettest.Conn(t, ns)}
}

// find looks the interface up, once it is there.
func (i *iface) find() {
	i.t.Helper()
	l, err := i.conn.LinkByName(i.name)
	if err != nil {
		i.t.Fatal(err)
	}
	i.index = l.Index
}

// link is the interface as the kernel describes it now.
func (i *iface) link() rtnl.Link {
	i.t.Helper()
	l, err := i.conn.Link(i.index)
	if err != nil {
		i.t.Fatal(err)
	}
	return l
}

// gone says that the interface is not there.
func (i *iface) gone() bool {
	_, err := i.conn.LinkByName(i.name)
	return err != nil
}

func (i *iface) injector() *traffic.Injector {
	i.t.Helper()
	in, err := traffic.NewInjector(i.ns, i.index)
	must(i.t, err)
	i.t.Cleanup(func() { in.Close() })
	return in
}

func (i *iface) capturer() *traffic.Capturer {
	i.t.Helper()
	c, err := traffic.NewCapturer(i.ns, i.index)
	must(i.t, err)
	i.t.Cleanup(func() { c.Close() })
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pmdConfig is how to start a testpmd.
type pmdConfig struct {
	ports int      // how many
	more  string   // of each port's devargs, with a comma in front
	eal   []string // nil: alone
	args  []string
	limit time.Duration
}

// startTestpmd starts testpmd with ports and waits until it takes commands.
func startTestpmd(t testing.TB, cfg pmdConfig) *testpmd {
	t.Helper()
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	p := &testpmd{}
	eal := cfg.eal
	if eal == nil {
		eal = alone()
	}
	for n := range cfg.ports {
		i := newIface(t, ns, n)
		p.ports = append(p.ports, i)
		eal = append(eal, "--vdev="+i.vdev(n, cfg.more))
	}
	p.process = start(t, program{path: nettest.NeedProgram(t, "dpdk-testpmd"), ns: ns, eal: eal, limit: cfg.limit,
		args: append([]string{"-i", "--total-num-mbufs=" + mbufs, "--mbcache=64"}, cfg.args...)})
	p.awaitPrompt(0)
	for _, i := range p.ports {
		i.find()
	}
	return p
}

// mbufs is how many testpmd has.
const mbufs = "4096"

// event is what testpmd says when it is called back: in the middle of whatever else it says, even its prompt.
var (
	event       = regexp.MustCompile(`Port \d+: [\w ]+ event\n`)
	splitPrompt = regexp.MustCompile(strings.Join(strings.Split(prompt, ""), "\n*"))
)

// awaitPrompt waits until testpmd takes the next command, and returns what it has written from position at on.
func (p *testpmd) awaitPrompt(at int) (said string) {
	p.t.Helper()
	p.await(at, "its prompt", patience, func(s string) bool {
		s = event.ReplaceAllString(s, "")
		i := splitPrompt.FindStringIndex(s)
		if i != nil {
			said = s[:i[0]]
		}
		return i != nil
	})
	return said
}

// do gives testpmd a command and returns what it says.
func (p *testpmd) do(command string) string {
	p.t.Helper()
	at := p.mark()
	p.write(command)
	s := p.awaitPrompt(at)
	_, s, _ = strings.Cut(s, "\n") // the command itself
	if strings.Contains(s, "Bad arguments") || strings.Contains(s, "Command not found") || strings.Contains(s, "Ambiguous command") {
		p.t.Fatalf("testpmd does not know %q: %s", command, s)
	}
	return s
}

// all gives it several.
func (p *testpmd) all(commands ...string) {
	p.t.Helper()
	for _, c := range commands {
		p.do(c)
	}
}

var (
	counter = regexp.MustCompile(`([\w-]+):\s+(\d+)`)
	field   = regexp.MustCompile(`(?m)^([A-Z][^:\n]*): *([^\r\n]*)`)
)

// counters reads "name: number", as often as it is there. The last one of a name counts.
func counters(s string) map[string]uint64 {
	m := map[string]uint64{}
	for _, f := range counter.FindAllStringSubmatch(s, -1) {
		m[f[1]], _ = strconv.ParseUint(f[2], 10, 64)
	}
	return m
}

// stats are RX-packets, RX-bytes, TX-packets, TX-bytes, RX-missed, RX-errors, TX-errors, RX-nombuf of the port.
func (p *testpmd) stats(port int) map[string]uint64 {
	p.t.Helper()
	m := counters(p.do(fmt.Sprintf("show port stats %d", port)))
	if _, ok := m["RX-packets"]; !ok {
		p.t.Fatalf("port %d has no statistics", port)
	}
	return m
}

// xstats are the port's extended statistics.
func (p *testpmd) xstats(port int) map[string]uint64 {
	p.t.Helper()
	m := counters(p.do(fmt.Sprintf("show port xstats %d", port)))
	if _, ok := m["rx_good_packets"]; !ok {
		p.t.Fatalf("port %d has no extended statistics: %v", port, m)
	}
	return m
}

// fwd is what the forwarding engine has counted in all: RX-packets, RX-dropped, TX-packets, TX-dropped.
func (p *testpmd) fwd() map[string]uint64 {
	p.t.Helper()
	_, s, ok := strings.Cut(p.do("show fwd stats all"), "Accumulated forward statistics")
	if !ok {
		p.t.Fatal("no forward statistics")
	}
	return counters(s)
}

// info is what testpmd says of the port, by its words for it, such as "Link status".
func (p *testpmd) info(port int) map[string]string {
	p.t.Helper()
	m := map[string]string{}
	for _, f := range field.FindAllStringSubmatch(p.do(fmt.Sprintf("show port info %d", port)), -1) {
		m[f[1]] = strings.TrimSpace(f[2])
	}
	if m["Driver name"] != driver {
		p.t.Fatalf("port %d is of %q: %v", port, m["Driver name"], m)
	}
	return m
}

// full says how many mbufs are missing in the program's memory pools, all of which must have been given back.
// Those in the caches of lcores count as given back: they are the pool's.
func (p *testpmd) full() {
	p.t.Helper()
	for _, pool := range regexp.MustCompile(`mempool <(\w+)>`).FindAllStringSubmatch(p.do("dump_mempool"), -1) {
		if !strings.HasPrefix(pool[1], "mb_pool") {
			continue
		}
		missing := func() int {
			m := map[string]int{}
			for _, f := range regexp.MustCompile(`\b(size|total_cache_count|common_pool_count)=(\d+)`).FindAllStringSubmatch(p.do("dump_mempool "+pool[1]), -1) {
				m[f[1]], _ = strconv.Atoi(f[2])
			}
			if m["size"] == 0 {
				p.t.Fatalf("mempool %s has no size: %v", pool[1], m)
			}
			return m["size"] - m["total_cache_count"] - m["common_pool_count"]
		}
		if n := missing(); n != 0 {
			p.t.Errorf("mempool %s lacks %d mbufs", pool[1], n)
		}
	}
}

// stop ends forwarding, stops the ports, and looks whether all mbufs are there.
func (p *testpmd) stop() {
	p.t.Helper()
	p.all("stop", "port stop all")
	p.full()
}

// quit is stop, then the program's end, which must be one in good order, and leave nothing.
func (p *testpmd) quit() {
	p.t.Helper()
	p.stop()
	p.write("quit")
	p.wait(0)
	if s := p.out.String(); !strings.Contains(s, "Bye...") || strings.Contains(s, "panic") || strings.Contains(s, "fatal error") {
		p.t.Error("testpmd did not end in good order")
	}
	for _, i := range p.ports {
		if !i.gone() {
			p.t.Errorf("interface %s is left", i.name)
		}
	}
}

// want compares some counters.
func want(t testing.TB, what string, got, want map[string]uint64) {
	t.Helper()
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if got[k] != want[k] {
			t.Errorf("%s: %s is %d, want %d", what, k, got[k], want[k])
		}
	}
}
