// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"math/bits"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

const (
	// DefaultMaxSegs is one less than the number of mbufs that a port sends as one packet.
	DefaultMaxSegs = 1022
	// MaxIPSize is the largest IP packet in bytes.
	MaxIPSize = 0xffff
	// maxDatagrams is how many datagrams make a frame at most: UDP_GRO_CNT_MAX in
	// net/ipv4/udp_offload.c.
	maxDatagrams = 64
)

// CoalescerConfig says how a [Coalescer] merges. The zero value is the default.
type CoalescerConfig struct {
	// MaxSegs is the largest number of mbufs in a frame. 0: DefaultMaxSegs. 1: none
	// is merged.
	MaxSegs int
	// MaxSize is the largest IP packet in bytes, headers included, that packets are
	// merged to. 0, and more than that: MaxIPSize.
	MaxSize int
	// NoTCP and NoUDP leave packets of that kind alone, for a port that cannot cut
	// them again: UDP needs Linux 6.2 there.
	NoTCP, NoUDP bool
	// Tunnels has packets of VXLAN and GENEVE merged as what they are outside: datagrams of one flow. Whoever
	// receives such a frame cuts it before it looks inside, as Linux does. The default is to leave them alone.
	Tunnels bool
	// IP: packets begin with their IP header, as those of a TUN do. The default is an
	// Ethernet header.
	IP bool
}

// Coalescer merges packets of the same TCP or UDP flow to frames of several packets.
// The zero value works; [NewCoalescer] makes one with other limits. It holds nothing
// between bursts. One goroutine at a time may use it.
//
// Packets are merged when Linux's GRO would do so: when their Ethernet header and
// tags are the same, and their addresses, ports, TTL or hop limit, TOS or traffic
// class, flow label and DF; the IPv4 IDs count up, or are all the same with DF set.
// IPv4 options, IPv6 extension headers, fragments and tunnels (but see CoalescerConfig.Tunnels) are left alone, and so
// are packets with anything behind the IP packet, such as Ethernet padding.
//
// Of TCP, moreover: when the one's data goes on where the other's ends, and ACK
// number, window, options and flags are the same. All but the last have as much data
// as the first, the last may have less. FIN and PSH end a frame, CWR begins one;
// packets with SYN, RST or URG and those without data are left alone. Of UDP: when
// all but the last are of the same size, the last not larger; at most 64, none empty
// and none without a checksum.
//
// Only what is known to be right is merged: a checksum that the driver found good
// (RxL4CksumGood), one that is not complete (RxL4CksumNone), or one that is verified
// here. Only what is writable is merged (see [mbuf.Mbuf.IsWritable]), and not what
// has RxLRO or asks for an offload on sending.
type Coalescer struct {
	cfg   CoalescerConfig
	table table
}

// NewCoalescer returns a Coalescer. Limits out of range are moved into it.
func NewCoalescer(cfg CoalescerConfig) *Coalescer {
	return &Coalescer{cfg: cfg}
}

// maxSegs and maxSize are the limits in force.
func (c *CoalescerConfig) maxSegs() int {
	if c.MaxSegs <= 0 {
		return DefaultMaxSegs
	}
	return min(c.MaxSegs, mbuf.MaxSegs)
}

func (c *CoalescerConfig) merges(p *packet) bool { return !(p.tcp && c.NoTCP || !p.tcp && c.NoUDP) }

func (c *CoalescerConfig) maxSize() int {
	if c.MaxSize <= 0 {
		return MaxIPSize
	}
	return min(c.MaxSize, MaxIPSize)
}

// Burst merges the packets in bufs in place and returns how many are left: they are
// bufs[:n], and the entries behind are nil. The caller owns them. Packets of the
// same flow stay in order, and so do the first packets of all frames.
//
// A merged frame is a chain: the headers of the first packet, then the payloads, in
// their own mbufs. It asks to be cut again when it is sent, by TxTCPSeg or TxUDPSeg
// with the checksum, TxIPv4 or TxIPv6, the lengths and TSOSegSize; its checksum field
// holds the sum of the pseudo-header. What the driver said of its checksums is
// cleared, its VLAN flags remain: [mbuf.PassThrough] goes behind Burst, not before.
// Packets that were not merged are as they were, flags included.
func (c *Coalescer) Burst(bufs []*mbuf.Mbuf) int {
	n := 0
	for _, m := range bufs {
		if c.add(m) {
			continue
		}
		bufs[n] = m
		n++
	}
	clear(bufs[n:])
	c.table.closeAll()
	return n
}

