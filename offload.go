// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/vnethdr"
)

// Rx offloads: what the kernel, or the driver, does to a packet that is received.
// The bits are DPDK's (RTE_ETH_RX_OFFLOAD_*), but for the last two, which DPDK has
// no word for.
const (
	// RxOffloadVLANStrip moves a VLAN tag (0x8100) from the data to Mbuf.VlanTCI.
	RxOffloadVLANStrip uint64 = 1 << 0
	// RxOffloadIPv4Cksum has the driver check the header of IPv4.
	RxOffloadIPv4Cksum uint64 = 1 << 1
	// RxOffloadUDPCksum and RxOffloadTCPCksum spare the kernel the checksums of what
	// it sends: mbuf.RxL4CksumNone. A TAP has one switch for both.
	RxOffloadUDPCksum uint64 = 1 << 2
	RxOffloadTCPCksum uint64 = 1 << 3
	// RxOffloadTCPLRO has the kernel hand over what TCP sends in frames of up to 64
	// KB instead of packets: mbuf.RxLRO. It brings the checksum offloads with it.
	RxOffloadTCPLRO uint64 = 1 << 4
	// RxOffloadQinQStrip moves a pair of tags (0x88a8, then 0x8100) to
	// Mbuf.VlanTCIOuter and Mbuf.VlanTCI.
	RxOffloadQinQStrip uint64 = 1 << 5
	// RxOffloadScatter lets an LRO frame be a chain of mbufs, and so as large as
	// PortConfig.MaxLROPktSize allows. Without it the kernel is told to make frames
	// that fit one mbuf, or as many as a frame of the MTU needs, which are
	// scattered in any case.
	RxOffloadScatter uint64 = 1 << 13

	// RxOffloadUDPLRO does for UDP what RxOffloadTCPLRO does for TCP, for programs
	// that send with UDP_SEGMENT (since Linux 6.2).
	RxOffloadUDPLRO uint64 = 1 << 62
	// RxOffloadTunnelLRO lets LRO frames be in a tunnel in UDP (since Linux 6.17): VXLAN,
	// GENEVE, or one that the driver cannot name (bareudp, VXLAN-GPE, all on a UDP port that is
	// not their own), which is mbuf.PTypeTunnelGRENAT, and sent on with TxOffloadUDPTnlTSO. It
	// needs RxOffloadTCPLRO.
	RxOffloadTunnelLRO uint64 = 1 << 63

	// RxOffloadChecksum is what testpmd's --enable-rx-cksum stands for.
	RxOffloadChecksum = RxOffloadIPv4Cksum | RxOffloadUDPCksum | RxOffloadTCPCksum
)

// Tx offloads: what a packet that is sent may ask for by the flags of its mbuf.
// The bits are DPDK's (RTE_ETH_TX_OFFLOAD_*).
const (
	TxOffloadVLANInsert     uint64 = 1 << 0  // mbuf.TxVLAN
	TxOffloadIPv4Cksum      uint64 = 1 << 1  // mbuf.TxIPCksum, done by the driver
	TxOffloadUDPCksum       uint64 = 1 << 2  // mbuf.TxUDPCksum
	TxOffloadTCPCksum       uint64 = 1 << 3  // mbuf.TxTCPCksum
	TxOffloadTCPTSO         uint64 = 1 << 5  // mbuf.TxTCPSeg
	TxOffloadUDPTSO         uint64 = 1 << 6  // mbuf.TxUDPSeg (since Linux 6.2)
	TxOffloadOuterIPv4Cksum uint64 = 1 << 7  // mbuf.TxOuterIPCksum, done by the driver
	TxOffloadQinQInsert     uint64 = 1 << 8  // mbuf.TxQinQ
	TxOffloadVXLANTnlTSO    uint64 = 1 << 9  // mbuf.TxTunnelVXLAN with TxTCPSeg or TxUDPSeg (since Linux 6.17)
	TxOffloadGENEVETnlTSO   uint64 = 1 << 12 // likewise mbuf.TxTunnelGENEVE
	TxOffloadMultiSegs      uint64 = 1 << 15 // a packet may be a chain of mbufs: always
	TxOffloadUDPTnlTSO      uint64 = 1 << 18 // likewise mbuf.TxTunnelUDP
	TxOffloadOuterUDPCksum  uint64 = 1 << 20 // mbuf.TxOuterUDPCksum, done by the driver unless the packet is cut
)

