// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// generator makes a random burst of packets of some flows: runs of data, and what
// happens to them on the way.
type generator struct {
	r     *rand.Rand
	bare  bool // packets without Ethernet header
	flows []spec
}

func newGenerator(r *rand.Rand) *generator {
	g := &generator{r: r, bare: r.IntN(4) == 0}
	for i := range 1 + r.IntN(5) {
		s := base(r.IntN(2) == 0, r.IntN(3) > 0, 0)
		s.sport, s.host = uint16(1000+r.IntN(2)), byte(r.IntN(2))
		s.dport = uint16(2000 + i)
		s.id, s.seq = uint16(r.Uint32()), r.Uint32()
		if s.bare = g.bare; !s.bare {
			s.tags = []uint16{0x88a8, 0x8100}[r.IntN(3):]
		}
		if r.IntN(2) == 0 {
			s.tcpOpts = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}
		}
		g.flows = append(g.flows, s)
	}
	return g
}

// next is a packet, mostly the one that goes on where its flow ended.
func (g *generator) next() spec {
	i := g.r.IntN(len(g.flows))
	s := g.flows[i].next(100)
	if g.r.IntN(2) == 0 {
		s = g.flows[i].next(1 + g.r.IntN(100))
	}
	g.flows[i] = s
	switch g.r.IntN(40) {
	case 0:
		s.flags |= byte(1 << g.r.IntN(8))
	case 1:
		s.ack++
	case 2:
		s.win++
	case 3:
		s.seq -= 100
	case 4:
		s.id = 0
	case 5:
		s.ttl++
	case 6:
		s.payload = nil
	case 7:
		s.pad = g.r.IntN(4)
	case 8:
		s.frag = 0x2000
	case 9:
		s.ext, s.ipOpts = []byte{0, 0, 1, 4, 0, 0, 0, 0}, []byte{1, 1, 1, 0}
	case 10:
		s.tos = byte(g.r.IntN(4))
	case 11:
		s.mac++
	}
	return s
}

func (g *generator) burst(n int) [][]byte {
	var frames [][]byte
	for len(frames) < n {
		s := g.next()
		b := s.build()
		switch g.r.IntN(30) {
		case 0: // lost
		case 1: // duplicated
			frames = append(frames, b, b)
		case 2: // overtaken
			frames = append(frames, b)
			i := g.r.IntN(len(frames))
			frames[i], frames[len(frames)-1] = frames[len(frames)-1], frames[i]
		case 3: // damaged
			from := 14
			if g.bare { // the version stays: what is no IP packet is of no flow
				from = 1
			}
			b[from+g.r.IntN(len(b)-from)] ^= 1 << g.r.IntN(8)
			frames = append(frames, b)
		default:
			frames = append(frames, b)
		}
	}
	return frames
}

// flowOf names the flow of a packet. Fragments and what has options are of one
// flow: they must not be overtaken.
func flowOf(b []byte, bare bool) string {
	l := parseOuter(b, bare)
	if l.L3 == 0 || l.PacketType&mbuf.PTypeL4Mask != mbuf.PTypeL4TCP && l.PacketType&mbuf.PTypeL4Mask != mbuf.PTypeL4UDP {
		return "other"
	}
	ip := b[l.IPStart():]
	return fmt.Sprintf("%x %x", l.PacketType&mbuf.PTypeL4Mask, ip[12-ip[0]>>4&2*2:l.L3+4])
}

func parseOuter(b []byte, bare bool) header.Layout {
	if bare {
		return header.ParseOuterIP(b)
	}
	return header.ParseOuter(b)
}

// TestNothingIsLost: bursts of random traffic, merged and cut again, are the packets
// they were: in each flow the same ones, in the same order, byte for byte.
func TestNothingIsLost(t *testing.T) {
	p := newPool(t, 1024, 256)
	merged := 0
	for seed := range uint64(nettest.Scale(2000)) {
		r := rand.New(rand.NewPCG(seed, 3))
		g := newGenerator(r)
		frames := g.burst(1 + r.IntN(64))
		var bufs []*mbuf.Mbuf
		want := make(map[string][]string)
		for _, b := range frames {
			m := packetOf(t, p, b)
			if r.IntN(8) == 0 {
				m.Free()
				m = pieces(t, p, b, r, 250)
			}
			bufs = append(bufs, m)
			want[flowOf(b, g.bare)] = append(want[flowOf(b, g.bare)], string(b))
		}
		co := NewCoalescer(CoalescerConfig{IP: g.bare, MaxSegs: 2 + r.IntN(100), MaxSize: 300 + r.IntN(70000)})
		n := co.Burst(bufs)
		merged += len(bufs) - n
		got := cutAgain(t, p, bufs[:n], g.bare)
		if len(got) != len(want) {
			t.Fatalf("seed %d: %d flows, want %d", seed, len(got), len(want))
		}
		for flow, list := range want {
			if err := sameList(got[flow], list, g.bare); err != nil {
				t.Fatalf("seed %d, flow %s: %v", seed, flow, err)
			}
		}
	}
	if merged < nettest.Scale(2000)*5 {
		t.Errorf("only %d packets were merged", merged)
	}
}

// cutAgain cuts what was merged and frees all.
func cutAgain(t *testing.T, p *mbuf.Pool, bufs []*mbuf.Mbuf, bare bool) map[string][]string {
	t.Helper()
	got := make(map[string][]string)
	var seg Segmenter
	out := make([]*mbuf.Mbuf, 7)
	for len(bufs) > 0 {
		taken, n := seg.Burst(bufs, p, out)
		if taken == 0 && n == 0 {
			t.Fatal("no progress")
		}
		for _, m := range out[:n] {
			if err := m.Check(); err != nil {
				t.Fatal(err)
			}
			b := m.AppendTo(nil)
			got[flowOf(b, bare)] = append(got[flowOf(b, bare)], string(b))
		}
		p.FreeBulk(out[:n])
		bufs = bufs[taken:]
	}
	if st := seg.Stats(); st.Malformed != 0 || st.NoMbuf != 0 {
		t.Fatalf("%+v", st)
	}
	return got
}

func sameList(got, want []string, bare bool) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d packets, want %d", len(got), len(want))
	}
	for i := range got {
		if d := differ([]byte(got[i]), []byte(want[i])); d != "" && !sameButID([]byte(got[i]), []byte(want[i]), bare) {
			return fmt.Errorf("packet %d: %s", i, d)
		}
	}
	return nil
}

// sameButID allows for the IDs of packets that all had the same one.
func sameButID(a, b []byte, bare bool) bool {
	l := parseOuter(b, bare)
	at := l.IPStart()
	if len(a) != len(b) || l.PacketType&mbuf.PTypeL3Mask != mbuf.PTypeL3IPv4 || b[at+6]&0x40 == 0 {
		return false
	}
	copy(a[at+4:at+6], b[at+4:at+6])
	copy(a[at+10:at+12], b[at+10:at+12])
	return string(a) == string(b)
}
