// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// icmpEcho turns requests into answers in place and sends them back to where they came from: ARP
// (icmpecho_arp.go), ping (icmpecho_ipv4.go, icmpecho_ipv6.go) and IPv6 neighbour solicitations
// (icmpecho_nd.go), with up to two VLAN tags. It answers for every address there is, as testpmd does, unless Config.Owned says for which.
//
// What goes beyond testpmd: IPv6, two tags, packets in segments, lengths and header checksums checked,
// fragments refused, a time to live of its own in the answer, and a port's own MAC address as the source of
// an answer to a group address, where testpmd sends from the group's.
type icmpEcho struct {
	s     *Stream
	owned owned
	mac   [6]byte // the port's, at the time of this burst

	scratch [windowLen]byte
	rejects []*mbuf.Mbuf
}

// windowLen bounds what is looked at in a packet: Ethernet with two tags (22), and the larger of IPv4 with all
// options and an ICMP header (68) and IPv6 with a neighbour solicitation, whose options get the rest.
const windowLen = 256

// verdict is what became of a packet.
type verdict uint8

const (
	answered  verdict = iota // the window now has the answer's headers
	replaced                 // the packet is the answer already
	ignored                  // nothing to answer
	malformed                // not to be trusted
	noRoom                   // the answer does not fit into the request's mbufs
	verdicts
)

func bindICMPEcho(s *Stream, c *Config, _ mbuf.Allocator) (func() int, error) {
	e := &icmpEcho{s: s, owned: ownedAddrs(c.Owned), rejects: make([]*mbuf.Mbuf, 0, c.Burst)}
	return e.burst, nil
}

func (e *icmpEcho) burst() int {
	pkts := e.s.receive()
	n := len(pkts)
	if n == 0 {
		return 0
	}
	e.mac = e.s.txPort.MAC()
	answers, rejects := pkts[:0], e.rejects[:0]
	var count [verdicts]uint64
	for _, m := range pkts {
		v := e.answer(m)
		count[v]++
		if v <= replaced {
			answers = append(answers, m)
		} else {
			rejects = append(rejects, m)
		}
	}
	if len(rejects) > 0 {
		e.s.n.ignored.Add(count[ignored])
		e.s.n.malformed.Add(count[malformed])
		e.s.n.noMbuf.Add(count[noRoom])
		mbuf.FreeBulk(rejects)
	}
	mbuf.PassThrough(answers) // a tag that was stripped goes back
	e.s.send(answers)
	return n
}

// answer turns m into its answer where there is one.
func (e *icmpEcho) answer(m *mbuf.Mbuf) verdict {
	ours := m.OlFlags&mbuf.RxLRO == 0 && completeICMP(m)
	win, copied := window(m, e.scratch[:])
	typ, l3, ok := e.network(win)
	switch {
	case !ok:
		return malformed
	case !ours:
		return ignored
	}
	v := ignored
	switch typ {
	case etherIPv4:
		v = e.ipv4(win, l3, int(m.PktLen)-l3)
	case etherIPv6:
		v = e.ipv6(m, win, l3, int(m.PktLen)-l3)
	case etherARP:
		v = e.arp(win, l3)
	}
	if v == answered && copied {
		scatter(m, 0, win)
	}
	return v
}

// network reads the type of the payload, and where it starts. It is false where a header is cut short, or comes from a
// group address.
func (e *icmpEcho) network(win []byte) (typ uint16, l3 int, ok bool) {
	if e.s.rxPort.ip {
		return ipType(win), 0, len(win) > 0
	}
	typ, l3, ok = etherType(win)
	return typ, l3, ok && !isGroup(win[macLen:])
}

// completeICMP completes the checksum of an ICMP message that was received without. It is false if the checksum of
// something else is missing: there is nothing to answer then.
func completeICMP(m *mbuf.Mbuf) bool {
	if m.OlFlags&mbuf.RxL4CksumMask != mbuf.RxL4CksumNone {
		return true
	}
	if m.PacketType&mbuf.PTypeL4Mask != mbuf.PTypeL4ICMP ||
		!header.CompleteAt(m, m.Lengths().L4Start(), icmpCksum) {
		return false
	}
	m.OlFlags = m.OlFlags&^mbuf.RxL4CksumMask | mbuf.RxL4CksumGood
	return true
}

// turnEther addresses the Ethernet header to whom it came from. The source becomes the former destination, or
// the port's address if that was a group's, which must not be a source.
func (e *icmpEcho) turnEther(win []byte) {
	if e.s.rxPort.ip {
		return
	}
	if isGroup(win) {
		copy(win[0:6], e.mac[:])
	}
	swapAddrs(win)
}
