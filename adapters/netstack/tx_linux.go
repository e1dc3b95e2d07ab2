// SPDX-License-Identifier: BSD-3-Clause

package netstack

import (
	"runtime"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
)

const (
	txBurst = 64
	txRoom  = 2048
	txMbufs = 512 // for each queue: a burst of packets, or a few of many pieces

	// copyTx is the longest piece of a packet that is copied: to attach one costs about as much.
	copyTx = 1024
)

// sender is a Tx queue. Whoever has a packet sends it, so there is a lock.
type sender struct {
	q     *rtap.TxQueue
	stats *counters
	cksum bool // netstack leaves all checksums to us

	mu     sync.Mutex
	cache  *mbuf.Cache
	n      int // in bufs
	failed int // packets lost for want of memory
	bufs   [txBurst]*mbuf.Mbuf
}

func newSender(pool *mbuf.Pool, stats *counters) *sender {
	return &sender{cache: pool.NewCache(txBurst), stats: stats}
}

func (s *sender) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cache.Close()
}

// WritePackets implements stack.LinkWriter: it sends each packet through the queue that its flow's hash names. The kernel
// sends the flow's packets in the other direction to the same queue. Packets that were not sent for want
// of memory, or because the port is stopped or gone, are not counted in the result.
func (e *Endpoint) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	sent := 0
	for list := pkts.AsSlice(); len(list) > 0; {
		s := e.senderOf(list[0])
		n := 1
		for n < len(list) && e.senderOf(list[n]) == s {
			n++
		}
		sent += s.send(list[:n])
		list = list[n:]
	}
	switch {
	case sent == pkts.Len():
		return sent, nil
	case e.dev.Err() != nil:
		return sent, &tcpip.ErrClosedForSend{}
	}
	return sent, &tcpip.ErrNoBufferSpace{}
}

func (e *Endpoint) senderOf(p *stack.PacketBuffer) *sender {
	return e.senders[p.Hash%uint32(len(e.senders))]
}

// send returns how many packets the port took, with those that are malformed.
func (s *sender) send(list []*stack.PacketBuffer) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = 0
	for _, p := range list {
		if s.n == len(s.bufs) {
			s.flush()
		}
		m := s.gather(p)
		if m == nil && s.n > 0 {
			s.flush()
			m = s.gather(p)
		}
		switch {
		case m == nil:
			s.failed++
		case !s.request(m, p):
			s.stats.txMalformed.Add(1)
			m.Free()
		default:
			s.bufs[s.n] = m
			s.n++
		}
	}
	s.flush()
	runtime.KeepAlive(list) // the mbufs do not: the garbage collector does not look into them
	if s.failed > 0 {
		s.stats.txNoBuffer.Add(uint64(s.failed))
	}
	return len(list) - s.failed
}

// flush sends what was gathered. The mbufs are ours again, or free, when it returns, and so are the views that they point to.
func (s *sender) flush() {
	bufs := s.bufs[:s.n]
	if k := s.q.Burst(bufs); k < len(bufs) {
		s.failed += len(bufs) - k
		s.cache.FreeBulk(bufs[k:])
	}
	s.n = 0
}

// gather makes a chain of mbufs of a packet: small pieces are copied, others attached. It is nil when there are no mbufs.
func (s *sender) gather(p *stack.PacketBuffer) *mbuf.Mbuf {
	head := s.cache.Alloc()
	if head == nil {
		return nil
	}
	last, total := head, 0
	views, skip := p.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		b, skip = b[skip:], 0
		total += len(b)
		if last = s.add(head, last, b); last == nil {
			s.cache.FreeBulk([]*mbuf.Mbuf{head})
			return nil
		}
	}
	head.PktLen = uint32(total)
	return head
}

// add puts b at the end of a chain and returns the chain's last mbuf, nil if there are no more.
func (s *sender) add(head, last *mbuf.Mbuf, b []byte) *mbuf.Mbuf {
	for len(b) > 0 {
		if len(b) <= copyTx && last.Tailroom() >= len(b) && last.IsDirect() {
			copy(last.Append(len(b)), b)
			return last
		}
		m := s.cache.Alloc()
		if m == nil {
			return nil
		}
		last.Next = m
		head.NbSegs++
		last = m
		if len(b) > copyTx {
			n := min(len(b), mbuf.MaxBufLen)
			_ = mbuf.AttachExternal(m, b[:n], 0) // a fresh mbuf, and a length that fits
			m.Append(n)
			b = b[n:]
		}
	}
	return last
}

// request asks for what is still to be done to a packet. It is false if that cannot be.
func (s *sender) request(m *mbuf.Mbuf, p *stack.PacketBuffer) bool {
	partial := p.GSOOptions.NeedsCsum && (p.GSOOptions.Type == stack.GSOTCPv4 || p.GSOOptions.Type == stack.GSOTCPv6)
	if !partial && !s.cksum {
		return true
	}
	flags, ok := layers(p)
	if !ok {
		return !partial // whatever it is, it is complete
	}
	l := mbuf.Lengths{L2: len(p.LinkHeader().Slice()), L3: len(p.NetworkHeader().Slice()), L4: len(p.TransportHeader().Slice())}
	if partial && p.Data().Size() > int(p.GSOOptions.MSS) {
		flags |= mbuf.TxTCPSeg
		l.TSOSegSize = int(p.GSOOptions.MSS)
	}
	m.OlFlags |= flags
	if !m.SetLengths(l) {
		return false
	}
	if partial {
		return true // the field has the sum of the pseudo-header
	}
	one := [...]*mbuf.Mbuf{m}
	_, err := s.q.Prepare(one[:])
	return err == nil
}

// layers are the flags of a packet whose checksum the kernel can complete.
func layers(p *stack.PacketBuffer) (flags uint64, ok bool) {
	ip, l4 := p.NetworkHeader().Slice(), len(p.TransportHeader().Slice())
	switch {
	case p.NetworkProtocolNumber == header.IPv4ProtocolNumber && len(ip) >= header.IPv4MinimumSize:
		if h := header.IPv4(ip); h.More() || h.FragmentOffset() != 0 {
			return 0, false
		}
		flags = mbuf.TxIPv4
	case p.NetworkProtocolNumber == header.IPv6ProtocolNumber && len(ip) >= header.IPv6MinimumSize:
		if header.IPv6(ip).NextHeader() == uint8(header.IPv6FragmentHeader) {
			return 0, false
		}
		flags = mbuf.TxIPv6
	default:
		return 0, false
	}
	switch {
	case p.TransportProtocolNumber == header.TCPProtocolNumber && l4 >= header.TCPMinimumSize:
		return flags | mbuf.TxTCPCksum, true
	case p.TransportProtocolNumber == header.UDPProtocolNumber && l4 >= header.UDPMinimumSize:
		return flags | mbuf.TxUDPCksum, true
	}
	return 0, false
}