// MaxLROPktSize is the longest LRO frame: what the kernel makes at most, 65535
// bytes, and a VLAN tag, which a TUN's packets do not have.
const MaxLROPktSize = maxPkt + vlanLen

const vlanLen = 4

const (
	tunTSO    = tuntap.OffloadCsum | tuntap.OffloadTSO4 | tuntap.OffloadTSO6 | tuntap.OffloadTSOECN
	tunUSO    = tuntap.OffloadCsum | tuntap.OffloadUSO4 | tuntap.OffloadUSO6
	tunTunnel = tunTSO | tuntap.OffloadUDPTunnelGSO | tuntap.OffloadUDPTunnelGSOCsum
)

// offload is one bit. needs is what TUNSETOFFLOAD must accept for it to be there;
// on is what it is told while an Rx offload is on.
type offload struct {
	bit   uint64
	name  string
	needs uint32
	on    uint32
	since string // the Linux version that brings it; "" for all that are served
	never string // why no Linux has it
	noTUN string // why no TUN has it
}

const (
	noEther = "a TUN's packets have no Ethernet header"
	// outer_l3min in virtio_net_hdr_tnl_to_skb (include/linux/virtio_net.h).
	noTunnelTUN = "Linux takes an Ethernet header in front of the tunnel's for granted, and refuses the packet without"
)

const noSCTP = "a TAP cannot complete SCTP's CRC32c: the virtio-net header knows Internet checksums only"

var rxOffloads = []offload{
	{bit: RxOffloadVLANStrip, name: "vlan_strip", noTUN: noEther},
	{bit: RxOffloadIPv4Cksum, name: "ipv4_cksum"},
	{bit: RxOffloadUDPCksum, name: "udp_cksum", on: tuntap.OffloadCsum},
	{bit: RxOffloadTCPCksum, name: "tcp_cksum", on: tuntap.OffloadCsum},
	{bit: RxOffloadTCPLRO, name: "tcp_lro", needs: tunTSO, on: tunTSO},
	{bit: RxOffloadQinQStrip, name: "qinq_strip", noTUN: noEther},
	{bit: RxOffloadScatter, name: "scatter"},
	{bit: 1 << 17, name: "sctp_cksum", never: noSCTP},
	{bit: RxOffloadUDPLRO, name: "udp_lro", needs: tunUSO, on: tunUSO, since: "6.2"},
	{bit: RxOffloadTunnelLRO, name: "tunnel_lro", needs: tunTunnel, on: tunTunnel, since: "6.17"},
}

var txOffloads = []offload{
	{bit: TxOffloadVLANInsert, name: "vlan_insert", noTUN: noEther},
	{bit: TxOffloadIPv4Cksum, name: "ipv4_cksum"},
	{bit: TxOffloadUDPCksum, name: "udp_cksum"},
	{bit: TxOffloadTCPCksum, name: "tcp_cksum"},
	{bit: 1 << 4, name: "sctp_cksum", never: noSCTP},
	{bit: TxOffloadTCPTSO, name: "tcp_tso", needs: tunTSO},
	{bit: TxOffloadUDPTSO, name: "udp_tso", needs: tunUSO, since: "6.2"},
	{bit: TxOffloadOuterIPv4Cksum, name: "outer_ipv4_cksum"},
	{bit: TxOffloadQinQInsert, name: "qinq_insert", noTUN: noEther},
	{bit: TxOffloadVXLANTnlTSO, name: "vxlan_tnl_tso", needs: tunTunnel, since: "6.17", noTUN: noTunnelTUN},
	{bit: 1 << 10, name: "gre_tnl_tso", never: "a TAP segments tunnels over UDP only"},
	{bit: 1 << 11, name: "ipip_tnl_tso", never: "a TAP segments tunnels over UDP only"},
	{bit: TxOffloadGENEVETnlTSO, name: "geneve_tnl_tso", needs: tunTunnel, since: "6.17", noTUN: noTunnelTUN},
	{bit: TxOffloadMultiSegs, name: "multi_segs"},
	{bit: TxOffloadUDPTnlTSO, name: "udp_tnl_tso", needs: tunTunnel, since: "6.17", noTUN: noTunnelTUN},
	{bit: TxOffloadOuterUDPCksum, name: "outer_udp_cksum"},
}

