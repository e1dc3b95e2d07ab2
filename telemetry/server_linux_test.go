// SPDX-License-Identifier: BSD-3-Clause

package telemetry

import (
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/runtimedir"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

const wait = 10 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newDir is a directory with a short path, for the prefixes of one test.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "rtap")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// startPort is a port with queues queue pairs, in ns, whose packets are in mbufs of pool.
func startPort(t *testing.T, ns *netns.NS, name string, queues int, pool *mbuf.Pool) *rtap.Device {
	t.Helper()
	d, err := rtap.Open(rtap.Config{Name: name, Queues: queues, NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.FD()),
		MAC: net.HardwareAddr{2, 0, 0, 0, 0, 0xab}})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	must(t, d.Configure(rtap.PortConfig{RxQueues: queues, TxQueues: queues}))
	for i := range queues {
		must(t, d.SetupRxQueue(i, rtap.RxConfig{Ring: 64, Memory: pool}))
		must(t, d.SetupTxQueue(i, rtap.TxConfig{}))
	}
	must(t, d.Start())
	return d
}

func newPool(t *testing.T, name string) *mbuf.Pool {
	t.Helper()
	pool, err := mbuf.NewPool(mbuf.Config{Name: name, Count: 1024})
	must(t, err)
	t.Cleanup(func() { must(t, pool.Close()) })
	return pool
}

func mustServe(t *testing.T, cfg Config, l limits) *Server {
	t.Helper()
	s, err := serve(cfg, l)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// conn speaks to the server as it comes.
type conn struct {
	*net.UnixConn
	t *testing.T
}

func connect(t *testing.T, dir, prefix string) *conn {
	t.Helper()
	c, err := runtimedir.Dial(dir, prefix, runtimedir.SocketName)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.SetDeadline(time.Now().Add(nettest.Bound(wait))))
	return &conn{c, t}
}

// read is the next message, "" at the end.
func (c *conn) read() string {
	c.t.Helper()
	b := make([]byte, maxOutput+1)
	n, err := c.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("the server does not answer")
	}
	return string(b[:n])
}

// ask is the answer to a request.
func (c *conn) ask(request string) string {
	c.t.Helper()
	_, err := c.Write([]byte(request))
	must(c.t, err)
	return c.read()
}

// frame is n bytes that only packet sockets see.
func frame(n int) []byte {
	f := make([]byte, n)
	copy(f, []byte{2, 0, 0, 0, 0, 0xab, 2, 0, 0, 0, 0, 1, 0x88, 0xb5})
	return f
}

// receive takes n packets, sends the first sent of them, and frees the others.
func receive(t *testing.T, d *rtap.Device, n, sent int) {
	t.Helper()
	bufs := make([]*mbuf.Mbuf, n)
	got := 0
	nettest.Eventually(t, wait, fmt.Sprintf("%d packets are received", n), func() bool {
		for i := range d.Info().RxQueues {
			got += d.RxQueue(i).Burst(bufs[got:])
		}
		return got == n
	})
	k := d.TxQueue(0).Burst(bufs[:sent])
	mbuf.FreeBulk(bufs[k:])
	if k != sent {
		t.Fatalf("sent %d packets of %d", k, sent)
	}
}

