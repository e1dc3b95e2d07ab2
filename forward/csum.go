// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"sync/atomic"

	"github.com/rtap-project/rtap/mbuf"
)

// csum rewrites both MAC addresses as mac does, and makes every checksum right: in software, or by asking the
// driver of the sending port (app/test-pmd/csumonly.c). What was received with LRO it sends as TSO.
//
// What goes beyond testpmd: packets in segments, IPv6 extension headers, SCTP's CRC, an outer UDP checksum that
// is right also when the driver completes the inner one, and tags that were stripped go back in. What differs: a
// UDP datagram is cut only if it was received as several, because each part would be a datagram of its own;
// fragments, and what is shorter than its headers state, are passed on with their layer 4 untouched.
type csum struct {
	s    *Stream
	c    CsumConfig
	link [2*macLen + maxTags*vlanLen]byte // addresses, and room for tags behind them

	scratch [csumWindow]byte
	bad     badSums
}

// csumWindow bounds what is looked at in a packet: two Ethernet headers with two tags each (44), two IPv4 headers
// with all options (120), UDP and GENEVE with all options (268) and TCP with all options (60) are 492 bytes.
const csumWindow = 512

// badSums counts what the driver said of a burst.
type badSums struct{ ip, l4, outerL4 uint64 }

func bindCsum(s *Stream, c *Config, _ mbuf.Allocator) (func() int, error) {
	x := &csum{s: s, c: c.Csum}
	copy(x.link[:], s.peer[:])
	return x.burst, nil
}

func (x *csum) burst() int {
	pkts := x.s.receive()
	n := len(pkts)
	if n == 0 {
		return 0
	}
	mac := x.s.txPort.MAC()
	copy(x.link[macLen:], mac[:])
	kept := pkts[:0]
	for _, m := range pkts {
		x.bad.note(m.OlFlags)
		if refusal := x.treat(m); refusal != nil {
			refusal.Add(1)
			m.Free()
			continue
		}
		kept = append(kept, m)
	}
	x.bad.report(&x.s.n)
	x.s.send(kept)
	return n
}

func (b *badSums) note(rx uint64) {
	if rx&mbuf.RxIPCksumMask == mbuf.RxIPCksumBad {
		b.ip++
	}
	if rx&mbuf.RxL4CksumMask == mbuf.RxL4CksumBad {
		b.l4++
	}
	if rx&mbuf.RxOuterL4CksumMask == mbuf.RxOuterL4CksumBad {
		b.outerL4++
	}
}

func (b *badSums) report(n *counters) {
	if *b == (badSums{}) {
		return
	}
	n.badIP.Add(b.ip)
	n.badL4.Add(b.l4)
	n.badOuterL4.Add(b.outerL4)
	*b = badSums{}
}

// treat makes m ready to be sent. If it cannot be, the result is where that is counted.
func (x *csum) treat(m *mbuf.Mbuf) (refusal *atomic.Uint64) {
	win, _ := window(m, x.scratch[:])
	ip := x.s.rxPort.ip
	if len(win) < max(x.s.rxPort.etherLen(), 1) {
		return &x.s.n.malformed
	}
	if !ip {
		scatter(m, 0, x.link[:2*macLen])
	}
	p := csumPacket{m: m, rx: m.OlFlags, win: win, c: &x.c, ip: ip}
	if !p.parse() {
		return &x.s.n.malformed
	}
	if !p.cut() {
		return &x.s.n.noTSO
	}
	// The inner checksums first: the outer UDP checksum covers them.
	p.checksums()
	p.outerChecksums()
	if p.tx != 0 {
		p.tx |= p.kind()
	}
	tags, ok := x.tag(&p)
	if !ok {
		return &x.s.n.noMbuf
	}
	p.finish(tags)
	return nil
}

// tag puts tags that were stripped back: into the packet, or the result asks the driver for it. It is not ok when
// there is no room for them.
func (x *csum) tag(p *csumPacket) (asks uint64, ok bool) {
	m, link := p.m, x.link[:2*macLen]
	switch {
	case p.rx&mbuf.RxQinQStripped != 0:
		if x.c.QinQ {
			return mbuf.TxQinQ, true
		}
		link = be.AppendUint16(be.AppendUint16(link, etherQinQ), m.VlanTCIOuter)
	case p.rx&mbuf.RxVLANStripped == 0:
		return 0, true
	case x.c.VLAN:
		return mbuf.TxVLAN, true
	}
	link = be.AppendUint16(be.AppendUint16(link, etherVLAN), m.VlanTCI)
	n := len(link) - 2*macLen
	if !m.IsWritable() || m.Prepend(n) == nil {
		return 0, false
	}
	scatter(m, 0, link)
	p.tagged(n / vlanLen)
	return 0, true
}

// tagged makes the layout one with so many tags more.
func (p *csumPacket) tagged(tags int) {
	n := uint16(tags * vlanLen)
	if p.inTunnel() {
		p.l.OuterL2 += n
	} else {
		p.l.L2 += n
	}
	had := 0
	switch p.l.PacketType & mbuf.PTypeL2Mask {
	case mbuf.PTypeL2EtherVLAN:
		had = 1
	case mbuf.PTypeL2EtherQinQ:
		had = 2
	}
	p.l.PacketType = p.l.PacketType&^mbuf.PTypeL2Mask | mbuf.PTypeL2EtherVLAN
	if had+tags > 1 {
		p.l.PacketType = p.l.PacketType&^mbuf.PTypeL2Mask | mbuf.PTypeL2EtherQinQ
	}
}

// finish stores in m what the driver is asked for.
func (p *csumPacket) finish(tags uint64) {
	m := p.m
	m.PacketType = p.l.PacketType
	lengths := p.l.Lengths()
	lengths.TSOSegSize = p.seg
	if !m.SetLengths(lengths) {
		m.TxOffload = 0
	}
	m.OlFlags = m.OlFlags&(mbuf.Indirect|mbuf.External) | tags | p.tx
}

// kind says what headers the packet has, in flags.
func (p *csumPacket) kind() uint64 {
	kind := ipFlag(p.win[p.l.IPStart()], mbuf.TxIPv4, mbuf.TxIPv6)
	if !p.inTunnel() {
		return kind
	}
	kind |= ipFlag(p.win[p.l.OuterL2], mbuf.TxOuterIPv4, mbuf.TxOuterIPv6)
	switch p.l.PacketType & mbuf.PTypeTunnelMask {
	case mbuf.PTypeTunnelVXLAN:
		return kind | mbuf.TxTunnelVXLAN
	case mbuf.PTypeTunnelGENEVE:
		return kind | mbuf.TxTunnelGENEVE
	case mbuf.PTypeTunnelGRENAT:
		return kind | mbuf.TxTunnelUDP
	case mbuf.PTypeTunnelIP:
		return kind | mbuf.TxTunnelIPIP
	}
	return kind | mbuf.TxTunnelGRE
}

// ipFlag chooses by the first byte of an IP header.
func ipFlag(first byte, v4, v6 uint64) uint64 {
	if first>>4 == 4 {
		return v4
	}
	return v6
}
