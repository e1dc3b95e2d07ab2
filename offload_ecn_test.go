// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

// congest marks one in every n packets that may be marked (RFC 3168): ECT(0) and
// ECT(1) become CE.
func congest(n int) func(from int, m *mbuf.Mbuf) {
	seen := 0
	return func(from int, m *mbuf.Mbuf) {
		if from != 0 || int(m.PktLen) < 1000 {
			return
		}
		l := m.Lengths()
		ip := m.Bytes()[l.IPStart():]
		v4 := m.PacketType&mbuf.PTypeL3Mask == mbuf.PTypeL3IPv4
		shift := 4 // the traffic class of IPv6 is across two bytes
		if v4 {
			shift = 0
		}
		if ecn := ip[1] >> shift & 3; ecn == 0 || ecn == 3 {
			return
		}
		if seen++; seen%n != 0 {
			return
		}
		ip[1] |= 3 << shift
		if v4 {
			binary.BigEndian.PutUint16(ip[10:], header.IPv4Checksum(ip[:l.L3]))
		}
	}
}

// TestOffloadECN: marks arrive, and what the sender says in answer (CWR), which the
// kernel hands over as a frame of its own kind (VIRTIO_NET_HDR_GSO_ECN).
func TestOffloadECN(t *testing.T) {
	eachEngineIfFast(t, func(t *testing.T, e Engine) { testECN(t, relayConfig{engine: e, rx: relayRx, tx: relayTx}) })
}

func testECN(t *testing.T, cfg relayConfig) {
	for _, hop := range []bool{false, true} {
		cfg.hop, cfg.edit = hop, congest(20)
		r := newRelay(t, cfg)
		for _, ns := range r.spaces() {
			must(t, traffic.SetSysctl(ns, "ipv4/tcp_ecn", "1"))
		}
		for _, dst := range []netip.Addr{r.v4[1], r.v6[1]} {
			before, cwr := r.counters(), r.seen[0].cwr.Load()
			var info traffic.TCPInfo
			// The answer goes with whatever is sent next, which need not be a large frame.
			for tries := 0; tries < 10 && r.seen[0].cwr.Load() == cwr; tries++ {
				var err error
				info, err = r.stream(traffic.TCPConfig{Bytes: int64(nettest.Scale(16 << 20)), Congestion: "reno"}, dst)
				must(t, err)
			}
			r.clean(before)
			after := r.counters()
			last := len(after) - 1
			if c := after[last].Since(before[last]); c.InCEPkts == 0 || c.InECT0Pkts == 0 {
				t.Errorf("hop %t, %v: the far end received no marks: %+v", hop, dst, c)
			}
			if !info.ECN || info.DeliveredCE == 0 {
				t.Errorf("hop %t, %v: the sender learnt of no marks: %+v", hop, dst, info)
			}
			if r.seen[0].cwr.Load() == cwr {
				t.Errorf("hop %t, %v: no LRO frame said that the sender slowed down", hop, dst)
			}
		}
	}
}
