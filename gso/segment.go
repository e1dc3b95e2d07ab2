// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"errors"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// Errors of [Segmenter.Segment]. They are fixed values.
var (
	// ErrNotLarge: the packet is none that is to be cut.
	ErrNotLarge = errors.New("gso: not a frame of several packets")
	// ErrMalformed: the headers are cut short, or contradict the flags, the lengths
	// or each other; there is no segment size; the frame's checksum is known to be
	// wrong.
	ErrMalformed = errors.New("gso: malformed frame")
	// ErrTunnel: the frame is in a tunnel that is not in UDP, or whose header differs from packet to packet.
	ErrTunnel = errors.New("gso: tunnel is not one in UDP that can be cut")
	// ErrShort: out has less room than [Segmenter.Segments] asks for.
	ErrShort = errors.New("gso: out is too short for the frame")
	// ErrNoMbufs: the allocator is exhausted, or its mbufs do not hold the headers.
	ErrNoMbufs = errors.New("gso: no mbufs for the packets")
)

// large are the flags of a frame that is several packets.
const large = mbuf.RxLRO | mbuf.TxTCPSeg | mbuf.TxUDPSeg

// Config says how a [Segmenter] cuts. The zero value is the default.
type Config struct {
	// SegSize is the largest payload of a TCP packet in bytes, if the frame's own
	// segment size is not smaller. 0: the frame's alone. A UDP datagram is what its
	// sender made it and never cut otherwise.
	SegSize int
	// IP: a frame whose mbuf has no lengths begins with its IP header, as those of a TUN do.
	// The default is an Ethernet header.
	IP bool
}

// Stats are what a [Segmenter] has done since it was made.
type Stats struct {
	Frames    uint64 // frames cut
	Packets   uint64 // packets they were cut into
	Malformed uint64 // frames that Burst dropped because they cannot be cut
	NoMbuf    uint64 // packets that Burst lost because there were no mbufs for them
	Short     uint64 // packets that BurstTo lost because a buffer was too short
}

// Segmenter cuts frames that are several packets in one: those with RxLRO, as a
// port with large receive delivers them, and those with TxTCPSeg or TxUDPSeg, as
// they would be sent. The zero value works; [New] makes one with another segment
// size. One goroutine at a time may use it.
//
// Each packet has the frame's headers, with the lengths, the sequence number, the
// IPv4 ID and all checksums its own. FIN and PSH are in the last only, CWR in the
// first only. IPv6 extension headers, IPv4 options and VLAN tags in the data are
// kept. In VXLAN, GENEVE and tunnels in UDP whose kind is not known (mbuf.PTypeTunnelGRENAT,
// mbuf.TxTunnelUDP) the outer lengths, ID and checksums are made right too, an outer UDP
// checksum of 0 stays 0, and what is between the outer UDP header and the inner IP header is
// copied; frames in other tunnels are refused.
// What the frame holds beyond the end of its IP packet is left out.
//
// The packets are copies. They are of one segment when the allocator's mbufs have
// the room, and chains otherwise. They carry RxL4CksumGood, RxIPCksumGood
// (IPv4), the packet type and lengths, and the frame's Port, Hash and VLAN tags
// with their flags, stripped ones and those to be inserted.
type Segmenter struct {
	cfg   Config
	stats Stats
	plan  plan

	// pending is the frame that Burst has not finished, and next the packet with
	// which it goes on.
	pending *mbuf.Mbuf
	next    int

	more    spares        // for packets that are chains
	one     [1]*mbuf.Mbuf // lent to the allocator
	headers [maxHeaders]byte
}

// New returns a Segmenter. A negative SegSize counts as 0.
func New(cfg Config) *Segmenter {
	cfg.SegSize = max(cfg.SegSize, 0)
	return &Segmenter{cfg: cfg}
}

// Stats returns the counters. Only the goroutine that uses s may call it.
func (s *Segmenter) Stats() Stats { return s.stats }

// Segments returns how many packets Segment makes of m: 0 if it is not to be cut or
// cannot be.
func (s *Segmenter) Segments(m *mbuf.Mbuf) int {
	if s.prepare(m) != nil {
		return 0
	}
	return s.plan.n
}

