// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"encoding/binary"
	"math/bits"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// cut makes the packets of m from the one with the number first on, as many as out
// has places and a has mbufs, and returns how many.
func (s *Segmenter) cut(m *mbuf.Mbuf, a mbuf.Allocator, out []*mbuf.Mbuf, first int) int {
	p := &s.plan
	got := a.AllocBulk(out)
	src := cursor{seg: m}
	src.skip(p.length + first*p.seg)
	done := got
	for i, d := range out[:got] {
		if !s.packet(d, a, &src, first+i) {
			done = i
			break
		}
		p.describe(d, m)
	}
	if done < got {
		a.FreeBulk(out[done:got])
		clear(out[done:got])
	}
	s.more.giveBack(a)
	return done
}

// describe fills in what the packet d of the frame m says of itself.
func (p *plan) describe(d, m *mbuf.Mbuf) {
	d.OlFlags = p.olFlags
	d.PacketType = p.packetType
	d.TxOffload = p.lengths
	d.Port = m.Port
	d.VlanTCI, d.VlanTCIOuter = m.VlanTCI, m.VlanTCIOuter
	d.Hash = m.Hash
}

// packet fills the empty d with packet number i, whose payload is next in src. It
// is false when there are not enough mbufs.
func (s *Segmenter) packet(d *mbuf.Mbuf, a mbuf.Allocator, src *cursor, i int) bool {
	p := &s.plan
	off := i * p.seg
	n := min(p.seg, p.payload-off)
	h := d.Append(min(p.length+n, d.Tailroom()))
	if len(h) < p.length {
		return false
	}
	copy(h, s.headers[:p.length])
	sum := src.copySum(h[p.length:])
	if done := len(h) - p.length; done < n {
		rest, ok := s.chain(d, a, src, n-done)
		if !ok {
			return false
		}
		sum += swapIfOdd(rest, done)
	}
	p.patch(h, i, n, sum)
	return true
}

// chain appends n more bytes of src to d in further segments, and returns their sum.
func (s *Segmenter) chain(d *mbuf.Mbuf, a mbuf.Allocator, src *cursor, n int) (sum uint64, ok bool) {
	last := d
	for done := 0; done < n; {
		seg := s.more.take(a)
		if seg == nil {
			return 0, false
		}
		last.Next = seg
		last = seg
		d.NbSegs++
		b := seg.Append(min(n-done, seg.Tailroom()))
		if len(b) == 0 {
			return 0, false
		}
		sum += swapIfOdd(src.copySum(b), done)
		d.PktLen += uint32(len(b))
		done += len(b)
	}
	return sum, true
}

// patch writes into the headers h what packet number i has of its own. It has n
// bytes of payload that add up to sum.
func (p *plan) patch(h []byte, i, n int, sum uint64) {
	end := p.length + n
	p.ip.patch(h, end, i)
	l4 := h[p.l4:]
	size := end - p.l4
	sum += p.l4Sum + uint64(size)
	if p.tcp {
		seq, flags := p.seq+uint32(i*p.seg), p.flags
		if i < p.n-1 {
			flags &^= tcpFIN | tcpPSH
		}
		if i > 0 {
			flags &^= tcpCWR
		}
		l4[13] = flags
		be.PutUint32(l4[4:], seq)
		be.PutUint16(l4[16:], ^fold(sum+uint64(seq)+uint64(flags)))
	} else {
		be.PutUint16(l4[4:], uint16(size))
		be.PutUint16(l4[6:], udpCheck(sum+uint64(size)))
	}
	if p.udp != 0 {
		p.patchOuter(h, end, i)
	}
}

func (p *plan) patchOuter(h []byte, end, i int) {
	p.outer.patch(h, end, i)
	udp := h[p.udp:]
	size := end - p.udp
	be.PutUint16(udp[4:], uint16(size))
	if p.outerSum == 0 {
		return
	}
	// The inner pseudo-header has a length, of which the complement is added.
	sum := p.outerSum + 2*uint64(size) + uint64(^uint16(end-p.l4))
	if p.ip.v6 {
		sum += uint64(end - p.ip.at - ipv6Len)
	}
	be.PutUint16(udp[6:], udpCheck(sum))
}

