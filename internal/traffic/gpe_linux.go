// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What package netlink has no names for: linux/if_link.h, linux/lwtunnel.h, linux/if_tunnel.h.
const (
	iflaVXLANGPE = 27

	lwtunnelEncapIP = 2
	lwtunnelIPID    = 1
	lwtunnelIPDst   = 2
	lwtunnelIPTTL   = 4
	lwtunnelIPFlags = 6

	tunnelCsum = 0x01 // TUNNEL_CSUM
	tunnelKey  = 0x04 // TUNNEL_KEY
)

// AddVXLANGPE makes a VXLAN-GPE interface, up, and returns its index: a tunnel in UDP that carries IP packets without
// Ethernet headers. Where to, the route says: see [SetTunnelRoute]. The error wraps EOPNOTSUPP where the kernel lacks vxlan.
func AddVXLANGPE(ns *netns.NS, name string, port int) (index int, err error) {
	err = inside(ns, func() error {
		req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
		info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
		data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
		data.AddRtAttr(nl.IFLA_VXLAN_FLOWBASED, []byte{1}) // GPE is to be had so only
		data.AddRtAttr(iflaVXLANGPE, nil)
		data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, []byte{0})
		data.AddRtAttr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, uint16(port)))
		req.AddData(info)
		if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
			return err
		}
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		index = l.Attrs().Index
		return netlink.LinkSetUp(l)
	})
	return index, linkErr("add vxlan-gpe "+name, err)
}

// SetTunnelRoute makes or changes the route to dst through a tunnel's interface: to remote, which is IPv4, with that VNI. The outer UDP
// header has a checksum only if checksum is true. The error wraps EOPNOTSUPP where the kernel lacks lightweight tunnels.
func SetTunnelRoute(ns *netns.NS, dst netip.Prefix, index, vni int, remote netip.Addr, checksum bool) error {
	r := &netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_LINK, Encap: tunnelEncap{vni, remote, checksum},
		Dst: &net.IPNet{IP: dst.Masked().Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())}}
	return linkErr("set route to "+dst.String(), inside(ns, func() error { return netlink.RouteReplace(r) }))
}

// tunnelEncap is what "ip route ... encap ip" says.
type tunnelEncap struct {
	vni      int
	remote   netip.Addr
	checksum bool
}

func (e tunnelEncap) Type() int                  { return lwtunnelEncapIP }
func (e tunnelEncap) Decode([]byte) error        { return unix.EOPNOTSUPP }
func (e tunnelEncap) String() string             { return fmt.Sprintf("vni %d to %v", e.vni, e.remote) }
func (e tunnelEncap) Equal(x netlink.Encap) bool { return x == netlink.Encap(e) }

func (e tunnelEncap) Encode() ([]byte, error) {
	flags := uint16(tunnelKey)
	if e.checksum {
		flags |= tunnelCsum
	}
	var b bytes.Buffer
	for _, a := range []*nl.RtAttr{
		nl.NewRtAttr(lwtunnelIPID, binary.BigEndian.AppendUint64(nil, uint64(e.vni))),
		nl.NewRtAttr(lwtunnelIPDst, e.remote.AsSlice()),
		nl.NewRtAttr(lwtunnelIPTTL, []byte{64}),
		nl.NewRtAttr(lwtunnelIPFlags, binary.BigEndian.AppendUint16(nil, flags)),
	} {
		b.Write(a.Serialize())
	}
	return b.Bytes(), nil
}
