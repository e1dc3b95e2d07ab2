// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/forward"
)

// offloadSet is the offloads of all ports of a session.
type offloadSet struct {
	rx, tx        uint64
	all           bool // everything else that the kernel gives, too, but for scatter
	maxLROPktSize int  // bytes; 0: as large as the mbufs take
	tsoSegSize    int  // mode csum: bytes of payload
}

// lro reports whether frames larger than the MTU are received.
func (o *offloadSet) lro() bool {
	return o.all || o.rx&(rtap.RxOffloadTCPLRO|rtap.RxOffloadUDPLRO) != 0
}

// scatter reports whether such frames may be chains of mbufs.
func (o *offloadSet) scatter() bool { return o.rx&rtap.RxOffloadScatter != 0 }

// of is the set for one port.
func (o *offloadSet) of(info rtap.Info) (rx, tx uint64) {
	if !o.all {
		return o.rx, o.tx
	}
	rx = info.RxOffloads &^ rtap.RxOffloadScatter
	for _, n := range offloadNeeds { // a TUN receives large frames of tunnels, and does not send them
		if n.tx&^info.TxOffloads != 0 {
			rx &^= n.rx
		}
	}
	return o.rx | rx, o.tx | info.TxOffloads
}

// csum is what mode csum may leave to ports that have tx.
func (o *offloadSet) csum(tx uint64) forward.CsumConfig {
	has := func(bits uint64) bool { return tx&bits == bits }
	tunnels := has(tunnelTSO)
	return forward.CsumConfig{
		IPv4: has(rtap.TxOffloadIPv4Cksum), TCP: has(rtap.TxOffloadTCPCksum), UDP: has(rtap.TxOffloadUDPCksum),
		OuterIPv4: has(rtap.TxOffloadOuterIPv4Cksum), OuterUDP: has(rtap.TxOffloadOuterUDPCksum),
		TCPSeg: has(rtap.TxOffloadTCPTSO), UDPSeg: has(rtap.TxOffloadUDPTSO), TunnelSeg: tunnels,
		VLAN: has(rtap.TxOffloadVLANInsert), QinQ: has(rtap.TxOffloadQinQInsert),
		TSOSegSize: o.tsoSegSize, ParseTunnel: tunnels,
	}
}

// offloadGroup is a name of --offloads: what is received in a way, and what sends
// it on.
type offloadGroup struct {
	name, help string
	rx, tx     uint64
}

const (
	txChecksum = rtap.TxOffloadIPv4Cksum | rtap.TxOffloadUDPCksum | rtap.TxOffloadTCPCksum
	tunnelTSO  = rtap.TxOffloadVXLANTnlTSO | rtap.TxOffloadGENEVETnlTSO | rtap.TxOffloadUDPTnlTSO
	txTunnels  = tunnelTSO | rtap.TxOffloadOuterUDPCksum | rtap.TxOffloadOuterIPv4Cksum
	rxLRO      = rtap.RxOffloadTCPLRO | rtap.RxOffloadChecksum
)

var offloadGroups = []offloadGroup{
	{"csum", "checksums of IPv4, TCP and UDP", rtap.RxOffloadChecksum, txChecksum},
	{"tso", "TCP segmentation on sending", 0, rtap.TxOffloadTCPTSO | txChecksum},
	{"lro", "large frames of TCP on receiving, and tso to pass them on", rxLRO, rtap.TxOffloadTCPTSO | txChecksum},
	{"uso", "the same of UDP, both ways (Linux 6.2)", rtap.RxOffloadUDPLRO | rtap.RxOffloadChecksum, rtap.TxOffloadUDPTSO | txChecksum},
	{"vlan", "VLAN tags beside the data", rtap.RxOffloadVLANStrip, rtap.TxOffloadVLANInsert},
	{"qinq", "likewise pairs of tags", rtap.RxOffloadQinQStrip, rtap.TxOffloadQinQInsert},
	{"tunnel", "lro and tso of what VXLAN, GENEVE and other tunnels in UDP carry (Linux 6.17)", rxLRO | rtap.RxOffloadTunnelLRO, rtap.TxOffloadTCPTSO | txChecksum | txTunnels},
}

