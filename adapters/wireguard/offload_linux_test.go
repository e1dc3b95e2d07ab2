// SPDX-License-Identifier: BSD-3-Clause

package wireguard

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/rtap-project/rtap/gso"
	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// The tables of wireguard-go's own TUN device, as far as they are ideas: which packets become one, and which must not.

var be = binary.BigEndian

const (
	fin, syn, rst, psh, ack, urg = 1, 2, 4, 8, 16, 32
)

// fields describe a packet.
type fields struct {
	v6, tcp  bool
	port     uint16 // of the destination, which tells flows apart
	flags    byte
	size     int // payload
	seq, ack uint32
	id       uint16
	df, mf   bool
	offset   uint16 // of a fragment, in 8 bytes
	ttl, tos byte
	label    uint32 // IPv6
	options  []byte // TCP
	ipopts   []byte // IPv4
	broken   bool   // a wrong checksum
	noSum    bool   // UDP without one
	cut      int    // bytes missing at the end
	rest     int    // bytes behind the IP packet
}

func (f fields) build() []byte {
	proto, l4 := byte(17), make([]byte, 8)
	sumAt := 6
	if f.tcp {
		proto, sumAt, l4 = 6, 16, make([]byte, 20+len(f.options))
		copy(l4[20:], f.options)
		be.PutUint32(l4[4:], f.seq)
		be.PutUint32(l4[8:], f.ack)
		l4[12], l4[13] = byte(len(l4)/4)<<4, f.flags
		be.PutUint16(l4[14:], 3000)
	}
	be.PutUint16(l4, 1)
	be.PutUint16(l4[2:], f.port)
	for i := range f.size {
		l4 = append(l4, byte(i)^byte(f.seq))
	}
	if !f.tcp {
		be.PutUint16(l4[4:], uint16(len(l4)))
	}
	ip := f.ip(proto, len(l4))
	if sum := header.Add(header.PseudoSum(ip, proto, len(l4)), header.Sum(l4)); !f.noSum {
		be.PutUint16(l4[sumAt:], ^sum)
	}
	if f.broken {
		l4[sumAt] ^= 0x55
	}
	b := append(append(ip, l4...), make([]byte, f.rest)...)
	return b[:len(b)-f.cut]
}