// Segment cuts m into out with mbufs from a, and returns how many packets it made.
// It makes all or none; then the error is one of those of this package. The caller
// owns m, which is not changed, and the packets. What passes through an interface
// escapes: out should live as long as the program.
func (s *Segmenter) Segment(m *mbuf.Mbuf, a mbuf.Allocator, out []*mbuf.Mbuf) (int, error) {
	if err := s.prepare(m); err != nil {
		return 0, err
	}
	n := s.plan.n
	if n > len(out) {
		return 0, ErrShort
	}
	if got := s.cut(m, a, out[:n], 0); got < n {
		a.FreeBulk(out[:got])
		clear(out[:got])
		return 0, ErrNoMbufs
	}
	s.count(n)
	return n, nil
}

// Burst moves packets from in to out until the one is empty or the other full, and
// returns how many it took and how many it put there. Frames that are several
// packets are cut with mbufs from a and given back to a. Of others, a checksum that
// is not complete (RxL4CksumNone) is completed, if the packet is writable and
// [header.Complete] can; otherwise they are left alone.
//
// The caller owns the packets in out, and those in in that were not taken. If out
// fills up inside a frame, that frame counts as not taken and must be the first of
// the next Burst, which goes on where this one ended. A frame that cannot be cut is
// dropped, and so are packets for which there are no mbufs: see [Stats].
func (s *Segmenter) Burst(in []*mbuf.Mbuf, a mbuf.Allocator, out []*mbuf.Mbuf) (taken, n int) {
	for taken < len(in) && n < len(out) {
		m := in[taken]
		if m == nil || m.OlFlags&large == 0 {
			if m != nil && m.OlFlags&mbuf.RxL4CksumMask == mbuf.RxL4CksumNone && writable(m) {
				header.Complete(m)
			}
			out[n] = m
			n++
			taken++
			continue
		}
		k, done := s.advance(m, a, out[n:])
		n += k
		if done {
			taken++
		}
	}
	return taken, n
}

// advance puts as many packets of the frame m as fit into out, which is not empty,
// and gives the frame up when there are no more.
func (s *Segmenter) advance(m *mbuf.Mbuf, a mbuf.Allocator, out []*mbuf.Mbuf) (n int, done bool) {
	first, ok := s.resume(m)
	if !ok {
		s.free(m, a)
		return 0, true
	}
	want := min(s.plan.n-first, len(out))
	n = s.cut(m, a, out[:want], first)
	if n < want {
		s.stats.NoMbuf += uint64(s.plan.n - first - n)
	}
	if done = s.pause(m, first+n, n < want); done {
		s.free(m, a)
	}
	s.stats.Packets += uint64(n)
	return n, done
}

// resume makes the plan for m, and says with which packet to go on.
func (s *Segmenter) resume(m *mbuf.Mbuf) (first int, ok bool) {
	if m == s.pending {
		first = s.next
	}
	s.pending, s.next = nil, 0
	if s.prepare(m) != nil || first >= s.plan.n {
		s.stats.Malformed++
		return 0, false
	}
	return first, true
}

// pause notes that m goes on with packet next, unless the frame is done with, or is given up.
func (s *Segmenter) pause(m *mbuf.Mbuf, next int, giveUp bool) (done bool) {
	switch {
	case giveUp:
		return true
	case next < s.plan.n:
		s.pending, s.next = m, next
		return false
	}
	s.stats.Frames++
	return true
}

func (s *Segmenter) free(m *mbuf.Mbuf, a mbuf.Allocator) {
	s.one[0] = m
	a.FreeBulk(s.one[:])
	s.one[0] = nil
}

func (s *Segmenter) count(packets int) {
	s.stats.Frames++
	s.stats.Packets += uint64(packets)
}

// writable reports whether nobody else sees any of the packet's segments.
func writable(m *mbuf.Mbuf) bool {
	for ; m != nil; m = m.Next {
		if !m.IsWritable() {
			return false
		}
	}
	return true
}