// offloadNeeds says which Tx offloads a packet needs that was received with an Rx
// offload, where it is passed on as it is (mbuf.PassThrough).
var offloadNeeds = []struct{ rx, tx uint64 }{
	{rtap.RxOffloadTCPCksum, rtap.TxOffloadTCPCksum},
	{rtap.RxOffloadUDPCksum, rtap.TxOffloadUDPCksum},
	{rtap.RxOffloadTCPLRO, rtap.TxOffloadTCPTSO},
	{rtap.RxOffloadUDPLRO, rtap.TxOffloadUDPTSO},
	{rtap.RxOffloadTunnelLRO, tunnelTSO | rtap.TxOffloadOuterUDPCksum},
	{rtap.RxOffloadVLANStrip, rtap.TxOffloadVLANInsert},
	{rtap.RxOffloadQinQStrip, rtap.TxOffloadQinQInsert},
}

// neededBy is what mode needs of the Tx offloads if the Rx offloads are rx. Mode
// csum does everything but segmentation itself.
func neededBy(mode string, rx uint64) uint64 {
	const segmentation = rtap.RxOffloadTCPLRO | rtap.RxOffloadUDPLRO | rtap.RxOffloadTunnelLRO
	switch mode {
	case "rxonly", "txonly":
		return 0
	case "csum":
		rx &= segmentation
	case "mtu":
		rx |= rtap.RxOffloadTCPLRO // it makes such frames itself; of UDP only where they can be cut
	}
	var tx uint64
	for _, n := range offloadNeeds {
		if rx&n.rx != 0 {
			tx |= n.tx
		}
	}
	return tx
}

// offloadOptions are the flags of rtap run that choose offloads.
type offloadOptions struct {
	rxCksum, lro, scatter     bool
	maxLROPktSize, tsoSegSize int
	rx, tx                    offloadMask
	groups                    words
}

func (o *offloadOptions) register(f *flags) {
	o.rx.parse, o.tx.parse = rtap.ParseRxOffloads, rtap.ParseTxOffloads
	f.Var(&o.groups, "offloads", "LIST: offloads both ways: all, none, or some of csum, tso, lro, uso, vlan, qinq, tunnel;\nsee below (default none; all in mode mtu)")
	f.BoolVar(&o.rxCksum, "enable-rx-cksum", false, "Rx offloads ipv4_cksum, udp_cksum, tcp_cksum")
	f.BoolVar(&o.lro, "enable-lro", false, "Rx offload tcp_lro, and those of --enable-rx-cksum")
	f.IntVar(&o.maxLROPktSize, "max-lro-pkt-size", 0, "BYTES: longest LRO frame, 1024 to "+strconv.Itoa(rtap.MaxLROPktSize)+" (default: as long as the mbufs take)")
	f.BoolVar(&o.scatter, "enable-scatter", false, "Rx offload scatter: LRO frames may be chains of mbufs")
	f.Var(&o.rx, "rx-offloads", "SET: Rx offloads: a number, as 0x10, or names, as tcp_lro,scatter (rtap info has them)")
	f.Var(&o.tx, "tx-offloads", "SET: Tx offloads, likewise (default: what passing on needs, see below)")
	f.IntVar(&o.tsoSegSize, "tso-segsz", 0, "BYTES: mode csum: payload of the packets that TCP is to be cut into on sending, 0: not at all")
}

const offloadsHelp = `
Offloads: the kernel leaves to the port what it would otherwise do for each packet, so
that one frame of up to 64 KB takes the place of forty packets. None is on, as in
testpmd, unless these say so:
  --offloads=all     everything this kernel gives (rtap info shows it): the fastest
%s
A packet that was received with an offload can only be sent with its counterpart. Where
--tx-offloads is not given, modes io, mac, macswap, icmpecho and mtu therefore enable
what the Rx offloads need, and mode csum what LRO needs. Where it is given and lacks
some of that, it is an error: packets would be lost. Mode csum has checksums done by the
port where their Tx offload is on, and does them itself where it is not.

With LRO a frame is in one mbuf, unless --enable-scatter lets it be a chain. So mbufs
are 65535 bytes then: 12 MB for two ports and a worker, 2 MB more for each further
queue. A smaller --mbuf-size makes the kernel make smaller frames, and that is slower.
With --enable-scatter mbufs stay small, and frames large.
`

