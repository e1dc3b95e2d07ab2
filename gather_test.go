// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// chain is a packet with frame's bytes, cut into segments of these lengths.
func chain(t testing.TB, pool *mbuf.Pool, frame []byte, lens ...int) *mbuf.Mbuf {
	t.Helper()
	segs := make([]*mbuf.Mbuf, len(lens))
	if n := pool.AllocBulk(segs); n != len(segs) {
		t.Fatalf("pool %s gave %d mbufs of %d", pool.Name(), n, len(segs))
	}
	for i, n := range lens {
		if copy(segs[i].Append(n), frame[:n]) != n {
			t.Fatalf("segment %d has no room for %d bytes", i, n)
		}
		frame = frame[n:]
		if i > 0 {
			segs[i-1].Next = segs[i]
			segs[0].PktLen += uint32(n)
		}
	}
	if len(frame) > 0 {
		t.Fatalf("%d bytes are in no segment", len(frame))
	}
	segs[0].NbSegs = uint16(len(segs))
	return segs[0]
}

// pieces cuts size bytes into n lengths that differ by one at most.
func pieces(size, n int) []int {
	lens := make([]int, n)
	for i := range lens {
		lens[i] = (size + i) / n
	}
	return lens
}

// TestTxChains: chains of any legal length, cut anywhere.
func TestTxChains(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		for _, room := range []int{128, 129, 1000, 2048, 65407} {
			t.Run(fmt.Sprint("room=", room), func(t *testing.T) {
				pool := newPool(t, mbuf.Config{Name: "odd", Count: 1100, DataRoom: room})
				p := w.start(t, Config{MTU: MaxMTU}, 1, RxConfig{})
				for _, segs := range []int{1, 2, 3, 17, 1023} {
					longest := min(segs*room, longestFrame)
					for _, size := range []int{max(14, segs), max(segs, longest/2), longest - longest%segs} {
						p.checkTx([]int{size}, 1, func(f []byte) *mbuf.Mbuf { return chain(t, pool, f, pieces(size, segs)...) })
					}
				}
				wantInUse(t, pool, 0)
			})
		}
	})
}

// TestTxChainCuts: cuts inside the Ethernet header, and empty segments, first,
// in the middle and last.
func TestTxChainCuts(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		p := w.start(t, Config{}, 1, RxConfig{})
		for _, lens := range [][]int{
			{60}, {1, 59}, {13, 47}, {14, 46}, {59, 1}, {6, 6, 2, 46}, {1, 1, 1, 57},
			{0, 60}, {60, 0}, {0, 0, 60}, {30, 0, 30}, {30, 0, 0, 0, 30}, {0, 1, 0, 59, 0},
		} {
			p.checkTx([]int{60}, 1, func(f []byte) *mbuf.Mbuf { return chain(t, p.pool, f, lens...) })
		}
		wantInUse(t, p.pool, 0)
	})
}

// TestTxChainBurst: one burst of chains that need more iovecs than the queue
// has, between packets that need none.
func TestTxChainBurst(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		pool := newPool(t, mbuf.Config{Name: "chains", Count: 4096, DataRoom: 128})
		p := w.start(t, Config{MTU: MaxMTU}, 1, RxConfig{})
		sizes, i := make([]int, 40), 0
		for i := range sizes {
			sizes[i] = 1100 + i
		}
		segs := []int{0, 9, 400, 100, 0, 17}
		p.checkTx(sizes, len(sizes), func(f []byte) *mbuf.Mbuf {
			i++
			if n := segs[i%len(segs)]; n > 0 {
				return chain(t, pool, f, pieces(len(f), n)...)
			}
			return p.mbufOf(f)
		})
		wantInUse(t, pool, 0)
	})
}

// TestTxTooManySegs: 1023 segments are the most; longer chains are taken,
// freed and counted.
func TestTxTooManySegs(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		pool := newPool(t, mbuf.Config{Name: "chains", Count: 4096, DataRoom: 128})
		p := w.start(t, Config{MTU: MaxMTU}, 1, RxConfig{})
		p.capturer()
		f := frame(1100, 1)
		bufs := []*mbuf.Mbuf{
			chain(t, pool, f, pieces(1100, 1024)...), chain(t, pool, f, pieces(1100, 1023)...), chain(t, pool, f, pieces(1100, 1025)...),
		}
		if n := p.TxQueue(0).Burst(bufs); n != 3 {
			t.Fatalf("Burst took %d packets of 3", n)
		}
		must(t, sameBytes(p.captured(1)[0], f))
		wantInUse(t, pool, 0)
		p.wantStats(Stats{QueueStats: QueueStats{OPackets: 1, OBytes: 1100, OErrors: 2}})
	})
}

