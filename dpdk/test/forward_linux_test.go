// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
)

// flow is an IPv4 UDP frame of some size, at least 46, of flow n.
func flow(n, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + n*13)
	}
	copy(b, []byte{0x02, 0, 0, 0, 0, 0xbb, 0x02, 0, 0, 0, 0, 0xaa, 0x08, 0x00})
	ip := b[14:]
	clear(ip[:20])
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(size-14))
	copy(ip[12:], []byte{192, 0, 2, 1, 198, 51, 100, 1})
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:20]))
	udp := ip[20:]
	binary.BigEndian.PutUint16(udp, uint16(10000+n))
	binary.BigEndian.PutUint16(udp[2:], 9)
	binary.BigEndian.PutUint16(udp[4:], uint16(size-34))
	clear(udp[6:8]) // no checksum
	return b
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// flows are frames of n flows of one size.
func flows(n, size int) (frames [][]byte) {
	for i := range n {
		frames = append(frames, flow(i, size))
	}
	return frames
}

// within is a bound for traffic.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(d))
	t.Cleanup(cancel)
	return ctx
}

// TestRxOnly floods a port of one queue and of four, with frames of several sizes. All that the interface took is
// received, and counted by testpmd, the port and its queues alike.
func TestRxOnly(t *testing.T) {
	for _, queues := range []int{1, 4} {
		t.Run(fmt.Sprintf("queues=%d", queues), func(t *testing.T) {
			p := startTestpmd(t, pmdConfig{ports: 1, args: []string{fmt.Sprintf("--rxq=%d", queues), fmt.Sprintf("--txq=%d", queues)}})
			p.all("set fwd rxonly", "start")
			in := p.ports[0].injector()
			var packets, bytes uint64
			for _, size := range []int{64, 333, 1514} {
				r, err := in.Flood(within(t, time.Minute), traffic.FloodConfig{Frames: flows(64, size), Count: 20000})
				must(t, err)
				packets += uint64(r.Sent)
				bytes += uint64(r.Sent * size)
			}
			nettest.Eventually(t, patience, "all frames to be received", func() bool { return p.stats(0)["RX-packets"] >= packets })
			want(t, "port", p.stats(0), map[string]uint64{"RX-packets": packets, "RX-bytes": bytes, "RX-errors": 0, "RX-nombuf": 0, "TX-packets": 0})
			x, sum := p.xstats(0), uint64(0)
			for q := range queues {
				n := x[fmt.Sprintf("rx_q%d_packets", q)]
				if n == 0 {
					t.Errorf("queue %d received nothing", q)
				}
				sum += n
			}
			if sum != packets {
				t.Errorf("queues received %d, the port %d", sum, packets)
			}
			p.do("stop")
			want(t, "testpmd", p.fwd(), map[string]uint64{"RX-packets": packets})
			p.quit()
		})
	}
}

// TestTxOnlySizes sends packets of every size, in one mbuf and in chains. The kernel gets what testpmd made: UDP,
// with all its bytes there.
func TestTxOnlySizes(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 1})
	p.do("set fwd txonly")
	i := p.ports[0]
	var sent, bytes uint64
	for _, c := range []struct {
		txpkts string
		size   int
	}{
		{"64", 64}, {"65", 65}, {"128", 128}, {"256", 256}, {"512", 512}, {"1024", 1024}, {"1280", 1280}, {"1514", 1514},
		{"1518", 1518}, {"2000", 2000}, {"64,64,64", 192}, {"64,128", 192}, {"64,1,1,1,60", 127}, {"42,1400", 1442},
		{"2000,2000,2000,2000", 8000},
	} {
		p.do("set txpkts " + c.txpkts)
		capture := i.capturer()
		p.do("start")
		for range 100 {
			f, err := capture.Next(within(t, patience), nil)
			must(t, err)
			ip := f[14:]
			if len(f) != c.size || binary.BigEndian.Uint16(f[12:]) != 0x0800 || ip[9] != 17 || checksum(ip[:20]) != 0 ||
				int(binary.BigEndian.Uint16(ip[2:])) != c.size-14 || int(binary.BigEndian.Uint16(ip[24:])) != c.size-34 {
				t.Fatalf("txpkts %s: %d bytes arrived: % x", c.txpkts, len(f), f[:42])
			}
		}
		p.do("stop")
		must(t, capture.Close())
		n := p.stats(0)["TX-packets"]
		if n <= sent {
			t.Errorf("txpkts %s: nothing counted", c.txpkts)
		}
		bytes += (n - sent) * uint64(c.size)
		sent = n
	}
	want(t, "port", p.stats(0), map[string]uint64{"TX-bytes": bytes, "TX-errors": 0})
	k := i.link().Stats
	want(t, "kernel", map[string]uint64{"packets": k.RxPackets, "bytes": k.RxBytes}, map[string]uint64{"packets": sent, "bytes": bytes})
	p.quit()
}

// TestTxOnlyForAMinute sends without a stall. Meanwhile Go has nothing to do but what the bursts call it for: no
// thread of its own runs, nothing is collected.
func TestTxOnlyForAMinute(t *testing.T) {
	t.Parallel()
	p := startTestpmd(t, pmdConfig{ports: 1, limit: 3 * time.Minute, args: []string{"--txonly-multi-flow"}})
	p.all("set fwd txonly", "start")
	before, cpu := runtimeOf(t, p.process), goTime(p.process)
	const seconds = 60
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last uint64
	for s := range seconds {
		<-tick.C
		n := p.stats(0)["TX-packets"]
		if n < last+1000 {
			t.Errorf("second %d: %d packets, after %d", s, n, last)
		}
		last = n
	}
	after, ran := runtimeOf(t, p.process), goTime(p.process)-cpu
	if after["gcs"] != before["gcs"] {
		t.Errorf("Go has collected garbage: %v, then %v", before, after)
	}
	if ran > seconds*time.Second/100 {
		t.Errorf("Go's own threads ran for %v in %d s", ran, seconds)
	}
	p.do("stop")
	got := p.stats(0)
	k := p.ports[0].link().Stats
	want(t, "kernel", map[string]uint64{"packets": k.RxPackets, "errors": k.RxErrors}, map[string]uint64{"packets": got["TX-packets"]})
	want(t, "port", got, map[string]uint64{"TX-errors": 0})
	t.Logf("%d packets; Go's own threads ran for %v; %v", got["TX-packets"], ran, after)
	p.quit()
}

// goTime is how long Go's own threads have run.
func goTime(p *process) (sum time.Duration) {
	for _, th := range p.threads("rtap-go") {
		sum += th.cpu
	}
	return sum
}