func offloadsText() string {
	var b strings.Builder
	for _, g := range offloadGroups {
		fmt.Fprintf(&b, "  --offloads=%-8s%s\n", g.name, g.help)
	}
	return fmt.Sprintf(offloadsHelp, strings.TrimSuffix(b.String(), "\n"))
}

// set is what the flags come to in a mode.
func (o *offloadOptions) set(f *flags, mode string) (offloadSet, error) {
	s := offloadSet{rx: o.rx.mask, tx: o.tx.mask, maxLROPktSize: o.maxLROPktSize, tsoSegSize: o.tsoSegSize}
	if err := o.check(f, mode); err != nil {
		return s, err
	}
	if err := s.addGroups(f, o.groups); err != nil {
		return s, err
	}
	for _, on := range []struct {
		flag bool
		bits uint64
	}{{o.rxCksum, rtap.RxOffloadChecksum}, {o.lro, rxLRO}, {o.scatter, rtap.RxOffloadScatter}} {
		if on.flag {
			s.rx |= on.bits
		}
	}
	if mode == "mtu" && !o.chosen(f) {
		s.all = true
	}
	if o.tsoSegSize > 0 && !f.given("tx-offloads") {
		s.tx |= rtap.TxOffloadTCPTSO
	}
	return s, s.complete(f, mode)
}

func (o *offloadOptions) check(f *flags, mode string) error {
	if o.tsoSegSize != 0 && mode != "csum" {
		return f.usage("--tso-segsz is for --forward-mode=csum")
	}
	if err := f.inRange("tso-segsz", o.tsoSegSize, 0, 65535); err != nil {
		return err
	}
	const least = 1024 // of rtap.PortConfig.MaxLROPktSize
	if f.given("max-lro-pkt-size") {
		return f.inRange("max-lro-pkt-size", o.maxLROPktSize, least, rtap.MaxLROPktSize)
	}
	return nil
}

// chosen reports whether any flag says which offloads there are to be.
func (o *offloadOptions) chosen(f *flags) bool {
	return slices.ContainsFunc([]string{"offloads", "enable-rx-cksum", "enable-lro", "rx-offloads", "tx-offloads"}, f.given)
}

func (o *offloadSet) addGroups(f *flags, names []string) error {
	for _, name := range names {
		if name == "none" || name == "all" {
			if name == "none" && len(names) > 1 {
				return f.usage("--offloads=%s: none goes with nothing else", strings.Join(names, ","))
			}
			o.all = o.all || name == "all"
			continue
		}
		i := slices.IndexFunc(offloadGroups, func(g offloadGroup) bool { return g.name == name })
		if i < 0 {
			return f.usage("--offloads: there is no %q: want all, none, or some of %s", name, strings.Join(groupNames(), ", "))
		}
		o.rx |= offloadGroups[i].rx
		o.tx |= offloadGroups[i].tx
	}
	return nil
}

func groupNames() []string {
	var names []string
	for _, g := range offloadGroups {
		names = append(names, g.name)
	}
	return names
}

// complete adds the Tx offloads without which packets would be lost. Those that
// were asked for by name are the user's will: they are not added to.
func (o *offloadSet) complete(f *flags, mode string) error {
	missing := neededBy(mode, o.rx) &^ o.tx
	if missing == 0 || o.all {
		return nil
	}
	if f.given("tx-offloads") {
		return f.usage("--tx-offloads lacks %s, which mode %s needs to send what it receives with Rx offloads %s",
			strings.Join(rtap.TxOffloadNames(missing), ","), mode, strings.Join(rtap.RxOffloadNames(o.rx), ","))
	}
	o.tx |= missing
	return nil
}

// offloadMask is a set of offloads: a number, as testpmd has it, or names.
type offloadMask struct {
	text  string
	mask  uint64
	parse func(names string) (uint64, error)
}

func (m *offloadMask) String() string { return m.text }

func (m *offloadMask) Set(v string) error {
	n, err := strconv.ParseUint(v, 0, 64)
	if err != nil {
		n, err = m.parse(v)
	}
	if ce := (*rtap.ConfigError)(nil); errors.As(err, &ce) {
		return fmt.Errorf("%v: want a number, or %s", ce.Value, ce.Want)
	}
	m.text, m.mask = v, n
	return err
}
