// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"context"
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/vnethdr"
)

// The benchmarks' unit is the packet: ns/op is nanoseconds for each. Real TAPs,
// but in BenchmarkDriverOnly, where the kernel costs nothing.

var benchBursts = []int{1, 8, 32, 64}

// eachBench runs f for every way, packet size and burst.
func eachBench(b *testing.B, f func(b *testing.B, w way, size, burst int)) {
	for _, w := range ways {
		for _, size := range []int{64, 1500} {
			for _, burst := range benchBursts {
				b.Run(fmt.Sprintf("engine=%s/size=%d/burst=%d", w.name, size, burst), func(b *testing.B) {
					if w.engine == EngineUring {
						nettest.NeedUring(b)
					}
					f(b, w, size, burst)
				})
			}
		}
	}
}

// BenchmarkTx sends to a kernel that throws the packets away once it has seen
// what they are.
func BenchmarkTx(b *testing.B) {
	eachBench(b, func(b *testing.B, w way, size, burst int) {
		pool := newPool(b, mbuf.Config{Name: "bench", Count: 1024})
		p := w.start(b, Config{}, 1, RxConfig{Memory: pool})
		q, cache, f := p.TxQueue(0), pool.NewCache(0), frame(size, 0)
		defer cache.Close()
		bufs := make([]*mbuf.Mbuf, burst)
		b.ReportAllocs()
		b.ResetTimer()
		for left := b.N; left > 0; {
			n := min(left, burst)
			cache.AllocBulk(bufs[:n])
			for _, m := range bufs[:n] {
				copy(m.Append(size), f[:14]) // the rest does not matter
			}
			if k := q.Burst(bufs[:n]); k != n {
				b.Fatalf("sent %d packets of %d", k, n)
			}
			left -= n
		}
		b.StopTimer()
		wantOutcome(b, p, func(s Stats) bool { return s.OPackets == uint64(b.N) && s.OErrors == 0 })
	})
}

func wantOutcome(b *testing.B, p *port, ok func(s Stats) bool) {
	b.Helper()
	s, err := p.Stats()
	must(b, err)
	if !ok(s) {
		b.Fatalf("after %d packets: %+v", b.N, s)
	}
}

// drainQueue is how many packets wait when a drain begins.
const drainQueue = 4096

// BenchmarkRxDrain empties a full queue; filling it is not counted.
func BenchmarkRxDrain(b *testing.B) {
	eachBench(b, func(b *testing.B, w way, size, burst int) {
		pool := newPool(b, mbuf.Config{Name: "bench", Count: 1024})
		p := w.start(b, Config{TxQueueLen: drainQueue}, 1, RxConfig{Memory: pool})
		q, inj, frames := p.RxQueue(0), p.injector(), [][]byte{frame(size, 0)}
		bufs := make([]*mbuf.Mbuf, burst)
		b.ReportAllocs()
		b.ResetTimer()
		for left := b.N; left > 0; {
			n := min(left, drainQueue)
			b.StopTimer()
			if r, err := inj.Flood(context.Background(), traffic.FloodConfig{Frames: frames, Count: n}); err != nil || r.Sent != n {
				b.Fatalf("the queue took %d packets of %d: %v", r.Sent, n, err)
			}
			b.StartTimer()
			for got := 0; got < n; {
				k := q.Burst(bufs)
				mbuf.FreeBulk(bufs[:k])
				got += k
			}
			left -= n
		}
		b.StopTimer()
		wantOutcome(b, p, func(s Stats) bool { return s.IPackets == uint64(b.N) && s.IErrors == 0 && s.IMissed == 0 })
	})
}

// BenchmarkPollEmpty is a burst on a queue in which nothing is, right after
// another, and right after a full one.
func BenchmarkPollEmpty(b *testing.B) {
	for _, w := range ways {
		b.Run("engine="+w.name, func(b *testing.B) {
			if w.engine == EngineUring {
				nettest.NeedUring(b)
			}
			p := w.start(b, Config{}, 1, RxConfig{})
			q, bufs := p.RxQueue(0), make([]*mbuf.Mbuf, DefaultBurst)
			b.ReportAllocs()
			for b.Loop() {
				if q.Burst(bufs) != 0 {
					b.Fatal("a packet came")
				}
			}
		})
	}
}

// BenchmarkDriverOnly is the driver's own time in user space for each packet:
// Burst, with an engine that says at once that all went well, and the mbufs' way
// from and to the pool.
func BenchmarkDriverOnly(b *testing.B) {
	for _, burst := range benchBursts {
		b.Run(fmt.Sprintf("rx/burst=%d", burst), func(b *testing.B) { benchDriverRx(b, burst, 2048, 74) })
	}
	b.Run("rx-scatter/burst=64", func(b *testing.B) { benchDriverRx(b, 64, 512, 1500) })
	for _, burst := range benchBursts {
		b.Run(fmt.Sprintf("tx/burst=%d", burst), func(b *testing.B) { benchDriverTx(b, burst, 1) })
	}
	b.Run("tx-gather/burst=64", func(b *testing.B) { benchDriverTx(b, 64, 3) })
	b.Run("rx-lro/burst=64", benchDriverLRO)
	b.Run("tx-tso/burst=64", benchDriverTSO)
}

