// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"net/netip"
	"slices"
)

// owned is the set of addresses that icmpecho answers for. There are few: a search is as good as a table.
type owned struct {
	any bool // no list was given
	v4  [][4]byte
	v6  [][16]byte
}

func ownedAddrs(addrs []netip.Addr) owned {
	o := owned{any: addrs == nil}
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			o.v4 = append(o.v4, a.As4())
		} else {
			o.v6 = append(o.v6, a.As16())
		}
	}
	return o
}

func (o *owned) has4(a [4]byte) bool  { return o.any || slices.Contains(o.v4, a) }
func (o *owned) has6(a [16]byte) bool { return o.any || slices.Contains(o.v6, a) }

func (o *owned) first4() (a [4]byte, ok bool) {
	if len(o.v4) > 0 {
		return o.v4[0], true
	}
	return a, false
}

func (o *owned) first6() (a [16]byte, ok bool) {
	if len(o.v6) > 0 {
		return o.v6[0], true
	}
	return a, false
}
