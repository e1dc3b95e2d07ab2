// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import "fmt"

// Check looks at a packet as rte_mbuf_check does with is_header set, and
// returns an error saying what is wrong with which segment: no pool or buffer,
// a reference count of 0 or 65535, data outside the buffer, or PktLen and
// NbSegs of the first segment not agreeing with the chain. It never follows a
// chain further than NbSegs, so one that loops is found too. The caller owns m.
func (m *Mbuf) Check() error {
	if m == nil {
		return fmt.Errorf("mbuf: check: mbuf is nil")
	}
	segs, sum := 0, uint64(0)
	for s := m; s != nil; s = s.Next {
		if segs == int(m.NbSegs) {
			return fmt.Errorf("mbuf: check: chain has more segments than NbSegs %d", m.NbSegs)
		}
		if err := s.checkSeg(); err != nil {
			return fmt.Errorf("mbuf: check: segment %d: %w", segs, err)
		}
		sum += uint64(s.DataLen)
		segs++
	}
	if segs != int(m.NbSegs) {
		return fmt.Errorf("mbuf: check: chain has %d segments, NbSegs is %d", segs, m.NbSegs)
	}
	if sum != uint64(m.PktLen) {
		return fmt.Errorf("mbuf: check: segments hold %d bytes, PktLen is %d", sum, m.PktLen)
	}
	return nil
}

func (m *Mbuf) checkSeg() error {
	refs, end := m.RefCount(), int(m.DataOff)+int(m.DataLen)
	switch {
	case m.pool == nil:
		return fmt.Errorf("no pool")
	case m.bufAddr == nil:
		return fmt.Errorf("no buffer")
	case refs == 0 || refs == 0xffff:
		return fmt.Errorf("reference count %d", refs)
	case m.DataOff > m.BufLen:
		return fmt.Errorf("DataOff %d is outside the buffer of %d bytes", m.DataOff, m.BufLen)
	case end > int(m.BufLen):
		return fmt.Errorf("data ends at %d, outside the buffer of %d bytes", end, m.BufLen)
	}
	return nil
}
