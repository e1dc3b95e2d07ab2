// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"encoding/binary"

	"github.com/rtap-project/rtap/mbuf"
)

// Lengths and types of the headers that the modes read and write.
const (
	etherLen = 14
	macLen   = 6
	vlanLen  = 4
	ipv4Len  = 20
	ipv6Len  = 40
	udpLen   = 8

	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherVLAN = 0x8100 // IEEE 802.1Q
	etherQinQ = 0x88a8 // IEEE 802.1ad
	etherIPv6 = 0x86dd

	maxTags    = 2
	defaultTTL = 64
)

var be = binary.BigEndian

// gather copies the first bytes of a packet, as far as it and dst reach, and returns how many.
func gather(m *mbuf.Mbuf, dst []byte) int {
	n := 0
	for ; m != nil && n < len(dst); m = m.Next {
		n += copy(dst[n:], m.Bytes())
	}
	return n
}

// window returns the first bytes of m, as many as scratch holds, in one piece: where they are, or copied to scratch
// when they may lie in several segments.
func window(m *mbuf.Mbuf, scratch []byte) (win []byte, copied bool) {
	if b := m.Bytes(); m.Next == nil || len(b) >= len(scratch) {
		return b[:min(len(b), len(scratch))], false
	}
	return scratch[:gather(m, scratch)], true
}

// scatter overwrites the bytes of a packet from off on with src, as far as the packet reaches.
func scatter(m *mbuf.Mbuf, off int, src []byte) {
	for ; m != nil && len(src) > 0; m = m.Next {
		b := m.Bytes()
		if off >= len(b) {
			off -= len(b)
			continue
		}
		src, off = src[copy(b[off:], src):], 0
	}
}

// room is how long a segment may be made: no longer than it is when its buffer is shared.
func room(seg *mbuf.Mbuf) int {
	if !seg.IsWritable() {
		return int(seg.DataLen)
	}
	return int(seg.DataLen) + seg.Tailroom()
}

// resize makes a packet n bytes long within the segments it has, and frees those it then has no use for. The
// bytes are undefined afterwards. It is false, and nothing is changed, when n bytes do not fit.
func resize(m *mbuf.Mbuf, n int) bool {
	total := 0
	for s := m; s != nil && total < n; s = s.Next {
		total += room(s)
	}
	if total < n {
		return false
	}
	seg, segs, left := m, uint16(1), n
	for {
		take := min(left, room(seg))
		seg.DataLen = uint16(take)
		if left -= take; left == 0 {
			break
		}
		seg, segs = seg.Next, segs+1
	}
	if rest := seg.Next; rest != nil {
		seg.Next = nil
		rest.Free()
	}
	m.NbSegs, m.PktLen = segs, uint32(n)
	return true
}

// etherType reads the type of the payload behind at most two VLAN tags, and where it starts. It is false when
// the header is cut short.
func etherType(b []byte) (typ uint16, l3 int, ok bool) {
	if len(b) < etherLen {
		return 0, 0, false
	}
	typ, l3 = be.Uint16(b[12:]), etherLen
	for tags := 0; tags < maxTags && (typ == etherVLAN || typ == etherQinQ); tags++ {
		if len(b) < l3+vlanLen {
			return 0, 0, false
		}
		typ = be.Uint16(b[l3+2:])
		l3 += vlanLen
	}
	return typ, l3, true
}

// ipType is the type that an Ethernet header in front of packet b would have, 0 if b is not IP.
func ipType(b []byte) uint16 {
	if len(b) == 0 {
		return 0
	}
	switch b[0] >> 4 {
	case 4:
		return etherIPv4
	case 6:
		return etherIPv6
	}
	return 0
}

// isGroup tells multicast and broadcast MAC addresses.
func isGroup(mac []byte) bool { return mac[0]&1 != 0 }
