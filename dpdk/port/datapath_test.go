// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package port

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

// content is a frame of the local experimental type, different for each seq.
func content(size, seq int) []byte {
	f := make([]byte, size)
	for i := range f {
		f[i] = byte(i*7 + seq*31)
	}
	copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5})
	return f
}

// capture is what a port sends from here on.
func (b *bench) capture(id uint16) func() []byte {
	b.t.Helper()
	l, err := b.conn.LinkByName(fmt.Sprint("tap", id))
	must(b.t, err)
	c, err := traffic.NewCapturer(b.ns, l.Index)
	must(b.t, err)
	b.t.Cleanup(func() { must(b.t, c.Close()) })
	return func() []byte {
		b.t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(wait))
		defer cancel()
		f, err := c.Next(ctx, nil)
		must(b.t, err)
		return f
	}
}

// receiveRTE takes n packets from queue 0 of port 0.
func (b *bench) receiveRTE(n int) []*rteMbuf {
	b.t.Helper()
	bufs, have := make([]*mbuf.Mbuf, n), 0
	nettest.Eventually(b.t, wait, "packets", func() bool {
		have += b.rx(0, 0, bufs[have:])
		return have == n
	})
	return asRTE(bufs)
}

// TestReceiveMbufs: what is received is a packet as DPDK knows it, in one segment or in several; what was in a fresh
// mbuf's other fields does not matter.
func TestReceiveMbufs(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		for _, room := range []int{2048, 500} {
			b, h, p := rteBench(t, engine, room, 600)
			inj := b.injector(0)
			for seq, size := range []int{14, 60, 499, 500, 501, 1000, 1514} {
				f := content(size, seq)
				must(t, inj.Inject(f))
				m := b.receiveRTE(1)[0]
				var got []byte
				segs := uint16(0)
				for s := m; s != nil; s = s.next {
					got = append(got, s.data()...)
					segs++
					if s.dataOff != 128 || s.refcnt != 1 || s.pool != p.addr() {
						t.Errorf("a segment is %+v", *s)
					}
				}
				if want := uint16((size + room - 1) / room); !bytes.Equal(got, f) || m.pktLen != uint32(size) || m.nbSegs != segs || segs != want ||
					m.port != 0 || m.olFlags != 0 {
					t.Errorf("of %d bytes came %d in %d segments: %+v", size, len(got), segs, *m)
				}
				h.put(m)
			}
		}
	})
}

