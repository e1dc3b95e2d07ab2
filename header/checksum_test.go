// SPDX-License-Identifier: BSD-3-Clause

package header

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// pseudo is the pseudo-header of IP packet p, put together as the RFCs draw it.
func pseudo(p []byte, proto byte, n int) []byte {
	if p[0]>>4 == 4 {
		return join(p[12:20], []byte{0, proto, byte(n >> 8), byte(n)})
	}
	return join(p[8:40], be.AppendUint32(nil, uint32(n)), []byte{0, 0, 0, proto})
}

// partial stores the sum of the pseudo-header in the TCP or UDP header at b[l4:],
// whose IP header is at b[ip:] and which goes to the end of b, and returns the
// checksum that belongs there.
func partial(b []byte, ip, l4 int, proto byte) (at int, want uint16) {
	at = l4 + map[byte]int{6: 16, 17: 6}[proto]
	ph := pseudo(b[ip:], proto, len(b)-l4)
	b[at], b[at+1] = 0, 0
	if want = ^naiveSum(join(ph, b[l4:])); want == 0 {
		want = 0xffff
	}
	be.PutUint16(b[at:], naiveSum(ph))
	return at, want
}

// kinds are what has a checksum of layer 4, with payload data inside.
var kinds = []struct {
	name  string
	proto byte
	frame func(data []byte) []byte
}{
	{"ipv4/tcp", 6, func(d []byte) []byte { return ether("", 0x0800, v4("", 6, join(tcp("", ""), d))) }},
	{"ipv4 with options/udp", 17, func(d []byte) []byte { return ether("8100 0001", 0x0800, v4("9404 0000", 17, udp(53, d))) }},
	{"ipv6/tcp with options", 6, func(d []byte) []byte { return ether("", 0x86dd, v6(6, "", join(tcp("0101 0101", ""), d))) }},
	{"ipv6/udp", 17, func(d []byte) []byte { return ether("88a8 0001 8100 0002", 0x86dd, v6(17, "", udp(53, d))) }},
	{"ipv6 with extension/udp", 17, func(d []byte) []byte { return ether("", 0x86dd, v6(60, "11"+pad6, udp(53, d))) }},
	{"vxlan/ipv4/tcp", 6, func(d []byte) []byte {
		return over4(vxlanOf(ether("", 0x0800, v4("", 6, join(tcp("", ""), d)))))
	}},
	{"geneve over ipv6/ipv6/udp", 17, func(d []byte) []byte {
		return over6(geneveOf(2, 0x6558, ether("8100 0001", 0x86dd, v6(17, "", udp(53, d)))))
	}},
	{"gre/ipv4/udp", 17, func(d []byte) []byte { return greOf("2000 0800 0000 0001", v4("", 17, udp(53, d))) }},
	{"ipv6 in ipv4/tcp", 6, func(d []byte) []byte {
		return ether("", 0x0800, v4("", 41, v6(6, "", join(tcp("", ""), d))))
	}},
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// received makes a packet as a driver hands it out that says that the checksum is
// not there.
func received(t testing.TB, pool *mbuf.Pool, b []byte, cuts ...int) *mbuf.Mbuf {
	m := packet(t, pool, b, cuts...)
	m.PacketType, m.TxOffload = ParsePacked(b)
	m.OlFlags = mbuf.RxL4CksumNone | mbuf.RxIPCksumGood
	return m
}

func wantPacket(t *testing.T, what string, m *mbuf.Mbuf, want []byte) {
	t.Helper()
	if got := m.AppendTo(nil); !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %x\nwant %x", what, got, want)
	}
}

