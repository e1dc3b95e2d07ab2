// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// Requests as Linux sends them.
var (
	arpWho = unhex(`ffff ffff ffff HOST 0806 0001 0800 0604 0001 HOST 0a00 0001 0000 0000 0000 0a00 0002`)

	ping4 = sealIPv4(unhex(`PORT HOST 0800 4500 0000 1234 4000 4001 0000 0a00 0001 0a00 0002
		0800 0000 0007 0001 1011 1213 1415 1617 1819 1a1b 1c1d 1e1f 2021 2223 2425 2627 2829 2a2b 2c2d 2e2f
		3031 3233 3435 3637 3839 3a3b 3c3d 3e3f 4041 4243 4445 4647`), 14)

	ping6 = sealIPv6(unhex(`PORT HOST 86dd 6001 2345 0000 3a40
		fd00 0000 0000 0000 0000 0000 0000 0001 fd00 0000 0000 0000 0000 0000 0000 0002
		8000 0000 0007 0001 1011 1213 1415 1617 1819`), 14)

	solicit6 = sealIPv6(unhex(`3333 ff00 0002 HOST 86dd 6000 0000 0000 3aff
		fd00 0000 0000 0000 0000 0000 0000 0001 ff02 0000 0000 0000 0000 0001 ff00 0002
		8700 0000 0000 0000 fd00 0000 0000 0000 0000 0000 0000 0002 0101 HOST`), 14)

	// What a host asks before it takes address fd00::2 itself.
	probe6 = sealIPv6(unhex(`3333 ff00 0002 HOST 86dd 6000 0000 0000 3aff
		0000 0000 0000 0000 0000 0000 0000 0000 ff02 0000 0000 0000 0000 0001 ff00 0002
		8700 0000 0000 0000 fd00 0000 0000 0000 0000 0000 0000 0002`), 14)
)

// Their answers.
var (
	arpIs = unhex(`HOST PORT 0806 0001 0800 0604 0002 PORT 0a00 0002 HOST 0a00 0001`)

	pong4 = sealIPv4(unhex(`HOST PORT 0800 4500 0000 1234 4000 4001 0000 0a00 0002 0a00 0001
		0000 0000 0007 0001 1011 1213 1415 1617 1819 1a1b 1c1d 1e1f 2021 2223 2425 2627 2829 2a2b 2c2d 2e2f
		3031 3233 3435 3637 3839 3a3b 3c3d 3e3f 4041 4243 4445 4647`), 14)

	pong6 = sealIPv6(unhex(`HOST PORT 86dd 6001 2345 0000 3a40
		fd00 0000 0000 0000 0000 0000 0000 0002 fd00 0000 0000 0000 0000 0000 0000 0001
		8100 0000 0007 0001 1011 1213 1415 1617 1819`), 14)

	advert6 = sealIPv6(unhex(`HOST PORT 86dd 6000 0000 0000 3aff
		fd00 0000 0000 0000 0000 0000 0000 0002 fd00 0000 0000 0000 0000 0000 0000 0001
		8800 0000 6000 0000 fd00 0000 0000 0000 0000 0000 0000 0002 0201 PORT`), 14)

	defence6 = sealIPv6(unhex(`3333 0000 0001 PORT 86dd 6000 0000 0000 3aff
		fd00 0000 0000 0000 0000 0000 0000 0002 ff02 0000 0000 0000 0000 0000 0000 0001
		8800 0000 2000 0000 fd00 0000 0000 0000 0000 0000 0000 0002 0201 PORT`), 14)
)

