// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// TestRxScatter: frames scattered over mbufs of odd sizes, with and without room
// for the driver's header in front, around every boundary.
func TestRxScatter(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		for i, headroom := range []int{-1, 5, 9, 10, 128} {
			for k, room := range []int{128, 129, 1000, 2048, 65407} {
				if nettest.Leave(i + k) {
					continue
				}
				t.Run(fmt.Sprintf("headroom=%d/room=%d", headroom, room), func(t *testing.T) {
					testScatter(t, w, MaxMTU, mbuf.Config{Headroom: headroom, DataRoom: room})
				})
			}
			t.Run(fmt.Sprintf("headroom=%d/one", headroom), func(t *testing.T) { // slots of one mbuf
				testScatter(t, w, DefaultMTU, mbuf.Config{Headroom: headroom, DataRoom: 2048})
			})
		}
	})
}

func testScatter(t *testing.T, w way, mtu int, cfg mbuf.Config) {
	room := cfg.DataRoom
	cfg.Name, cfg.Count = "odd", 12*(1+70000/room)
	pool := newPool(t, cfg)
	front := 0 // bytes of the header that are in the first mbuf's data room
	if pool.Headroom() < hdrLen {
		front = hdrLen
	}
	p := w.start(t, Config{MTU: mtu}, 1, RxConfig{Memory: pool, Ring: 8})
	longest := mtu + 14
	sizes := edges(14, longest, room)
	for k := 1; k < 4; k++ {
		end := k*room - front // of a frame that fills k mbufs
		for size := end - 1; size <= min(end+1, longest); size++ {
			sizes = append(sizes, size)
		}
	}
	p.checkRx(sizes, 8, func(m *mbuf.Mbuf) error { return wantScattered(m, pool, front) })
	wantInUse(t, pool, p.RxQueue(0).held())
}

// wantScattered says how m's segments are not those of its length: each full but
// the last, none empty.
func wantScattered(m *mbuf.Mbuf, pool *mbuf.Pool, front int) error {
	if want := (int(m.PktLen) + front + pool.DataRoom() - 1) / pool.DataRoom(); int(m.NbSegs) != want {
		return fmt.Errorf("%d segments, want %d", m.NbSegs, want)
	}
	if int(m.DataOff) != pool.Headroom()+front {
		return fmt.Errorf("data starts at %d, want %d", m.DataOff, pool.Headroom()+front)
	}
	for s := m; s.Next != nil; s = s.Next {
		if s.Tailroom() != 0 || s.DataLen == 0 {
			return fmt.Errorf("a segment in the middle holds %d bytes and has room for %d more", s.DataLen, s.Tailroom())
		}
	}
	return nil
}

// TestRxTooLong: a frame longer than the slots, because the MTU was raised and the
// driver has not heard of it yet, is counted and never passed on short. The flow goes on, and
// SetMTU catches up.
func TestRxTooLong(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		for _, room := range []int{2048, 1000} { // one mbuf to a slot, and two
			pool := newPool(t, mbuf.Config{Name: "slots", Count: 200, DataRoom: room})
			p := w.start(t, Config{}, 1, RxConfig{Memory: pool})
			q := p.RxQueue(0)
			p.deafen()
			must(t, p.conn.SetMTU(p.index, 9000))
			longest := int(q.capacity) - hdrLen - 1
			sizes := []int{60, longest, longest + 1, 61, longest + 2, 9014, 9014, 62, 9014, longest, 63}
			for i, size := range sizes {
				p.inject(frame(size, i))
			}
			want := 0
			for i, size := range sizes {
				if size > longest {
					continue
				}
				m := p.burst(0, 1)[0]
				if err := checkPacket(m, frame(size, i)); err != nil {
					t.Fatalf("frame %d: %v", i, err)
				}
				m.Free()
				want += size
			}
			p.wantStats(Stats{QueueStats: QueueStats{IPackets: 6, IBytes: uint64(want), IErrors: 5}})
			wantInUse(t, pool, q.held())
			must(t, p.SetMTU(9000))
			p.checkRx([]int{9014, 60, 9014}, 3, func(*mbuf.Mbuf) error { return nil })
			p.wantStats(Stats{QueueStats: QueueStats{IPackets: 9, IBytes: uint64(want + 2*9014 + 60), IErrors: 5}})
		}
	})
}

// TestRxScatterMTU: slots follow the MTU up and down while packets wait.
func TestRxScatterMTU(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		pool := newPool(t, mbuf.Config{Name: "slots", Count: 1000, DataRoom: 256})
		p := w.start(t, Config{}, 1, RxConfig{Memory: pool})
		any := func(*mbuf.Mbuf) error { return nil }
		for range nettest.Scale(10) {
			for _, mtu := range []int{1500, MaxMTU, 68, 9000, 1500} {
				p.inject(frame(60, 1)) // waits while the slots change
				must(t, p.SetMTU(mtu))
				m := p.burst(0, 1)[0]
				must(t, checkPacket(m, frame(60, 1)))
				m.Free()
				p.checkRx([]int{mtu + 14, 60, mtu + 13}, 3, any)
				wantInUse(t, pool, p.RxQueue(0).held())
			}
		}
	})
}
