// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/gso"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

// Offloads that need each other when what one port received goes out of another.
const (
	relayRx = RxOffloadChecksum | RxOffloadTCPLRO
	relayTx = TxOffloadIPv4Cksum | TxOffloadUDPCksum | TxOffloadTCPCksum | TxOffloadTCPTSO | TxOffloadMultiSegs

	relayStrip  = RxOffloadVLANStrip | RxOffloadQinQStrip
	relayInsert = TxOffloadVLANInsert | TxOffloadQinQInsert
)

// relayConfig says what is between two ports, and around them.
type relayConfig struct {
	engine Engine
	mode   Mode
	rx, tx uint64 // offloads of both ports
	maxLRO int
	mtu    int               // 0: 1500
	room   int               // bytes in an mbuf, 0: 65407
	tags   []traffic.VLANTag // of everything between the ports
	// hop puts a router with no offloads behind the second port: what arrives at the
	// far end has been cut and completed by the kernel, and is verified there.
	hop bool
	// edit, if not nil, sees each packet between receiving and PassThrough. It is
	// called by one goroutine.
	edit func(from int, m *mbuf.Mbuf)
	// cut has frames that come with LRO cut before they are sent.
	cut bool
	// careless leaves out PassThrough.
	careless bool
}

// relay is two ports in namespaces of their own, and a goroutine that forwards
// between them what the ports received with offloads.
type relay struct {
	t     testing.TB
	ports [2]*port
	far   *netns.NS // where the far end is: the second port's, or behind the hop
	index [2]int    // the interfaces with the addresses
	v4    [2]netip.Addr
	v6    [2]netip.Addr
	seen  [2]seen // what was received from each port
	// unsent counts packets that Tx did not take.
	unsent atomic.Uint64

	cutter gso.Segmenter
	cutTo  *mbuf.Pool
	parts  []*mbuf.Mbuf
}

// seen counts packets by what the driver said of them.
type seen struct{ lro, none, good, stripped, cwr, longest atomic.Uint64 }

func (s *seen) count(m *mbuf.Mbuf) {
	if m.OlFlags&mbuf.RxLRO != 0 {
		s.lro.Add(1)
		if l, b := m.Lengths(), m.Bytes(); m.PacketType&mbuf.PTypeL4Mask == mbuf.PTypeL4TCP && b[l.L4Start()+13]&0x80 != 0 {
			s.cwr.Add(1)
		}
	}
	switch m.OlFlags & mbuf.RxL4CksumMask {
	case mbuf.RxL4CksumNone:
		s.none.Add(1)
	case mbuf.RxL4CksumGood:
		s.good.Add(1)
	}
	if m.OlFlags&mbuf.RxVLANStripped != 0 {
		s.stripped.Add(1)
	}
	s.longest.Store(max(s.longest.Load(), uint64(m.PktLen)))
}

// relayQueue is deep enough that a burst of small packets is not dropped on the way
// into a port whose goroutine does not get the CPU.
const relayQueue = 20000

func newRelay(t testing.TB, cfg relayConfig) *relay {
	t.Helper()
	nettest.NeedTun(t)
	r := &relay{t: t}
	if cfg.cut {
		r.cutTo = newPool(t, mbuf.Config{Name: "cut", Count: relayRing * 70})
		r.parts = make([]*mbuf.Mbuf, relayRing*70)
	}
	for i := range r.ports {
		ns := relayNS(t)
		pool := newPool(t, mbuf.Config{Name: "relay", DataRoom: relayRoom(cfg), Count: relayCount(cfg)})
		p := startPortIn(t, ns, Config{Name: "relay", Mode: cfg.mode, Engine: cfg.engine, MTU: cfg.mtu, Memory: pool, RxRing: relayRing, TxRing: relayRing,
			RxOffloads: cfg.rx, TxOffloads: cfg.tx, MaxLROPktSize: cfg.maxLRO, TxQueueLen: relayQueue})
		r.ports[i] = p
		r.v4[i] = netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)})
		r.v6[i] = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(1 + i)})
		r.index[i] = tagAll(t, ns, p.index, cfg.tags)
		must(t, p.conn.AddAddr(r.index[i], netip.PrefixFrom(r.v4[i], 24)))
		must(t, p.conn.AddAddr(r.index[i], netip.PrefixFrom(r.v6[i], 64)))
	}
	r.far = r.ports[1].ns
	if cfg.hop {
		r.addHop()
	}
	for _, p := range r.ports {
		must(t, p.ResetStats()) // the kernel counts what it drops while tc is set up
	}
	r.forward(cfg)
	for _, dst := range []netip.Addr{r.v4[1], r.v6[1]} {
		r.acquaint(dst)
	}
	return r
}

const relayRing = 64

