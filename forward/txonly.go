// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"fmt"
	"slices"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// txOnly builds UDP packets and sends them. The headers are a template; the rest of the packet is zero, so
// that nothing of what a buffer held before leaves the program.
type txOnly struct {
	s      *Stream
	alloc  mbuf.Allocator
	lens   []int        // the segments' lengths
	segs   []*mbuf.Mbuf // a burst of packets, segment by segment
	skip   int          // bytes of header that the port's packets do not have: Ethernet's
	header [MinTxPktLen]byte
}

func bindTxOnly(s *Stream, c *Config, alloc mbuf.Allocator) (func() int, error) {
	x := &txOnly{s: s, alloc: alloc, skip: etherLen - s.txPort.etherLen(), lens: slices.Clone(c.TxPkts), segs: make([]*mbuf.Mbuf, c.Burst*len(c.TxPkts))}
	if err := checkRoom(alloc, c.TxPkts); err != nil {
		return nil, err
	}
	x.fillHeader(c)
	return x.burst, nil
}

// checkRoom looks at one mbuf of the allocator to see whether the segments fit.
func checkRoom(alloc mbuf.Allocator, lens []int) error {
	var one [1]*mbuf.Mbuf
	if alloc.AllocBulk(one[:]) == 0 {
		return &ConfigError{"Alloc", "exhausted", "txonly needs mbufs to build packets from"}
	}
	room := one[0].Tailroom()
	alloc.FreeBulk(one[:])
	for i, n := range lens {
		if n > room {
			return &ConfigError{fmt.Sprintf("TxPkts[%d]", i), n,
				fmt.Sprintf("the pool's mbufs hold %d bytes: use more segments or larger mbufs", room)}
		}
	}
	return nil
}

// fillHeader makes the template (testpmd: setup_pkt_udp_ip_headers). There is no UDP checksum, as in testpmd.
func (x *txOnly) fillHeader(c *Config) {
	total := x.skip
	for _, n := range c.TxPkts {
		total += n
	}
	h := x.header[:]
	copy(h[0:6], x.s.peer[:])
	be.PutUint16(h[12:], etherIPv4)

	ip := h[etherLen : etherLen+ipv4Len]
	src, dst := c.TxIPSrc.As4(), c.TxIPDst.As4()
	ip[0] = 0x45
	be.PutUint16(ip[2:], uint16(total-etherLen))
	ip[8], ip[9] = defaultTTL, 17
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	be.PutUint16(ip[10:], header.IPv4Checksum(ip))

	udp := h[etherLen+ipv4Len:]
	be.PutUint16(udp[0:], c.TxUDPSrc)
	be.PutUint16(udp[2:], c.TxUDPDst)
	be.PutUint16(udp[4:], uint16(total-etherLen-ipv4Len))
}

func (x *txOnly) burst() int {
	pkts := x.build()
	x.s.send(pkts)
	return len(pkts)
}

// build makes up to a burst of packets, fewer when mbufs are short.
func (x *txOnly) build() []*mbuf.Mbuf {
	mac := x.s.txPort.MAC()
	copy(x.header[6:12], mac[:])

	per, want := len(x.lens), len(x.s.bufs)
	got := x.alloc.AllocBulk(x.segs)
	n := got / per
	if n < want {
		x.s.n.noMbuf.Add(uint64(want - n))
		x.alloc.FreeBulk(x.segs[n*per : got])
	}
	pkts := x.s.bufs[:0]
	for i := range n {
		if m := x.segs[i*per]; x.fill(x.segs[i*per : (i+1)*per]) {
			pkts = append(pkts, m)
		}
	}
	return pkts
}

// fill makes a packet of single-segment mbufs. It is false, and the mbufs are freed, when one is too small,
// which only an allocator with mbufs of different sizes can cause.
func (x *txOnly) fill(segs []*mbuf.Mbuf) bool {
	for i, seg := range segs {
		if x.lens[i] > seg.Tailroom() {
			x.s.n.noMbuf.Add(1)
			x.alloc.FreeBulk(segs)
			return false
		}
	}
	head, hdr, total := segs[0], x.header[x.skip:], 0
	for i, seg := range segs {
		seg.DataLen = uint16(x.lens[i])
		b := seg.Bytes()
		n := copy(b, hdr)
		hdr = hdr[n:]
		clear(b[n:])
		if i > 0 {
			segs[i-1].Next = seg
		}
		total += len(b)
	}
	head.NbSegs, head.PktLen = uint16(len(segs)), uint32(total)
	return true
}