// TestReplies compares with what DPDK's own library answers, in its words.
func TestReplies(t *testing.T) {
	ns, pool, dir := nettest.QuietNS(t), newPool(t, "my, pool"), newDir(t)
	d := startPort(t, ns, "foo0", 2, pool)
	inj, err := traffic.NewInjector(ns, d.Info().IfIndex)
	must(t, err)
	defer inj.Close()
	for range 3 {
		must(t, inj.Inject(frame(100)))
	}
	receive(t, d, 3, 2)
	q0, err := d.QueueStats(0)
	must(t, err)
	q1, err := d.QueueStats(1)
	must(t, err)
	xstats, err := d.XStats()
	must(t, err)
	var x []string
	for _, s := range xstats {
		x = append(x, fmt.Sprintf(`"%s":%d`, s.Name, s.Value))
	}
	mustServe(t, Config{Dir: dir, FilePrefix: "p", Ports: []Port{{7, "net_rtap7", d}}, Pools: []*mbuf.Pool{pool}, Version: "test 1"}, defaultLimits)
	c := connect(t, dir, "p")
	hello := fmt.Sprintf(`{"version":"DPDK 24.11.0 / test 1","pid":%d,"max_output_len":65536}`, os.Getpid())
	if got := c.read(); got != hello {
		t.Errorf("greeting is %s, want %s", got, hello)
	}
	var args []string
	for _, a := range os.Args {
		args = append(args, string(marshal(a)))
	}
	for _, g := range []struct{ request, want string }{
		{"/info", hello},
		{"/", `["/","/eal/app_params","/eal/params","/ethdev/info","/ethdev/link_status","/ethdev/list","/ethdev/stats","/ethdev/xstats",` +
			`"/help","/info","/mempool/info","/mempool/list","/rtap/info","/rtap/ports","/rtap/processes","/rtap/stats"]`},
		{"/help,/ethdev/list", `{"/ethdev/list":"Returns list of available ethdev ports. Takes no parameters"}`},
		{"/help", `{"/help":"Returns help text for a command. Parameters: string command"}`},
		{"/help,/nothing", `null`},
		{"/nothing", `null`},
		{"/ethdev/list", `[7]`},
		{"/ethdev/list,whatever", `[7]`},
		{"/ethdev/stats,7", fmt.Sprintf(`{"ipackets":3,"opackets":2,"ibytes":300,"obytes":200,"imissed":0,"ierrors":0,"oerrors":0,"rx_nombuf":0,`+
			`"q_ipackets":[%d,%d],"q_opackets":[2,0],"q_ibytes":[%d,%d],"q_obytes":[200,0],"q_errors":[0,0]}`, q0.IPackets, q1.IPackets, q0.IBytes, q1.IBytes)},
		{"/ethdev/xstats,7", "{" + strings.Join(x, ",") + "}"},
		{"/ethdev/xstats,7,first=2", "{" + strings.Join(x[2:], ",") + "}"},
		{"/ethdev/xstats,7,first=9999", "{}"},
		{"/ethdev/xstats,7,colour=red,hide_zero=false", "{" + strings.Join(x, ",") + "}"},
		{"/ethdev/xstats,7,hide_zero=true", "{" + strings.Join(slices.DeleteFunc(slices.Clone(x), func(s string) bool { return strings.HasSuffix(s, `":0`) }), ",") + "}"},
		{"/ethdev/link_status,7", `{"status":"UP","speed":10000,"duplex":"full-duplex"}`},
		{"/ethdev/info,7", `{"name":"net_rtap7","state":1,"nb_rx_queues":2,"nb_tx_queues":2,"port_id":7,"mtu":1500,"rx_mbuf_size_min":128,` +
			`"rx_mbuf_alloc_fail":0,"mac_addr":"02:00:00:00:00:AB","promiscuous":0,"scattered_rx":0,"all_multicast":0,"dev_started":1,"lro":0,` +
			`"dev_configured":1,"rxq_state":[1,1],"txq_state":[1,1],"numa_node":-1,"dev_flags":"0x0","rx_offloads":[],"tx_offloads":[],"ethdev_rss_hf":"0x0"}`},
		{"/mempool/list", `["my, pool"]`},
		{"/mempool/info", `null`},
		{"/mempool/info,none", `{}`},
		{"/mempool/info,my, pool", fmt.Sprintf(`{"name":"my, pool","pool_id":0,"flags":0,"socket_id":-1,"size":1024,"elt_size":2304,"populated_size":1024,`+
			`"total_cache_count":0,"common_pool_count":%d,"mz_name":"my, pool","mz_len":%d,"in_use_count":%d,"exhausted":0}`,
			pool.AvailCount(), pool.SizeBytes(), pool.InUseCount())},
		{"/eal/params", `[]`},
		{"/eal/app_params", "[" + strings.Join(args, ",") + "]"},
		{"/rtap/processes,7", `[]`},
		{"/rtap/ports", `[{"port_id":7,"name":"net_rtap7","interface":"foo0","engine":"` + string(d.Info().Engine) + `","rx_offloads":[],"tx_offloads":[]}]`},
		{"", ""}, // of SOCK_SEQPACKET this is the end
	} {
		name, _, _ := strings.Cut(g.request, ",")
		want := `{"` + name + `":` + g.want + `}`
		if g.request == "" {
			want = ""
		}
		if got := c.ask(g.request); got != want {
			t.Errorf("%q is\n%s, want\n%s", g.request, got, want)
		}
	}
	if inUse := pool.InUseCount(); inUse == 0 {
		t.Error("no mbuf is in use")
	}
}

