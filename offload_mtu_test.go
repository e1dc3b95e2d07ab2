// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
)

// TestOffloadPathMTU: the MTU of the path goes down and up again while a stream
// runs: that of the ports, of the routes at either end, and of a route behind
// the router, which tells the sender.
func TestOffloadPathMTU(t *testing.T) {
	for _, lro := range []bool{true, false} {
		t.Run(fmt.Sprintf("lro=%t", lro), func(t *testing.T) {
			cfg := relayConfig{rx: relayRx, tx: relayTx, hop: true}
			if !lro {
				cfg.rx &^= RxOffloadTCPLRO
			}
			r := newRelay(t, cfg)
			for _, dst := range []netip.Addr{r.v4[1], r.v6[1]} {
				testPathMTU(t, r, dst)
			}
		})
	}
}

func testPathMTU(t *testing.T, r *relay, dst netip.Addr) {
	before := r.counters()
	var info traffic.TCPInfo
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		// One stream after the other, each slow enough for some changes, until all are done.
		for !stop.Load() && !t.Failed() {
			var err error
			if info, err = r.stream(traffic.TCPConfig{Bytes: int64(nettest.Scale(12 << 20)), PacingBytes: nettest.Scale(12 << 20)}, dst); err != nil {
				t.Error(err)
			}
		}
	}()
	defer func() { stop.Store(true); <-done }()
	packets := func() uint64 { return r.ports[1].stats().OPackets }
	flows := func(what string) {
		t.Helper()
		at := packets() + 5
		nettest.Eventually(t, wait, "packets "+what, func() bool { return packets() > at })
	}
	flows("at first")
	host := netip.PrefixFrom(dst, dst.BitLen())
	for _, mtu := range []int{1400, 1500, 9000, 1500} {
		for _, p := range r.ports {
			must(t, p.SetMTU(mtu))
		}
		flows(fmt.Sprintf("after SetMTU(%d)", mtu))
	}
	via := r.v4[0].Next()
	if dst.Is6() {
		via = r.v6[0].Next()
	}
	for _, mtu := range []int{1380, 1500} {
		must(t, traffic.SetRoute(r.ports[0].ns, host, via, r.ports[0].index, mtu))
		flows(fmt.Sprintf("after a route of %d", mtu))
	}
	far := r.hopIndex()
	must(t, traffic.SetRoute(r.ports[1].ns, host, netip.Addr{}, far, 1300))
	// What the router says of a stream that has just ended teaches nobody: it takes one that goes on.
	nettest.Eventually(t, wait, "the sender's route of 1300", func() bool {
		mtu, err := traffic.RouteMTU(r.ports[0].ns, dst)
		must(t, err)
		return mtu == 1300
	})
	must(t, traffic.SetRoute(r.ports[1].ns, host, netip.Addr{}, far, 1500))
	flows("after the router's route of 1500")
	stop.Store(true)
	<-done
	if info.PathMTU != 1300 {
		t.Errorf("%v: the sender did not learn of the router's 1300 bytes: %+v", dst, info)
	}
	r.clean(before)
}

// hopIndex is the router's interface towards the far end.
func (r *relay) hopIndex() int {
	r.t.Helper()
	l, err := r.ports[1].conn.LinkByName("hop")
	must(r.t, err)
	return l.Index
}

// TestOffloadCombinations: LRO on and off, every kind of buffer, every size of
// packet.
func TestOffloadCombinations(t *testing.T) {
	eachEngineIfFast(t, func(t *testing.T, e Engine) {
		for i, room := range []int{2048, 16384, 65407} {
			for k, mtu := range []int{1500, 9000, 65521} {
				for _, lro := range []bool{true, false} {
					if nettest.Leave(i + k) {
						continue
					}
					t.Run(fmt.Sprintf("room=%d/mtu=%d/lro=%t", room, mtu, lro), func(t *testing.T) {
						testCombination(t, relayConfig{engine: e, rx: relayRx, tx: relayTx, room: room, mtu: mtu}, lro)
					})
				}
			}
		}
	})
}

func testCombination(t *testing.T, cfg relayConfig, lro bool) {
	if !lro {
		cfg.rx &^= RxOffloadTCPLRO
	} else if cfg.room < 4096 {
		cfg.rx |= RxOffloadScatter
	}
	r := newRelay(t, cfg)
	for _, dst := range []netip.Addr{r.v4[1], r.v6[1]} {
		r.tcp(traffic.TCPConfig{Bytes: int64(nettest.Scale(8 << 20))}, dst)
	}
	s, bound := &r.seen[0], uint64(r.ports[0].Info().MaxLROPktSize)
	if !lro {
		bound = uint64(cfg.mtu + 14)
	}
	// Two packets of the largest MTU do not fit a frame, and two of 9000 bytes not 16 KB.
	if n := s.lro.Load(); n > 0 && !lro || n == 0 && lro && cfg.mtu*2 < int(bound) {
		t.Errorf("%d LRO frames, of at most %d bytes", n, bound)
	}
	if n := s.longest.Load(); n > bound && n > uint64(cfg.mtu+14) {
		t.Errorf("a frame of %d bytes came, no longer ones than %d were asked for", n, bound)
	}
}

// TestOffloadFeatures: what a port asks of the kernel is what ethtool shows.
func TestOffloadFeatures(t *testing.T) {
	p := openPort(t, Config{})
	capa := p.Info().RxOffloads
	for _, c := range []struct {
		rx   uint64
		want map[string]bool
	}{
		{0, nil},
		{RxOffloadTCPCksum, map[string]bool{"tx-checksum-ip-generic": true}},
		{relayRx, map[string]bool{"tx-checksum-ip-generic": true, "tx-tcp-segmentation": true, "tx-tcp6-segmentation": true,
			"tx-tcp-ecn-segmentation": true}},
		{RxOffloadUDPLRO & capa, map[string]bool{"tx-checksum-ip-generic": true, "tx-udp-segmentation": true}},
		{(RxOffloadTCPLRO | RxOffloadTunnelLRO) & capa, map[string]bool{"tx-checksum-ip-generic": true, "tx-tcp-segmentation": true,
			"tx-tcp6-segmentation": true, "tx-tcp-ecn-segmentation": true, "tx-udp_tnl-segmentation": true, "tx-udp_tnl-csum-segmentation": true}},
		{RxOffloadVLANStrip, nil},
	} {
		if c.rx == 0 && c.want != nil || c.want["tx-udp_tnl-segmentation"] && capa&RxOffloadTunnelLRO == 0 {
			continue // not in this kernel
		}
		must(t, p.Configure(PortConfig{RxQueues: 1, TxQueues: 1, RxOffloads: c.rx}))
		got, err := traffic.ReadFeatures(p.ns, p.index)
		must(t, err)
		for _, name := range []string{"tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation",
			"tx-udp-segmentation", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"} {
			if got[name] != c.want[name] {
				t.Errorf("rx offloads %v: %s is %t", RxOffloadNames(c.rx), name, got[name])
			}
		}
	}
}
