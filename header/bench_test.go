// SPDX-License-Identifier: BSD-3-Clause

package header

import (
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// sink keeps the compiler from leaving out what is measured.
var sink uint64

var parsed = []string{
	"ipv4/tcp", "ipv4/udp", "ipv6/tcp", "ipv6/udp", "vlan/ipv4/tcp", "hop-by-hop/tcp", "arp", "vxlan", "geneve", "gre/ipv4",
}

func BenchmarkParse(b *testing.B) {
	for _, name := range parsed {
		b.Run(name, func(b *testing.B) {
			frame := frames[name]
			b.ReportAllocs()
			for b.Loop() {
				l := Parse(frame)
				sink += uint64(l.PacketType) + uint64(l.Headers())
			}
		})
	}
}

func BenchmarkParsePacked(b *testing.B) {
	for _, name := range parsed {
		b.Run(name, func(b *testing.B) {
			frame := frames[name]
			b.ReportAllocs()
			for b.Loop() {
				ptype, lengths := ParsePacked(frame)
				sink += uint64(ptype) + lengths
			}
		})
	}
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{20, 40, 64, 1448, 9000, 65535} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			buf := make([]byte, n)
			b.SetBytes(int64(n))
			for b.Loop() {
				sink += uint64(Sum(buf))
			}
		})
	}
}

// benchPacket makes a packet of size bytes to work on, in segs segments.
func benchPacket(b *testing.B, size, segs int) (*mbuf.Mbuf, Layout) {
	frame := ether("", 0x0800, v4("", 6, join(tcp("", ""), make([]byte, size-54))))
	cuts := make([]int, segs-1)
	for i := range cuts {
		cuts[i] = size / segs
	}
	m := received(b, newPool(b), frame, cuts...)
	b.Cleanup(m.Free)
	return m, Parse(frame)
}

func BenchmarkComplete(b *testing.B) {
	for _, segs := range []int{1, 3} {
		b.Run(fmt.Sprintf("1514/%d", segs), func(b *testing.B) {
			m, _ := benchPacket(b, 1514, segs)
			b.SetBytes(1514)
			b.ReportAllocs()
			for b.Loop() {
				m.OlFlags = mbuf.RxL4CksumNone
				Complete(m)
			}
		})
	}
}

func BenchmarkVerifyL4(b *testing.B) {
	for _, segs := range []int{1, 3} {
		b.Run(fmt.Sprintf("1514/%d", segs), func(b *testing.B) {
			m, l := benchPacket(b, 1514, segs)
			b.SetBytes(1514)
			b.ReportAllocs()
			for b.Loop() {
				VerifyL4(m, l)
			}
		})
	}
}
