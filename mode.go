// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"fmt"

	"github.com/rtap-project/rtap/header"
)

// Mode is what the packets of an interface begin with.
type Mode string

// The modes. The packets of a TAP are Ethernet frames. Those of a TUN are IP packets, the first byte of which
// is the IP header's: no layer 2, so no MAC addresses and no VLAN tags. All else is the same.
const (
	ModeTAP Mode = "tap"
	ModeTUN Mode = "tun"
)

// layer2 is what the packets of a mode have in front of their IP header.
type layer2 struct {
	header int   // bytes without tags
	tag    int   // bytes of a tag that the kernel may keep beside a packet until it is read
	group  uint8 // the bit of the first byte that says that the address is a group's
}

var (
	ethernet = &layer2{header: 14, tag: vlanLen, group: 1}
	noLayer2 = &layer2{}
)

func (m Mode) layer2() *layer2 {
	if m == ModeTUN {
		return noLayer2
	}
	return ethernet
}

// layer2 is that of the port's mode.
func (d *Device) layer2() *layer2 { return d.mode.layer2() }

// isTUN reports whether there is none.
func (l2 *layer2) isTUN() bool { return l2.header == 0 }

// maxPkt is the longest packet that the tun driver makes, or takes: it bounds the MTU (tun_net_init).
const maxPkt = 65535

func (l2 *layer2) maxMTU() int { return maxPkt - l2.header }

// overhead is what a frame has beyond the MTU: the header and two tags.
func (l2 *layer2) overhead() int { return l2.header + 2*l2.tag }

// maxLRO is the longest LRO frame.
func (l2 *layer2) maxLRO() int { return maxPkt + l2.tag }

func (l2 *layer2) parse(b []byte) header.Layout {
	if l2.isTUN() {
		return header.ParseIP(b)
	}
	return header.Parse(b)
}

func (l2 *layer2) parseOuter(b []byte) header.Layout {
	if l2.isTUN() {
		return header.ParseOuterIP(b)
	}
	return header.ParseOuter(b)
}

func (l2 *layer2) parsePacked(b []byte) (packetType uint32, txOffload uint64) {
	if l2.isTUN() {
		return header.ParseIPPacked(b)
	}
	return header.ParsePacked(b)
}

// check is what is wrong with a mode.
func (m Mode) check() error {
	if m != ModeTAP && m != ModeTUN {
		return &ConfigError{"Config.Mode", fmt.Sprintf("%q", m), "tap or tun"}
	}
	return nil
}
