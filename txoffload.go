// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/vnethdr"
)

// What a packet asks for by its flags goes into its virtio-net header here, and so
// do checksums of IPv4 headers and VLAN tags, which that header has no words for,
// into a copy of the packet's first bytes.

// Errors of Prepare.
var (
	// ErrTxDisabled: the packet asks for an offload that the port has not enabled.
	ErrTxDisabled = errors.New("tx offload is not enabled on this port")
	// ErrTxFlags: the flags and lengths contradict each other or the packet.
	ErrTxFlags = errors.New("tx offload flags or header lengths contradict the packet")
	// ErrTxShared: a checksum field is to be written, and the buffer is shared.
	ErrTxShared = errors.New("checksum field lies in a shared buffer")
)

const (
	protoTCP, protoUDP         = 6, 17
	minIPv4, minIPv6           = 20, 40
	minTCP, minUDP             = 20, 8
	minEther                   = 14
	ipv4Fragment               = 0x3fff // more fragments, and the offset (RFC 791)
	tcpFlagsOffset, tcpFlagCWR = 13, 0x80
	ipv4CksumOffset            = 10
)

// txScratch is a packet's part of the scratch memory: a header, two tags, and more
// headers than there are.
const txScratch = 384

// headMax is how much of a packet the driver can rewrite.
const headMax = txScratch - vnethdr.SizeTunnel - 2*vlanLen

// txAllow is what packets may ask for.
type txAllow struct {
	forbidden uint64   // flags
	l4        [4]bool  // by TxL4Mask
	tunnel    [16]bool // segmentation, by TxTunnelMask
}

const (
	l4Shift     = 52
	tunnelShift = 45
)

func newTxAllow(c *PortConfig) (a txAllow) {
	on := func(bits uint64) bool { return c.TxOffloads&bits != 0 }
	for _, x := range []struct{ offload, flag uint64 }{
		{TxOffloadVLANInsert, mbuf.TxVLAN}, {TxOffloadQinQInsert, mbuf.TxQinQ},
		{TxOffloadIPv4Cksum, mbuf.TxIPCksum}, {TxOffloadOuterIPv4Cksum, mbuf.TxOuterIPCksum},
		{TxOffloadOuterUDPCksum, mbuf.TxOuterUDPCksum},
		{TxOffloadTCPTSO, mbuf.TxTCPSeg}, {TxOffloadUDPTSO, mbuf.TxUDPSeg},
	} {
		if !on(x.offload) {
			a.forbidden |= x.flag
		}
	}
	a.l4[0] = true
	a.l4[mbuf.TxTCPCksum>>l4Shift] = on(TxOffloadTCPCksum | TxOffloadTCPTSO)
	a.l4[mbuf.TxUDPCksum>>l4Shift] = on(TxOffloadUDPCksum | TxOffloadUDPTSO)
	a.tunnel[0] = true
	a.tunnel[mbuf.TxTunnelVXLAN>>tunnelShift] = on(TxOffloadVXLANTnlTSO)
	a.tunnel[mbuf.TxTunnelGENEVE>>tunnelShift] = on(TxOffloadGENEVETnlTSO)
	a.tunnel[mbuf.TxTunnelUDP>>tunnelShift] = on(TxOffloadUDPTnlTSO)
	return a
}

// check is nil for flags that ask for what is allowed.
func (a *txAllow) check(flags uint64) error {
	if flags&a.forbidden != 0 || !a.l4[flags&mbuf.TxL4Mask>>l4Shift] {
		return ErrTxDisabled
	}
	if flags&(mbuf.TxTCPSeg|mbuf.TxUDPSeg) != 0 && !a.tunnel[flags&mbuf.TxTunnelMask>>tunnelShift] {
		return ErrTxDisabled
	}
	return nil
}

// txPlan is what a packet's flags come to, once they are known to fit it.
type txPlan struct {
	flags   uint64
	lengths mbuf.Lengths
	layer2  int    // its length at least
	headers []byte // the packet's first bytes, all headers that are spoken of among them
	cksum   int    // of the layer-4 checksum to complete: its place in the header, 0 if none
	gso     uint8  // vnethdr's type, 0 if none
	head    int    // bytes at the packet's start that the driver rewrites
	tags    int    // bytes of tags to insert
}

// request describes a packet that asks for something.
func (q *TxQueue) request(i int, m *mbuf.Mbuf) bool {
	p, err := q.plan(m)
	if err != nil {
		return false
	}
	hdr := p.header()
	if p.head == 0 {
		if h := q.inFront(i, m); h != nil {
			hdr.Encode(h)
			return true
		}
	}
	s := q.scratch(i)
	hdr.Encode(s[:q.hdrLen])
	return q.gather(i, m, q.hdrLen+p.rewrite(m, s[q.hdrLen:]), p.head)
}

