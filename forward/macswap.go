// SPDX-License-Identifier: BSD-3-Clause

package forward

import "github.com/rtap-project/rtap/mbuf"

func bindMACSwap(s *Stream, _ *Config, _ mbuf.Allocator) (func() int, error) {
	return func() int {
		pkts := s.receive()
		n := len(pkts)
		if n > 0 {
			pkts = s.keep(pkts, swapMACs)
			mbuf.PassThrough(pkts)
			s.send(pkts)
		}
		return n
	}, nil
}

// swapMACs is false for a packet shorter than an Ethernet header.
func swapMACs(m *mbuf.Mbuf) bool {
	if b := m.Bytes(); len(b) >= etherLen {
		swapAddrs(b)
		return true
	}
	var hdr [etherLen]byte
	if gather(m, hdr[:]) < etherLen {
		return false
	}
	swapAddrs(hdr[:])
	scatter(m, 0, hdr[:])
	return true
}

func swapAddrs(b []byte) {
	dst, src := [6]byte(b[0:6]), [6]byte(b[6:12])
	copy(b[0:6], src[:])
	copy(b[6:12], dst[:])
}