// TestTxShared: what others can see is sent and not written to, neither the data
// nor the room in front of it, where the driver's header would go.
func TestTxShared(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		p := w.start(t, Config{}, 1, RxConfig{})
		f := frame(1000, 3)
		for _, c := range []struct {
			name string
			send func(m *mbuf.Mbuf) []*mbuf.Mbuf // what to send; m stays ours
		}{
			{"reference", func(m *mbuf.Mbuf) []*mbuf.Mbuf { m.RefUpdate(1); return []*mbuf.Mbuf{m} }},
			{"references", func(m *mbuf.Mbuf) []*mbuf.Mbuf { m.RefUpdate(3); return []*mbuf.Mbuf{m, m, m} }},
			{"clone", func(m *mbuf.Mbuf) []*mbuf.Mbuf { return []*mbuf.Mbuf{mbuf.Clone(m, p.pool)} }},
			{"clone and reference", func(m *mbuf.Mbuf) []*mbuf.Mbuf {
				m.RefUpdate(1)
				return []*mbuf.Mbuf{mbuf.Clone(m, p.pool), m}
			}},
		} {
			m := mbufFrom(t, p.pool, f)
			front := m.Front(m.Headroom())
			pattern := bytes.Repeat([]byte{0xa5}, len(front))
			copy(front, pattern)
			p.sendAndCapture(c.send(m), f)
			if !bytes.Equal(front, pattern) {
				t.Errorf("%s: the headroom was written to", c.name)
			}
			if err := checkPacket(m, f); err != nil {
				t.Errorf("%s: our packet changed: %v", c.name, err)
			}
			if n := m.RefCount(); n != 1 {
				t.Errorf("%s: the reference count is %d, want 1", c.name, n)
			}
			m.Free()
			wantInUse(t, p.pool, 0)
		}
	})
}

// sendAndCapture sends packets that all have content want.
func (p *port) sendAndCapture(bufs []*mbuf.Mbuf, want []byte) {
	p.t.Helper()
	p.capturer()
	if n := p.TxQueue(0).Burst(bufs); n != len(bufs) {
		p.t.Fatalf("Burst took %d packets of %d", n, len(bufs))
	}
	for _, got := range p.captured(len(bufs)) {
		must(p.t, sameBytes(got, want))
	}
}

// TestTxCloneOfChain: a chain and its clone, freed in either order.
func TestTxCloneOfChain(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		p := w.start(t, Config{}, 1, RxConfig{})
		f := frame(1500, 5)
		m := chain(t, p.pool, f, 500, 0, 500, 500)
		p.sendAndCapture([]*mbuf.Mbuf{mbuf.Clone(m, p.pool)}, f)
		must(t, checkPacket(m, f))
		second := mbuf.Clone(m, p.pool)
		p.sendAndCapture([]*mbuf.Mbuf{m}, f)
		must(t, checkPacket(second, f))
		p.sendAndCapture([]*mbuf.Mbuf{second}, f)
		wantInUse(t, p.pool, 0)
	})
}

// TestTxHeadroom: with the driver's header in front, or without room for it.
func TestTxHeadroom(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		for _, headroom := range []int{-1, 5, 9, 10, 11, 128} {
			pool := newPool(t, mbuf.Config{Name: "odd", Count: 64, Headroom: headroom})
			p := w.start(t, Config{}, 1, RxConfig{})
			p.checkTx([]int{14, 60, 1514}, 3, func(f []byte) *mbuf.Mbuf { return mbufFrom(t, pool, f) })
			// The program may have used the room up, or made more.
			for _, left := range []int{0, 9, 10} {
				p.checkTx([]int{400}, 1, func(f []byte) *mbuf.Mbuf {
					m := pool.Alloc()
					m.DataOff = uint16(left)
					copy(m.Front(left), bytes.Repeat([]byte{0xff}, left)) // not a header that the kernel would take
					copy(m.Append(len(f)), f)
					return m
				})
			}
			wantInUse(t, pool, 0)
		}
	})
}
