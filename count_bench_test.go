// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// BenchmarkCount is what counting adds to a burst, publishing included; the unit is the
// packet. Plain packets are of one size, to one address, and nothing is said of them; of those
// with offloads the same is said; the mixed ones differ in everything that is counted.
func BenchmarkCount(b *testing.B) {
	for _, c := range []struct {
		name string
		make func(m *mbuf.Mbuf, i int)
	}{
		{"plain", func(*mbuf.Mbuf, int) {}},
		{"offloads", func(m *mbuf.Mbuf, _ int) {
			m.OlFlags = mbuf.RxL4CksumGood | mbuf.RxIPCksumGood | mbuf.TxTCPCksum
		}},
		{"mixed", mixed},
	} {
		for _, burst := range benchBursts {
			pool := newPool(b, mbuf.Config{Name: "count", Count: 64})
			bufs, lengths := make([]*mbuf.Mbuf, burst), make([]uint32, burst)
			pool.AllocBulk(bufs)
			for i, m := range bufs {
				m.CopyIn(frame(64, 0), pool)
				c.make(m, i)
				lengths[i] = m.PktLen
			}
			b.Run(fmt.Sprintf("rx/%s/burst=%d", c.name, burst), func(b *testing.B) {
				benchCount(b, burst, func(p *pending) {
					p.received(bufs)
					p.add(cntBytes, 64)
				})
			})
			b.Run(fmt.Sprintf("tx/%s/burst=%d", c.name, burst), func(b *testing.B) {
				benchCount(b, burst, func(p *pending) { p.sent(bufs, lengths) })
			})
			mbuf.FreeBulk(bufs)
		}
	}
}

// mixed makes packet i unlike others.
func mixed(m *mbuf.Mbuf, i int) {
	copy(m.Bytes(), [][]byte{{1}, {2}, {255, 255, 255, 255, 255, 255}}[i%3])
	m.PktLen = 64 << (i & 7) // of a chain, whose other mbufs are not looked at
	m.OlFlags = []uint64{mbuf.RxLRO | mbuf.RxL4CksumNone, mbuf.RxL4CksumGood, mbuf.TxTCPSeg, mbuf.TxUDPCksum, 0}[i%5]
}

func benchCount(b *testing.B, burst int, count func(p *pending)) {
	var p pending
	var t tally
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= burst {
		count(&p)
		p.io.Enters++
		t.burst(&p, burst)
	}
}
