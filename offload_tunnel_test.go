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

// TestOffloadTunnel: what is sent through VXLAN comes in large frames, inner packets
// of both versions in outer ones of both, with and without an outer checksum and a
// tag, and goes out so. (An outer UDP header of IPv6 has a checksum in any case.) VXLAN-GPE is one whose
// kind the driver cannot tell, and which carries IP packets without an Ethernet header.
func TestOffloadTunnel(t *testing.T) {
	needTunnels(t)
	eachEngineIfFast(t, func(t *testing.T, e Engine) {
		for i, c := range []struct{ gpe, v6, checksum, tag, strip bool }{
			{gpe: true}, {gpe: true, checksum: true}, {gpe: true, checksum: true, tag: true}, {gpe: true, tag: true, strip: true},
			{}, {checksum: true}, {v6: true}, {checksum: true, tag: true}, {tag: true, strip: true}, {v6: true, tag: true, strip: true},
		} {
			if nettest.Leave(i) {
				continue
			}
			t.Run(fmt.Sprintf("gpe=%t/v6=%t/checksum=%t/tag=%t/strip=%t", c.gpe, c.v6, c.checksum, c.tag, c.strip), func(t *testing.T) {
				cfg := relayConfig{engine: e, rx: relayRx, tx: relayTx}
				if c.tag {
					cfg.tags = []traffic.VLANTag{{Type: 0x8100, TCI: 9}}
				}
				if c.strip {
					cfg.rx, cfg.tx = cfg.rx|relayStrip, cfg.tx|relayInsert
				}
				testTunnel(t, cfg, c.gpe, c.v6, c.checksum)
			})
		}
	})
}

// needTunnels skips a test of tunnel segmentation where the kernel has none.
func needTunnels(t *testing.T) {
	t.Helper()
	p := openPort(t, Config{})
	if p.Info().RxOffloads&RxOffloadTunnelLRO == 0 || p.Info().TxOffloads&relayTunnelTx != relayTunnelTx {
		nettest.NeedSince(t, 6, 17, "tunnel segmentation for TAPs")
	}
}

const relayTunnelTx = TxOffloadVXLANTnlTSO | TxOffloadUDPTnlTSO | TxOffloadOuterUDPCksum

// testTunnel sends through a tunnel between the ends.
func testTunnel(t *testing.T, cfg relayConfig, gpe, v6, checksum bool) {
	cfg.rx |= RxOffloadTunnelLRO
	if !cfg.cut {
		cfg.tx |= relayTunnelTx
	}
	r := newRelay(t, cfg)
	for _, dst := range r.tunnel(gpe, v6, checksum) {
		before := r.seen[0].lro.Load()
		r.tcp(traffic.TCPConfig{Bytes: int64(nettest.Scale(32 << 20))}, dst)
		r.udp(traffic.UDPConfig{Count: nettest.Scale(1000), SizeBytes: 1200}, dst)
		if r.seen[0].lro.Load() == before {
			t.Errorf("%v: no LRO frame was seen", dst)
		}
	}
}

// tunnel puts a VXLAN or VXLAN-GPE tunnel between the two ends, and returns the far end's addresses
// in it.
func (r *relay) tunnel(gpe, v6, checksum bool) []netip.Addr {
	t := r.t
	t.Helper()
	outer := r.v4
	if v6 {
		outer = r.v6
	}
	far := []netip.Addr{netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("2001:db8:2::2")}
	for i, p := range r.ports {
		var index int
		nettest.NeedProbe(t, "VXLAN", func() (err error) {
			if gpe {
				index, err = traffic.AddVXLANGPE(p.ns, "tunnel", 4790)
			} else {
				index, err = traffic.AddVXLAN(p.ns, p.index, "tunnel", 42, 4789, outer[i], outer[1-i], checksum)
			}
			return err
		})
		addr, other := far, []netip.Addr{far[0].Prev(), far[1].Prev()}
		if i == 0 {
			addr, other = other, addr
		}
		must(t, p.conn.AddAddr(index, netip.PrefixFrom(addr[0], 24)))
		must(t, p.conn.AddAddr(index, netip.PrefixFrom(addr[1], 64)))
		if !gpe {
			continue
		}
		must(t, p.conn.SetMTU(index, 1400)) // the kernel does not know what is below
		for _, a := range other {
			nettest.NeedProbe(t, "routes into tunnels", func() error {
				return traffic.SetTunnelRoute(p.ns, netip.PrefixFrom(a, a.BitLen()), index, 42, outer[1-i], checksum)
			})
		}
	}
	for _, dst := range far {
		r.acquaint(dst)
	}
	return far
}
