// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

// The same as on a TAP, between two TUNs: what the functions called here check is said where they are.

func TestTUNTransfer(t *testing.T) {
	eachEngineIfFast(t, func(t *testing.T, e Engine) {
		for _, hop := range []bool{false, true} {
			t.Run(fmt.Sprintf("hop=%t", hop), func(t *testing.T) {
				testTransfer(t, relayConfig{mode: ModeTUN, engine: e, hop: hop}, false)
			})
		}
	})
}

// TestTUNLongStream: the content of a long stream, by its hash, through a far end that verifies checksums.
func TestTUNLongStream(t *testing.T) {
	nettest.NeedFast(t)
	r := newRelay(t, relayConfig{mode: ModeTUN, rx: relayRx, tx: relayTx, hop: true})
	r.tcp(traffic.TCPConfig{Bytes: int64(nettest.Scale(256 << 20)), Hash: true}, r.v6[1])
}

func TestTUNUSO(t *testing.T) { testUSO(t, relayConfig{mode: ModeTUN, rx: relayRx, tx: relayTx}) }

func TestTUNECN(t *testing.T) {
	nettest.NeedFast(t)
	testECN(t, relayConfig{mode: ModeTUN, rx: relayRx, tx: relayTx})
}

func TestTUNPathMTU(t *testing.T) {
	nettest.NeedFast(t)
	r := newRelay(t, relayConfig{mode: ModeTUN, rx: relayRx, tx: relayTx, hop: true})
	for _, dst := range []netip.Addr{r.v4[1], r.v6[1]} {
		testPathMTU(t, r, dst)
	}
}

func TestTUNCombinations(t *testing.T) {
	for i, room := range []int{2048, 65407} {
		for k, mtu := range []int{1500, MaxTunMTU} {
			for _, lro := range []bool{true, false} {
				if nettest.Leave(i + k) {
					continue
				}
				t.Run(fmt.Sprintf("room=%d/mtu=%d/lro=%t", room, mtu, lro), func(t *testing.T) {
					testCombination(t, relayConfig{mode: ModeTUN, rx: relayRx, tx: relayTx, room: room, mtu: mtu}, lro)
				})
			}
		}
	}
}

func TestTUNFrameSizes(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		room int
	}{
		{Config{}, 65407},
		{Config{RxOffloads: RxOffloadScatter}, 2048},
		{Config{MaxLROPktSize: 20000}, 32768},
		{Config{MaxLROPktSize: MaxLROPktSize, RxOffloads: RxOffloadScatter}, 16384},
	} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d in %d/v6=%t", c.cfg.MaxLROPktSize, c.room, v6), func(t *testing.T) {
				cfg := c.cfg
				cfg.Mode = ModeTUN
				cfg.RxOffloads |= relayRx
				cfg.RxRing = 64
				cfg.Memory = newPool(t, mbuf.Config{Name: "sizes", DataRoom: c.room, Count: 100 * (1 + 66000/c.room)})
				testFrameSizes(t, cfg, v6)
			})
		}
	}
}

// TestTUNBound: LRO frames are as large as the kernel makes them, or as was asked for: no room is left for a tag.
func TestTUNBound(t *testing.T) {
	for _, c := range []struct{ asked, want int }{{0, 65535}, {20000, 20000}, {MaxLROPktSize, 65535}} {
		p := startPort(t, Config{Mode: ModeTUN, RxOffloads: relayRx | RxOffloadScatter, MaxLROPktSize: c.asked})
		if got := p.Info().MaxLROPktSize; got != c.want {
			t.Errorf("asked for %d: %d, want %d", c.asked, got, c.want)
		}
	}
}

// TestTUNTunnel: VXLAN over IP packets without an Ethernet header, inside which there is one, comes in large frames; so does
// VXLAN-GPE, inside which there is none either. They must be cut before they are sent: see noTunnelTUN.
func TestTUNTunnel(t *testing.T) {
	needTunnels(t)
	for _, c := range []struct{ gpe, v6, checksum bool }{{checksum: true}, {v6: true}, {gpe: true}, {gpe: true, checksum: true}} {
		t.Run(fmt.Sprintf("gpe=%t/v6=%t/checksum=%t", c.gpe, c.v6, c.checksum), func(t *testing.T) {
			testTunnel(t, relayConfig{mode: ModeTUN, rx: relayRx, tx: relayTx, cut: true}, c.gpe, c.v6, c.checksum)
		})
	}
}

// TestTUNCapabilities: a TUN has all offloads of a TAP but those of Ethernet headers, which Configure refuses by name.
func TestTUNCapabilities(t *testing.T) {
	tap, tun := openPort(t, Config{}).Info(), openPort(t, Config{Mode: ModeTUN})
	info := tun.Info()
	const rx, tx = RxOffloadVLANStrip | RxOffloadQinQStrip, TxOffloadVLANInsert | TxOffloadQinQInsert | tunnelTSO
	if info.RxOffloads != tap.RxOffloads&^rx || info.TxOffloads != tap.TxOffloads&^tx {
		t.Errorf("a TUN has %v and %v", RxOffloadNames(info.RxOffloads), TxOffloadNames(info.TxOffloads))
	}
	for _, c := range []struct {
		cfg  PortConfig
		want OffloadError
	}{
		{PortConfig{RxOffloads: RxOffloadQinQStrip}, OffloadError{Dir: "rx", Name: "qinq_strip", Reason: noEther}},
		{PortConfig{TxOffloads: TxOffloadVLANInsert}, OffloadError{Dir: "tx", Name: "vlan_insert", Reason: noEther}},
		{PortConfig{TxOffloads: TxOffloadUDPTnlTSO}, OffloadError{Dir: "tx", Name: "udp_tnl_tso", Reason: noTunnelTUN}},
	} {
		c.cfg.RxQueues, c.cfg.TxQueues = 1, 1
		err := tun.Configure(c.cfg)
		var oe *OffloadError
		if !errors.As(err, &oe) || *oe != c.want {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
}