// plan checks a packet's flags against the port and the packet.
func (q *TxQueue) plan(m *mbuf.Mbuf) (p txPlan, err error) {
	p.flags = m.OlFlags & mbuf.TxOffloadMask
	if err := q.allow.check(p.flags); err != nil {
		return p, err
	}
	p.layer2 = q.layer2.header
	p.lengths = m.Lengths()
	p.headers = firstBytes(m, q.peek[:])
	if p.outer() && p.inner(int(m.PktLen)) && p.edits() {
		return p, nil
	}
	return p, ErrTxFlags
}

const (
	txSeg   = mbuf.TxTCPSeg | mbuf.TxUDPSeg
	txOuter = mbuf.TxTunnelMask | mbuf.TxOuterIPv4 | mbuf.TxOuterIPv6 | mbuf.TxOuterIPCksum | mbuf.TxOuterUDPCksum
)

func (p *txPlan) has(flags uint64) bool { return p.flags&flags != 0 }

// outer checks the outer headers, if the flags speak of any.
func (p *txPlan) outer() bool {
	if !p.has(txOuter) {
		p.lengths.OuterL2, p.lengths.OuterL3 = 0, 0
		return true
	}
	v4, v6 := p.has(mbuf.TxOuterIPv4), p.has(mbuf.TxOuterIPv6)
	if v4 == v6 || p.has(mbuf.TxOuterIPCksum) && !v4 {
		return false
	}
	if !p.isIP(p.lengths.OuterL2, p.lengths.OuterL3, v6) {
		return false
	}
	udp := p.lengths.OuterL2 + p.lengths.OuterL3
	return !p.has(mbuf.TxOuterUDPCksum) ||
		p.carries(p.lengths.OuterL2, p.lengths.OuterL3, protoUDP, v6) && p.lengths.L2 >= minUDP && len(p.headers) >= udp+minUDP
}

// inner checks what is to be completed or cut, in a packet of total bytes.
func (p *txPlan) inner(total int) bool {
	l4 := p.flags & mbuf.TxL4Mask
	if l4 == 0 && !p.has(txSeg|mbuf.TxIPCksum) {
		return true
	}
	v4, v6 := p.has(mbuf.TxIPv4), p.has(mbuf.TxIPv6)
	ip := p.lengths.IPStart()
	if v4 == v6 || p.has(mbuf.TxIPCksum) && !v4 || !p.isIP(ip, p.lengths.L3, v6) {
		return false
	}
	if l4 == 0 && !p.has(txSeg) {
		return true
	}
	tcp := l4 == mbuf.TxTCPCksum || p.has(mbuf.TxTCPSeg)
	udp := l4 == mbuf.TxUDPCksum || p.has(mbuf.TxUDPSeg)
	if tcp == udp {
		return false
	}
	proto, minLen := byte(protoTCP), minTCP
	p.cksum = tcpCksumOffset
	if udp {
		proto, minLen, p.cksum = protoUDP, minUDP, udpCksumOffset
	}
	start := p.lengths.L4Start()
	if len(p.headers) < start+minLen || !p.carries(ip, p.lengths.L3, proto, v6) {
		return false
	}
	return !p.has(txSeg) || p.segments(total, tcp, v6)
}

// isIP reports whether there is an IP header of that version and length.
func (p *txPlan) isIP(at, length int, v6 bool) bool {
	if at < p.layer2 || len(p.headers) < at+length {
		return false
	}
	if v6 {
		return length >= minIPv6 && p.headers[at]>>4 == 6
	}
	return length >= minIPv4 && int(p.headers[at]) == 4<<4|length/4 && length&3 == 0
}

// carries reports whether the IP header of that place and length carries proto, and
// is not a fragment. Of extension headers only the length is checked.
func (p *txPlan) carries(ip, length int, proto byte, v6 bool) bool {
	h := p.headers[ip:]
	if v6 {
		return length > minIPv6 || h[6] == proto
	}
	return h[9] == proto && binary.BigEndian.Uint16(h[6:])&ipv4Fragment == 0
}

// segments checks what is to be cut, and how.
func (p *txPlan) segments(total int, tcp, v6 bool) bool {
	h := p.headers[p.lengths.L4Start():]
	length := minUDP
	p.gso = vnethdr.GSOUDPL4
	if tcp {
		length = int(h[12]>>4) * 4
		p.gso = vnethdr.GSOTCPv4
		if v6 {
			p.gso = vnethdr.GSOTCPv6
		}
		if h[tcpFlagsOffset]&tcpFlagCWR != 0 {
			p.gso |= vnethdr.GSOECN
		}
	}
	if p.has(mbuf.TxTunnelMask) {
		p.gso |= vnethdr.GSOUDPTunnelIPv4
		if p.has(mbuf.TxOuterIPv6) {
			p.gso ^= vnethdr.GSOUDPTunnelIPv4 | vnethdr.GSOUDPTunnelIPv6
		}
	} else if p.has(txOuter) {
		return false // a tunnel of which kind?
	}
	payload := total - p.lengths.Headers()
	if payload <= p.lengths.TSOSegSize {
		p.gso = 0 // one packet already: the kernel would drop it if TCP has options (tcp_gso_segment)
	}
	return length == p.lengths.L4 && length >= minUDP && p.lengths.TSOSegSize > 0 && payload >= 0
}