// TestBadPorts: what names no port is answered by null, by every command that takes one.
func TestBadPorts(t *testing.T) {
	dir := newDir(t)
	d := startPort(t, nettest.QuietNS(t), "foo0", 1, newPool(t, "p"))
	mustServe(t, Config{Dir: dir, Ports: []Port{{0, "a", d}, {65535, "b", d}}}, defaultLimits)
	c := connect(t, dir, DefaultFilePrefix)
	c.read()
	for _, name := range []string{"/ethdev/info", "/ethdev/stats", "/ethdev/xstats", "/ethdev/link_status", "/rtap/info", "/rtap/processes", "/rtap/stats"} {
		for _, params := range []string{"", ",", ",1", ",-1", ",65536", ",99999999999999999999", ",x", ", 0", ",0x", ",+0", ",0 "} {
			if got, want := c.ask(name+params), `{"`+name+`":null}`; got != want {
				t.Errorf("%s%s: %s", name, params, got)
			}
		}
		for _, params := range []string{",0", ",65535", ",0,more"} {
			if got := c.ask(name + params); strings.HasSuffix(got, ":null}") {
				t.Errorf("%s%s: %s", name, params, got)
			}
		}
	}
}

// TestTUN: a port without Ethernet says so, and has no MAC address, for which DPDK's reply has zeros.
func TestTUN(t *testing.T) {
	ns, dir := nettest.QuietNS(t), newDir(t)
	d, err := rtap.Start(rtap.Config{Mode: rtap.ModeTUN, NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.FD())})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	mustServe(t, Config{Dir: dir, Ports: []Port{{0, "a", d}}}, defaultLimits)
	c := connect(t, dir, "rtap")
	c.read()
	for request, word := range map[string]string{
		"/ethdev/info,0": `"mac_addr":"00:00:00:00:00:00"`, "/ethdev/link_status,0": `"status":"UP"`, "/rtap/info,0": `"mode":"tun"`,
	} {
		if got := c.ask(request); !strings.Contains(got, word) {
			t.Errorf("%s: no %s in %s", request, word, got)
		}
	}
}

