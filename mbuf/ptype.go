// SPDX-License-Identifier: BSD-3-Clause

package mbuf

// Values of Mbuf.PacketType, DPDK's (rte_mbuf_ptype.h): one of each group, or 0
// where that layer was not recognised. They say what is in the data: a tag that
// was stripped does not show.
const (
	PTypeL2Ether     uint32 = 0x1
	PTypeL2EtherARP  uint32 = 0x3
	PTypeL2EtherVLAN uint32 = 0x6
	PTypeL2EtherQinQ uint32 = 0x7 // two tags
	PTypeL2Mask      uint32 = 0xf

	PTypeL3IPv4    uint32 = 0x10
	PTypeL3IPv4Ext uint32 = 0x30 // with options
	PTypeL3IPv6    uint32 = 0x40
	PTypeL3IPv6Ext uint32 = 0xc0 // with extension headers
	PTypeL3Mask    uint32 = 0xf0

	PTypeL4TCP     uint32 = 0x100
	PTypeL4UDP     uint32 = 0x200
	PTypeL4Frag    uint32 = 0x300 // a fragment, the first one included
	PTypeL4SCTP    uint32 = 0x400
	PTypeL4ICMP    uint32 = 0x500 // ICMPv6 too
	PTypeL4Nonfrag uint32 = 0x600 // something else, whole
	PTypeL4IGMP    uint32 = 0x700
	PTypeL4Mask    uint32 = 0xf00

	PTypeTunnelIP     uint32 = 0x1000
	PTypeTunnelGRE    uint32 = 0x2000
	PTypeTunnelVXLAN  uint32 = 0x3000
	PTypeTunnelNVGRE  uint32 = 0x4000
	PTypeTunnelGENEVE uint32 = 0x5000
	// PTypeTunnelGRENAT is a tunnel, in UDP or GRE, whose kind is not known.
	PTypeTunnelGRENAT uint32 = 0x6000
	PTypeTunnelMask   uint32 = 0xf000

	PTypeInnerL2Ether     uint32 = 0x10000
	PTypeInnerL2EtherVLAN uint32 = 0x20000
	PTypeInnerL2EtherQinQ uint32 = 0x30000
	PTypeInnerL2Mask      uint32 = 0xf0000

	PTypeInnerL3IPv4    uint32 = 0x100000
	PTypeInnerL3IPv4Ext uint32 = 0x200000
	PTypeInnerL3IPv6    uint32 = 0x300000
	PTypeInnerL3IPv6Ext uint32 = 0x500000
	PTypeInnerL3Mask    uint32 = 0xf00000

	PTypeInnerL4TCP     uint32 = 0x1000000
	PTypeInnerL4UDP     uint32 = 0x2000000
	PTypeInnerL4Frag    uint32 = 0x3000000
	PTypeInnerL4SCTP    uint32 = 0x4000000
	PTypeInnerL4ICMP    uint32 = 0x5000000
	PTypeInnerL4Nonfrag uint32 = 0x6000000
	PTypeInnerL4Mask    uint32 = 0xf000000
)
