// SPDX-License-Identifier: BSD-3-Clause

package netstack

import (
	"cmp"
	"runtime"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/stack/gro"

	"github.com/rtap-project/rtap"
	rheader "github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

const (
	rxBurst = 64

	// copyMax is the longest frame that is copied. A view is 64 KB, and the stack counts only the
	// bytes in it: with longer ones, what waits in sockets takes at most four times the memory that it is allowed.
	copyMax = 16 << 10

	// someHeaders is how much of a frame of an unknown kind is taken for headers.
	someHeaders = 128
)

// receiver is the dispatcher of one queue. It belongs to its goroutine.
type receiver struct {
	e    *Endpoint
	s    *session
	q    *rtap.RxQueue
	mem  *memory // the queue's, nil if that is not ours
	gro  gro.GRO
	addr tcpip.LinkAddress // the stack's, as of this burst
	bufs [rxBurst]*mbuf.Mbuf
}

func (e *Endpoint) newReceiver(queue int, d stack.NetworkDispatcher, s *session) *receiver {
	r := &receiver{e: e, s: s, q: e.dev.RxQueue(queue)}
	if e.own {
		r.mem = e.mem[queue]
	}
	r.gro.Init(!e.lro && e.caps&stack.CapabilityRXChecksumOffload != 0) // with LRO, the kernel has done it
	r.gro.Dispatcher = d
	return r
}

// run delivers until the session is over or the port is, which is the error.
func (r *receiver) run() error {
	w, err := rtap.NewRxWaiter(r.q)
	if err != nil {
		return err
	}
	defer w.Close()
	w.Spin = max(cmp.Or(r.e.spin, rtap.DefaultSpin), 0)
	for rounds := 0; !r.s.over.Load(); {
		if n := r.q.Burst(r.bufs[:]); n > 0 {
			r.burst(r.bufs[:n])
			rounds = 0
			continue
		}
		rounds++
		runtime.Gosched() // to the stack, which has what was just delivered
		if err := w.Idle(r.s.ctx, rounds); err != nil {
			return err
		}
	}
	return nil
}

func (r *receiver) burst(bufs []*mbuf.Mbuf) {
	r.addr = r.e.LinkAddress()
	r.s.enter()
	for _, m := range bufs {
		if !r.s.over.Load() && r.wanted(m) {
			r.deliver(m)
		}
	}
	r.gro.Flush()
	r.s.leave()
	if r.mem != nil {
		r.mem.recycle(bufs)
	} else {
		mbuf.FreeBulk(bufs)
	}
}

// wanted reports whether a packet is for the stack, and counts if not.
func (r *receiver) wanted(m *mbuf.Mbuf) bool {
	b, c := m.Bytes(), &r.e.stats
	switch {
	case r.e.tun:
	case len(b) < header.EthernetMinimumSize:
		c.rxMalformed.Add(1)
		return false
	case b[0]&1 == 0 && !r.e.promiscuous && string(b[:header.EthernetAddressSize]) != string(r.addr):
		c.rxOther.Add(1)
		return false
	}
	if r.e.caps&stack.CapabilityRXChecksumOffload != 0 && !vouch(m) {
		c.rxChecksum.Add(1)
		return false
	}
	return true
}

// vouch reports whether the checksums of a packet are right or not made yet. The stack will not look.
func vouch(m *mbuf.Mbuf) bool {
	l := outer(m)
	tunnel := m.PacketType&mbuf.PTypeTunnelMask != 0
	switch known := m.OlFlags & mbuf.RxIPCksumMask; {
	case known == mbuf.RxIPCksumGood && !tunnel: // of a tunnel, the flags speak of the inner header
	case !verifyIPv4(m, l):
		return false
	}
	switch m.OlFlags & mbuf.RxL4CksumMask {
	case mbuf.RxL4CksumBad:
		return false
	case mbuf.RxL4CksumNone:
		// Of a tunnel's inner packet, which the stack takes for data: whoever unpacks it wants it whole.
		return !tunnel || rheader.Complete(m)
	case mbuf.RxL4CksumGood:
		return true
	}
	switch l.PacketType & mbuf.PTypeL4Mask {
	case mbuf.PTypeL4TCP, mbuf.PTypeL4UDP:
		return rheader.VerifyL4(m, l)
	}
	return true
}

// verifyIPv4 reports whether the checksum of an IPv4 header is right, or there is no such header.
func verifyIPv4(m *mbuf.Mbuf, l rheader.Layout) bool {
	switch l.PacketType & mbuf.PTypeL3Mask {
	case mbuf.PTypeL3IPv4, mbuf.PTypeL3IPv4Ext:
		var h [header.IPv4MaximumHeaderSize]byte
		return rheader.Sum(h[:m.CopyOut(h[:min(int(l.L3), len(h))], int(l.L2))]) == 0xffff
	}
	return true
}

// outer is what the stack will find in a packet: it does not look into tunnels.
func outer(m *mbuf.Mbuf) rheader.Layout {
	l := m.Lengths()
	if m.PacketType&mbuf.PTypeTunnelMask != 0 {
		l.L2, l.L3, l.L4 = l.OuterL2, l.OuterL3, header.UDPMinimumSize
	}
	return rheader.Layout{PacketType: m.PacketType & (mbuf.PTypeL2Mask | mbuf.PTypeL3Mask | mbuf.PTypeL4Mask),
		L2: uint16(l.L2), L3: uint16(l.L3), L4: uint16(l.L4)}
}

func (r *receiver) deliver(m *mbuf.Mbuf) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: r.payload(m)})
	defer pkt.DecRef()
	if !r.parse(pkt, m) {
		r.e.stats.rxMalformed.Add(1)
		return
	}
	pkt.RXChecksumValidated = r.e.caps&stack.CapabilityRXChecksumOffload != 0
	r.gro.Enqueue(pkt)
}