// benchDriverLRO describes large frames.
func benchDriverLRO(b *testing.B) {
	pool := newPool(b, mbuf.Config{Name: "bench", Count: 512, DataRoom: 9200})
	s := spec{payload: 100}
	f, hdr := s.partial(), large(s, vnethdr.GSOTCPv4, 10)
	var q *RxQueue
	e := &fakeEngine{read: func(descs []pktio.Desc, done []pktio.Completion) int {
		for i := range descs {
			done[i] = deliver(q, i, &hdr, f)
		}
		return len(descs)
	}}
	q = fakeRx(b, e, RxConfig{Ring: DefaultRingSize, Memory: pool}, 9000)
	bufs := make([]*mbuf.Mbuf, 64)
	b.ReportAllocs()
	for b.Loop() {
		n := q.Burst(bufs)
		mbuf.PassThrough(bufs[:n])
		mbuf.FreeBulk(bufs[:n])
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(q.counted().IPackets), "ns/packet")
}

// benchDriverTSO asks for segmentation.
func benchDriverTSO(b *testing.B) {
	pool := newPool(b, mbuf.Config{Name: "bench", Count: 64})
	e := &fakeEngine{write: func(descs []pktio.Desc, _ []pktio.Completion) (int, int) { return len(descs), 0 }}
	q := fakeTx(b, e, TxConfig{Ring: DefaultRingSize})
	q.fit(&PortConfig{TxOffloads: TxOffloadTCPTSO})
	packets, s := make([]*mbuf.Mbuf, 64), spec{payload: 100}
	pool.AllocBulk(packets)
	for _, m := range packets {
		must(b, m.CopyIn(s.partial(), pool))
		l := s.lengths()
		l.TSOSegSize = 10
		m.SetLengths(l)
		m.OlFlags = mbuf.TxTCPSeg | mbuf.TxIPv4
	}
	defer mbuf.FreeBulk(packets)
	b.ReportAllocs()
	for b.Loop() {
		if n := q.describe(packets); n != len(packets) { // not Burst, which would free them
			b.Fatalf("%d of %d packets were described", n, len(packets))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(64*b.N), "ns/packet")
}

func benchDriverRx(b *testing.B, burst, room, size int) {
	pool := newPool(b, mbuf.Config{Name: "bench", Count: 4096, DataRoom: room})
	e := &fakeEngine{read: func(descs []pktio.Desc, done []pktio.Completion) int {
		for i := range descs {
			done[i] = pktio.Completion{Index: uint32(i), Res: int32(size)}
		}
		return len(descs)
	}}
	q := fakeRx(b, e, RxConfig{Ring: DefaultRingSize, Memory: pool}, DefaultMTU)
	bufs := make([]*mbuf.Mbuf, burst)
	b.ReportAllocs()
	b.ResetTimer()
	for got := 0; got < b.N; {
		n := q.Burst(bufs)
		mbuf.FreeBulk(bufs[:n])
		got += n
	}
}

func benchDriverTx(b *testing.B, burst, segs int) {
	pool := newPool(b, mbuf.Config{Name: "bench", Count: 4096})
	e := &fakeEngine{write: func(descs []pktio.Desc, _ []pktio.Completion) (int, int) { return len(descs), 0 }}
	q := fakeTx(b, e, TxConfig{Ring: DefaultRingSize})
	cache := pool.NewCache(0)
	defer cache.Close()
	packets := make([]*mbuf.Mbuf, burst)
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= burst {
		fillSegs(cache, packets, segs)
		if q.Burst(packets) != burst {
			b.Fatal("not all packets were sent")
		}
	}
}

// fillSegs makes packets of so many segments with 22 bytes each.
func fillSegs(cache *mbuf.Cache, packets []*mbuf.Mbuf, segs int) {
	cache.AllocBulk(packets)
	for _, m := range packets {
		m.DataLen, m.PktLen, m.NbSegs = 22, uint32(22*segs), uint16(segs)
		for s, n := m, 1; n < segs; n++ {
			s.Next = cache.Alloc()
			s = s.Next
			s.DataLen = 22
		}
	}
}

// BenchmarkEcho is a packet's way through an idle port and back, the kernel's
// part included, by one goroutine: injected, received, sent, captured. "plain"
// is the same with read(2) and write(2) instead of the driver.
func BenchmarkEcho(b *testing.B) {
	for _, w := range ways {
		b.Run("engine="+w.name, func(b *testing.B) {
			if w.engine == EngineUring {
				nettest.NeedUring(b)
			}
			p := w.start(b, Config{}, 1, RxConfig{})
			rx, tx, bufs := p.RxQueue(0), p.TxQueue(0), make([]*mbuf.Mbuf, DefaultBurst)
			benchEcho(b, p, func() {
				n := 0
				for n == 0 {
					n = rx.Burst(bufs)
				}
				if tx.Burst(bufs[:n]) != 1 {
					b.Fatal("the packet was not sent")
				}
			})
		})
	}
	b.Run("engine=plain", func(b *testing.B) {
		p := ways[2].start(b, Config{}, 1, RxConfig{})
		m := p.pool.Alloc()
		defer m.Free()
		fd, addr := p.pairs[0].tap.FD(), m.DataAddr()
		benchEcho(b, p, func() {
			n := -1
			for n < 0 {
				n, _ = tuntap.Read(fd, addr, uintptr(m.Tailroom()))
			}
			if _, errno := tuntap.Write(fd, addr, uintptr(n)); errno != 0 {
				b.Fatal(errno)
			}
		})
	})
}

func benchEcho(b *testing.B, p *port, echo func()) {
	inj, f := p.injector(), frame(64, 0)
	p.capturer()
	for b.Loop() {
		must(b, inj.Inject(f))
		echo()
		p.captured(1)
	}
}
