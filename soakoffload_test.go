// SPDX-License-Identifier: BSD-3-Clause

//go:build linux && soak

package rtap

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/traffic"
)

// TestSoakOffloads sends streams and datagrams, one after the other, through two
// ports with large frames for 3 minutes, while the MTU and what the kernel may leave
// undone change: nothing is damaged, refused or lost.
func TestSoakOffloads(t *testing.T) {
	cfg, hasUSO := withUSO(t, relayConfig{rx: relayRx | relayStrip, tx: relayTx | relayInsert, hop: true,
		tags: []traffic.VLANTag{{Type: 0x8100, TCI: 100}}})
	r := newRelay(t, cfg)
	before := r.counters()
	var ws workers
	defer ws.stop()
	turn := 0
	ws.loop(func() {
		turn++
		for _, p := range r.ports {
			err := p.SetMTU([]int{1500, 9000, 2000}[turn%3])
			err = errors.Join(err, traffic.SetFeatures(p.ns, p.index, traffic.Features{"tx-tcp-segmentation": turn%4 != 0}))
			if err != nil {
				t.Error(err)
			}
		}
		time.Sleep(50 * time.Millisecond)
	})
	var bytes, streams int64
	for end := time.Now().Add(soakTime); time.Now().Before(end) && !t.Failed(); streams++ {
		for _, dst := range []netip.Addr{r.v4[1], r.v6[1]} {
			const size = 256 << 20
			if _, err := r.stream(traffic.TCPConfig{Bytes: size, Hash: true}, dst); err != nil {
				t.Error(err)
			}
			bytes += size
			if hasUSO {
				r.udp(traffic.UDPConfig{Count: 4000, SizeBytes: 1200, Segments: 40, GRO: true}, dst)
			}
		}
	}
	ws.stop()
	missed := r.clean(before)
	t.Logf("%d bytes in %d streams, %d turns, %d frames missed, %d large", bytes, 2*streams, turn, missed, r.seen[0].lro.Load())
}