// TestComplete completes and verifies packets of every kind, cut into segments
// anyhow, with padding behind.
func TestComplete(t *testing.T) {
	pool, r := newPool(t), newRand()
	for _, k := range kinds {
		for range nettest.Scale(100) {
			b := k.frame(randomBytes(r, r.IntN(600)))
			l := Parse(b)
			at, sum := partial(b, l.IPStart(), l.L4Start(), k.proto)
			payload := len(b)
			b = append(b, randomBytes(r, r.IntN(20))...)
			m := received(t, pool, b, randomCuts(r)...)
			if VerifyL4(m, l) {
				t.Errorf("%s: the partial checksum is right", k.name)
			}
			if !Complete(m) || m.OlFlags != mbuf.RxL4CksumGood|mbuf.RxIPCksumGood {
				t.Errorf("%s: not completed, flags %#x", k.name, m.OlFlags)
			}
			be.PutUint16(b[at:], sum)
			wantPacket(t, k.name, m, b)
			if !VerifyL4(m, l) {
				t.Errorf("%s: the completed checksum is wrong", k.name)
			}
			m.Free()

			b[l.L4Start()+r.IntN(payload-l.L4Start())] ^= 1 << r.IntN(8)
			m = packet(t, pool, b, randomCuts(r)...)
			if VerifyL4(m, l) && be.Uint16(b[at:]) != 0 {
				t.Errorf("%s: a changed packet has a right checksum: %x", k.name, b)
			}
			m.Free()
		}
	}
}

// TestCompleteZero: a checksum that comes out as 0 is stored as 0xffff.
func TestCompleteZero(t *testing.T) {
	pool := newPool(t)
	for _, k := range kinds {
		b := k.frame([]byte{0, 0})
		l := Parse(b)
		at, sum := partial(b, l.IPStart(), l.L4Start(), k.proto)
		be.PutUint16(b[len(b)-2:], sum) // now all words add up to 0xffff
		m := received(t, pool, b)
		if !Complete(m) || be.Uint16(m.Bytes()[at:]) != 0xffff || !VerifyL4(m, l) {
			t.Errorf("%s: %x", k.name, m.Bytes())
		}
		m.Free()
	}
}

// TestCompleteNothing: other packets are left as they are.
func TestCompleteNothing(t *testing.T) {
	pool := newPool(t)
	b := kinds[0].frame(nil)
	for _, flags := range []uint64{0, mbuf.RxL4CksumGood, mbuf.RxL4CksumBad, mbuf.RxLRO, mbuf.RxOuterL4CksumGood} {
		m := received(t, pool, b)
		m.OlFlags = flags
		if !Complete(m) || m.OlFlags != flags {
			t.Errorf("flags %#x became %#x", flags, m.OlFlags)
		}
		wantPacket(t, "a packet that needs nothing", m, b)
		m.Free()
	}
}

// TestCompleteRefused: packets that are not what their type and lengths say are
// left as they are.
func TestCompleteRefused(t *testing.T) {
	pool := newPool(t)
	for _, c := range []struct {
		name string
		b    []byte
		edit func(m *mbuf.Mbuf)
	}{
		{"no type", kinds[0].frame(nil), func(m *mbuf.Mbuf) { m.PacketType = 0 }},
		{"no lengths", kinds[0].frame(nil), func(m *mbuf.Mbuf) { m.TxOffload = 0 }},
		{"no length of layer 3", kinds[0].frame(nil), func(m *mbuf.Mbuf) { m.SetLengths(mbuf.Lengths{L2: 14}) }},
		{"icmp", ether("", 0x0800, v4("", 1, make([]byte, 30))), func(*mbuf.Mbuf) {}},
		{"fragment", ether("", 0x0800, edit(tcp4(), 6, 0x20)), func(*mbuf.Mbuf) {}},
		{"not ip", edit(kinds[0].frame(nil), 14, 0), func(m *mbuf.Mbuf) {
			m.PacketType = eth | ip4 | isTCP
			m.SetLengths(mbuf.Lengths{L2: 14, L3: 20, L4: 20})
		}},
		{"lengths beyond the end", kinds[0].frame(nil), func(m *mbuf.Mbuf) { m.SetLengths(mbuf.Lengths{L2: 127, L3: 20}) }},
		{"short ip", edit(kinds[0].frame(make([]byte, 30)), 17, 37), func(m *mbuf.Mbuf) {
			m.PacketType |= isTCP
			m.SetLengths(mbuf.Lengths{L2: 14, L3: 20, L4: 20})
		}},
		{"cut short", kinds[0].frame(nil), func(m *mbuf.Mbuf) { m.Trim(3) }},
		{"outer without tunnel", kinds[0].frame(nil), func(m *mbuf.Mbuf) { m.OlFlags = mbuf.RxOuterL4CksumInvalid }},
		{"outer of gre", frames["gre/ipv4"], func(m *mbuf.Mbuf) { m.OlFlags = mbuf.RxOuterL4CksumInvalid }},
	} {
		m := received(t, pool, c.b)
		c.edit(m)
		flags, b := m.OlFlags, m.AppendTo(nil)
		if Complete(m) || m.OlFlags != flags {
			t.Errorf("%s: completed, flags %#x", c.name, m.OlFlags)
		}
		wantPacket(t, c.name, m, b)
		m.Free()
	}
}