// edits finds out what of the packet the driver itself must write.
func (p *txPlan) edits() bool {
	switch {
	case p.has(mbuf.TxQinQ):
		p.head, p.tags = etherAddrs, 2*vlanLen
	case p.has(mbuf.TxVLAN):
		p.head, p.tags = etherAddrs, vlanLen
	}
	if p.tags > 0 && len(p.headers) < minEther {
		return false
	}
	if p.has(mbuf.TxOuterIPCksum) {
		p.head = p.lengths.OuterL2 + p.lengths.OuterL3
	}
	if p.has(mbuf.TxOuterUDPCksum) {
		p.head = p.lengths.OuterL2 + p.lengths.OuterL3 + minUDP
	}
	if p.has(mbuf.TxIPCksum) || p.has(mbuf.TxOuterUDPCksum) && p.cksum != 0 && p.gso == 0 {
		p.head = p.lengths.L4Start()
	}
	return p.head <= headMax
}

// header is what the kernel is told.
func (p *txPlan) header() (h vnethdr.Header) {
	if p.cksum == 0 {
		return h
	}
	h.Flags = vnethdr.FlagNeedsCsum
	h.CsumStart = uint16(p.lengths.L4Start() + p.tags)
	h.CsumOffset = uint16(p.cksum)
	if p.gso == 0 {
		return h
	}
	h.GSOType = p.gso
	h.GSOSize = uint16(p.lengths.TSOSegSize)
	h.HdrLen = uint16(p.lengths.Headers() + p.tags)
	if p.has(mbuf.TxTunnelMask) {
		h.OuterTransport = uint16(p.lengths.OuterL2 + p.lengths.OuterL3 + p.tags)
		h.InnerNetwork = uint16(p.lengths.IPStart() + p.tags)
		if p.has(mbuf.TxOuterUDPCksum) {
			h.Flags |= vnethdr.FlagUDPTunnelCsum
		}
	}
	return h
}

// rewrite writes to dst what stands for the first p.head bytes of the packet, and
// returns how long that is.
func (p *txPlan) rewrite(m *mbuf.Mbuf, dst []byte) int {
	if p.head == 0 {
		return 0
	}
	n := copy(dst, p.headers[:etherAddrs])
	if p.has(mbuf.TxQinQ) {
		n += putTag(dst[n:], tpidQinQ, m.VlanTCIOuter)
	}
	if p.tags > 0 {
		n += putTag(dst[n:], tpidVLAN, m.VlanTCI)
	}
	n += copy(dst[n:], p.headers[etherAddrs:p.head])
	if p.has(mbuf.TxOuterIPCksum) {
		putIPv4Cksum(dst[p.tags+p.lengths.OuterL2:][:p.lengths.OuterL3])
	}
	if p.has(mbuf.TxIPCksum) {
		putIPv4Cksum(dst[p.tags+p.lengths.IPStart():][:p.lengths.L3])
	}
	if p.has(mbuf.TxOuterUDPCksum) {
		p.putOuterUDP(m, dst[p.tags:p.tags+p.head])
	}
	return n
}

// putOuterUDP writes the outer UDP checksum in head, the packet's first bytes as they
// will be sent. In a frame that is to be cut, which the kernel does, it begins there as the
// sum of the pseudo-header. In others the kernel completes the inner one only, and the driver
// this one. What is behind the inner one's start need not be read: its sum will be the
// complement of what the inner one began with (local checksum offload,
// Documentation/networking/checksum-offloads.rst).
func (p *txPlan) putOuterUDP(m *mbuf.Mbuf, head []byte) {
	udp := p.lengths.OuterL2 + p.lengths.OuterL3
	field := head[udp+udpCksumOffset:][:2]
	clear(field)
	pseudo := header.PseudoSum(head[p.lengths.OuterL2:], protoUDP, int(m.PktLen)-udp)
	if p.gso != 0 {
		binary.BigEndian.PutUint16(field, pseudo)
		return
	}
	sum, rest := header.Add(pseudo, header.Sum(head[udp:])), uint16(0)
	if p.cksum != 0 {
		rest = ^binary.BigEndian.Uint16(p.headers[p.lengths.L4Start()+p.cksum:])
	} else {
		rest = header.SumChain(m, len(head), int(m.PktLen)-len(head))
	}
	if (len(head)-udp)&1 != 0 {
		rest = bits.ReverseBytes16(rest)
	}
	if sum = ^header.Add(sum, rest); sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(field, sum)
}

func putTag(dst []byte, tpid, tci uint16) int {
	binary.BigEndian.PutUint16(dst, tpid)
	binary.BigEndian.PutUint16(dst[2:], tci)
	return vlanLen
}

func putIPv4Cksum(h []byte) {
	binary.BigEndian.PutUint16(h[ipv4CksumOffset:], header.IPv4Checksum(h))
}