// TestSendMbufs: every kind of mbuf that DPDK has is sent whole, and given back as DPDK would: of the port's mempool and of
// others, with and without headroom, in several segments, shared, indirect, external. What somebody else sees is not
// touched.
func TestSendMbufs(t *testing.T) {
	outside := content(700, 99)
	eachEngine(t, func(t *testing.T, engine string) {
		buffer := outsideHeap(t, outside)
		b, h, p := rteBench(t, engine, 2048, 600)
		other := newMempool(t, 50, 64, 128, 1000)
		h.mempools = append(h.mempools, other)
		next := b.capture(0)
		one := func(p *mempool, f []byte) *rteMbuf {
			m := h.get(p, 1)[0]
			m.append(f)
			return m
		}
		indirect := func(direct *rteMbuf) *rteMbuf {
			m := h.get(p, 1)[0]
			m.bufAddr, m.bufLen, m.dataOff, m.dataLen, m.pktLen, m.privSize = direct.bufAddr, direct.bufLen, direct.dataOff, direct.dataLen,
				direct.pktLen, direct.privSize
			m.olFlags |= rteIndirect
			direct.refcnt++
			return m
		}
		for _, c := range []struct {
			name string
			size int
			of   func(f []byte) (m *rteMbuf, keep *rteMbuf)
		}{
			{"one segment", 60, func(f []byte) (*rteMbuf, *rteMbuf) { return one(p, f), nil }},
			{"another mempool's", 900, func(f []byte) (*rteMbuf, *rteMbuf) { return one(other, f), nil }},
			{"no headroom", 300, func(f []byte) (*rteMbuf, *rteMbuf) {
				m := h.get(p, 1)[0]
				m.dataOff = 3
				m.append(f)
				return m, nil
			}},
			{"segments of two mempools", 1500, func(f []byte) (*rteMbuf, *rteMbuf) {
				return chain(one(p, f[:10]), one(other, f[10:800]), one(p, nil), one(p, f[800:])), nil
			}},
			{"shared", 200, func(f []byte) (*rteMbuf, *rteMbuf) {
				m := one(p, f)
				m.refcnt++
				return m, m
			}},
			{"indirect", 400, func(f []byte) (*rteMbuf, *rteMbuf) {
				direct := one(other, f)
				return indirect(direct), direct
			}},
			{"indirect, the direct one was freed", 400, func(f []byte) (*rteMbuf, *rteMbuf) {
				direct := one(p, f)
				m := indirect(direct)
				h.put(direct)
				return m, nil
			}},
			{"headers of its own, the rest indirect", 500, func(f []byte) (*rteMbuf, *rteMbuf) {
				rest := one(p, f[14:])
				return chain(one(p, f[:14]), indirect(rest)), rest
			}},
			{"external", len(outside), func([]byte) (*rteMbuf, *rteMbuf) {
				m := h.get(p, 1)[0]
				m.bufAddr, m.bufLen, m.dataOff = unsafe.Pointer(&buffer[0]), uint16(len(buffer)), 200
				m.dataLen, m.pktLen = uint16(len(outside)), uint32(len(outside))
				m.olFlags |= rteExternal
				return m, nil
			}},
		} {
			f := content(c.size, c.size)
			if c.name == "external" {
				f = outside
			}
			h.externals = 0
			m, keep := c.of(f)
			var before, after []byte
			if keep != nil {
				before = bytes.Clone(keep.buffer())
			}
			free := len(p.free) + len(other.free)
			segs := 0
			for s := m; s != nil; s = s.next {
				segs++
			}
			around := bytes.Clone(buffer)
			if b.tx(0, 0, asMbufs([]*rteMbuf{m})) != 1 {
				t.Fatalf("%s: not sent", c.name)
			}
			if got := next(); !bytes.Equal(got, f) {
				t.Errorf("%s: %d bytes were sent, want %d, or others", c.name, len(got), len(f))
			}
			if !bytes.Equal(around, buffer) || (h.externals == 1) != (c.name == "external") {
				t.Errorf("%s: an external buffer was changed, or given up %d times", c.name, h.externals)
			}
			back := len(p.free) + len(other.free) - free
			if keep == m && back != 0 || keep == nil && back < segs || keep != nil && keep != m && back != segs {
				t.Errorf("%s: %d mbufs of %d came back", c.name, back, segs)
			}
			if keep == nil {
				continue
			}
			if after = keep.buffer(); keep.refcnt != 1 || !bytes.Equal(before, after) {
				t.Errorf("%s: what somebody else sees was changed: references %d", c.name, keep.refcnt)
			}
			h.put(keep)
		}
		var st Stats
		do(b, OpStats, 0, &st)
		if st.OErrors != 0 || st.OPackets != 9 {
			t.Errorf("counted %+v", st)
		}
	})
}

// outsideHeap is memory outside the Go heap, as an external buffer is, with data at offset 200.
func outsideHeap(t testing.TB, data []byte) []byte {
	t.Helper()
	p := newMempool(t, 1, 0, 200, 1000)
	b := p.all[0].buffer()
	copy(b[200:], data)
	return b
}

// TestPoolEmpty: without mbufs packets stay in the kernel, and rx_nombuf counts; with some they come.
func TestPoolEmpty(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		b, h, p := rteBench(t, engine, 2048, 10)
		inj := b.injector(0)
		for i := range 15 {
			must(t, inj.Inject(content(60, i)))
		}
		ours := b.receiveRTE(10)
		bufs := make([]*mbuf.Mbuf, 8)
		if n := b.rx(0, 0, bufs); n != 0 || len(p.free) != 0 {
			t.Fatalf("%d packets, with %d mbufs", n, len(p.free))
		}
		var st Stats
		do(b, OpStats, 0, &st)
		if st.RxNoMbuf == 0 || st.IErrors+st.IMissed != 0 || st.IPackets != 10 {
			t.Errorf("counted %+v", st)
		}
		h.put(ours...)
		for i, m := range b.receiveRTE(5) {
			if !bytes.Equal(m.data(), content(60, 10+i)) {
				t.Errorf("packet %d is % x", i, m.data())
			}
			h.put(m)
		}
	})
}

