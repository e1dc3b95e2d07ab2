// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// wheel is a stream whose queues cost little: what is sent is freed, what is received is freshly allocated.
type wheel struct {
	pool  *mbuf.Cache
	proto []byte // what every received packet holds
	flags uint64 // and what the driver says of it, if it says anything
	ptype uint32
	txOff uint64
	s     *Stream
}

func (w *wheel) turn() int { return w.s.burst() }

type wheelRx struct{ w *wheel }

func (q wheelRx) Burst(bufs []*mbuf.Mbuf) int {
	n := q.w.pool.AllocBulk(bufs)
	for _, m := range bufs[:n] {
		m.DataLen, m.PktLen = uint16(len(q.w.proto)), uint32(len(q.w.proto))
		copy(m.Bytes(), q.w.proto)
		m.OlFlags, m.PacketType, m.TxOffload = q.w.flags, q.w.ptype, q.w.txOff
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
	return newWheelOf(t, Config{Mode: mode, Burst: burst})
}

func newWheelOf(t testing.TB, c Config) *wheel {
	t.Helper()
	pool := newPool(t, mbuf.Config{Count: 2048})
	w := &wheel{pool: pool.NewCache(0), proto: ping4}
	t.Cleanup(w.pool.Close)
	port := NewPort(portMAC, []wheelRx{{w}}, []wheelTx{{w}})
	c.Alloc = func(int) mbuf.Allocator { return w.pool }
	f, err := New(c, port)
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

// receives makes the wheel's packets b, received with flags and a segment size.
func (w *wheel) receives(t testing.TB, b []byte, flags uint64, seg int) {
	t.Helper()
	layout := header.Parse(b)
	l := layout.Lengths()
	l.TSOSegSize = seg
	v, ok := mbuf.PackLengths(l)
	if !ok {
		t.Fatal("lengths do not fit")
	}
	w.proto, w.flags, w.ptype, w.txOff = b, flags, layout.PacketType, v
}

// BenchmarkCsum is mode csum by who computes, with TCP over IPv4.
func BenchmarkCsum(b *testing.B) {
	for _, by := range []struct {
		name string
		c    CsumConfig
	}{{"software", CsumConfig{}}, {"driver", allHardware}} {
		for _, n := range []int{64, 1448} {
			b.Run(fmt.Sprintf("by=%s/payload=%d", by.name, n), func(b *testing.B) {
				w := newWheelOf(b, Config{Mode: "csum", Csum: by.c})
				w.receives(b, frames(n)["tcp4"].b, mbuf.RxL4CksumGood|mbuf.RxIPCksumGood, 0)
				benchTurns(b, w, DefaultBurst)
			})
		}
	}
}

// largeRx hands out frames that fill their mbufs. They were written once: a pool gives back what was there.
type largeRx struct {
	pool  *mbuf.Cache
	size  int
	ptype uint32
	txOff uint64
}

func newLargeRx(b *testing.B, frame []byte, seg, count int) *largeRx {
	b.Helper()
	pool := newPool(b, mbuf.Config{Count: count, DataRoom: len(frame)})
	all := make([]*mbuf.Mbuf, count)
	for _, m := range all[:pool.AllocBulk(all)] {
		copy(m.Append(len(frame)), frame)
	}
	pool.FreeBulk(all)
	q := &largeRx{pool: pool.NewCache(0), size: len(frame)}
	b.Cleanup(q.pool.Close)
	layout := header.Parse(frame)
	l := layout.Lengths()
	l.TSOSegSize = seg
	q.ptype = layout.PacketType
	q.txOff, _ = mbuf.PackLengths(l)
	return q
}

func (q *largeRx) Burst(bufs []*mbuf.Mbuf) int {
	n := q.pool.AllocBulk(bufs)
	for _, m := range bufs[:n] {
		m.DataLen, m.PktLen = uint16(q.size), uint32(q.size)
		m.OlFlags, m.PacketType, m.TxOffload = mbuf.RxLRO|mbuf.RxL4CksumNone, q.ptype, q.txOff
	}
	return n
}

// freeTx frees what it takes.
type freeTx struct{ pool *mbuf.Cache }

func (q freeTx) Burst(bufs []*mbuf.Mbuf) int {
	q.pool.FreeBulk(bufs)
	return len(bufs)
}

// BenchmarkMTU is mode mtu with frames of 44 packets of 1448 bytes of payload: what a packet of wire size costs, cut
// and merged, and what goes through.
func BenchmarkMTU(b *testing.B) {
	const seg, segs = 1448, 44
	for _, burst := range []int{8, 32} {
		b.Run(fmt.Sprintf("burst=%d", burst), func(b *testing.B) {
			rx := newLargeRx(b, frames(seg * segs)["tcp4"].b, seg, 2*burst+64)
			pool := newPool(b, mbuf.Config{Count: 4096})
			cache := pool.NewCache(0)
			b.Cleanup(cache.Close)
			port := NewPort(portMAC, []*largeRx{rx}, []freeTx{{cache}})
			f, err := New(Config{Mode: "mtu", Burst: burst, Alloc: func(int) mbuf.Allocator { return cache }}, port)
			if err != nil {
				b.Fatal(err)
			}
			s, packets := f.Streams()[0], 0
			b.ReportAllocs()
			for b.Loop() {
				packets += s.burst() * segs
			}
			if st := s.Stats(); st.Malformed+st.NoMbuf+st.FwdDropped != 0 || st.RxPackets*segs != uint64(packets) {
				b.Fatalf("%+v", st)
			}
			ns := float64(b.Elapsed().Nanoseconds())
			b.ReportMetric(ns/float64(packets), "ns/pkt")
			b.ReportMetric(float64(packets)*seg*8/ns, "Gb/s")
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
				p.f(b.Context(), 0, 1)
			}
		})
	}
}
