// SPDX-License-Identifier: BSD-3-Clause

package forward

import "github.com/rtap-project/rtap/mbuf"

// macMode writes both MAC addresses: the peer of the sending port, and the sending port's own.
type macMode struct {
	s     *Stream
	addrs [12]byte
}

func bindMAC(s *Stream, _ *Config, _ mbuf.Allocator) (func() int, error) {
	x := &macMode{s: s}
	copy(x.addrs[:6], s.peer[:])
	edit := x.rewrite
	return func() int {
		pkts := s.receive()
		n := len(pkts)
		if n == 0 {
			return 0
		}
		mac := s.txPort.MAC()
		copy(x.addrs[6:], mac[:])
		pkts = s.keep(pkts, edit)
		mbuf.PassThrough(pkts)
		s.send(pkts)
		return n
	}, nil
}

// rewrite is false for a packet shorter than an Ethernet header.
func (x *macMode) rewrite(m *mbuf.Mbuf) bool {
	if b := m.Bytes(); len(b) >= etherLen {
		copy(b[:12], x.addrs[:])
		return true
	}
	var hdr [etherLen]byte
	if gather(m, hdr[:]) < etherLen {
		return false
	}
	scatter(m, 0, x.addrs[:])
	return true
}
