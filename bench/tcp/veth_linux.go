// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/bench/internal/course"
	"github.com/rtap-project/rtap/internal/netns"
)

// connectVeth makes a veth pair, one end in each namespace.
func connectVeth(a, b *netns.NS) error {
	return a.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = course.IfA
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: course.IfB, PeerNamespace: netlink.NsFd(b.FD())})
		if err != nil {
			return fmt.Errorf("make a veth pair: %w", err)
		}
		return nil
	})
}

// segmentation is what ethtool(8) calls gso and tso.
var segmentation = []string{"tx-generic-segmentation", "tx-tcp-segmentation", "tx-tcp6-segmentation",
	"tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation"}

// connectVethPlain is connectVeth without segmentation offload at either end.
func connectVethPlain(a, b *netns.NS) error {
	if err := connectVeth(a, b); err != nil {
		return err
	}
	return errors.Join(
		a.Do(func() error { return switchOff(course.IfA, segmentation) }),
		b.Do(func() error { return switchOff(course.IfB, segmentation) }))
}

// switchOff turns features of an interface off, as ethtool -K does, through the
// kernel's ETHTOOL_MSG_FEATURES_SET (Documentation/networking/ethtool-netlink.rst,
// since Linux 5.8). The interface is in the calling thread's namespace.
func switchOff(name string, features []string) error {
	family, err := netlink.GenlFamilyGet(unix.ETHTOOL_GENL_NAME)
	if err != nil {
		return fmt.Errorf("ethtool's netlink family: %w", err)
	}
	header := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_HEADER|unix.NLA_F_NESTED, nil)
	header.AddRtAttr(unix.ETHTOOL_A_HEADER_DEV_NAME, nl.ZeroTerminated(name))
	wanted := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_WANTED|unix.NLA_F_NESTED, nil)
	bits := wanted.AddRtAttr(unix.ETHTOOL_A_BITSET_BITS|unix.NLA_F_NESTED, nil)
	for _, f := range features {
		// A bit without ETHTOOL_A_BITSET_BIT_VALUE is one to be cleared.
		bit := bits.AddRtAttr(unix.ETHTOOL_A_BITSET_BITS_BIT|unix.NLA_F_NESTED, nil)
		bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_NAME, nl.ZeroTerminated(f))
	}
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
	req.AddData(&nl.Genlmsg{Command: unix.ETHTOOL_MSG_FEATURES_SET, Version: unix.ETHTOOL_GENL_VERSION})
	req.AddData(header)
	req.AddData(wanted)
	if _, err := req.Execute(unix.NETLINK_GENERIC, 0); err != nil {
		return fmt.Errorf("switch segmentation of %s off: %w", name, err)
	}
	return nil
}
