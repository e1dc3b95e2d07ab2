// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

func shared(p *mbuf.Pool) func(int) mbuf.Allocator {
	return func(int) mbuf.Allocator { return p }
}

// TestTxOnlyDefault compares with testpmd's packet, written out by hand.
func TestTxOnlyDefault(t *testing.T) {
	p := newPool(t, mbuf.Config{})
	dirty(t, p)
	r := newRig(t, p, Config{Mode: "txonly", Burst: 1, Alloc: shared(p)})
	if n := r.s.burst(); n != 1 {
		t.Fatalf("burst returned %d, want 1", n)
	}
	want := unhex(`0200 0000 0000 PORT 0800
		4500 0032 0000 0000 4011 0000 c612 0001 c612 0002
		0009 0009 001e 0000
		00000000000000000000 000000000000000000000000`)
	put16(want[24:], inetSum(want[14:34]))
	if inetSum(want[14:34]) != 0 {
		t.Fatal("the test's own checksum is wrong")
	}
	wantBytes(t, "packet", r.take(), want)
	wantStats(t, r.s, Stats{TxPackets: 1})
}

// dirty fills all buffers of a pool with 0xff, to see that it does not get out.
func dirty(t *testing.T, p *mbuf.Pool) {
	t.Helper()
	ms := make([]*mbuf.Mbuf, p.Count())
	if n := p.AllocBulk(ms); n != len(ms) {
		t.Fatalf("%d of %d mbufs", n, len(ms))
	}
	for _, m := range ms {
		b := m.Append(m.Tailroom())
		for i := range b {
			b[i] = 0xff
		}
	}
	p.FreeBulk(ms)
}

// TestTxOnlySegments: any segment lengths, headers straddling them, give the same packet in as many segments.
func TestTxOnlySegments(t *testing.T) {
	c := Config{
		Mode: "txonly", Burst: 3, EthPeers: map[int][6]byte{0: hostMAC},
		TxIPSrc: netip.MustParseAddr("198.19.255.1"), TxIPDst: netip.MustParseAddr("198.18.7.8"),
		TxUDPSrc: 1024, TxUDPDst: 4789,
	}
	for _, segs := range [][]int{{100}, {1, 99}, {14, 20, 8, 58}, {13, 21, 66}, {41, 59}, {42, 58}, ones(100)} {
		p := newPool(t, mbuf.Config{Count: 301})
		dirty(t, p)
		c.TxPkts, c.Alloc = segs, shared(p)
		r := newRig(t, p, c)
		if n := r.s.burst(); n != 3 {
			t.Fatalf("%v: burst returned %d, want 3", segs, n)
		}
		want := unhex(`HOST PORT 0800 4500 0056 0000 0000 4011 0000 c613 ff01 c612 0708 0400 12b5 0042 0000`)
		put16(want[24:], inetSum(want[14:34]))
		want = append(want, make([]byte, 58)...)
		for _, m := range r.tx.got {
			if err := m.Check(); err != nil || int(m.NbSegs) != len(segs) {
				t.Errorf("%v: %d segments, %v", segs, m.NbSegs, err)
			}
			i := 0
			for s := m; s != nil; s = s.Next {
				if int(s.DataLen) != segs[i] {
					t.Errorf("%v: segment %d has %d bytes", segs, i, s.DataLen)
				}
				i++
			}
			wantBytes(t, "packet", m.AppendTo(nil), want)
		}
		mbuf.FreeBulk(r.tx.got)
	}
}

// TestTxOnlyExhausted: fewer packets when mbufs are short, none when there are none, all again afterwards.
func TestTxOnlyExhausted(t *testing.T) {
	p := newPool(t, mbuf.Config{Count: 10})
	r := newRig(t, p, Config{Mode: "txonly", Burst: 4, TxPkts: []int{40, 20, 4}, Alloc: shared(p)})
	for i, want := range []int{3, 0} { // 10 mbufs are 3 packets and one mbuf over
		if n := r.s.burst(); n != want {
			t.Fatalf("burst %d returned %d, want %d", i, n, want)
		}
		if p.InUseCount() != 9 {
			t.Errorf("burst %d: %d mbufs in use, want 9", i, p.InUseCount())
		}
	}
	wantStats(t, r.s, Stats{TxPackets: 3, NoMbuf: 1 + 4})
	mbuf.FreeBulk(r.tx.got)
	r.tx.got = nil
	if n := r.s.burst(); n != 3 {
		t.Errorf("burst returned %d after mbufs came back, want 3", n)
	}
	mbuf.FreeBulk(r.tx.got)
}

// smallSecond hands out mbufs of a pool of small buffers in the second burst.
type smallSecond struct {
	*mbuf.Pool
	small *mbuf.Pool
	calls int
}

func (a *smallSecond) AllocBulk(bufs []*mbuf.Mbuf) int {
	if a.calls++; a.calls == 1 { // New's look at the room
		return a.Pool.AllocBulk(bufs)
	}
	return a.small.AllocBulk(bufs)
}

func (a *smallSecond) FreeBulk(bufs []*mbuf.Mbuf) { mbuf.FreeBulk(bufs) }

// TestTxOnlySmallMbuf: an mbuf that turns out too small is counted, not written beyond.
func TestTxOnlySmallMbuf(t *testing.T) {
	a := &smallSecond{Pool: newPool(t, mbuf.Config{}), small: newPool(t, mbuf.Config{DataRoom: 63})}
	r := newRig(t, a.Pool, Config{Mode: "txonly", Burst: 2, Alloc: func(int) mbuf.Allocator { return a }})
	if n := r.s.burst(); n != 0 {
		t.Errorf("burst returned %d, want 0", n)
	}
	wantStats(t, r.s, Stats{NoMbuf: 2})
}

func TestTxOnlyErrors(t *testing.T) {
	p := newPool(t, mbuf.Config{Count: 4, DataRoom: 128})
	empty := newPool(t, mbuf.Config{Count: 1})
	m := empty.Alloc()
	defer m.Free()
	tests := []struct {
		field string
		c     Config
	}{
		{"Alloc", Config{}},
		{"Alloc", Config{Alloc: func(int) mbuf.Allocator { return nil }}},
		{"Alloc", Config{Alloc: shared(empty)}},
		{"TxPkts", Config{Alloc: shared(p), TxPkts: []int{}}},
		{"TxPkts", Config{Alloc: shared(p), TxPkts: []int{41}}},
		{"TxPkts", Config{Alloc: shared(p), TxPkts: make([]int, 256)}},
		{"TxPkts", Config{Alloc: shared(p), TxPkts: []int{65535, 1}}},
		{"TxPkts[1]", Config{Alloc: shared(p), TxPkts: []int{60, 0}}},
		{"TxPkts[1]", Config{Alloc: shared(p), TxPkts: []int{128, 129}}},
		{"TxPkts[0]", Config{Alloc: shared(p), TxPkts: []int{65536}}},
		{"TxIPSrc", Config{Alloc: shared(p), TxIPSrc: netip.IPv6Loopback()}},
		{"TxIPDst", Config{Alloc: shared(p), TxIPDst: netip.IPv6Loopback()}},
	}
	port := NewPort(portMAC, []*fakeRx{{}}, []*fakeTx{{}})
	for _, tt := range tests {
		tt.c.Mode = "txonly"
		_, err := New(tt.c, port)
		var ce *ConfigError
		if !errors.As(err, &ce) || ce.Field != tt.field {
			t.Errorf("%v: error %v, want one about %s", tt.c.TxPkts, err, tt.field)
		}
	}
}