const tunnelTSO = TxOffloadVXLANTnlTSO | TxOffloadGENEVETnlTSO | TxOffloadUDPTnlTSO

// OffloadError says that an offload is not to be had here. It wraps
// errors.ErrUnsupported.
type OffloadError struct {
	Dir    string // "rx" or "tx"
	Name   string // the offload's, such as "udp_lro"
	Reason string // "Linux 6.2 has it, this kernel has not", ...
}

func (e *OffloadError) Error() string {
	return fmt.Sprintf("%s offload %s: %s", e.Dir, e.Name, e.Reason)
}

// Unwrap returns errors.ErrUnsupported.
func (e *OffloadError) Unwrap() error { return errors.ErrUnsupported }

// RxOffloadNames are the names of the Rx offloads in mask, those of DPDK's
// rte_eth_dev_rx_offload_name in lower case. A bit without a name is a number.
func RxOffloadNames(mask uint64) []string { return offloadNames(rxOffloads, mask) }

// TxOffloadNames are the names of the Tx offloads in mask, as RxOffloadNames.
func TxOffloadNames(mask uint64) []string { return offloadNames(txOffloads, mask) }

// ParseRxOffloads reads names as RxOffloadNames has them, separated by commas.
// The error is a [*ConfigError] that lists the names there are.
func ParseRxOffloads(names string) (uint64, error) {
	return parseOffloads("rx offload", rxOffloads, names)
}

// ParseTxOffloads reads the names of Tx offloads, as ParseRxOffloads.
func ParseTxOffloads(names string) (uint64, error) {
	return parseOffloads("tx offload", txOffloads, names)
}

func offloadNames(table []offload, mask uint64) []string {
	var names []string
	for ; mask != 0; mask &= mask - 1 {
		bit := mask & -mask
		i := slices.IndexFunc(table, func(o offload) bool { return o.bit == bit })
		if i < 0 {
			names = append(names, fmt.Sprintf("bit %d", bits.TrailingZeros64(bit)))
			continue
		}
		names = append(names, table[i].name)
	}
	return names
}

func parseOffloads(field string, table []offload, names string) (uint64, error) {
	var mask uint64
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(table, func(o offload) bool { return o.name == name })
		if i < 0 {
			var known []string
			for _, o := range table {
				known = append(known, o.name)
			}
			return 0, &ConfigError{field, fmt.Sprintf("%q", name), "one of " + strings.Join(known, ", ")}
		}
		mask |= table[i].bit
	}
	return mask, nil
}

// capabilities are the offloads that this kernel gives.
type capabilities struct{ rx, tx uint64 }

// probe asks the kernel which offloads it knows, and leaves all of them off.
func (d *Device) probe() error {
	accepted := map[uint32]bool{}
	for _, set := range []uint32{0, tunTSO, tunUSO, tunTunnel} {
		accepted[set] = d.keep.SetOffload(set) == nil
	}
	find := func(table []offload) (mask uint64) {
		for _, o := range table {
			if o.never == "" && accepted[o.needs] && (o.noTUN == "" || !d.layer2().isTUN()) {
				mask |= o.bit
			}
		}
		return mask
	}
	d.capa = capabilities{rx: find(rxOffloads), tx: find(txOffloads)}
	return d.keep.SetOffload(0)
}

// checkOffloads says which offload of c is not to be had, or not so.
func (d *Device) checkOffloads(c *PortConfig) error {
	if err := d.refused("rx", rxOffloads, c.RxOffloads, d.capa.rx); err != nil {
		return err
	}
	if err := d.refused("tx", txOffloads, c.TxOffloads, d.capa.tx); err != nil {
		return err
	}
	if c.MaxLROPktSize != 0 {
		if err := checkRange("PortConfig.MaxLROPktSize", c.MaxLROPktSize, minLROPktSize, MaxLROPktSize); err != nil {
			return err
		}
	}
	if c.RxOffloads&RxOffloadTunnelLRO != 0 && c.RxOffloads&RxOffloadTCPLRO == 0 {
		return &ConfigError{"PortConfig.RxOffloads", "tunnel_lro alone", "tcp_lro with it"}
	}
	return nil
}

