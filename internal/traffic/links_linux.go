// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkErr says what failed.
func linkErr(op string, err error) error {
	if err != nil {
		return fmt.Errorf("traffic: %s: %w", op, err)
	}
	return nil
}

// AddVLAN makes a VLAN interface over another, up, and returns its index. What is sent through it gets the
// tag; One over another makes two tags. The error
// wraps EOPNOTSUPP where the kernel lacks 8021q; see [PushVLAN]. It goes away with the one below.
func AddVLAN(ns *netns.NS, below int, name string, tag VLANTag) (index int, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = name, below
	l := &netlink.Vlan{LinkAttrs: attrs, VlanId: int(tag.TCI & 0xfff), VlanProtocol: netlink.VlanProtocol(tag.Type)}
	err = inside(ns, func() error {
		if err := netlink.LinkAdd(l); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
	return l.Index, linkErr("add vlan "+name, err)
}

// AddVXLAN makes a VXLAN interface, up, whose packets go to one UDP port of one other end, remote (RFC 7348), from local, and
// returns its index. Over IPv4 the outer UDP header has a checksum only if checksum is true. The error wraps
// EOPNOTSUPP where the kernel lacks vxlan.
func AddVXLAN(ns *netns.NS, below int, name string, vni, port int, local, remote netip.Addr, checksum bool) (index int, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	l := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: vni, VtepDevIndex: below, SrcAddr: local.AsSlice(), Group: remote.AsSlice(),
		Port: port, UDPCSum: checksum || remote.Is6(), Learning: true}
	err = inside(ns, func() error {
		if err := netlink.LinkAdd(l); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
	return l.Index, linkErr("add vxlan "+name, err)
}

// AddVeth makes a pair of virtual Ethernet interfaces (veth(4)), up, one in each namespace, and returns their
// indices. Both go away with either namespace.
func AddVeth(a *netns.NS, nameA string, b *netns.NS, nameB string) (indexA, indexB int, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = nameA
	l := &netlink.Veth{LinkAttrs: attrs, PeerName: nameB, PeerNamespace: netlink.NsFd(b.FD())}
	err = inside(a, func() error {
		if err := netlink.LinkAdd(l); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
	if err != nil {
		return 0, 0, linkErr("add veth "+nameA, err)
	}
	err = inside(b, func() error {
		peer, err := netlink.LinkByName(nameB)
		if err != nil {
			return err
		}
		indexB = peer.Attrs().Index
		return netlink.LinkSetUp(peer)
	})
	return l.Index, indexB, linkErr("set up veth "+nameB, err)
}

// SetRoute makes or changes the route to dst through an interface, by way of via if that is valid. An mtu
// other than 0 bounds what is sent that way.
func SetRoute(ns *netns.NS, dst netip.Prefix, via netip.Addr, index, mtu int) error {
	r := &netlink.Route{LinkIndex: index, MTU: mtu, Dst: &net.IPNet{IP: dst.Masked().Addr().AsSlice(),
		Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())}}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	return linkErr("set route to "+dst.String(), inside(ns, func() error { return netlink.RouteReplace(r) }))
}

// RouteMTU is the MTU in bytes that the kernel has learned for the way to dst, or was told with its route; 0
// means that of the interface.
func RouteMTU(ns *netns.NS, dst netip.Addr) (mtu int, err error) {
	err = inside(ns, func() error {
		routes, err := netlink.RouteGet(dst.AsSlice())
		if err == nil && len(routes) > 0 {
			mtu = routes[0].MTU
		}
		return err
	})
	return mtu, linkErr("get route to "+dst.String(), err)
}

// PushVLAN has an interface add tags to everything that it sends, the first outermost, and take as many off
// everything that it receives, at the edge to the rest of the stack (tc-bpf(8), bpf_skb_vlan_push in
// bpf-helpers(7)): the device below sees what it sees below a VLAN interface, on kernels without those. It
// needs CAP_BPF and CAP_NET_ADMIN, or root; the error wraps EOPNOTSUPP or ENOENT where the kernel lacks cls_bpf.
func PushVLAN(ns *netns.NS, index int, tags ...VLANTag) error {
	err := inside(ns, func() error {
		if err := addClsact(index); err != nil {
			return err
		}
		return errors.Join(
			attachFilter(index, netlink.HANDLE_MIN_EGRESS, "push", pushProgram(tags)),
			attachFilter(index, netlink.HANDLE_MIN_INGRESS, "pop", popProgram(len(tags))))
	})
	return linkErr("push vlan tags", err)
}

// Redirect has everything that an interface receives go out of another of the namespace, as it is, with
// whatever is still to be done to it: checksums to complete, packets to cut. The needs and errors are those of
// [PushVLAN].
func Redirect(ns *netns.NS, from, to int) error {
	err := inside(ns, func() error {
		if err := addClsact(from); err != nil {
			return err
		}
		return attachFilter(from, netlink.HANDLE_MIN_INGRESS, "redirect", redirectProgram(to))
	})
	return linkErr("redirect", err)
}

func addClsact(index int) error {
	return netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index,
		Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}})
}

func attachFilter(index int, parent uint32, name string, program []byte) error {
	fd, err := loadFilter(unix.BPF_PROG_TYPE_SCHED_CLS, program)
	if err != nil {
		return fmt.Errorf("load %s program: %w", name, err)
	}
	defer closeFD(fd)
	return netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs:  netlink.FilterAttrs{LinkIndex: index, Parent: parent, Handle: 1, Protocol: 3, Priority: 1}, // ETH_P_ALL
		Fd:           fd,
		Name:         name,
		DirectAction: true,
	})
}