func (f fields) ip(proto byte, n int) []byte {
	if f.v6 {
		b := make([]byte, 40)
		be.PutUint32(b, 6<<28|uint32(f.tos)<<20|f.label)
		be.PutUint16(b[4:], uint16(n))
		b[6], b[7], b[8], b[23], b[24], b[39] = proto, 64+f.ttl, 0xfd, 1, 0xfd, 2
		return b
	}
	b := append(make([]byte, 20), f.ipopts...)
	b[0], b[1] = 0x40|byte(len(b)/4), f.tos
	be.PutUint16(b[2:], uint16(len(b)+n))
	be.PutUint16(b[4:], f.id)
	frag := f.offset
	if f.df {
		frag |= 0x4000
	}
	if f.mf {
		frag |= 0x2000
	}
	be.PutUint16(b[6:], frag)
	b[8], b[9] = 64+f.ttl, proto
	copy(b[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	be.PutUint16(b[10:], header.IPv4Checksum(b))
	return b
}

// stream is packets of 100 bytes that follow each other, changed by change.
func stream(v6, tcp bool, n int, change func(i int, f *fields)) (all []fields) {
	for i := range n {
		f := fields{v6: v6, tcp: tcp, port: 2, flags: ack, size: 100, seq: uint32(1 + 100*i), id: uint16(i)}
		if change != nil {
			change(i, &f)
		}
		all = append(all, f)
	}
	return all
}

// only changes packet n.
func only(n int, change func(f *fields)) func(int, *fields) {
	return func(i int, f *fields) {
		if i == n {
			change(f)
		}
	}
}

// groups is what becomes of packets: which of them are in each frame.
func groups(t *testing.T, w *writer, packets []fields) (got [][]int, frames [][]byte) {
	t.Helper()
	var bufs [][]byte
	for _, f := range packets {
		bufs = append(bufs, append(make([]byte, 16), f.build()...))
	}
	taken, n := w.fill(bufs, 16)
	if taken != len(bufs) || n != len(bufs) {
		t.Fatalf("%d packets are %d, %d", len(bufs), taken, n)
	}
	number := make(map[*mbuf.Mbuf]int) // by the mbuf that a packet begins in
	for i, m := range w.bufs[:n] {
		number[m] = i
	}
	k := w.merger.Burst(w.bufs[:n])
	for _, m := range w.bufs[:k] {
		frames = append(frames, m.AppendTo(nil))
		var in []int
		for s := m; s != nil; s = s.Next {
			in = append(in, number[s])
		}
		got = append(got, in)
	}
	// Cut again it is what it was.
	var seg gso.Segmenter
	at := make(map[int][]byte)
	for i, m := range w.bufs[:k] {
		out, sizes := make([][]byte, 64), make([]int, 64)
		for j := range out {
			out[j] = make([]byte, 2048)
		}
		m.RefUpdate(1)
		for s := m.Next; s != nil; s = s.Next {
			s.RefUpdate(1)
		}
		_, cut := seg.BurstTo(w.bufs[i:i+1], w.cache, out, sizes, 0)
		for j := range cut {
			if j < len(got[i]) {
				at[got[i][j]] = out[j][:sizes[j]]
			}
		}
	}
	for i, b := range bufs {
		if !slices.Equal(at[i], b[16:]) {
			t.Errorf("packet %d comes back as\n%x, was\n%x", i, at[i], b[16:])
		}
	}
	w.cache.FreeBulk(w.bufs[:k])
	return got, frames
}

func newWriter(t *testing.T) *writer {
	t.Helper()
	w := &writer{}
	pool, err := mbuf.NewPool(mbuf.Config{Count: writeBufs, DataRoom: writeRoom})
	nettest.NeedLinux(t, err)
	w.pool, w.cache, w.merger = pool, pool.NewCache(batch), gso.NewCoalescer(gso.CoalescerConfig{IP: true})
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func TestWhatCoalesces(t *testing.T) {
	w := newWriter(t)
	all := [][]int{{0, 1, 2, 3}}
	none := [][]int{{0}, {1}, {2}, {3}}
	without := func(n int) [][]int { // packet n is alone, of four
		return [][][]int{{{0}, {1, 2, 3}}, {{0}, {1}, {2, 3}}, {{0, 1}, {2}, {3}}, {{0, 1, 2}, {3}}}[n]
	}
	both := []bool{true, false}
	v4, v6 := []bool{false}, []bool{true}
	tcp, udp := []bool{true}, []bool{false}
	for _, c := range []struct {
		name   string
		v6     []bool
		tcp    []bool
		change func(i int, f *fields)
		want   [][]int
	}{
		{"one flow", both, both, nil, all},
		{"two flows", both, both, func(i int, f *fields) { f.port += uint16(i & 1); f.seq = uint32(i / 2 * 100); f.id = uint16(i / 2) }, [][]int{{0, 2}, {1, 3}}},
		{"the last is shorter", both, both, only(3, func(f *fields) { f.size = 1 }), all},
		{"a shorter one ends it", both, udp, only(1, func(f *fields) { f.size = 99 }), [][]int{{0, 1}, {2, 3}}},
		{"a longer one does not fit", both, udp, only(2, func(f *fields) { f.size = 101 }), [][]int{{0, 1}, {2, 3}}},
		{"PSH ends it", both, tcp, only(1, func(f *fields) { f.flags |= psh }), [][]int{{0, 1}, {2, 3}}},
		{"FIN ends it", both, tcp, only(3, func(f *fields) { f.flags |= fin }), all},
		{"SYN", both, tcp, only(0, func(f *fields) { f.flags = syn }), without(0)},
		{"RST", both, tcp, only(3, func(f *fields) { f.flags |= rst }), without(3)},
		{"URG", both, tcp, only(0, func(f *fields) { f.flags |= urg }), without(0)},
		{"ACK number", both, tcp, only(2, func(f *fields) { f.ack++ }), [][]int{{0, 1}, {2}, {3}}},
		{"a gap", both, tcp, func(i int, f *fields) { f.seq += uint32(i / 2) }, [][]int{{0, 1}, {2, 3}}},
		{"out of order", both, tcp, func(i int, f *fields) { f.seq = uint32(400 - 100*i) }, none},
		{"no payload", both, both, func(_ int, f *fields) { f.size = 0 }, none},
		{"checksum of the first", both, both, only(0, func(f *fields) { f.broken = true }), without(0)},
		{"checksum of another", both, both, only(2, func(f *fields) { f.broken = true }), without(2)},
		{"no checksum", v4, udp, only(0, func(f *fields) { f.noSum = true }), without(0)},
		{"TTL", both, both, only(3, func(f *fields) { f.ttl++ }), without(3)},
		{"TOS", both, both, only(3, func(f *fields) { f.tos = 4 }), without(3)},
		{"flow label", v6, both, only(3, func(f *fields) { f.label++ }), without(3)},
		{"DF", v4, both, only(3, func(f *fields) { f.df = true }), without(3)},
		{"the same ID, without DF", v4, both, func(_ int, f *fields) { f.id, f.df = 0, false }, none},
		{"more fragments", v4, both, func(_ int, f *fields) { f.mf = true }, none},
		{"fragments", v4, both, func(i int, f *fields) { f.offset = uint16(i + 1) }, none},
		{"IP options", v4, both, func(_ int, f *fields) { f.ipopts = []byte{1, 1, 1, 0} }, none},
		{"TCP options", both, tcp, func(_ int, f *fields) { f.options = []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2} }, all},
		{"other TCP options", both, tcp, only(3, func(f *fields) { f.options = []byte{1, 1, 1, 1} }), without(3)},
		{"too short", both, both, func(_ int, f *fields) { f.cut = 1 }, none},
		{"headers cut", both, tcp, func(_ int, f *fields) { f.cut = 101 }, none},
		{"something behind", both, both, func(_ int, f *fields) { f.rest = 1 }, none},
		{"one byte each", both, both, func(i int, f *fields) { f.size, f.seq = 1, uint32(i) }, all},
	} {
		for _, is6 := range c.v6 {
			for _, isTCP := range c.tcp {
				t.Run(fmt.Sprintf("%s v6=%v tcp=%v", c.name, is6, isTCP), func(t *testing.T) {
					got, _ := groups(t, w, stream(is6, isTCP, 4, c.change))
					if fmt.Sprint(got) != fmt.Sprint(c.want) {
						t.Errorf("frames of packets %v, want %v", got, c.want)
					}
				})
			}
		}
	}
}

// TestFrameHeaders: lengths, flags and the checksums of a frame are the frame's.
func TestFrameHeaders(t *testing.T) {
	w := newWriter(t)
	for _, v6 := range []bool{false, true} {
		for _, tcp := range []bool{false, true} {
			_, frames := groups(t, w, stream(v6, tcp, 5, only(4, func(f *fields) { f.flags |= psh | fin })))
			b := frames[0]
			if len(frames) != 1 || header.IPLength(b) != len(b) {
				t.Fatalf("v6=%v tcp=%v: %d frames, the first %d bytes, and says %d", v6, tcp, len(frames), len(b), header.IPLength(b))
			}
			l := header.ParseIP(b)
			l4, at, proto := b[l.L3:], 6, byte(17)
			if tcp {
				at, proto = 16, 6
				if l4[13] != ack|psh|fin || be.Uint32(l4[4:]) != 1 {
					t.Errorf("v6=%v: TCP header %x", v6, l4[:20])
				}
			} else if int(be.Uint16(l4[4:])) != len(l4) {
				t.Errorf("v6=%v: UDP header %x, of %d bytes", v6, l4[:8], len(l4))
			}
			if got, want := be.Uint16(l4[at:]), header.PseudoSum(b, proto, len(l4)); got != want {
				t.Errorf("v6=%v tcp=%v: checksum field %#x, want the pseudo-header's %#x", v6, tcp, got, want)
			}
			if !v6 && header.Sum(b[:l.L3]) != 0xffff {
				t.Errorf("tcp=%v: IPv4 checksum is wrong", tcp)
			}
		}
	}
}

// TestFillBounds: what is too short or too long is left out, and memory that runs out ends a batch early.
func TestFillBounds(t *testing.T) {
	w := newWriter(t)
	big := make([]byte, 16+gso.MaxIPSize)
	for _, c := range []struct {
		name     string
		bufs     [][]byte
		offset   int
		taken, n int
	}{
		{"empty", [][]byte{{}, make([]byte, 16), big[:17]}, 16, 3, 1},
		{"the longest", [][]byte{big, append(big, 0)}, 16, 2, 1},
		{"a negative offset", [][]byte{big[:100]}, -1, 1, 0},
		{"an offset beyond", [][]byte{big[:100]}, 101, 1, 0},
		{"more than there is memory for", slices.Repeat([][]byte{big}, batch), 16, 5, 5},
	} {
		taken, n := w.fill(c.bufs, c.offset)
		if taken != c.taken || n != c.n {
			t.Errorf("%s: took %d and made %d, want %d and %d", c.name, taken, n, c.taken, c.n)
		}
		for _, m := range w.bufs[:n] {
			if err := m.Check(); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		w.cache.FreeBulk(w.bufs[:n])
	}
}