// TestCompleteOuter: both checksums of a tunnel, or the outer one only.
func TestCompleteOuter(t *testing.T) {
	pool, r := newPool(t), newRand()
	for _, k := range kinds {
		b := k.frame(randomBytes(r, 333))
		l := Parse(b)
		if ParseOuter(b) == l || ParseOuter(b).PacketType&mbuf.PTypeL4Mask != isUDP {
			continue
		}
		for n := range 4 {
			both, unknown := n&1 != 0, n&2 != 0
			at, sum := partial(b, l.IPStart(), l.L4Start(), k.proto)
			complete := bytes.Clone(b)
			be.PutUint16(complete[at:], sum)
			outerAt, outerSum := partial(complete, int(l.OuterL2), int(l.OuterL2+l.OuterL3), 17)
			if !both {
				b = bytes.Clone(complete)
			}
			copy(b[outerAt:], complete[outerAt:outerAt+2])
			be.PutUint16(complete[outerAt:], outerSum)
			m := received(t, pool, b, randomCuts(r)...)
			m.OlFlags = mbuf.RxOuterL4CksumInvalid | mbuf.RxL4CksumNone
			if !both {
				m.OlFlags = mbuf.RxOuterL4CksumInvalid | mbuf.RxL4CksumGood
			}
			if unknown {
				m.PacketType = m.PacketType&^mbuf.PTypeTunnelMask | mbuf.PTypeTunnelGRENAT
			}
			if !Complete(m) || m.OlFlags != mbuf.RxOuterL4CksumGood|mbuf.RxL4CksumGood {
				t.Errorf("%s: not completed, flags %#x", k.name, m.OlFlags)
			}
			wantPacket(t, k.name, m, complete)
			if !VerifyL4(m, l) || !VerifyL4(m, ParseOuter(b)) {
				t.Errorf("%s: wrong", k.name)
			}
			m.Free()
		}
	}
}

func TestCompleteAt(t *testing.T) {
	pool, r := newPool(t), newRand()
	for range nettest.Scale(500) {
		b := randomBytes(r, 2+r.IntN(300))
		start := r.IntN(len(b) - 1)
		offset := r.IntN(len(b) - start - 1)
		m := packet(t, pool, b, randomCuts(r)...)
		if !CompleteAt(m, start, offset) {
			t.Errorf("false for %d+%d of %d", start, offset, len(b))
		}
		sum := ^naiveSum(b[start:])
		if sum == 0 {
			sum = 0xffff
		}
		be.PutUint16(b[start+offset:], sum)
		wantPacket(t, "CompleteAt", m, b)
		m.Free()
	}
}

func TestCompleteAtZero(t *testing.T) {
	b := unhex("aa ffff 0000 bb")
	m := packet(t, newPool(t), b[:5], 2, 2)
	defer m.Free()
	if !CompleteAt(m, 1, 2) {
		t.Error("false")
	}
	wantPacket(t, "sum of 0xffff", m, unhex("aa ffff ffff"))
}

