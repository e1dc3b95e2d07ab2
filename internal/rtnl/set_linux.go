// SPDX-License-Identifier: BSD-3-Clause

package rtnl

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The setters need CAP_NET_ADMIN in the namespace (EPERM without) and return an error that wraps
// [ErrNotFound] if the interface is gone.

// SetUp raises the interface.
func (c *Conn) SetUp(index int) error {
	return c.setFlag("set up", index, unix.IFF_UP, true)
}

// SetDown takes the interface down. The kernel drops its IPv6 addresses and its routes.
func (c *Conn) SetDown(index int) error {
	return c.setFlag("set down", index, unix.IFF_UP, false)
}

// SetPromisc says whether the interface accepts frames for other stations' addresses.
func (c *Conn) SetPromisc(index int, on bool) error {
	return c.setFlag("set promiscuous", index, unix.IFF_PROMISC, on)
}

// SetAllMulticast says whether the interface accepts frames for every multicast address.
func (c *Conn) SetAllMulticast(index int, on bool) error {
	return c.setFlag("set allmulticast", index, unix.IFF_ALLMULTI, on)
}

// SetMTU sets the largest packet in bytes, without the Ethernet header. EINVAL outside [Link].MinMTU
// to MaxMTU.
func (c *Conn) SetMTU(index, mtu int) error {
	return c.setLink("set MTU", index, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
}

// SetMAC sets the interface's Ethernet address. EADDRNOTAVAIL for a multicast or the zero address, EINVAL
// for one that is not 6 bytes long.
func (c *Conn) SetMAC(index int, mac net.HardwareAddr) error {
	if len(mac) != 6 {
		return &Error{Op: "set MAC", Index: index, Err: unix.EINVAL}
	}
	return c.setLink("set MAC", index, nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
}

// SetTxQueueLen sets how many packets the interface queues; for a TAP, the depth of each queue's ring.
func (c *Conn) SetTxQueueLen(index, packets int) error {
	if packets < 0 {
		return &Error{Op: "set tx queue length", Index: index, Err: unix.EINVAL}
	}
	return c.setLink("set tx queue length", index, nl.NewRtAttr(unix.IFLA_TXQLEN, nl.Uint32Attr(uint32(packets))))
}

// SetGSOMaxSize bounds, in bytes, the large packets that the kernel makes for the interface to cut up, IPv4
// and IPv6: with its Ethernet header, but without a VLAN tag that the interface inserts, such a packet is
// shorter than that. EINVAL above [Link].TSOMaxSize, ERANGE below some 200 bytes: MAX_TCP_HEADER of
// include/net/tcp.h, which depends on the kernel's configuration.
//
// Linux before 6.3 has no bound of its own for IPv4 and ignores the attribute.
func (c *Conn) SetGSOMaxSize(index, bytes int) error {
	const op = "set GSO size"
	if bytes < 0 {
		return &Error{Op: op, Index: index, Err: unix.EINVAL}
	}
	size := nl.Uint32Attr(uint32(bytes))
	return c.change(op, index, unix.RTM_SETLINK, 0, infoOf(index),
		nl.NewRtAttr(unix.IFLA_GSO_MAX_SIZE, size), nl.NewRtAttr(unix.IFLA_GSO_IPV4_MAX_SIZE, size))
}

// SetName renames the interface. EEXIST if the name is taken, EINVAL or ERANGE if it is none.
func (c *Conn) SetName(index int, name string) error {
	return c.setLink("set name", index, nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
}

// SetNetNS moves the interface to the namespace that nsfd refers to; the caller keeps nsfd. There the
// interface is down and without addresses, and has another index if its own is taken there. EEXIST if its
// name is.
func (c *Conn) SetNetNS(index, nsfd int) error {
	return c.setLink("set namespace", index, nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(nsfd))))
}

// Delete removes the interface.
func (c *Conn) Delete(index int) error {
	return c.change("delete", index, unix.RTM_DELLINK, 0, infoOf(index))
}

// AddAddr gives the interface an address, with the network it is in: 192.0.2.1/24. It may be there
// already. An IPv6 address is usable at once: there is no duplicate address detection.
func (c *Conn) AddAddr(index int, p netip.Prefix) error {
	const op = "add address"
	if !p.IsValid() {
		return &Error{Op: op, Index: index, Err: unix.EINVAL}
	}
	addr := p.Addr().Unmap()
	msg := nl.NewIfAddrmsg(family(addr))
	msg.Prefixlen = uint8(p.Bits())
	msg.Index = uint32(index)
	ip := addr.AsSlice()
	parts := []nl.NetlinkRequestData{msg, nl.NewRtAttr(unix.IFA_LOCAL, ip), nl.NewRtAttr(unix.IFA_ADDRESS, ip)}
	if addr.Is6() {
		msg.Flags = unix.IFA_F_NODAD
	} else if p.Bits() < 31 {
		parts = append(parts, nl.NewRtAttr(unix.IFA_BROADCAST, broadcast(p)))
	}
	return c.change(op, index, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, parts...)
}

// broadcast returns the last address of an IPv4 network.
func broadcast(p netip.Prefix) []byte {
	ip := p.Addr().As4()
	mask := net.CIDRMask(p.Bits(), 32)
	for i := range ip {
		ip[i] |= ^mask[i]
	}
	return ip[:]
}

// AddNeigh says which Ethernet address a neighbour has, for good: nobody is asked for it. It replaces
// what is known.
func (c *Conn) AddNeigh(index int, ip netip.Addr, mac net.HardwareAddr) error {
	const op = "add neighbour"
	if !ip.IsValid() || len(mac) != 6 {
		return &Error{Op: op, Index: index, Err: unix.EINVAL}
	}
	ip = ip.Unmap()
	return c.change(op, index, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE,
		neighMsg{family: uint8(family(ip)), index: int32(index)},
		nl.NewRtAttr(unix.NDA_DST, ip.WithZone("").AsSlice()), nl.NewRtAttr(unix.NDA_LLADDR, mac))
}

// neighMsg is struct ndmsg of uapi linux/neighbour.h for a permanent entry.
type neighMsg struct {
	family uint8
	index  int32
}

func (m neighMsg) Len() int { return unix.SizeofNdMsg }

func (m neighMsg) Serialize() []byte {
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = m.family
	native.PutUint32(b[4:], uint32(m.index))
	native.PutUint16(b[8:], unix.NUD_PERMANENT)
	return b
}

func family(ip netip.Addr) int {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func infoOf(index int) *nl.IfInfomsg {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return msg
}

func (c *Conn) setFlag(op string, index int, flag uint32, on bool) error {
	msg := infoOf(index)
	msg.Change = flag
	if on {
		msg.Flags = flag
	}
	return c.change(op, index, unix.RTM_SETLINK, 0, msg)
}

func (c *Conn) setLink(op string, index int, attr *nl.RtAttr) error {
	return c.change(op, index, unix.RTM_SETLINK, 0, infoOf(index), attr)
}

// change makes a request that is answered by an acknowledgement only. Index 0 would mean "by name" or
// "any" to some requests, so it never gets that far.
func (c *Conn) change(op string, index, typ, flags int, parts ...nl.NetlinkRequestData) error {
	if index <= 0 {
		return &Error{Op: op, Index: index, Err: ErrNotFound}
	}
	if _, err := c.request(typ, flags|unix.NLM_F_ACK, parts...); err != nil {
		return &Error{Op: op, Index: index, Err: err}
	}
	return nil
}