// add reports whether m has become part of another packet.
func (c *Coalescer) add(m *mbuf.Mbuf) bool {
	if m == nil {
		return false
	}
	var p packet
	b := m.Bytes()
	switch p.parse(b, c.cfg.IP) {
	case other:
		return false
	case unclear:
		c.table.closeAll()
		return false
	}
	hash := p.hash(b)
	f := c.table.find(hash, b, &p)
	ok := c.cfg.merges(&p) && p.mergeable(m, b) && (c.cfg.Tunnels || !p.carriesTunnel(m, b))
	if f != nil {
		if ok && c.append(f, m, b, &p) {
			return true
		}
		c.table.close(f)
	}
	if ok && p.opens() {
		f = c.table.open(hash)
		f.begin(m, &p)
	}
	return false
}

// append adds packet m with the bytes b to the frame f, if it belongs there.
func (c *Coalescer) append(f *flow, m *mbuf.Mbuf, b []byte, p *packet) bool {
	h := f.head.Bytes()
	if !f.continues(h, b, p) || !sameTags(f.head, m) ||
		f.ipLen+p.payload > c.cfg.maxSize() || int(f.head.NbSegs)+int(m.NbSegs) > c.cfg.maxSegs() {
		return false
	}
	if !f.verified {
		if !f.p.checksumRight(f.head) {
			return false
		}
		f.verified = true
	}
	if !p.checksumRight(m) {
		return false
	}
	f.link(m, p)
	if f.ends(p) {
		c.table.close(f)
	}
	return true
}

// tagFlags are the flags of VLAN tags.
const tagFlags = mbuf.RxVLAN | mbuf.RxVLANStripped | mbuf.RxQinQ | mbuf.RxQinQStripped

// sameTags reports whether two packets came in alike by what is not in their data.
func sameTags(a, b *mbuf.Mbuf) bool {
	if (a.OlFlags^b.OlFlags)&tagFlags != 0 || a.Port != b.Port {
		return false
	}
	return a.OlFlags&tagFlags == 0 || a.VlanTCI == b.VlanTCI &&
		(a.OlFlags&mbuf.RxQinQ == 0 || a.VlanTCIOuter == b.VlanTCIOuter)
}

// checksumRight reports whether the checksum of m, which is mergeable, is right.
func (p *packet) checksumRight(m *mbuf.Mbuf) bool {
	switch m.OlFlags & mbuf.RxL4CksumMask {
	case mbuf.RxL4CksumGood, mbuf.RxL4CksumNone:
		return true
	}
	size := p.length - p.l4 + p.payload
	ip := m.Bytes()[p.ip:]
	sum := header.PseudoSum(ip, p.proto(), size)
	return header.Add(sum, header.SumChain(m, p.l4, size)) == 0xffff
}

// table is the flows of which a packet was seen in this burst and that may get more.
// When there is no place for another it ends one that is there.
type table struct {
	flows [tableSize]flow
	used  [tableSize / 64]uint64
	turn  int
}

const (
	tableSize = 256
	ways      = 4 // places that a flow may have
)

// find returns the flow of the packet with the bytes b, or nil.
func (t *table) find(hash uint32, b []byte, p *packet) *flow {
	first := int(hash%tableSize) &^ (ways - 1)
	used := t.used[first/64] >> (first % 64) & (1<<ways - 1)
	for ; used != 0; used &= used - 1 {
		f := &t.flows[first+bits.TrailingZeros64(used)]
		if f.hash == hash && f.same(b, p) {
			return f
		}
	}
	return nil
}

// open returns a place for a flow that is not in the table.
func (t *table) open(hash uint32) *flow {
	first := int(hash%tableSize) &^ (ways - 1)
	way := bits.TrailingZeros64(^(t.used[first/64] >> (first % 64)))
	if way >= ways {
		t.turn++
		way = t.turn % ways
		t.close(&t.flows[first+way])
	}
	f := &t.flows[first+way]
	f.hash, f.index = hash, first+way
	t.used[f.index/64] |= 1 << (f.index % 64)
	return f
}

// close ends a flow: its frame is complete.
func (t *table) close(f *flow) {
	f.complete()
	f.head, f.last = nil, nil
	t.used[f.index/64] &^= 1 << (f.index % 64)
}

func (t *table) closeAll() {
	for i := range t.used {
		for t.used[i] != 0 {
			t.close(&t.flows[i*64+bits.TrailingZeros64(t.used[i])])
		}
	}
}
