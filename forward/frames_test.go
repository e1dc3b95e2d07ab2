// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"bytes"
	"hash/crc32"
	"testing"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// made is a packet, or the inside of one, with every checksum right, and where the checksums are.
type made struct {
	b    []byte
	sums []int
}

// under puts header h in front, of which the fields at sums are checksums.
func (d made) under(h []byte, sums ...int) made {
	out := made{b: append(bytes.Clone(h), d.b...), sums: sums}
	for _, at := range d.sums {
		out.sums = append(out.sums, at+len(h))
	}
	return out
}

// ether puts an Ethernet header in front, with what is between the addresses and the payload in hex.
func (d made) ether(rest string) made { return d.under(unhex("0211 1111 1111 HOST " + rest)) }

var (
	addrs4 = unhex("0a00 0001 0a00 0002")
	addrs6 = unhex("fd00 0000 0000 0000 0000 0000 0000 0001 fd00 0000 0000 0000 0000 0000 0000 0002")
)

// ip4 puts an IPv4 header with options in front, and makes the checksum of layer 4 right.
func (d made) ip4(proto byte, options string) made {
	opts := unhex(options)
	h := append(unhex("4500 0000 1234 4000 4000 0000"), addrs4...)
	h = append(h, opts...)
	h[0] += byte(len(opts) / 4)
	h[9] = proto
	put16(h[2:], uint16(len(h)+len(d.b)))
	put16(h[10:], inetSum(h))
	return d.seal(proto, addrs4).under(h, 10)
}

// ip6 puts an IPv6 header in front, with extension headers that next is the type of the first of.
func (d made) ip6(proto, next byte, extensions string) made {
	ext := unhex(extensions)
	h := append(unhex("6001 2345 0000 0040"), addrs6...)
	h[6] = next
	put16(h[4:], uint16(len(ext)+len(d.b)))
	return d.seal(proto, addrs6).under(append(h, ext...))
}

// seal fills in the checksum at the start of a layer-4 message, unless it is UDP without one.
func (d made) seal(proto byte, addrs []byte) made {
	d.b = bytes.Clone(d.b)
	field, ok := map[byte]int{6: 16, 17: 6}[proto]
	switch {
	case proto == 132:
		clear(d.b[8:12])
		crc := crc32.Checksum(d.b, crc32.MakeTable(crc32.Castagnoli))
		copy(d.b[8:], []byte{byte(crc), byte(crc >> 8), byte(crc >> 16), byte(crc >> 24)})
		d.sums = append([]int{8}, d.sums...)
	case !ok || proto == 17 && d.b[6] == 0 && d.b[7] == 0:
	default:
		put16(d.b[field:], 0)
		n := len(d.b)
		sum := inetSum(addrs, []byte{0, proto, byte(n >> 8), byte(n)}, d.b)
		if sum == 0 {
			sum = 0xffff
		}
		put16(d.b[field:], sum)
		d.sums = append([]int{field}, d.sums...)
	}
	return d
}