// parse finds out the network protocol.
func (r *receiver) parse(pkt *stack.PacketBuffer, m *mbuf.Mbuf) bool {
	if !r.e.tun {
		ok := r.e.ParseHeader(pkt)
		if ok {
			pkt.PktType = r.packetType(m.Bytes()[:header.EthernetAddressSize])
		}
		return ok
	}
	switch m.PacketType & mbuf.PTypeL3Mask {
	case mbuf.PTypeL3IPv4, mbuf.PTypeL3IPv4Ext:
		pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
	case mbuf.PTypeL3IPv6, mbuf.PTypeL3IPv6Ext:
		pkt.NetworkProtocolNumber = header.IPv6ProtocolNumber
	default:
		return false
	}
	return true
}

// packetType is what ARP and packet sockets want to know: whether a frame was for this stack alone.
func (r *receiver) packetType(dst []byte) tcpip.PacketType {
	switch {
	case string(dst) == string(r.addr):
		return tcpip.PacketHost
	case string(dst) == string(header.EthernetBroadcastAddress):
		return tcpip.PacketBroadcast
	case dst[0]&1 != 0:
		return tcpip.PacketMulticast
	}
	return tcpip.PacketOtherHost
}

// payload is the whole frame. The headers of a large one are in a view of their own: the stack writes to them, and would copy
// the view that it shares with a socket.
func (r *receiver) payload(m *mbuf.Mbuf) (b buffer.Buffer) {
	if r.mem == nil || m.PktLen <= copyMax {
		v := buffer.NewView(int(m.PktLen))
		for s := m; s != nil; s = s.Next {
			v.Write(s.Bytes())
		}
		b.Append(v)
		return b
	}
	head := min(cmp.Or(m.Lengths().Headers(), someHeaders), int(m.DataLen))
	b.Append(buffer.NewViewWithData(m.Bytes()[:head]))
	for s, skip := m, head; s != nil; s, skip = s.Next, 0 {
		b.Append(r.mem.take(s, skip))
	}
	return b
}