// patch writes the fields of packet number i, which ends at end.
func (n *network) patch(h []byte, end, i int) {
	b := h[n.at:]
	size := end - n.at
	if n.v6 {
		be.PutUint16(b[4:], uint16(size-ipv6Len))
		return
	}
	id := n.id + uint16(i)
	be.PutUint16(b[2:], uint16(size))
	be.PutUint16(b[4:], id)
	be.PutUint16(b[10:], ^fold(n.sum+uint64(size)+uint64(id)))
}

// udpCheck is the checksum for sum; 0 would mean that there is none.
func udpCheck(sum uint64) uint16 {
	if c := ^fold(sum); c != 0 {
		return c
	}
	return 0xffff
}

// fold adds up the 16-bit words of a sum.
func fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum)
}

// swapIfOdd is sum as it counts when it is of bytes from an offset off.
func swapIfOdd(sum uint64, off int) uint64 {
	if off&1 == 0 {
		return sum
	}
	return uint64(bits.ReverseBytes16(fold(sum)))
}

// cursor is a place in a packet.
type cursor struct {
	seg *mbuf.Mbuf
	off int
}

func (c *cursor) skip(n int) {
	for c.off += n; c.seg != nil; c.seg = c.seg.Next {
		k := len(c.seg.Bytes())
		if c.off < k {
			return
		}
		c.off -= k
	}
}

// copySum copies len(dst) bytes, fewer where the packet ends, moves on and returns
// the sum of dst.
func (c *cursor) copySum(dst []byte) uint64 {
	for n := 0; c.seg != nil; {
		b := c.seg.Bytes()
		if c.off > len(b) {
			return 0
		}
		b = b[c.off:]
		if n == 0 && len(b) >= len(dst) {
			c.off += len(dst)
			return copySum(dst, b)
		}
		k := copy(dst[n:], b)
		n += k
		c.off += k
		if n == len(dst) {
			break
		}
		c.seg, c.off = c.seg.Next, 0
	}
	return uint64(header.Sum(dst))
}

// copySum copies len(dst) bytes of src, which is not shorter, and adds them up on
// the way: each byte comes into a register once.
func copySum(dst, src []byte) uint64 {
	src = src[:len(dst)]
	var sum, carry uint64
	le := binary.LittleEndian
	for len(src) >= 64 && len(dst) >= 64 {
		a, b, c, d := le.Uint64(src), le.Uint64(src[8:]), le.Uint64(src[16:]), le.Uint64(src[24:])
		le.PutUint64(dst, a)
		le.PutUint64(dst[8:], b)
		le.PutUint64(dst[16:], c)
		le.PutUint64(dst[24:], d)
		sum, carry = bits.Add64(sum, a, 0)
		sum, carry = bits.Add64(sum, b, carry)
		sum, carry = bits.Add64(sum, c, carry)
		sum, carry = bits.Add64(sum, d, carry)
		sum += carry
		a, b, c, d = le.Uint64(src[32:]), le.Uint64(src[40:]), le.Uint64(src[48:]), le.Uint64(src[56:])
		le.PutUint64(dst[32:], a)
		le.PutUint64(dst[40:], b)
		le.PutUint64(dst[48:], c)
		le.PutUint64(dst[56:], d)
		sum, carry = bits.Add64(sum, a, 0)
		sum, carry = bits.Add64(sum, b, carry)
		sum, carry = bits.Add64(sum, c, carry)
		sum, carry = bits.Add64(sum, d, carry)
		sum += carry
		src, dst = src[64:], dst[64:]
	}
	copy(dst, src)
	// The words were little-endian; a sum with its bytes swapped is the sum of the
	// words with their bytes swapped (RFC 1071).
	return uint64(bits.ReverseBytes16(fold(sum))) + uint64(header.Sum(dst))
}

// spares are mbufs for the further segments of packets that do not fit into one,
// taken several at a time.
type spares struct {
	bufs [64]*mbuf.Mbuf
	n    int
}

func (s *spares) take(a mbuf.Allocator) *mbuf.Mbuf {
	if s.n == 0 {
		if s.n = a.AllocBulk(s.bufs[:]); s.n == 0 {
			return nil
		}
	}
	s.n--
	m := s.bufs[s.n]
	s.bufs[s.n] = nil
	return m
}

func (s *spares) giveBack(a mbuf.Allocator) {
	if s.n > 0 {
		a.FreeBulk(s.bufs[:s.n])
		clear(s.bufs[:s.n])
		s.n = 0
	}
}
