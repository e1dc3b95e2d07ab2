// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// perPacket turns the time of one operation on n packets into that of one.
func perPacket(b *testing.B, n int) {
	b.ReportAllocs()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/packet")
}

// BenchmarkSegment cuts a frame of 45 packets of 1448 bytes of TCP.
func BenchmarkSegment(b *testing.B) {
	for _, c := range []struct {
		name string
		room int
	}{{"single", 65400}, {"chain", 2048}} {
		b.Run(c.name, func(b *testing.B) {
			in := newPool(b, 64, c.room)
			p := newPool(b, 1024, 2048)
			cache := p.NewCache(0)
			defer cache.Close()
			s := base(false, true, 45*1448)
			s.partial = true
			m := largeOf(b, in, s, 1448)
			defer m.Free()
			var seg Segmenter
			out := make([]*mbuf.Mbuf, 64)
			for b.Loop() {
				n, err := seg.Segment(m, cache, out)
				if err != nil {
					b.Fatal(err)
				}
				cache.FreeBulk(out[:n])
			}
			perPacket(b, 45)
		})
	}
}

// BenchmarkCoalesce merges 45 packets of 1448 bytes of TCP, whose checksum is known
// to be right, and that many whose is not known. It has to undo that each time: "undo"
// is what this takes, and is to be deducted.
func BenchmarkCoalesce(b *testing.B) {
	for _, c := range []struct {
		name  string
		flows int
		flags uint64
	}{{"undo", 45, 0}, {"good", 1, mbuf.RxL4CksumGood | mbuf.RxIPCksumGood}, {"good/flows=9", 9, mbuf.RxL4CksumGood}, {"unknown", 1, 0}} {
		b.Run(c.name, func(b *testing.B) {
			p := newPool(b, 128, 2048)
			var co Coalescer
			var packets, bufs []*mbuf.Mbuf
			for i := range 45 {
				s := base(false, true, 1448)
				s.host = byte(i % c.flows)
				s.seq += uint32(i / c.flows * 1448)
				s.id += uint16(i / c.flows)
				packets = append(packets, packetOf(b, p, s.build()))
			}
			saved := make([]mbuf.Mbuf, 45)
			for i, m := range packets {
				m.OlFlags = c.flags
				saved[i] = *m
			}
			var headers [45][54]byte
			for i, m := range packets {
				copy(headers[i][:], m.Bytes())
			}
			for b.Loop() {
				bufs = append(bufs[:0], packets...)
				if c.name == "undo" {
					// Nothing.
				} else if n := co.Burst(bufs); n != c.flows {
					b.Fatal(n)
				}
				for i, m := range packets {
					*m = saved[i]
					if i < c.flows && c.name != "undo" {
						copy(m.Bytes(), headers[i][:])
					}
				}
			}
			perPacket(b, 45)
			mbuf.FreeBulk(packets)
		})
	}
}

func BenchmarkCopySum(b *testing.B) {
	src, dst := pattern(1448, 0), make([]byte, 1448)
	var sum uint64
	for b.Loop() {
		sum += copySum(dst, src)
	}
	_ = sum
}
