// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"maps"
	"slices"

	"github.com/rtap-project/rtap/mbuf"
)

// Pools are the pools that the port's Rx queues receive into, each once. In a secondary they are the primary's pools that
// are mapped here, for what it has leased and for rings that it has opened, of any port under this file prefix: it may
// take mbufs from them, and must have given them back before it closes the last of these ports.
func (d *Device) Pools() []*mbuf.Pool {
	if d.far != nil {
		return d.far.mapped()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []*mbuf.Pool
	for _, p := range d.pairs {
		if p.rx == nil {
			continue
		}
		if pool := sharable(p.rx.memory); pool != nil && !slices.Contains(all, pool) {
			all = append(all, pool)
		}
	}
	return all
}

// mapped are the primary's pools in this process.
func (f *far) mapped() (all []*mbuf.Pool) {
	f.mapping.Lock()
	defer f.mapping.Unlock()
	for _, id := range slices.Sorted(maps.Keys(f.pools)) {
		all = append(all, f.pools[id])
	}
	return all
}
