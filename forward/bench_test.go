// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// wheel is a stream whose queues cost little: what is sent is freed, what is received is freshly allocated.
type wheel struct {
	pool  *mbuf.Cache
	proto []byte // what every received packet holds
	s     *Stream
}

func (w *wheel) turn() int { return w.s.burst() }

type wheelRx struct{ w *wheel }

func (q wheelRx) Burst(bufs []*mbuf.Mbuf) int {
	n := q.w.pool.AllocBulk(bufs)
	for _, m := range bufs[:n] {
		m.DataLen, m.PktLen = uint16(len(q.w.proto)), uint32(len(q.w.proto))
		copy(m.Bytes(), q.w.proto)
	}
	return n
}

type wheelTx struct{ w *wheel }

func (q wheelTx) Burst(bufs []*mbuf.Mbuf) int {
	q.w.pool.FreeBulk(bufs)
	return len(bufs)
}

func newWheel(t testing.TB, mode string, burst int) *wheel {
	t.Helper()
	pool := newPool(t, mbuf.Config{Count: 2048})
	w := &wheel{pool: pool.NewCache(0), proto: ping4}
	t.Cleanup(w.pool.Close)
	port := NewPort(portMAC, []wheelRx{{w}}, []wheelTx{{w}})
	f, err := New(Config{Mode: mode, Burst: burst, Alloc: func(int) mbuf.Allocator { return w.pool }}, port)
	if err != nil {
		t.Fatal(err)
	}
	w.s = f.Streams()[0]
	return w
}

// BenchmarkMode is the cost of a mode between queues that take mbufs from a cache and give them back, with
// 98-byte pings (txonly: 64 bytes): the queues' part is what io shows.
func BenchmarkMode(b *testing.B) {
	for _, m := range Modes() {
		for _, burst := range []int{32, 64} {
			b.Run(fmt.Sprintf("mode=%s/burst=%d", m.Name, burst), func(b *testing.B) {
				w := newWheel(b, m.Name, burst)
				benchTurns(b, w, burst)
			})
		}
	}
}

// BenchmarkEcho is icmpecho with each kind of request.
func BenchmarkEcho(b *testing.B) {
	for _, req := range []struct {
		name string
		data []byte
	}{{"ping4", ping4}, {"ping6", ping6}, {"arp", arpWho}, {"solicit", solicit6}} {
		b.Run("request="+req.name, func(b *testing.B) {
			w := newWheel(b, "icmpecho", 32)
			w.proto = req.data
			benchTurns(b, w, 32)
		})
	}
}

func benchTurns(b *testing.B, w *wheel, burst int) {
	b.ReportAllocs()
	packets := 0
	for b.Loop() {
		packets += w.turn()
	}
	if packets != b.N*burst {
		b.Fatalf("%d packets in %d bursts of %d", packets, b.N, burst)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(packets), "ns/pkt")
}

// BenchmarkIdlePolicy is what a policy adds to an empty round.
func BenchmarkIdlePolicy(b *testing.B) {
	for _, p := range []struct {
		name string
		f    IdleFunc
	}{{"spin", Spin}, {"yield", Yield}} {
		b.Run("policy="+p.name, func(b *testing.B) {
			for b.Loop() {
				p.f(0, 1)
			}
		})
	}
}