// relayNS is a namespace in which IPv6 addresses may be used at once, without
// waiting whether another has them.
func relayNS(t testing.TB) *netns.NS {
	t.Helper()
	ns := nettest.NS(t)
	must(t, traffic.SetSysctl(ns, "ipv6/conf/default/accept_dad", "0"))
	return ns
}

func relayRoom(cfg relayConfig) int {
	if cfg.room != 0 {
		return cfg.room
	}
	return mbuf.MaxBufLen - mbuf.DefaultHeadroom
}

// relayCount is how many mbufs hold a ring's worth of the longest frames, and some.
func relayCount(cfg relayConfig) int { return (relayRing + 32) * (1 + 70000/relayRoom(cfg)) }

// tagAll has everything that goes through an interface carry tags, and returns the
// interface that is to have the addresses.
func tagAll(t testing.TB, ns *netns.NS, index int, tags []traffic.VLANTag) int {
	t.Helper()
	if len(tags) == 0 {
		return index
	}
	below, err := index, error(nil)
	for i, tag := range tags {
		if below, err = traffic.AddVLAN(ns, below, fmt.Sprintf("vlan%d", i), tag); err != nil {
			break
		}
	}
	if err == nil {
		return below
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
	nettest.NeedProbe(t, "VLAN interface, nor tc-bpf", func() error {
		err := traffic.PushVLAN(ns, index, tags...)
		if errors.Is(err, syscall.ENOENT) {
			err = errors.Join(err, errors.ErrUnsupported)
		}
		return err
	})
	return index
}

// addHop moves the far end behind a router whose other interface, and whose peer,
// have no offloads.
func (r *relay) addHop() {
	t, router := r.t, r.ports[1]
	t.Helper()
	r.far = relayNS(t)
	var near, far int
	nettest.NeedProbe(t, "veth", func() (err error) {
		near, far, err = traffic.AddVeth(router.ns, "hop", r.far, "end")
		return err
	})
	withoutOffloads(t, router.ns, near)
	withoutOffloads(t, r.far, far)
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		must(t, traffic.SetSysctl(router.ns, name, "1"))
	}
	c := nettest.Conn(t, r.far)
	for _, v := range []struct {
		near, far netip.Prefix
		here, net netip.Prefix // of the first port, of the far end
		via       netip.Addr
		addr      *[2]netip.Addr
	}{
		{netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("198.51.100.2/24"),
			netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"), r.v4[1], &r.v4},
		{netip.MustParsePrefix("2001:db8:1::1/64"), netip.MustParsePrefix("2001:db8:1::2/64"),
			netip.MustParsePrefix("2001:db8::/64"), netip.MustParsePrefix("2001:db8:1::/64"), r.v6[1], &r.v6},
	} {
		must(t, router.conn.AddAddr(near, v.near))
		must(t, c.AddAddr(far, v.far))
		must(t, traffic.SetRoute(r.far, v.here, v.near.Addr(), far, 0))
		must(t, traffic.SetRoute(r.ports[0].ns, v.net, v.via, r.index[0], 0))
		v.addr[1] = v.far.Addr()
	}
}

func withoutOffloads(t testing.TB, ns *netns.NS, index int) {
	t.Helper()
	off := traffic.Features{"rx-checksum": false, "tx-checksum-ip-generic": false, "tx-tcp-segmentation": false,
		"tx-tcp6-segmentation": false, "tx-udp-segmentation": false, "tx-generic-segmentation": false}
	must(t, traffic.SetFeatures(ns, index, off))
}

// forward forwards both ways until the end of the test.
func (r *relay) forward(cfg relayConfig) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		bufs := make([]*mbuf.Mbuf, 32)
		for idle := 0; !stop.Load(); idle++ {
			if r.pass(cfg, 0, bufs)+r.pass(cfg, 1, bufs) > 0 {
				idle = 0
			}
			if idle > 50 {
				time.Sleep(20 * time.Microsecond)
			}
		}
	})
	r.t.Cleanup(func() {
		stop.Store(true)
		wg.Wait()
	})
}

// pass forwards a burst.
func (r *relay) pass(cfg relayConfig, from int, bufs []*mbuf.Mbuf) int {
	got := r.ports[from].RxQueue(0).Burst(bufs)
	n := got
	for _, m := range bufs[:n] {
		if err := m.Check(); err != nil {
			r.t.Errorf("received a bad mbuf: %v", err)
		}
		r.seen[from].count(m)
		if cfg.edit != nil {
			cfg.edit(from, m)
		}
	}
	if cfg.cut {
		var taken int
		if taken, n = r.cutter.Burst(bufs[:got], r.cutTo, r.parts); taken != got {
			r.t.Errorf("%d frames of %d were cut", taken, got)
		}
		bufs = r.parts
	}
	if !cfg.careless {
		mbuf.PassThrough(bufs[:n])
	}
	tx := r.ports[1-from].TxQueue(0)
	for sent, tries := 0, 0; sent < n; tries++ {
		if sent += tx.Burst(bufs[sent:n]); tries == 100 {
			r.unsent.Add(uint64(n - sent))
			mbuf.FreeBulk(bufs[sent:n])
			break
		}
	}
	return got
}

