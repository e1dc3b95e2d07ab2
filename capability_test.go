// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// minKernel is what every kernel that is served gives.
const (
	minRx = RxOffloadVLANStrip | RxOffloadChecksum | RxOffloadTCPLRO | RxOffloadQinQStrip | RxOffloadScatter
	minTx = TxOffloadVLANInsert | TxOffloadIPv4Cksum | TxOffloadUDPCksum | TxOffloadTCPCksum | TxOffloadTCPTSO | TxOffloadOuterIPv4Cksum |
		TxOffloadQinQInsert | TxOffloadMultiSegs | TxOffloadOuterUDPCksum
)

// TestCapabilities: what Info lists can be configured, all of it at once and each
// alone or with what it needs; what it does not list is refused by name.
func TestCapabilities(t *testing.T) {
	p := openPort(t, Config{})
	info := p.Info()
	if info.RxOffloads&minRx != minRx || info.TxOffloads&minTx != minTx {
		t.Fatalf("rx %v, tx %v: some are missing", RxOffloadNames(info.RxOffloads), TxOffloadNames(info.TxOffloads))
	}
	if nettest.IsLinux61() == (info.RxOffloads&RxOffloadUDPLRO != 0) || nettest.IsLinux61() == (info.TxOffloads&TxOffloadUDPTSO != 0) {
		t.Errorf("rx %v, tx %v: Linux 6.2 brings USO", RxOffloadNames(info.RxOffloads), TxOffloadNames(info.TxOffloads))
	}
	configure := func(rx, tx uint64) error {
		return p.Configure(PortConfig{RxQueues: 1, TxQueues: 1, RxOffloads: rx, TxOffloads: tx})
	}
	must(t, configure(info.RxOffloads, info.TxOffloads))
	if got := p.Info(); got.EnabledRxOffloads != info.RxOffloads || got.EnabledTxOffloads != info.TxOffloads {
		t.Errorf("enabled are %#x, %#x", got.EnabledRxOffloads, got.EnabledTxOffloads)
	}
	for _, o := range rxOffloads {
		with := uint64(0)
		if o.bit == RxOffloadTunnelLRO {
			with = RxOffloadTCPLRO
		}
		p.checkOffered("rx", o, info.RxOffloads, configure(o.bit|with, 0))
	}
	for _, o := range txOffloads {
		p.checkOffered("tx", o, info.TxOffloads, configure(0, o.bit))
	}
	if got := p.Info(); got.RxQueues != 1 {
		t.Errorf("a refused configuration left %d queues", got.RxQueues)
	}
}

func (p *port) checkOffered(dir string, o offload, capa uint64, err error) {
	p.t.Helper()
	if capa&o.bit != 0 {
		if err != nil {
			p.t.Errorf("%s: listed, and refused: %v", o.name, err)
		}
		return
	}
	var oe *OffloadError
	if !errors.As(err, &oe) || oe.Dir != dir || oe.Name != o.name || !errors.Is(err, errors.ErrUnsupported) ||
		o.since != "" && !strings.Contains(err.Error(), "Linux "+o.since) {
		p.t.Errorf("%s: not listed, and the error is %v", o.name, err)
	}
}

// TestOffloadErrors: bad combinations and unknown bits.
func TestOffloadErrors(t *testing.T) {
	p := openPort(t, Config{})
	must(t, p.Configure(PortConfig{RxQueues: 1, TxQueues: 1, RxOffloads: RxOffloadChecksum}))
	info := p.Info()
	for _, c := range []struct {
		conf PortConfig
		want string
	}{
		{PortConfig{RxOffloads: 1 << 40}, "rx offload bit 40: no TAP offers it"},
		{PortConfig{TxOffloads: 1 << 16}, "tx offload bit 16: no TAP offers it"},
		{PortConfig{TxOffloads: 1 << 4}, "CRC32c"},
		{PortConfig{MaxLROPktSize: 1023}, "PortConfig.MaxLROPktSize is 1023: want 1024 to 65539"},
		{PortConfig{MaxLROPktSize: 65540}, "PortConfig.MaxLROPktSize is 65540"},
		{PortConfig{RxOffloads: RxOffloadTunnelLRO & info.RxOffloads}, "tcp_lro with it"},
	} {
		if c.conf == (PortConfig{}) {
			continue // this kernel has no tunnel offloads
		}
		c.conf.RxQueues, c.conf.TxQueues = 1, 1
		if err := p.Configure(c.conf); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error is %v, want one with %q", c.conf, err, c.want)
		}
	}
	if got := p.Info().EnabledRxOffloads; got != RxOffloadChecksum {
		t.Errorf("a refused configuration left offloads %#x", got)
	}
}

// TestOffloadNames: names and bits are each other's inverse.
func TestOffloadNames(t *testing.T) {
	for _, dir := range []struct {
		table []offload
		names func(uint64) []string
		parse func(string) (uint64, error)
	}{{rxOffloads, RxOffloadNames, ParseRxOffloads}, {txOffloads, TxOffloadNames, ParseTxOffloads}} {
		var all uint64
		var names []string
		for _, o := range dir.table {
			all |= o.bit
			names = append(names, o.name)
		}
		if got := dir.names(all); !slices.Equal(got, names) {
			t.Errorf("names are %v, want %v", got, names)
		}
		if got, err := dir.parse(strings.Join(names, ",")); got != all || err != nil {
			t.Errorf("parsed %#x, want %#x: %v", got, all, err)
		}
		var ce *ConfigError
		if _, err := dir.parse("vlan"); !errors.As(err, &ce) || !strings.Contains(err.Error(), `"vlan"`) || !strings.Contains(ce.Want, "tcp_cksum") {
			t.Errorf("error is %v", err)
		}
	}
}