func (d *Device) refused(dir string, table []offload, want, capa uint64) error {
	bad := want &^ capa
	if bad == 0 {
		return nil
	}
	bit := bad & -bad
	e := &OffloadError{Dir: dir, Name: offloadNames(table, bit)[0], Reason: "no TAP offers it"}
	for _, o := range table {
		switch {
		case o.bit != bit:
		case o.never != "":
			e.Reason = o.never
		case o.noTUN != "" && d.layer2().isTUN():
			e.Reason = o.noTUN
		default:
			e.Reason = "Linux " + o.since + " has it, this kernel has not"
		}
	}
	return e
}

// tunFlags is what TUNSETOFFLOAD is to be told.
func (c *PortConfig) tunFlags() (flags uint32) {
	for _, o := range rxOffloads {
		if c.RxOffloads&o.bit != 0 {
			flags |= o.on
		}
	}
	return flags
}

// hdrLen is the length of the virtio-net header in front of every packet.
func (c *PortConfig) hdrLen() int {
	if c.RxOffloads&RxOffloadTunnelLRO != 0 || c.TxOffloads&tunnelTSO != 0 {
		return vnethdr.SizeTunnel
	}
	return vnethdr.Size
}

// lro reports whether the kernel hands over frames that are larger than the MTU.
func (c *PortConfig) lro() bool { return c.RxOffloads&(RxOffloadTCPLRO|RxOffloadUDPLRO) != 0 }

// applyOffloads tells the kernel of a new configuration. No queue is attached.
func (d *Device) applyOffloads(c PortConfig) error {
	if err := d.locate(); err != nil {
		return err
	}
	err := d.setOffload(&c)
	if errors.Is(err, tuntap.Gone) { // since then
		return d.markGone()
	}
	if err == nil {
		d.conf = c
	}
	return err
}

// setOffload never leaves the kernel with tunnel offloads and a header without room
// for them: every read would fail with EFAULT.
func (d *Device) setOffload(c *PortConfig) error {
	if c.hdrLen() != d.conf.hdrLen() {
		if err := d.keep.SetOffload(0); err != nil {
			return err
		}
		if err := d.keep.SetVnetHdrSize(c.hdrLen()); err != nil {
			return err
		}
	}
	return d.keep.SetOffload(c.tunFlags())
}

// Sizes of LRO frames. The kernel makes none of IFLA_GSO_MAX_SIZE bytes or more
// (gso_features_check in net/core/dev.c), to which the descriptor's read adds a tag
// that the kernel kept beside the packet.
const (
	gsoMaxDefault = 65536

	minLROPktSize = 1024
)

// boundLRO tells the kernel how large frames may be, so that each fits a slot of
// the Rx queues. It comes after their slots were shaped.
func (d *Device) boundLRO() error {
	size := gsoMaxDefault
	if d.conf.lro() {
		size = d.maxLRO() + 1 - d.layer2().tag
	}
	if size == d.gsoMax || !d.conf.lro() && d.gsoMax == 0 {
		return nil
	}
	if err := d.conn.SetGSOMaxSize(d.index, size); err != nil {
		return fmt.Errorf("bound the size of LRO frames to %d bytes: %w", size, err)
	}
	d.gsoMax = size
	return nil
}

// maxLRO is the longest frame that every Rx queue can take.
func (d *Device) maxLRO() int {
	longest := d.layer2().maxLRO()
	if asked := d.conf.MaxLROPktSize; asked != 0 {
		longest = min(longest, asked)
	}
	for _, p := range d.pairs {
		if p.rx != nil {
			longest = min(longest, p.rx.longest())
		}
	}
	return longest
}

// resetOffloads leaves a persistent interface as an ordinary one.
func (d *Device) resetOffloads() error {
	if !d.cfg.Persist || d.state == stateClosed || d.keep == nil || d.gone.Load() {
		return nil
	}
	err := d.applyOffloads(PortConfig{})
	if err == nil {
		err = d.boundLRO()
	}
	if errors.Is(err, ErrGone) {
		return nil
	}
	return err
}
