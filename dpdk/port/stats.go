// SPDX-License-Identifier: BSD-3-Clause

package port

import "github.com/rtap-project/rtap"

// stats does the callback stats_get.
func (e *eth) stats(out *Stats) error {
	s, err := e.dev.Stats()
	if err != nil {
		return err
	}
	*out = Stats{IPackets: s.IPackets, OPackets: s.OPackets, IBytes: s.IBytes, OBytes: s.OBytes,
		IMissed: s.IMissed, IErrors: s.IErrors, OErrors: s.OErrors, RxNoMbuf: s.RxNoMbuf}
	for i := range min(int(e.conf.RxQueues), QStats) {
		q, err := e.dev.QueueStats(i)
		if err != nil {
			return err
		}
		out.Q[i] = QueueStats{q.IPackets, q.OPackets, q.IBytes, q.OBytes, q.IErrors}
	}
	return nil
}

func (e *eth) resetStats() error { return e.dev.ResetStats() }

// xstats does the callback xstats_get, as far as out has room.
func (e *eth) xstats(out []uint64) (int, error) {
	all, err := e.dev.XStats()
	if err != nil {
		return 0, err
	}
	all = all[rtap.NumPortXStats():]
	for i := range min(len(out), len(all)) {
		out[i] = all[i].Value
	}
	return len(all), nil
}

// xstatNames does the callback xstats_get_names, likewise. Each ends with a zero.
func (e *eth) xstatNames(out [][XStatName]byte) (int, error) {
	all, err := e.dev.XStatNames()
	if err != nil {
		return 0, err
	}
	all = all[rtap.NumPortXStats():]
	for i := range min(len(out), len(all)) {
		out[i] = [XStatName]byte{}
		copy(out[i][:XStatName-1], all[i])
	}
	return len(all), nil
}