// TestStates: a port that is stopped, unplugged, loses its interface and is closed is shown as such.
func TestStates(t *testing.T) {
	ns, dir := nettest.QuietNS(t), newDir(t)
	link := nettest.Conn(t, ns)
	d := startPort(t, ns, "foo0", 1, newPool(t, "p"))
	mustServe(t, Config{Dir: dir, Ports: []Port{{0, "a", d}}}, defaultLimits)
	c := connect(t, dir, "rtap")
	c.read()
	see := func(what, status string, words ...string) {
		t.Helper()
		if got, want := c.ask("/ethdev/link_status,0"), `{"/ethdev/link_status":{"status":"`+status; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
		info := c.ask("/ethdev/info,0")
		for _, w := range words {
			if !strings.Contains(info, w) {
				t.Errorf("%s: no %s in %s", what, w, info)
			}
		}
	}
	see("started", "UP", `"state":1`, `"dev_started":1`, `"rxq_state":[1]`)
	must(t, d.SetCarrier(false))
	see("unplugged", "DOWN", `"state":1`, `"dev_started":1`)
	must(t, d.SetCarrier(true))
	must(t, d.SetPromiscuous(true))
	must(t, d.SetAllMulticast(true))
	see("promiscuous", "UP", `"promiscuous":1`, `"all_multicast":1`)
	must(t, d.Stop())
	must(t, d.Configure(rtap.PortConfig{RxQueues: 2, TxQueues: 2, RxOffloads: rtap.RxOffloadTCPLRO | rtap.RxOffloadScatter, TxOffloads: rtap.TxOffloadVLANInsert}))
	see("stopped", "DOWN", `"dev_started":0`, `"rxq_state":[0,0]`, `"lro":1`, `"scattered_rx":1`, `"rx_offloads":["TCP_LRO","SCATTER"]`, `"tx_offloads":["VLAN_INSERT"]`)
	must(t, link.Delete(d.Info().IfIndex))
	see("gone", "DOWN", `"state":2`, `"mtu":0`, `"mac_addr":"00:00:00:00:00:00"`, `"name":"a"`)
	must(t, d.Close())
	see("closed", "DOWN", `"state":2`)
	if got := c.ask("/ethdev/stats,0"); got != `{"/ethdev/stats":null}` {
		t.Errorf("statistics of a closed port: %s", got)
	}
}

func TestClient(t *testing.T) {
	ns, dir := nettest.QuietNS(t), newDir(t)
	pool := newPool(t, "p")
	d := startPort(t, ns, "foo0", 3, pool)
	s := mustServe(t, Config{Dir: dir, FilePrefix: "p", Ports: []Port{{0, "net_rtap0", d}, {4, "net_rtap4", d}}}, defaultLimits)
	if s.FilePrefix() != "p" || s.Path() != dir+"/dpdk/p/dpdk_telemetry.v2" {
		t.Errorf("served with prefix %s at %s", s.FilePrefix(), s.Path())
	}
	c, err := Dial(dir, "p")
	must(t, err)
	defer c.Close()
	if c.Hello() != s.hello(maxOutput) {
		t.Errorf("greeting %+v", c.Hello())
	}
	names, err := c.Commands()
	if err != nil || !slices.Contains(names, "/rtap/info") {
		t.Errorf("commands %q, %v", names, err)
	}
	ports, err := c.Ports()
	if err != nil || !slices.Equal(ports, []int{0, 4}) {
		t.Errorf("ports %d, %v", ports, err)
	}
	want := PortInfo{ID: 4, Name: "net_rtap4", MTU: 1500, MAC: "02:00:00:00:00:ab", Up: true, Carrier: true, Running: true, Info: d.Info()}
	if got, err := c.Info(4); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("info %+v, %v, want %+v", got, err, want)
	}
	stats, err := d.Stats()
	must(t, err)
	if got, err := c.Stats(4); err != nil || got.Stats != stats || len(got.Queues) != 3 {
		t.Errorf("stats %+v, %v, want %+v", got, err, stats)
	}
	xstats, err := d.XStats()
	must(t, err)
	if got, err := c.XStats(0); err != nil || !slices.Equal(got, xstats) {
		t.Errorf("xstats %v, %v, want %v", got, err, xstats)
	}
	if _, err := c.Stats(1); !errors.Is(err, ErrNull) || !strings.Contains(err.Error(), "/rtap/stats,1") {
		t.Errorf("a port that is not there: %v", err)
	}
	var x int
	if err := c.Call(&x, "/nothing"); !errors.Is(err, ErrNull) {
		t.Errorf("a command that is not there: %v", err)
	}
	if err := c.Call(&x, "/info"); err == nil || errors.Is(err, ErrNull) {
		t.Errorf("a value of another type: %v", err)
	}
	must(t, s.Close())
	if _, err := c.Ports(); err == nil {
		t.Error("a server that is closed answers")
	}
}