// TestBoundLRO: the kernel is told the size that every queue's slots can take, in
// time, and told otherwise when LRO is off.
func TestBoundLRO(t *testing.T) {
	small := newPool(t, mbuf.Config{Name: "small", Count: 300, DataRoom: 16000})
	large := newPool(t, mbuf.Config{Name: "large", Count: 64, DataRoom: 65000})
	p := openPort(t, Config{})
	start := func(c PortConfig, pools ...*mbuf.Pool) int {
		t.Helper()
		must(t, p.Stop())
		c.RxQueues, c.TxQueues = len(pools), len(pools)
		must(t, p.Configure(c))
		for i, pool := range pools {
			must(t, p.SetupRxQueue(i, RxConfig{Memory: pool, Ring: 16}))
			must(t, p.SetupTxQueue(i, TxConfig{}))
		}
		must(t, p.Device.Start())
		l := p.kernel()
		if l.GSOIPv4MaxSize != 0 && l.GSOIPv4MaxSize != l.GSOMaxSize {
			t.Errorf("IPv4 is bound to %d, IPv6 to %d", l.GSOIPv4MaxSize, l.GSOMaxSize)
		}
		return l.GSOMaxSize
	}
	lro := PortConfig{RxOffloads: RxOffloadTCPLRO}
	scattered := PortConfig{RxOffloads: RxOffloadTCPLRO | RxOffloadScatter}
	for _, c := range []struct {
		name  string
		conf  PortConfig
		pools []*mbuf.Pool
		want  int // longest frame; 0: the kernel's default
	}{
		{"untouched", PortConfig{}, []*mbuf.Pool{small}, 0},
		{"one mbuf", lro, []*mbuf.Pool{small}, 16000 - 1},
		{"the smaller one of two queues", lro, []*mbuf.Pool{large, small}, 16000 - 1},
		{"off", PortConfig{RxOffloads: RxOffloadChecksum}, []*mbuf.Pool{small}, 0},
		{"a chain", scattered, []*mbuf.Pool{small}, MaxLROPktSize},
		{"as asked", PortConfig{RxOffloads: RxOffloadTCPLRO, MaxLROPktSize: 12345}, []*mbuf.Pool{large}, 12345},
		{"as asked, a chain", PortConfig{RxOffloads: scattered.RxOffloads, MaxLROPktSize: 22345}, []*mbuf.Pool{small}, 22345},
	} {
		got := start(c.conf, c.pools...)
		want := gsoMaxDefault
		if c.want != 0 {
			want = c.want + 1 - 4
			if info := p.Info().MaxLROPktSize; info != c.want {
				t.Errorf("%s: Info says %d bytes, want %d", c.name, info, c.want)
			}
		}
		if got != want {
			t.Errorf("%s: IFLA_GSO_MAX_SIZE is %d, want %d", c.name, got, want)
		}
	}
	// A larger MTU gives a slot more mbufs, hence room for larger frames.
	start(lro, small)
	must(t, p.SetMTU(20000))
	if got := p.kernel().GSOMaxSize; got != 2*16000-1+1-4 {
		t.Errorf("after SetMTU, IFLA_GSO_MAX_SIZE is %d", got)
	}
}

// TestOwnPoolLRO: a port that brings no memory gets mbufs for whole frames.
func TestOwnPoolLRO(t *testing.T) {
	for _, c := range []struct {
		rx   uint64
		room int
	}{{0, mbuf.DefaultDataRoom}, {RxOffloadTCPLRO, mbuf.MaxBufLen - mbuf.DefaultHeadroom}, {RxOffloadTCPLRO | RxOffloadScatter, mbuf.DefaultDataRoom}} {
		p := startPort(t, Config{RxOffloads: c.rx, RxRing: 32})
		if got := p.RxQueue(0).memory.DataRoom(); got != c.room {
			t.Errorf("%v: mbufs of %d bytes, want %d", RxOffloadNames(c.rx), got, c.room)
		}
	}
}

// TestPersistOffloads: a persistent interface is left as an ordinary one, and
// found so by the next program.
func TestPersistOffloads(t *testing.T) {
	ns := newNS(t)
	p := openPortIn(t, ns, Config{Name: "keep", Persist: true})
	must(t, p.Configure(PortConfig{RxQueues: 1, TxQueues: 1, RxOffloads: RxOffloadTCPLRO, MaxLROPktSize: 9000}))
	must(t, p.SetupRxQueue(0, RxConfig{}))
	must(t, p.SetupTxQueue(0, TxConfig{}))
	must(t, p.Device.Start())
	if got := p.kernel().GSOMaxSize; got != 8997 {
		t.Fatalf("IFLA_GSO_MAX_SIZE is %d", got)
	}
	must(t, p.Close())
	if got := p.kernel().GSOMaxSize; got != gsoMaxDefault {
		t.Errorf("a closed port left IFLA_GSO_MAX_SIZE %d", got)
	}
	again := startPortIn(t, ns, Config{Name: "keep"})
	again.exchange()
	must(t, again.Close())
	must(t, p.conn.Delete(p.index))
}