func TestCompleteAtRange(t *testing.T) {
	const maxInt = int(^uint(0) >> 1)
	b := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	m := packet(t, newPool(t), b, 3, 0, 4)
	defer m.Free()
	for _, c := range [][2]int{
		{0, 7}, {7, 0}, {8, 0}, {9, 0}, {0, 8}, {3, 4}, {-1, 2}, {2, -1}, {maxInt, 0}, {0, maxInt}, {maxInt, maxInt}, {-maxInt - 1, 0},
	} {
		if CompleteAt(m, c[0], c[1]) {
			t.Errorf("true for %d+%d of %d", c[0], c[1], len(b))
		}
		wantPacket(t, "refused", m, b)
	}
	if !CompleteAt(m, 6, 0) {
		t.Error("false for the last two bytes")
	}
}

// TestCompleteAtShort: a packet whose segments hold less than its length says.
func TestCompleteAtShort(t *testing.T) {
	b := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	m := packet(t, newPool(t), b, 5)
	defer m.Free()
	m.PktLen += 2
	if CompleteAt(m, 0, 7) || CompleteAt(m, 0, 8) {
		t.Error("true beyond the last segment")
	}
	m.PktLen -= 2
	wantPacket(t, "refused", m, b)
}

func TestVerifyL4(t *testing.T) {
	pool := newPool(t)
	// seal is a frame with a right checksum behind 14 bytes and an IP header of l3.
	seal := func(b []byte, l3 int, proto byte) []byte {
		at, sum := partial(b, 14, 14+l3, proto)
		be.PutUint16(b[at:], sum)
		return b
	}
	noSum4, noSum6 := ether("", 0x0800, udp4()), ether("", 0x86dd, v6(17, "", udp(53, []byte("x"))))
	// The UDP datagram ends before the IP packet does.
	short := seal(ether("", 0x0800, v4("", 17, udp(53, []byte("four")))), 20, 17)
	short = join(short, []byte("more"))
	short[17] += 4
	long := seal(ether("", 0x0800, v4("", 17, udp(53, []byte("four")))), 20, 17)
	long[17]--
	tests := []struct {
		name string
		b    []byte
		want bool
	}{
		{"tcp", seal(ether("", 0x0800, tcp4()), 20, 6), true},
		{"udp", seal(ether("", 0x0800, udp4()), 20, 17), true},
		{"udp/ipv4 without checksum", noSum4, true},
		{"udp/ipv6 without checksum", noSum6, false},
		{"tcp without checksum", ether("", 0x0800, tcp4()), false},
		{"udp shorter than ip", short, true},
		{"udp longer than ip", long, false},
		{"other address", edit(seal(ether("", 0x0800, tcp4()), 20, 6), 33, 9), false},
		{"cut short", seal(ether("", 0x0800, tcp4()), 20, 6)[:56], false},
		{"icmp", ether("", 0x0800, v4("", 1, make([]byte, 8))), false},
		{"fragment", ether("", 0x0800, edit(tcp4(), 6, 0x20)), false},
		{"arp", arp(), false},
		{"nothing", nil, false},
	}
	for _, c := range tests {
		m := packet(t, pool, c.b)
		if got := VerifyL4(m, Parse(c.b)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		m.Free()
	}
}

// TestVerifyL4Short: no sum is right of what does not cover the header, or is not all
// there, even if it comes out so.
func TestVerifyL4Short(t *testing.T) {
	pool := newPool(t)
	// Without its last 8 bytes, which are zeros.
	cut := ether("", 0x0800, v4("", 6, tcp("", "payload.\x00\x00\x00\x00\x00\x00\x00\x00")))
	at, sum := partial(cut, 14, 34, 6)
	be.PutUint16(cut[at:], sum)
	// An IP length that leaves 18 bytes to the TCP header.
	tiny := ether("", 0x0800, v4("", 6, tcp("", "")[:18]))
	at, sum = partial(tiny, 14, 34, 6)
	be.PutUint16(tiny[at:], sum)
	// A UDP length that leaves out the checksum.
	noField := ether("", 0x0800, edit(udp4(), 25, 6))
	be.PutUint16(noField[34:], 0)
	be.PutUint16(noField[34:], ^naiveSum(join(pseudo(noField[14:], 17, 6), noField[34:40])))
	noField[40] = 1
	for _, c := range []struct {
		name string
		b    []byte
		l    Layout
	}{
		{"cut short", cut[:len(cut)-8], Layout{eth | ip4 | isTCP, 14, 20, 20, 0, 0}},
		{"tcp in 18 bytes", join(tiny, []byte{0, 0}), Layout{eth | ip4 | isTCP, 14, 20, 20, 0, 0}},
		{"udp in 6 bytes", noField, Layout{eth | ip4 | isUDP, 14, 20, 8, 0, 0}},
	} {
		m := packet(t, pool, c.b)
		if VerifyL4(m, c.l) {
			t.Errorf("%s: right", c.name)
		}
		m.Free()
	}
}

// TestVerifyL4Wrong: a layout of another packet is no harm.
func TestVerifyL4Wrong(t *testing.T) {
	pool := newPool(t)
	for _, w := range whole {
		for _, v := range whole {
			m := packet(t, pool, v.frame, 20, 7)
			m.PacketType, m.TxOffload = ParsePacked(w.frame)
			m.OlFlags = mbuf.RxL4CksumNone | mbuf.RxOuterL4CksumInvalid
			VerifyL4(m, w.want)
			Complete(m)
			if err := m.Check(); err != nil {
				t.Fatal(err)
			}
			m.Free()
		}
	}
}

func TestPseudoSum(t *testing.T) {
	for _, p := range [][]byte{tcp4(), tcp6(), v4(zeros(40), 6, nil)} {
		for _, n := range []int{0, 20, 1480, 0xffff} {
			if got, want := PseudoSum(p, 6, n), naiveSum(pseudo(p, 6, n)); got != want {
				t.Errorf("%d bytes: %#04x, want %#04x, in %x", n, got, want, p)
			}
		}
	}
	p := tcp6()
	if got, want := PseudoSum(p, 17, 0x54321), naiveSum(pseudo(p, 17, 0x54321)); got != want {
		t.Errorf("jumbogram: %#04x, want %#04x", got, want)
	}
	for _, p := range [][]byte{nil, tcp4()[:19], tcp6()[:39], edit(tcp6(), 0, 0x50)} {
		if got := PseudoSum(p, 6, 20); got != 0 {
			t.Errorf("%x: %#04x, want 0", p, got)
		}
	}
}

func TestIPv4Checksum(t *testing.T) {
	for _, h := range [][]byte{v4("", 6, nil), v4("9404 0000", 17, nil), v4(zeros(40), 1, nil)} {
		want := be.Uint16(h[10:])
		if got := IPv4Checksum(h); got != want {
			t.Errorf("%x: %#04x", h, got)
		}
		h[10], h[11] = 0xaa, 0xbb
		if got := IPv4Checksum(h); got != want {
			t.Errorf("%x: %#04x, want %#04x", h, got, want)
		}
	}
	if got := IPv4Checksum(make([]byte, 19)); got != 0 {
		t.Errorf("19 bytes: %#04x, want 0", got)
	}
}

func TestIPLength(t *testing.T) {
	for _, c := range []struct {
		p    []byte
		want int
	}{
		{v4("", 6, make([]byte, 1000)), 1020}, {v4("9404 0000", 6, nil)[:20], 24}, {v4("", 6, nil)[:19], 0},
		{v6(6, "", make([]byte, 1000))[:40], 1040}, {v6(6, "", nil), 40}, {v6(6, "", nil)[:39], 0},
		{nil, 0}, {make([]byte, 60), 0},
	} {
		if got := IPLength(c.p); got != c.want {
			t.Errorf("%x: %d, want %d", c.p, got, c.want)
		}
	}
}