// TestClientPages: what does not fit one reply comes in the next ones.
func TestClientPages(t *testing.T) {
	dir := newDir(t)
	d := startPort(t, nettest.QuietNS(t), "foo0", 1, newPool(t, "p"))
	xstats, err := d.XStats()
	must(t, err)
	short := len(encode("/ethdev/xstats", dict{{xstats[0].Name, uint64(0)}, {xstats[1].Name, uint64(0)}}, maxOutput))
	l, err := runtimedir.Listen(dir, "p", runtimedir.SocketName)
	must(t, err)
	defer l.Close()
	requests := 0
	done := make(chan struct{})
	go func() { // a server with little room
		defer close(done)
		s := &Server{ports: map[int]*Port{0: {0, "a", d}}}
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.Write(marshal(Hello{MaxOutputLen: short}))
		b := make([]byte, 100)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			requests++
			conn.Write(s.reply(b[:n], short))
		}
	}()
	c, err := Dial(dir, "p")
	must(t, err)
	if got, err := c.XStats(0); err != nil || !slices.Equal(got, xstats) {
		t.Errorf("xstats %v, %v, want %v", got, err, xstats)
	}
	c.Close()
	<-done
	if requests <= len(xstats)/3 {
		t.Errorf("%d xstats in %d replies", len(xstats), requests)
	}
}

// TestDialErrors: the user is told what runs instead.
func TestDialErrors(t *testing.T) {
	dir := newDir(t)
	_, err := Dial(dir, "a")
	if err == nil || !strings.Contains(err.Error(), "file prefix a runs; none does") {
		t.Errorf("nothing runs: %v", err)
	}
	mustServe(t, Config{Dir: dir, FilePrefix: "b"}, defaultLimits)
	mustServe(t, Config{Dir: dir}, defaultLimits)
	_, err = Dial(dir, "a")
	if err == nil || !strings.Contains(err.Error(), "file prefix a runs; these do: b, rtap") {
		t.Errorf("others run: %v", err)
	}
	if _, err := Serve(Config{Dir: dir, FilePrefix: "b"}); !errors.Is(err, ErrInUse) {
		t.Errorf("a prefix that is in use: %v", err)
	}
	for _, hello := range []string{"{", `{}`, `{"max_output_len":-1}`, `{"max_output_len":99999999999}`, ""} {
		l, err := runtimedir.Listen(dir, "odd", runtimedir.SocketName)
		must(t, err)
		go func() {
			if conn, err := l.Accept(); err == nil {
				conn.Write([]byte(hello))
				conn.Close()
			}
		}()
		if _, err := Dial(dir, "odd"); err == nil {
			t.Errorf("greeting %q is taken", hello)
		}
		must(t, l.Close())
	}
}

func TestConfigErrors(t *testing.T) {
	d := &rtap.Device{}
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Ports: []Port{{ID: -1, Device: d}}}, "Config.Ports[0] has ID -1"},
		{Config{Ports: []Port{{ID: 65536, Device: d}}}, "ID 65536"},
		{Config{Ports: []Port{{ID: 1, Device: d}, {ID: 1, Device: d}}}, "Config.Ports[1] has ID 1"},
		{Config{Ports: []Port{{ID: 1}}}, "a device"},
		{Config{FilePrefix: "a/b"}, `file prefix is "a/b"`},
		{Config{Version: strings.Repeat("v", 257)}, "Config.Version has 257 bytes"},
	} {
		c.cfg.Dir = newDir(t)
		if s, err := Serve(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.cfg, err)
			s.Close()
		}
	}
}

// TestEmptyServer: of a server without ports every list is an empty one.
func TestEmptyServer(t *testing.T) {
	dir := newDir(t)
	s := mustServe(t, Config{Dir: dir}, defaultLimits)
	c := connect(t, dir, "rtap")
	c.read()
	for _, name := range []string{"/ethdev/list", "/mempool/list", "/rtap/ports"} {
		if got, want := c.ask(name), `{"`+name+`":[]}`; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if got := c.ask("/info"); !strings.HasPrefix(got, `{"/info":{"version":"DPDK 24.11.0 / rtap",`) {
		t.Errorf("%s", got)
	}
	must(t, s.Close())
	must(t, s.Close())
	if got := c.read(); got != "" {
		t.Errorf("after Close: %s", got)
	}
}
