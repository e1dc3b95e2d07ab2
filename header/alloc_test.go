// SPDX-License-Identifier: BSD-3-Clause

package header

import (
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// TestAllocs: nothing here allocates, whatever the packet is.
func TestAllocs(t *testing.T) {
	pool := newPool(t)
	for _, w := range whole {
		m := packet(t, pool, w.frame, 15, 30, 3)
		m.PacketType, m.TxOffload = ParsePacked(w.frame)
		n := testing.AllocsPerRun(10, func() {
			l := Parse(w.frame)
			v, _ := ParseOuter(w.frame).Pack()
			sink += v + uint64(l.Headers())
			v, _ = ParseIP(w.frame[14:]).Pack()
			p, n := ParseIPPacked(w.frame[14:])
			sink += v + uint64(p) + n + uint64(ParseOuterIP(w.frame[14:]).L3)
			VerifyL4(m, l)
			m.OlFlags = mbuf.RxL4CksumNone | mbuf.RxOuterL4CksumInvalid
			Complete(m)
			CompleteAt(m, 14, 4)
			sink += uint64(PseudoSum(w.frame, 6, 20) + IPv4Checksum(w.frame) + Sum(w.frame))
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", w.name, n)
		}
		m.Free()
	}
}
