// SPDX-License-Identifier: BSD-3-Clause

package forward

import "github.com/rtap-project/rtap/mbuf"

// bindRxOnly frees what it receives.
func bindRxOnly(s *Stream, _ *Config, _ mbuf.Allocator) (func() int, error) {
	return func() int {
		pkts := s.receive()
		if len(pkts) > 0 {
			mbuf.FreeBulk(pkts)
		}
		return len(pkts)
	}, nil
}
