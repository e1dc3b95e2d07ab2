// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"github.com/rtap-project/rtap/gso"
	"github.com/rtap-project/rtap/mbuf"
)

// mtuWindow is how many packets of wire size there are at a time, which bounds how many mbufs of the allocator are in
// use. A frame of 64 KB is 45 of them at an MTU of 1500, and is cut when there is room for all it gives.
const mtuWindow = 256

// mtuMode cuts frames received with LRO into the packets they were made of, merges what belongs together, and sends
// it for the driver to cut. Nothing else is changed: between the two is where a program would look at the packets,
// or drop some, that cannot do so with frames of 64 KB.
type mtuMode struct {
	s     *Stream
	alloc mbuf.Allocator
	cut   gso.Segmenter
	merge gso.Coalescer

	pkts [mtuWindow]*mbuf.Mbuf
	n    int
	// What the Segmenter had counted by the last burst.
	seen gso.Stats
}

func bindMTU(s *Stream, c *Config, alloc mbuf.Allocator) (func() int, error) {
	x := &mtuMode{s: s, alloc: alloc}
	// What the sending port cannot cut stays in packets.
	x.merge = *gso.NewCoalescer(gso.CoalescerConfig{NoTCP: !c.Csum.TCPSeg, NoUDP: !c.Csum.UDPSeg, IP: s.rxPort.ip})
	x.cut = *gso.New(gso.Config{IP: s.rxPort.ip})
	return x.burst, nil
}

func (x *mtuMode) burst() int {
	in := x.s.receive()
	n := len(in)
	if n == 0 {
		return 0
	}
	for len(in) > 0 {
		if x.n > 0 && x.crowded(in[0]) {
			x.flush()
		}
		taken, made := x.cut.Burst(in[:1], x.alloc, x.pkts[x.n:])
		x.n += made
		in = in[taken:]
		if taken == 0 { // a frame of more packets than the window holds
			x.flush()
		}
	}
	x.flush()
	x.count()
	return n
}

// crowded: the window is full, or would be inside of frame m, which would go out as two then.
func (x *mtuMode) crowded(m *mbuf.Mbuf) bool {
	free := len(x.pkts) - x.n
	return free == 0 || m.OlFlags&mbuf.RxLRO != 0 && x.cut.Segments(m) > free
}

// flush sends the packets in the window.
func (x *mtuMode) flush() {
	pkts := x.pkts[:x.merge.Burst(x.pkts[:x.n])]
	x.n = 0
	mbuf.PassThrough(pkts)
	for burst := len(x.s.bufs); len(pkts) > 0; {
		n := min(len(pkts), burst)
		x.s.send(pkts[:n])
		pkts = pkts[n:]
	}
}

// count adds what the Segmenter lost since the last time.
func (x *mtuMode) count() {
	now := x.cut.Stats()
	if lost := now.Malformed - x.seen.Malformed; lost > 0 {
		x.s.n.malformed.Add(lost)
	}
	if lost := now.NoMbuf - x.seen.NoMbuf; lost > 0 {
		x.s.n.noMbuf.Add(lost)
	}
	x.seen = now
}
