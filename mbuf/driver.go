// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import "unsafe"

// Front returns the n bytes in front of the data of this segment, or nil if
// the headroom is smaller. They stay headroom: a driver puts there what the
// kernel wants to see in front of a packet. As with Prepend, ask IsWritable
// first.
func (m *Mbuf) Front(n int) []byte {
	if n < 0 || n > int(m.DataOff) || m.DataOff > m.BufLen {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Add(m.bufAddr, int(m.DataOff)-n)), n)
}
