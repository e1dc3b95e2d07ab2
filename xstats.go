// SPDX-License-Identifier: BSD-3-Clause

package rtap

// XStat is an extended statistic. Its place in XStats is its id.
type XStat struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

// XStats reads all extended statistics.
func (d *Device) XStats() ([]XStat, error) {
	s, err := d.Stats()
	if err != nil {
		return nil, err
	}
	return []XStat{
		{"rx_good_packets", s.IPackets}, {"tx_good_packets", s.OPackets},
		{"rx_good_bytes", s.IBytes}, {"tx_good_bytes", s.OBytes},
		{"rx_missed_errors", s.IMissed}, {"rx_errors", s.IErrors}, {"tx_errors", s.OErrors},
		{"rx_mbuf_allocation_errors", s.RxNoMbuf},
	}, nil
}