// acquaint waits until the far end answers.
func (r *relay) acquaint(dst netip.Addr) {
	r.t.Helper()
	nettest.Eventually(r.t, wait, "an answer from "+dst.String(), func() bool {
		p, err := traffic.Ping(r.within(), traffic.PingConfig{NS: r.ports[0].ns, Dst: dst, Timeout: nettest.Bound(200 * time.Millisecond)})
		return err == nil && p.Lost() == 0
	})
}

// within bounds a transfer.
func (r *relay) within() context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), nettest.Bound(20*time.Second))
	r.t.Cleanup(cancel)
	return ctx
}

// spaces are the namespaces that count something, each once.
func (r *relay) spaces() []*netns.NS {
	all := []*netns.NS{r.ports[0].ns, r.ports[1].ns}
	if r.far != all[1] {
		all = append(all, r.far)
	}
	return all
}

func (r *relay) counters() (all []traffic.Counters) {
	r.t.Helper()
	for _, ns := range r.spaces() {
		c, err := traffic.ReadCounters(ns)
		must(r.t, err)
		all = append(all, c)
	}
	return all
}

// clean fails the test if anything went wrong since before that the driver can be
// to blame for. It returns how many packets the kernel dropped on the way into
// the ports.
func (r *relay) clean(before []traffic.Counters) (missed uint64) {
	r.t.Helper()
	for i, c := range r.counters() {
		c = c.Since(before[i])
		if c.TCPInCsumErrors+c.UDPInCsumErrors+c.ICMPInCsumErrors+c.TCPInErrs+c.IPInHdrErrors+c.IPInTruncatedPkts != 0 {
			r.t.Errorf("namespace %d received bad packets: %+v", i, c)
		}
	}
	for i, p := range r.ports {
		s := p.stats()
		missed += s.IMissed
		if s.IErrors+s.OErrors+s.RxNoMbuf != 0 {
			r.t.Errorf("port %d: %+v", i, s)
		}
	}
	if n := r.unsent.Load(); n != 0 {
		r.t.Errorf("%d packets were not sent", n)
	}
	return missed
}

// tcp sends a stream from the first port's namespace to the far end. Where the
// kernel dropped nothing, whatever was sent again must have been so in vain.
func (r *relay) tcp(cfg traffic.TCPConfig, dst netip.Addr) traffic.TCPInfo {
	r.t.Helper()
	before := r.counters()
	info, err := r.stream(cfg, dst)
	must(r.t, err)
	if missed := r.clean(before); missed == 0 && info.Retransmits > info.DSACKs+inVain {
		r.t.Errorf("tcp to %v: %d segments were sent again, %d of them in vain", dst, info.Retransmits, info.DSACKs)
	}
	return info
}

// inVain is how many segments TCP may send again for want of patience, such as a tail loss
// probe when the machine stops for a while, without having been told by the end of the
// stream that it was in vain. A packet that a port lost shows in its counters: see clean.
const inVain = 4

// stream is tcp without looking at the counters.
func (r *relay) stream(cfg traffic.TCPConfig, dst netip.Addr) (info traffic.TCPInfo, err error) {
	cfg.Client, cfg.Server, cfg.Addr, cfg.Sender = r.ports[0].ns, r.far, netip.AddrPortFrom(dst, 0), &info
	if _, err = traffic.TCP(r.within(), cfg); err != nil {
		a, _ := r.ports[0].Stats()
		b, _ := r.ports[1].Stats()
		err = fmt.Errorf("%w (%+v, %+v)", err, a, b)
	}
	return info, err
}

// udp sends datagrams, all of which must arrive as they were sent, and in order unless there is
// a hop: a veth pair has a queue for each CPU, and the forwarding goroutine may change CPUs.
func (r *relay) udp(cfg traffic.UDPConfig, dst netip.Addr) traffic.UDPResult {
	r.t.Helper()
	before := r.counters()
	cfg.Client, cfg.Server, cfg.Addr, cfg.Linger = r.ports[0].ns, r.far, netip.AddrPortFrom(dst, 0), nettest.Bound(5*time.Second)
	got, err := traffic.UDP(r.within(), cfg)
	inOrder := got.Reordered == 0 || r.far != r.ports[1].ns
	if err != nil || got.Received != got.Sent || got.Corrupt+got.Duplicates != 0 || !inOrder {
		r.t.Errorf("udp to %v: %+v, %v (%+v)", dst, got, err, cfg)
	}
	r.clean(before)
	return got
}
