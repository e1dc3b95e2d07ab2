// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

const longestFrame = 65535 // MaxMTU and the Ethernet header

// TestRx: an injected frame of any size arrives byte for byte, and the mbuf
// looks as an application expects.
func TestRx(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		p := w.start(t, Config{MTU: MaxMTU, Port: 7}, 1, RxConfig{})
		sizes := edges(14, longestFrame, mbuf.DefaultDataRoom)
		p.checkRx(sizes, 16, func(m *mbuf.Mbuf) error {
			segs := (int(m.PktLen) + mbuf.DefaultDataRoom - 1) / mbuf.DefaultDataRoom
			switch {
			case m.Port != 7:
				return fmt.Errorf("Port is %d, want 7", m.Port)
			case int(m.NbSegs) != segs:
				return fmt.Errorf("NbSegs is %d, want %d", m.NbSegs, segs)
			case m.OlFlags != 0:
				return fmt.Errorf("OlFlags are %#x, want none", m.OlFlags)
			}
			return wantDataOff(m, mbuf.DefaultHeadroom)
		})
		total := 0
		for _, n := range sizes {
			total += n
		}
		p.wantStats(Stats{QueueStats: QueueStats{IPackets: uint64(len(sizes)), IBytes: uint64(total)}})
	})
}

// wantDataOff says which segment does not start at off.
func wantDataOff(m *mbuf.Mbuf, off int) error {
	for s := m; s != nil; s = s.Next {
		if int(s.DataOff) != off {
			return fmt.Errorf("a segment's data starts at %d, want %d", s.DataOff, off)
		}
	}
	return nil
}

// TestRxBurstLength: Burst returns at most what it was given room for and at
// most the ring, in order, and nothing for no room.
func TestRxBurstLength(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		const ring, frames = 8, 30
		p := w.start(t, Config{}, 1, RxConfig{Ring: ring})
		for i := range frames {
			p.inject(frame(60, i))
		}
		q := p.RxQueue(0)
		if n := q.Burst(nil) + q.Burst([]*mbuf.Mbuf{}); n != 0 {
			t.Fatalf("Burst without room returned %d packets", n)
		}
		got := 0
		for i, room := range []int{1, 3, 64, 64, 64, 2, 64, 64, 64, 64} {
			bufs := make([]*mbuf.Mbuf, room)
			n := q.Burst(bufs)
			if n > min(room, ring) || n == 0 && got < frames {
				t.Fatalf("burst %d of %d returned %d packets after %d", i, room, n, got)
			}
			for _, m := range bufs[:n] {
				if err := checkPacket(m, frame(60, got)); err != nil {
					t.Fatalf("packet %d: %v", got, err)
				}
				got++
			}
			for _, m := range bufs[n:] {
				if m != nil {
					t.Fatalf("burst %d wrote behind the %d packets that it returned", i, n)
				}
			}
			mbuf.FreeBulk(bufs[:n])
		}
		if got != frames {
			t.Fatalf("received %d packets of %d", got, frames)
		}
	})
}

// TestRxVLAN: a tagged frame may be longer than the MTU says, also the longest.
func TestRxVLAN(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		for _, mtu := range []int{DefaultMTU, 2034, MaxMTU} { // 2034: the untagged frame fills one mbuf
			p := w.start(t, Config{MTU: mtu}, 1, RxConfig{})
			for _, size := range []int{60, mtu + 14, mtu + 18} {
				f := tagged(size)
				p.inject(f)
				m := p.burst(0, 1)[0]
				if err := checkPacket(m, f); err != nil {
					t.Fatalf("MTU %d, frame of %d bytes: %v", mtu, size, err)
				}
				m.Free()
			}
			p.wantStats(Stats{QueueStats: QueueStats{IPackets: 3, IBytes: uint64(60 + 2*mtu + 32)}})
		}
	})
}

// tagged is a frame with a VLAN tag.
func tagged(size int) []byte {
	f := frame(size, 1)
	copy(f[12:], []byte{0x81, 0x00, 0x20, 0x7b, 0x88, 0xb5}) // 802.1Q, priority 1, VLAN 123
	return f
}