func addrs(list ...string) []netip.Addr {
	as := []netip.Addr{}
	for _, s := range list {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

func echoRig(t testing.TB, dataRoom int, own ...string) *rig {
	c := Config{Mode: "icmpecho"}
	if own != nil {
		c.Owned = addrs(own...)
	}
	return newRig(t, newPool(t, mbuf.Config{DataRoom: dataRoom, Count: 512}), c)
}

// tag puts VLAN tags between the addresses and the type.
func tag(b []byte, tags string) []byte {
	return append(append(bytes.Clone(b[:12]), unhex(tags)...), b[12:]...)
}

// TestEcho sends each kind of request, with each kind of tags, whole and in every cut, and compares the answers
// byte for byte.
func TestEcho(t *testing.T) {
	kinds := []struct {
		name      string
		req, want []byte
	}{
		{"arp", arpWho, arpIs},
		{"ping4", ping4, pong4},
		{"ping6", ping6, pong6},
		{"solicit", solicit6, advert6},
	}
	for _, tags := range []string{"", "8100 0064", "88a8 0123 8100 e064"} {
		for _, k := range kinds {
			t.Run(k.name+" "+tags, func(t *testing.T) {
				r := echoRig(t, 0)
				req, want := tag(k.req, tags), tag(k.want, tags)
				wantBytes(t, "whole", r.pass(req), want)
				for cut := range len(req) {
					wantBytes(t, "two segments", r.pass(req, cut), want)
					wantBytes(t, "three segments", r.pass(req, cut/3, cut), want)
				}
				wantBytes(t, "single bytes", r.pass(req, ones(len(req))...), want)
				n := uint64(2*len(req) + 2)
				wantStats(t, r.s, Stats{RxPackets: n, TxPackets: n})
			})
		}
	}
}

// TestEchoVariants: requests with something about them that the answer must or must not follow.
func TestEchoVariants(t *testing.T) {
	options := sealIPv4(unhex(`PORT HOST 0800 4600 0000 1234 4000 4001 0000 0a00 0001 0a00 0002 9404 0000
		0800 0000 0007 0001 31`), 14)
	tests := []struct {
		name      string
		req, want []byte
	}{
		{"ttl 1", sealIPv4(edit(ping4, func(b []byte) { b[22] = 1 }), 14), pong4},
		{"hop limit 1", edit(ping6, func(b []byte) { b[21] = 1 }), pong6},
		{"padding", append(bytes.Clone(ping4), 0, 0, 0), append(bytes.Clone(pong4), 0, 0, 0)},
		{"arp padding", append(bytes.Clone(arpWho), make([]byte, 18)...), append(bytes.Clone(arpIs), make([]byte, 18)...)},
		{"arp probe", edit(arpWho, func(b []byte) { clear(b[28:32]) }), edit(arpIs, func(b []byte) { clear(b[38:42]) })},
		{"ip options", options, sealIPv4(edit(options, func(b []byte) {
			copy(b, pong4[:12])
			copy(b[26:34], pong4[26:34])
			b[38] = 0
		}), 14)},
		{"solicit without option", sealIPv6(bytes.Clone(solicit6[:78]), 14), advert6},
		{"solicit with nonce", sealIPv6(append(bytes.Clone(solicit6), unhex("0e01 0102 0304 0506")...), 14), advert6},
		{"solicit unicast", sealIPv6(edit(solicit6, func(b []byte) {
			copy(b, portMAC[:])
			copy(b[38:54], b[62:78])
		}), 14), advert6},
		{"solicit padding", append(bytes.Clone(solicit6), 0, 0, 0), advert6},
		{"damaged data", edit(ping4, func(b []byte) { b[60] ^= 1 }), edit(pong4, func(b []byte) { b[60] ^= 1 })},
		{"damaged data 6", edit(ping6, func(b []byte) { b[65] ^= 1 }), edit(pong6, func(b []byte) { b[65] ^= 1 })},
	}
	for _, tt := range tests {
		r := echoRig(t, 0)
		wantBytes(t, tt.name, r.pass(tt.req), tt.want)
		wantStats(t, r.s, Stats{RxPackets: 1, TxPackets: 1})
	}
}

// TestEchoGroup: a request to a group is answered from an address that may be a source.
func TestEchoGroup(t *testing.T) {
	to4 := func(b []byte, src, dst string, etherSrc string) []byte {
		return sealIPv4(edit(b, func(b []byte) {
			copy(b[26:30], netip.MustParseAddr(src).AsSlice())
			copy(b[30:34], netip.MustParseAddr(dst).AsSlice())
			if etherSrc != "" {
				copy(b, unhex(etherSrc))
			}
		}), 14)
	}
	to6 := func(b []byte, src, dst string, etherSrc string) []byte {
		return sealIPv6(edit(b, func(b []byte) {
			copy(b[22:38], netip.MustParseAddr(src).AsSlice())
			copy(b[38:54], netip.MustParseAddr(dst).AsSlice())
			if etherSrc != "" {
				copy(b, unhex(etherSrc))
			}
		}), 14)
	}
	own := []string{"10.0.0.77", "fd00::77"}
	tests := []struct {
		name      string
		own       []string
		req, want []byte
	}{
		{"multicast 1", nil, to4(ping4, "10.0.0.1", "224.0.0.1", "0100 5e00 0001"), to4(pong4, "10.0.0.2", "10.0.0.1", "")},
		{"multicast 7", nil, to4(ping4, "10.0.0.7", "224.0.0.1", "0100 5e00 0001"), to4(pong4, "10.0.0.5", "10.0.0.7", "")},
		{"broadcast 4", nil, to4(ping4, "10.0.0.4", "255.255.255.255", "ffff ffff ffff"), to4(pong4, "10.0.0.5", "10.0.0.4", "")},
		{"multicast owned", own, to4(ping4, "10.0.0.1", "224.0.0.1", "0100 5e00 0001"), to4(pong4, "10.0.0.77", "10.0.0.1", "")},
		{"multicast, none owned", own[1:], to4(ping4, "10.0.0.1", "224.0.0.1", "0100 5e00 0001"), nil},
		{"all nodes", nil, to6(ping6, "fd00::1", "ff02::1", "3333 0000 0001"), to6(pong6, "fe80::aa:aaff:feaa:aa01", "fd00::1", "")},
		{"all nodes owned", own, to6(ping6, "fd00::1", "ff02::1", "3333 0000 0001"), to6(pong6, "fd00::77", "fd00::1", "")},
		{"all nodes, none owned", own[:1], to6(ping6, "fd00::1", "ff02::1", "3333 0000 0001"), nil},
	}
	for _, tt := range tests {
		wantBytes(t, tt.name, echoRig(t, 0, tt.own...).pass(tt.req), tt.want)
	}
}

// TestEchoOwned: with a list of addresses, those are answered for and defended, others are not.
func TestEchoOwned(t *testing.T) {
	mine := []string{"10.0.0.9", "::ffff:10.0.0.2", "fd00::2"}
	others := []string{"10.0.0.9", "fd00::9", "::ffff:10.0.0.3"}
	tests := []struct {
		name      string
		req, want []byte
	}{
		{"arp", arpWho, arpIs}, {"ping4", ping4, pong4}, {"ping6", ping6, pong6},
		{"solicit", solicit6, advert6}, {"probe", probe6, defence6},
	}
	for _, tt := range tests {
		wantBytes(t, tt.name, echoRig(t, 0, mine...).pass(tt.req), tt.want)
		r := echoRig(t, 0, others...)
		wantBytes(t, tt.name+" not owned", r.pass(tt.req), nil)
		wantStats(t, r.s, Stats{RxPackets: 1, Ignored: 1})
	}
	r := newRig(t, newPool(t, mbuf.Config{}), Config{Mode: "icmpecho", Owned: []netip.Addr{}})
	wantBytes(t, "empty list", r.pass(arpWho), nil)
}

// TestEchoIgnored: packets in order that ask for nothing.
func TestEchoIgnored(t *testing.T) {
	tests := []struct {
		name string
		req  []byte
	}{
		{"arp reply", arpIs},
		{"ping4 reply", pong4},
		{"ping6 reply", pong6},
		{"advertisement", advert6},
		{"address probe, nothing owned", probe6},
		{"udp", sealIPv4(edit(ping4, func(b []byte) { b[23] = 17 }), 14)},
		{"echo code 1", sealIPv4(edit(ping4, func(b []byte) { b[35] = 1 }), 14)},
		{"echo6 code 1", sealIPv6(edit(ping6, func(b []byte) { b[55] = 1 }), 14)},
		{"hop-by-hop", edit(ping6, func(b []byte) { b[20] = 0 })},
		{"ping6 to ::", sealIPv6(edit(ping6, func(b []byte) { clear(b[38:54]) }), 14)},
		{"lldp", unhex("0180 c200 000e HOST 88cc 0207")},
		{"three tags", tag(ping4, "8100 0001 8100 0002 8100 0003")},
	}
	for _, tt := range tests {
		r := echoRig(t, 0)
		wantBytes(t, tt.name, r.pass(tt.req), nil)
		if st := r.s.Stats(); st != (Stats{RxPackets: 1, Ignored: 1}) {
			t.Errorf("%s: %+v, want it ignored", tt.name, st)
		}
	}
}

// TestEchoMalformed: packets that no part of must be trusted.
func TestEchoMalformed(t *testing.T) {
	ip4 := func(f func(b []byte)) []byte { // with the header checksum as it should be
		b := edit(ping4, f)
		put16(b[24:], 0)
		put16(b[24:], inetSum(b[14:34]))
		return b
	}
	ns := func(f func(b []byte)) []byte { return sealIPv6(edit(solicit6, f), 14) }
	tests := []struct {
		name string
		req  []byte
	}{
		{"group source", edit(ping4, func(b []byte) { b[6] |= 1 })},
		{"cut tag", unhex("PORT HOST 8100 00")},
		{"cut second tag", unhex("PORT HOST 88a8 0001 8100 00")},

		{"arp cut", arpWho[:41]},
		{"arp hardware", edit(arpWho, func(b []byte) { b[15] = 6 })},
		{"arp protocol", edit(arpWho, func(b []byte) { b[16] = 0x86 })},
		{"arp hlen", edit(arpWho, func(b []byte) { b[18] = 8 })},
		{"arp plen", edit(arpWho, func(b []byte) { b[19] = 16 })},

		{"ipv4 cut", ping4[:33]},
		{"ipv4 shorter than it says", ping4[:len(ping4)-1]},
		{"ipv4 version", ip4(func(b []byte) { b[14] = 0x55 })},
		{"ipv4 header length 16", ip4(func(b []byte) { b[14] = 0x44 })},
		{"ipv4 header beyond total", sealHeader(unhex("PORT HOST 0800 4600 0014 0000 0000 4001 0000 0a00 0001 0a00 0002 0000 0000"), 24)},
		{"ipv4 header beyond packet", sealHeader(unhex("PORT HOST 0800 4f00 0014 0000 0000 4001 0000 0a00 0001 0a00 0002"), 20)},
		{"ipv4 checksum", edit(ping4, func(b []byte) { b[25]++ })},
		{"ipv4 first fragment", ip4(func(b []byte) { b[20] = 0x20 })},
		{"ipv4 last fragment", ip4(func(b []byte) { b[20], b[21] = 0, 1 })},
		{"ipv4 source 0.0.0.0", ip4(func(b []byte) { clear(b[26:30]) })},
		{"ipv4 multicast source", ip4(func(b []byte) { b[26] = 224 })},
		{"ipv4 broadcast source", ip4(func(b []byte) { copy(b[26:30], "\xff\xff\xff\xff") })},
		{"udp shorter than its header", ip4(func(b []byte) { b[17], b[23] = 19, 17 })},
		{"icmp cut", sealIPv4(bytes.Clone(ping4[:41]), 14)},

		{"ipv6 cut", ping6[:53]},
		{"ipv6 shorter than it says", ping6[:len(ping6)-1]},
		{"ipv6 version", edit(ping6, func(b []byte) { b[14] = 0x50 })},
		{"ipv6 fragment", edit(ping6, func(b []byte) { b[20] = 44 })},
		{"ipv6 multicast source", edit(ping6, func(b []byte) { b[22] = 0xff })},
		{"ipv6 without payload", edit(ping6, func(b []byte) { b[19] = 0 })},
		{"icmp6 cut", edit(ping6, func(b []byte) { b[19], b[54] = 3, 1 })},
		{"echo6 cut", edit(ping6, func(b []byte) { b[19] = 7 })},
		{"echo6 from ::", sealIPv6(edit(ping6, func(b []byte) { clear(b[22:38]) }), 14)},

		{"solicit hop limit", ns(func(b []byte) { b[21] = 254 })},
		{"solicit code", ns(func(b []byte) { b[55] = 1 })},
		{"solicit checksum", edit(solicit6, func(b []byte) { b[57]++ })},
		{"solicit for multicast", ns(func(b []byte) { b[62] = 0xff })},
		{"solicit cut", sealIPv6(bytes.Clone(solicit6[:77]), 14)},
		{"solicit option of 0", ns(func(b []byte) { b[79] = 0 })},
		{"solicit option of 2", ns(func(b []byte) { b[79] = 2 })},
		{"solicit odd byte", sealIPv6(append(bytes.Clone(solicit6), 0), 14)},
		{"solicit half an option", sealIPv6(append(bytes.Clone(solicit6), 14, 1, 0, 0), 14)},
		{"solicit longer than looked at", sealIPv6(append(bytes.Clone(solicit6), bytes.Repeat(unhex("0e01 0102 0304 0506"), 40)...), 14)},
		{"probe with source option", sealIPv6(append(bytes.Clone(probe6), solicit6[78:]...), 14)},
		{"probe not to solicited-node", sealIPv6(edit(probe6, func(b []byte) { b[50] = 0 }), 14)},
	}
	for _, tt := range tests {
		for _, own := range [][]string{nil, {"10.0.0.2", "fd00::2"}} {
			for _, cuts := range [][]int{nil, ones(len(tt.req))} {
				r := echoRig(t, 0, own...)
				wantBytes(t, tt.name, r.pass(tt.req, cuts...), nil)
				if st := r.s.Stats(); st != (Stats{RxPackets: 1, Malformed: 1}) {
					t.Errorf("%s: %+v, want it malformed", tt.name, st)
				}
			}
		}
	}
}

// sealHeader sets the IPv4 header checksum of a frame for a header of n bytes.
func sealHeader(b []byte, n int) []byte {
	put16(b[24:], inetSum(b[14:14+n]))
	return b
}

// TestEchoZero: a request of nothing but zeros is one of which the checksum's two zeros are not the same.
func TestEchoZero(t *testing.T) {
	for _, last := range []byte{0, 1} {
		req := sealIPv4(append(append(bytes.Clone(ping4[:34]), 8, 0, 0, 0, 0, 0, 0, 0), make([]byte, 19)...), 14)
		req[len(req)-2] = last
		req = sealIPv4(req, 14)
		got := echoRig(t, 0).pass(req)
		if got[34] != 0 || inetSum(got[34:]) != 0 {
			t.Errorf("last byte %d: answer %x does not sum up", last, got)
		}
		wantBytes(t, "answer", got[34:], sealIPv4(edit(req, func(b []byte) { b[34] = 0 }), 14)[34:])
	}
}

// TestEchoChecksums: the incremental update agrees with a fresh sum for every value of a word (on an emulated machine, for some).
func TestEchoChecksums(t *testing.T) {
	r := echoRig(t, 0)
	step := 65535 / nettest.Scale(65535)
	for v := 0; v < 65536; v += step {
		req := sealIPv4(edit(ping4, func(b []byte) { put16(b[38:], uint16(v)); put16(b[18:], uint16(v)) }), 14)
		want := sealIPv4(edit(pong4, func(b []byte) { put16(b[38:], uint16(v)); put16(b[18:], uint16(v)) }), 14)
		if got := r.pass(req); !bytes.Equal(got, want) {
			t.Fatalf("identifier %#04x:\n got %x\nwant %x", v, got, want)
		}
		req = sealIPv6(edit(ping6, func(b []byte) { put16(b[58:], uint16(v)) }), 14)
		want = sealIPv6(edit(pong6, func(b []byte) { put16(b[58:], uint16(v)) }), 14)
		if got := r.pass(req); !bytes.Equal(got, want) {
			t.Fatalf("identifier %#04x:\n got %x\nwant %x", v, got, want)
		}
	}
}

// TestEchoResize: an advertisement longer than its solicitation takes the room there is, or is counted.
func TestEchoResize(t *testing.T) {
	req := sealIPv6(bytes.Clone(solicit6[:78]), 14)
	for room := 26; room <= 90; room++ {
		r := echoRig(t, room)
		var cuts []int
		for n := len(req); n > room; n -= room {
			cuts = append(cuts, room)
		}
		segs := len(cuts) + 1
		got := r.pass(req, cuts...)
		if segs*room >= len(advert6) {
			wantBytes(t, "advertisement", got, advert6)
			continue
		}
		wantBytes(t, "no room", got, nil)
		wantStats(t, r.s, Stats{RxPackets: 1, NoMbuf: 1})
	}
}

// TestEchoShared: the room behind shared data is not the packet's to grow into.
func TestEchoShared(t *testing.T) {
	r := echoRig(t, 0)
	m := packet(t, r.pool, sealIPv6(bytes.Clone(solicit6[:78]), 14))
	m.RefUpdate(1)
	r.rx.waiting = append(r.rx.waiting, m)
	r.s.burst()
	wantBytes(t, "shared", r.take(), nil)
	wantStats(t, r.s, Stats{RxPackets: 1, NoMbuf: 1})
	m.Free()
}

// TestEchoBurst: answers keep their order, with what is not answered between them.
func TestEchoBurst(t *testing.T) {
	r := echoRig(t, 0)
	for _, b := range [][]byte{ping4, pong4, arpWho, frame[:13], solicit6, ping6} {
		r.rx.waiting = append(r.rx.waiting, packet(t, r.pool, b))
	}
	if n := r.s.burst(); n != 6 {
		t.Errorf("burst returned %d, want 6", n)
	}
	want := [][]byte{pong4, arpIs, advert6, pong6}
	if len(r.tx.got) != len(want) {
		t.Fatalf("%d answers, want %d", len(r.tx.got), len(want))
	}
	for i, m := range r.tx.got {
		wantBytes(t, "answer", m.AppendTo(nil), want[i])
	}
	mbuf.FreeBulk(r.tx.got)
	wantStats(t, r.s, Stats{RxPackets: 6, TxPackets: 4, Ignored: 1, Malformed: 1})
}

// TestEchoPortMAC: ARP and neighbour discovery give the address that the port has now.
func TestEchoPortMAC(t *testing.T) {
	r := echoRig(t, 0)
	wantBytes(t, "arp before", r.pass(arpWho), arpIs)
	now := [6]byte{0x02, 1, 2, 3, 4, 5}
	r.port.SetMAC(now)
	wantBytes(t, "arp", r.pass(arpWho), bytes.ReplaceAll(arpIs, portMAC[:], now[:]))
	wantBytes(t, "solicit", r.pass(solicit6), sealIPv6(bytes.ReplaceAll(advert6, portMAC[:], now[:]), 14))
}

// TestEchoPktLen: a packet whose PktLen promises more than its segments hold is not read beyond them.
func TestEchoPktLen(t *testing.T) {
	for _, req := range [][]byte{arpWho, ping4, ping6, solicit6, sealHeader(unhex(
		"PORT HOST 0800 4f00 0044 0000 0000 4001 0000 0a00 0001 0a00 0002"), 20)} {
		r := echoRig(t, 0)
		for n := range len(req) + 1 {
			for _, cuts := range [][]int{nil, ones(n)} {
				m := packet(t, r.pool, req[:n], cuts...)
				m.PktLen = 1000
				r.rx.waiting = append(r.rx.waiting, m)
				r.s.burst()
				mbuf.FreeBulk(r.tx.got)
				r.tx.got = nil
			}
		}
	}
}