// TestOneCallABurst: a burst of whatever size calls the host once, for empty mbufs or with sent ones; an idle poll does not.
func TestOneCallABurst(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		b, h, p := rteBench(t, engine, 2048, 600)
		inj := b.injector(0)
		bufs := make([]*mbuf.Mbuf, 64)
		wantCalls := func(what string, allocs, frees int) {
			t.Helper()
			if h.allocs > allocs || h.frees != frees {
				t.Errorf("%s: %d calls for mbufs, %d with mbufs, want at most %d, and %d", what, h.allocs, h.frees, allocs, frees)
			}
			h.allocs, h.frees = 0, 0
		}
		b.rx(0, 0, bufs)
		wantCalls("first poll", 1, 0)
		for range 100 {
			b.rx(0, 0, bufs)
		}
		wantCalls("idle polls", 0, 0)
		for i := range 64 {
			must(t, inj.Inject(content(60, i)))
		}
		got := 0
		for got < 64 {
			n := b.rx(0, 0, bufs)
			wantCalls("burst", 1, 0)
			h.put(asRTE(bufs[:n])...)
			got += n
		}
		for _, n := range []int{1, 32, 64} {
			out := h.get(p, n)
			for _, m := range out {
				m.append(content(60, 0))
			}
			if b.tx(0, 0, asMbufs(out)) != n {
				t.Fatal("not all were sent")
			}
			wantCalls("tx", 0, 1)
		}
		for range 1100 { // after which the queue thinks that it is idle, and keeps less
			b.rx(0, 0, bufs)
		}
		wantCalls("a long pause", 1, 1)
		if n := len(p.all) - len(p.free); n > 4 {
			t.Errorf("an idle queue keeps %d mbufs", n)
		}
	})
}

// TestBurstsAllocateNothing: nothing is allocated in Go by bursts, preparing and asking, nor by what comes seldom.
func TestBurstsAllocateNothing(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		b, h, p := rteBench(t, engine, 2048, 600)
		inj, f := b.injector(0), content(60, 1)
		bufs := make([]*mbuf.Mbuf, 32)
		out, at := asRTE(bufs), b.table.at(0, 0)
		pen := make([]*mbuf.Mbuf, 2)
		for name, do := range map[string]func(){
			"tx": func() {
				p.take(out)
				for _, m := range out {
					m.append(f)
				}
				b.Prepare(0, 0, unsafe.Pointer(&bufs[0]), 32)
				if b.tx(0, 0, bufs) != 32 {
					t.Fatal("not all were sent")
				}
			},
			"rx": func() {
				for range 32 {
					must(t, inj.Inject(f))
				}
				for got := 0; got < 32; {
					n := b.rx(0, 0, bufs)
					h.Free(bufs[:n])
					got += n
				}
			},
			"idle":    func() { b.rx(0, 0, bufs) },
			"waiting": func() { b.Waiting(0, 0) },
			"pen": func() {
				p.take(asRTE(pen))
				at.pen.put(pen)
				b.rx(0, 0, bufs)
				if !at.pen.isEmpty() {
					t.Fatal("a burst leaves mbufs in the pen")
				}
			},
			"no port":  func() { b.rx(31, 0, bufs); b.tx(40, 0, bufs) },
			"no queue": func() { b.rx(0, 127, bufs); b.rx(0, 500, bufs) },
		} {
			if n := nettest.Allocs(nettest.Scale(50), do); n != 0 {
				t.Errorf("%s: %v allocations", name, n)
			}
		}
	})
}

// TestPen: mbufs that goroutines put there all come back, packets of several segments too, each once.
func TestPen(t *testing.T) {
	h := &rteHost{fakeHost: newHost(t)}
	p := newMempool(t, 4000, 0, 128, 64)
	h.mempools = []*mempool{p}
	var pen pen
	pen.put(nil)
	pen.put([]*mbuf.Mbuf{nil, nil})
	if !pen.isEmpty() {
		t.Error("there is something in the pen")
	}
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 100 {
				bufs := h.get(p, 7)
				packet := chain(bufs[2], bufs[3], bufs[4])
				pen.put(asMbufs([]*rteMbuf{bufs[0], nil, bufs[1], packet, bufs[5], bufs[6]}))
				runtime.Gosched()
			}
		}()
	}
	var one [1]*mbuf.Mbuf
	for left := 4; left > 0; {
		select {
		case <-done:
			left--
		default:
			pen.empty(h, &one)
		}
	}
	pen.empty(h, &one)
	seen := slices.Clone(p.free)
	slices.SortFunc(seen, func(a, b *rteMbuf) int { return int(uintptr(unsafe.Pointer(a)) - uintptr(unsafe.Pointer(b))) })
	if n := len(slices.Compact(seen)); n != len(p.all) || len(p.free) != n {
		t.Errorf("%d mbufs came back, %d different ones, of %d", len(p.free), n, len(p.all))
	}
}
