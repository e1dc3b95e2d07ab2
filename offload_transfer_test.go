// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
)

// withUSO adds the offloads for large UDP frames, if this kernel has them (6.2).
func withUSO(t testing.TB, cfg relayConfig) (relayConfig, bool) {
	t.Helper()
	p := openPort(t, Config{})
	if p.Info().RxOffloads&RxOffloadUDPLRO == 0 || p.Info().TxOffloads&TxOffloadUDPTSO == 0 {
		return cfg, false
	}
	cfg.rx |= RxOffloadUDPLRO
	cfg.tx |= TxOffloadUDPTSO
	return cfg, true
}

// TestOffloadTransfer: TCP and UDP, IPv4 and IPv6, with no tag, one and two, left in
// the packets and taken out, arrive as they were sent.
func TestOffloadTransfer(t *testing.T) {
	eachEngineIfFast(t, func(t *testing.T, e Engine) {
		for i, c := range []struct {
			name string
			tags []traffic.VLANTag
		}{
			{"untagged", nil},
			{"vlan", []traffic.VLANTag{{Type: 0x8100, TCI: 100}}},
			{"qinq", []traffic.VLANTag{{Type: 0x88a8, TCI: 7}, {Type: 0x8100, TCI: 100}}},
		} {
			for k, strip := range []bool{false, true} {
				for l, hop := range []bool{false, true} {
					if nettest.Leave(i + k + l) {
						continue
					}
					t.Run(fmt.Sprintf("%s/strip=%t/hop=%t", c.name, strip, hop), func(t *testing.T) {
						testTransfer(t, relayConfig{engine: e, tags: c.tags, hop: hop}, strip)
					})
				}
			}
		}
	})
}

func testTransfer(t *testing.T, cfg relayConfig, strip bool) {
	cfg.rx, cfg.tx = relayRx, relayTx
	if strip {
		cfg.rx, cfg.tx = cfg.rx|relayStrip, cfg.tx|relayInsert
	}
	cfg, hasUSO := withUSO(t, cfg)
	r := newRelay(t, cfg)
	for _, dst := range []netip.Addr{r.v4[1], r.v6[1]} {
		r.tcp(traffic.TCPConfig{Bytes: int64(nettest.Scale(32 << 20))}, dst)
		r.udp(traffic.UDPConfig{Count: nettest.Scale(2000), SizeBytes: 1400}, dst)
		r.udp(traffic.UDPConfig{Count: nettest.Scale(100), SizeBytes: 20000}, dst) // in fragments
		r.udp(traffic.UDPConfig{Count: nettest.Scale(4000), SizeBytes: 1200, Segments: 40, Tail: 1199, GRO: true}, dst)
	}
	s := &r.seen[0]
	if len(cfg.tags) < 2 && s.lro.Load() == 0 { // the kernel itself cuts frames with two tags
		t.Error("no LRO frame was seen")
	}
	if s.none.Load() == 0 {
		t.Errorf("no frame came with its checksum incomplete (uso %t)", hasUSO)
	}
	if want := strip && len(cfg.tags) > 0; (s.stripped.Load() > 0) != want {
		t.Errorf("tags were taken out of %d frames", s.stripped.Load())
	}
}

// TestOffloadGigabyte: the content of a long stream, by its hash, through a far end
// that verifies checksums.
func TestOffloadGigabyte(t *testing.T) {
	nettest.NeedFast(t) // TestOffloadTransfer is shorter
	r := newRelay(t, relayConfig{rx: relayRx, tx: relayTx, hop: true})
	r.tcp(traffic.TCPConfig{Bytes: int64(nettest.Scale(1 << 30)), Hash: true}, r.v4[1])
}

// TestOffloadReverse: what the far end sends comes whole, with complete checksums,
// and is verified by the kernel behind the first port.
func TestOffloadReverse(t *testing.T) {
	r := newRelay(t, relayConfig{rx: relayRx, tx: relayTx, hop: true})
	near := r.ports[0].ns
	r.ports[0].ns, r.far = r.far, near
	defer func() { r.ports[0].ns = near }()
	for _, dst := range []netip.Addr{r.v4[0], r.v6[0]} {
		r.tcp(traffic.TCPConfig{Bytes: int64(nettest.Scale(32 << 20))}, dst)
		r.udp(traffic.UDPConfig{Count: nettest.Scale(2000), SizeBytes: 1400}, dst)
	}
}

// TestOffloadCareless: a forwarder that does not call PassThrough sends what is
// incomplete. This shows that the receivers of these tests look.
func TestOffloadCareless(t *testing.T) {
	nettest.NeedFast(t)
	for _, hop := range []bool{false, true} {
		cfg := relayConfig{rx: relayRx &^ RxOffloadTCPLRO, tx: relayTx, hop: hop, careless: true}
		r := newRelay(t, cfg)
		for _, dst := range []netip.Addr{r.v4[1], r.v6[1]} {
			before := r.counters()
			got, err := traffic.UDP(r.within(), traffic.UDPConfig{Client: r.ports[0].ns, Server: r.far, Addr: netip.AddrPortFrom(dst, 0),
				Count: 5, Window: -1, Linger: nettest.Bound(wait / 100)})
			after := r.counters()
			c := after[len(after)-1].Since(before[len(before)-1])
			if err != nil || got.Received != 0 || c.UDPInCsumErrors != 5 {
				t.Errorf("hop %t: %+v, %v, %+v", hop, got, err, c)
			}
		}
	}
}

// TestOffloadUSO: datagrams that were sent many at once keep their boundaries.
func TestOffloadUSO(t *testing.T) { testUSO(t, relayConfig{rx: relayRx, tx: relayTx}) }

func testUSO(t *testing.T, cfg relayConfig) {
	cfg, ok := withUSO(t, cfg)
	if !ok {
		nettest.NeedSince(t, 6, 2, "UDP segmentation for TAPs")
	}
	for _, hop := range []bool{false, true} {
		cfg.hop = hop
		r := newRelay(t, cfg)
		for _, dst := range []netip.Addr{r.v4[1], r.v6[1]} {
			for _, c := range []struct{ size, segments, tail int }{
				{1452, 45, 0}, {1452, 45, 8}, {1000, 60, 999}, {100, 64, 50}, {9, 64, 8}, {1400, 2, 0}, {1400, 2, 8},
			} {
				for _, gro := range []bool{false, true} {
					lro := r.seen[0].lro.Load()
					got := r.udp(traffic.UDPConfig{Count: nettest.Scale(20) * c.segments, SizeBytes: c.size, Segments: c.segments, Tail: c.tail, GRO: gro}, dst)
					if r.seen[0].lro.Load() == lro {
						t.Errorf("%v %+v: no LRO frame was seen", dst, c)
					}
					if !hop && (got.Merged > 0) != gro {
						t.Errorf("%v %+v gro=%t: %d calls received several at once", dst, c, gro, got.Merged)
					}
				}
			}
		}
	}
}
