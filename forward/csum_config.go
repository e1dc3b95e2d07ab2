// SPDX-License-Identifier: BSD-3-Clause

package forward

import "fmt"

// MaxTSOSegSize is the largest segment size that can be asked for, in bytes of payload.
const MaxTSOSegSize = 0xffff

// CsumConfig says what mode csum leaves to the sending ports. What is true must be enabled there; what is false
// is computed in software, or not done where software cannot. The zero value computes every checksum in
// software and cuts nothing. Mode mtu merges what TCPSeg and UDPSeg say can be cut again.
//
// The names are those of the Tx offloads; the comments say what the setting is in testpmd.
type CsumConfig struct {
	// The checksum of the IPv4 header (csum set ip hw), and that of TCP and UDP (csum set tcp hw, csum set udp
	// hw); in a tunnel the inner ones. That of SCTP is always computed in software.
	IPv4, TCP, UDP bool
	// The checksum of the outer IPv4 header and of the outer UDP header of a tunnel (csum set outer-ip hw, csum
	// set outer-udp hw).
	OuterIPv4, OuterUDP bool
	// Segmentation of TCP and of UDP, and of either in VXLAN, GENEVE and a tunnel in UDP whose kind is not known
	// (mbuf.PTypeTunnelGRENAT, received with LRO), which needs TunnelSeg as well. What was
	// received with LRO is dropped where it is missing ([Stats].NoTSO).
	TCPSeg, UDPSeg, TunnelSeg bool
	// Inserting one VLAN tag, and two. Where it is missing, tags that were stripped are written in front of the
	// packet, into the headroom.
	VLAN, QinQ bool

	// TSOSegSize has TCP packets with more payload than so many bytes cut into packets with no more (tso set):
	// up to MaxTSOSegSize (0: only what was received with LRO is cut, into what it was made of). It needs TCPSeg.
	TSOSegSize int
	// TunnelTSOSegSize is the same for TCP in VXLAN and GENEVE (tunnel_tso set). It needs TCPSeg, TunnelSeg and
	// ParseTunnel.
	TunnelTSOSegSize int

	// ParseTunnel has the headers inside tunnels treated too (csum parse-tunnel on). A packet whose state as
	// received concerns its inside, LRO for example, is treated so regardless.
	ParseTunnel bool
}

// check finds what cannot be used.
func (c *CsumConfig) check() error {
	for _, s := range []struct {
		field string
		size  int
		needs string // what is missing for a size that is not 0
	}{
		{"Csum.TSOSegSize", c.TSOSegSize, c.missing(false)},
		{"Csum.TunnelTSOSegSize", c.TunnelTSOSegSize, c.missing(true)},
	} {
		switch {
		case s.size < 0 || s.size > MaxTSOSegSize:
			return &ConfigError{s.field, s.size, fmt.Sprintf("must be 0 to %d bytes", MaxTSOSegSize)}
		case s.size > 0 && s.needs != "":
			return &ConfigError{s.field, s.size, "needs Csum." + s.needs}
		}
	}
	return nil
}

// missing names the first field that a segment size needs and that is not set.
func (c *CsumConfig) missing(tunnel bool) string {
	switch {
	case !c.TCPSeg:
		return "TCPSeg"
	case tunnel && !c.TunnelSeg:
		return "TunnelSeg"
	case tunnel && !c.ParseTunnel:
		return "ParseTunnel"
	}
	return ""
}