// text is n bytes of payload.
func text(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// Messages of layer 4. udp is told whether it has a checksum, which the IP header's function computes.
func tcp(n int, options string) made {
	opts := unhex(options)
	h := append(unhex("1f90 0050 0102 0304 0506 0708 5018 2000 0000 0000"), opts...)
	h[12] += byte(len(opts) / 4 << 4)
	return made{b: append(h, text(n)...)}
}

func udp(n int, port uint16, sum bool) made { return udpAround(made{b: text(n)}, port, sum) }

func udpAround(d made, port uint16, sum bool) made {
	h := unhex("1f90 0000 0000 0000")
	put16(h[2:], port)
	put16(h[4:], uint16(8+len(d.b)))
	if sum {
		h[7] = 1
	}
	return d.under(h)
}

func sctp(n int) made { return made{b: append(unhex("1f90 0050 0102 0304 0000 0000"), text(n)...)} }

func vxlan(d made, sum bool) made {
	return udpAround(d.under(unhex("0800 0000 0000 0100")), 4789, sum)
}

func geneve(d made, sum bool) made {
	return udpAround(d.under(unhex("0200 6558 0000 0100 0001 0201 0000 0001")), 6081, sum)
}

// frames are packets of every kind, by name. The payload has n bytes.
func frames(n int) map[string]made {
	const routing = "06 02 04 01 0000 0000 fd00 0000 0000 0000 0000 0000 0000 0009"
	inner4, inner6 := tcp(n, "").ip4(6, "").ether("0800"), udp(n, 9, true).ip6(17, 17, "").ether("86dd")
	return map[string]made{
		"tcp4":         tcp(n, "").ip4(6, "").ether("0800"),
		"tcp4 options": tcp(n, "0101 080a 0000 0001 0000 0002").ip4(6, "9404 0000").ether("0800"),
		"tcp6":         tcp(n, "").ip6(6, 6, "").ether("86dd"),
		"tcp6 hbh":     tcp(n, "").ip6(6, 0, "06 00 0104 0000 0000").ether("86dd"),
		"udp4":         udp(n, 9, true).ip4(17, "").ether("0800"),
		"udp4 no sum":  udp(n, 9, false).ip4(17, "").ether("0800"),
		"udp6":         udp(n, 9, true).ip6(17, 17, "").ether("86dd"),
		"sctp4":        sctp(n).ip4(132, "").ether("0800"),
		"sctp6":        sctp(n).ip6(132, 132, "").ether("86dd"),
		"icmp4":        made{b: text(n + 8)}.ip4(1, "").ether("0800"),
		"tcp4 vlan":    tcp(n, "").ip4(6, "").ether("8100 0064 0800"),
		"tcp6 qinq":    tcp(n, "").ip6(6, 6, "").ether("88a8 0123 8100 e064 86dd"),
		"fragment":     made{b: text(n + 8)}.ip4(17, "").fragment().ether("0800"),
		"routed":       made{b: tcp(n, "").b}.ip6(59, 43, routing).ether("86dd"),
		"arp":          made{b: text(n + 28)}.ether("0806"),

		"vxlan4":          vxlan(inner4, true).ip4(17, "").ether("0800"),
		"vxlan4 no sum":   vxlan(inner4, false).ip4(17, "").ether("0800"),
		"vxlan6 no sum":   vxlan(inner6, false).ip6(17, 17, "").ether("86dd"),
		"vxlan6":          vxlan(inner6, true).ip6(17, 17, "").ether("86dd"),
		"vxlan sctp":      vxlan(sctp(n).ip4(132, "").ether("0800"), true).ip4(17, "").ether("0800"),
		"vxlan vlan both": vxlan(tcp(n, "").ip4(6, "").ether("8100 0005 0800"), true).ip4(17, "").ether("8100 0064 0800"),
		"geneve4 in 6":    geneve(inner4, true).ip6(17, 17, "").ether("86dd"),
		"geneve6 in 4":    geneve(inner6, true).ip4(17, "9404 0000").ether("0800"),
		"vxlan no ip":     vxlan(made{b: text(n + 28)}.ether("0806"), true).ip4(17, "").ether("0800"),
		"gre":             tcp(n, "").ip4(6, "").under(unhex("2000 0800 0000 0007")).ip4(47, "").ether("0800"),
		"nvgre":           inner6.under(unhex("2000 6558 0001 0000")).ip4(47, "").ether("0800"),
		"ipip":            udp(n, 9, true).ip4(17, "").ip4(4, "").ether("0800"),
		"6in4":            tcp(n, "").ip6(6, 6, "").ip4(41, "").ether("0800"),
		"4in6":            tcp(n, "").ip4(6, "").ip6(4, 4, "").ether("86dd"),
	}
}

// fragment makes an IPv4 packet the first part of a larger one: the checksum of layer 4 is not that of its bytes.
func (d made) fragment() made {
	d.sums = []int{10}
	d.b = edit(d.b, func(b []byte) {
		b[6] = 0x20
		put16(b[10:], 0)
		put16(b[10:], inetSum(b[:20]))
	})
	return d
}

// damaged returns the packet with every checksum wrong.
func (d made) damaged() []byte {
	return edit(d.b, func(b []byte) {
		for _, at := range d.sums {
			b[at] ^= 0x55
			b[at+1] ^= 0xaa
			if b[at] == 0 && b[at+1] == 0 {
				b[at] = 1
			}
		}
	})
}

// fromPeer returns the packet with the addresses that mode csum writes.
func fromPeer(b []byte) []byte { return append(unhex("0200 0000 0000 PORT"), b[12:]...) }

// passMbuf sends m, which the stream gets, and returns what came out, or nil. The caller frees it.
func (r *rig) passMbuf(m *mbuf.Mbuf) *mbuf.Mbuf {
	r.t.Helper()
	r.rx.waiting = append(r.rx.waiting, m)
	if n := r.s.burst(); n != 1 {
		r.t.Fatalf("burst returned %d, not 1", n)
	}
	if len(r.tx.got) == 0 {
		return nil
	}
	if len(r.tx.got) > 1 {
		r.t.Fatalf("%d packets sent, not 1", len(r.tx.got))
	}
	m = r.tx.got[0]
	r.tx.got = r.tx.got[:0]
	if err := m.Check(); err != nil {
		r.t.Errorf("sent: %v", err)
	}
	return m
}

// received makes a packet as a driver hands it over: flags, type, lengths, segment size.
func (r *rig) received(b []byte, flags uint64, seg int, cuts ...int) *mbuf.Mbuf {
	r.t.Helper()
	m := packet(r.t, r.pool, b, cuts...)
	l := header.Parse(b)
	lengths := l.Lengths()
	lengths.TSOSegSize = seg
	if !m.SetLengths(lengths) {
		r.t.Fatal("lengths do not fit")
	}
	m.OlFlags, m.PacketType = flags, l.PacketType
	m.VlanTCI, m.VlanTCIOuter = 0xe064, 0x0123
	return m
}

// transmit does to a packet's bytes what its flags ask a driver for, but for cutting, and returns them.
func transmit(t testing.TB, m *mbuf.Mbuf) []byte {
	t.Helper()
	b, l := m.AppendTo(nil), m.Lengths()
	ip, l4, outer := l.IPStart(), l.L4Start(), l.OuterL2
	if m.OlFlags&mbuf.TxIPCksum != 0 {
		fillIPv4(b[ip : ip+l.L3])
	}
	if m.OlFlags&mbuf.TxOuterIPCksum != 0 {
		fillIPv4(b[outer : outer+l.OuterL3])
	}
	switch m.OlFlags & mbuf.TxL4Mask {
	case mbuf.TxTCPCksum:
		fill(b, l4, 16)
	case mbuf.TxUDPCksum:
		fill(b, l4, 6)
	}
	if m.OlFlags&mbuf.TxOuterUDPCksum != 0 {
		fill(b, outer+l.OuterL3, 6)
	}
	switch {
	case m.OlFlags&mbuf.TxQinQ != 0:
		b = tag(b, "88a8 0123 8100 e064")
	case m.OlFlags&mbuf.TxVLAN != 0:
		b = tag(b, "8100 e064")
	}
	return b
}

func fillIPv4(h []byte) {
	put16(h[10:], 0)
	put16(h[10:], inetSum(h))
}

// fill completes a partial checksum as a device does: over all that follows.
func fill(b []byte, start, field int) {
	sum := inetSum(b[start:])
	if sum == 0 {
		sum = 0xffff
	}
	put16(b[start+field:], sum)
}
