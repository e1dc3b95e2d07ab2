// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// TestBurstGoesOn: through places for n packets, all packets come in order.
func TestBurstGoesOn(t *testing.T) {
	p := newPool(t, 512, 2048)
	for places := 1; places < 40; places += 3 {
		var in []*mbuf.Mbuf
		var want [][]byte
		for i := range 5 {
			s := base(i&1 == 0, i&2 == 0, 9000+i)
			in = append(in, largeOf(t, p, s, 1400))
			want = append(want, s.cutUp(1400)...)
			s.payload = s.payload[:10]
			want = append(want, s.build()) // completed
			s.partial = true
			m := packetOf(t, p, s.build())
			m.OlFlags, m.PacketType = mbuf.RxL4CksumNone, s.ptype()
			m.SetLengths(s.lengths(0))
			in = append(in, m)
		}
		bad := largeOf(t, p, base(false, true, 3000), 0)
		in = append(in, bad)
		var seg Segmenter
		var got []*mbuf.Mbuf
		out := make([]*mbuf.Mbuf, places)
		for len(in) > 0 {
			taken, n := seg.Burst(in, p, out)
			if taken == 0 && n == 0 {
				t.Fatal("no progress")
			}
			in = in[taken:]
			got = append(got, out[:n]...)
		}
		expect(t, got, want)
		if st := seg.Stats(); st != (Stats{Frames: 5, Packets: uint64(len(want) - 5), Malformed: 1}) {
			t.Errorf("%+v", st)
		}
	}
}

func TestBurstWithoutMbufs(t *testing.T) {
	big := newPool(t, 3, 65000)
	to := newPool(t, 5, 2048)
	s := base(false, true, 10000)
	var seg Segmenter
	in := []*mbuf.Mbuf{largeOf(t, big, s, 1000), largeOf(t, big, s, 1000)}
	out := make([]*mbuf.Mbuf, 8)
	taken, n := seg.Burst(in, to, out)
	if taken != 2 || n != 5 {
		t.Errorf("took %d, made %d", taken, n)
	}
	expect(t, out[:n], s.cutUp(1000)[:5])
	if st := seg.Stats(); st != (Stats{Packets: 5, NoMbuf: 15}) {
		t.Errorf("%+v", st)
	}
}

// TestMbufComesAgain: a frame in the mbuf of one that was cut in two bursts.
func TestMbufComesAgain(t *testing.T) {
	big := newPool(t, 1, 65000)
	p := newPool(t, 16, 2048)
	var seg Segmenter
	out := make([]*mbuf.Mbuf, 6)
	s := base(false, true, 10000)
	want := s.cutUp(1000)
	for range 2 {
		in := []*mbuf.Mbuf{largeOf(t, big, s, 1000)}
		if taken, n := seg.Burst(in, p, out); taken != 0 || n != 6 {
			t.Fatal(taken, n)
		}
		expect(t, out, want[:6])
		if taken, n := seg.Burst(in, p, out); taken != 1 || n != 4 {
			t.Fatal(taken, n)
		}
		expect(t, out[:4], want[6:])
	}
}

func TestBurstLeavesOrdinaryPacketsAlone(t *testing.T) {
	p := newPool(t, 8, 2048)
	var seg Segmenter
	s := base(false, true, 100)
	s.partial = true
	asked := packetOf(t, p, s.build()) // the port completes it
	asked.OlFlags = mbuf.TxTCPCksum | mbuf.TxIPv4
	bad := packetOf(t, p, s.build())
	bad.OlFlags = mbuf.RxL4CksumBad
	shared := packetOf(t, p, s.build())
	shared.OlFlags, shared.PacketType = mbuf.RxL4CksumNone, s.ptype()
	shared.SetLengths(s.lengths(0))
	clone := mbuf.Clone(shared, p)
	in := []*mbuf.Mbuf{asked, bad, nil, shared, clone}
	out := make([]*mbuf.Mbuf, 8)
	flags := []uint64{asked.OlFlags, bad.OlFlags, 0, shared.OlFlags, clone.OlFlags}
	taken, n := seg.Burst(in, p, out)
	if taken != 5 || n != 5 {
		t.Fatal(taken, n)
	}
	for i, m := range out[:n] {
		if m != in[i] || m != nil && (m.OlFlags != flags[i] || differ(m.AppendTo(nil), s.build()) != "") {
			t.Errorf("packet %d was changed", i)
		}
	}
	p.FreeBulk(out[:n])
}
