// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/mbuf"
)

// tunnel is a packet in a UDP tunnel.
type tunnel struct {
	outer spec // its payload is made by frame
	port  uint16
	shim  []byte // between the outer UDP header and what is inside
	inner spec
	sums  bool // an outer UDP checksum
	ptype uint32
	tx    uint64
}

// unknown reports whether the kind of the tunnel does not show.
func (c tunnel) unknown() bool { return c.ptype == mbuf.PTypeTunnelGRENAT }

// layout is what is known of frame b of this tunnel.
func (c tunnel) layout(b []byte) header.Layout {
	if !c.unknown() {
		return c.outer.parse(b)
	}
	l, _ := header.InUDPTunnel(b, parseOuter(b, c.outer.bare), c.lengths().IPStart())
	return l
}

func tunnels() map[string]tunnel {
	all := make(map[string]tunnel)
	vxlan := []byte{8, 0, 0, 0, 0, 0, 42, 0}
	noEther := spec{bare: true}
	kinds := map[string]tunnel{
		"vxlan":           {port: 4789, shim: vxlan, ptype: mbuf.PTypeTunnelVXLAN, tx: mbuf.TxTunnelVXLAN},
		"geneve":          {port: 6081, shim: []byte{2, 0, 0x65, 0x58, 0, 0, 42, 0, 0, 1, 2, 1, 1, 2, 3, 4}, ptype: mbuf.PTypeTunnelGENEVE, tx: mbuf.TxTunnelGENEVE},
		"vxlan elsewhere": {port: 5555, shim: vxlan, ptype: mbuf.PTypeTunnelGRENAT, tx: mbuf.TxTunnelUDP},
		"vxlan-gpe":       {port: 4790, shim: []byte{0x0c, 0, 0, 1, 0, 0, 42, 0}, inner: noEther, ptype: mbuf.PTypeTunnelGRENAT, tx: mbuf.TxTunnelUDP},
		"bareudp":         {port: 6635, inner: noEther, ptype: mbuf.PTypeTunnelGRENAT, tx: mbuf.TxTunnelUDP},
		"gue":             {port: 6080, shim: []byte{0, 4, 0, 0}, inner: noEther, ptype: mbuf.PTypeTunnelGRENAT, tx: mbuf.TxTunnelUDP},
	}
	for kind, k := range kinds {
		for i := range 16 {
			c := k
			c.outer, c.inner = base(i&1 != 0, false, 0), base(i&2 != 0, i&4 != 0, 0)
			c.outer.dport, c.outer.id, c.outer.host = c.port, 0xffff, 9
			c.inner.flags |= tcpPSH | tcpCWR
			if c.inner.bare = k.inner.bare; !c.inner.bare {
				c.inner.tags = []uint16{0x8100}[i&1:]
			}
			c.outer.tags = []uint16{0x8100}[i>>1&1:]
			c.sums = i&8 != 0
			all[fmt.Sprintf("%s %d", kind, i)] = c
			c.outer.bare = true // what is inside is the same
			c.outer.tags = nil
			all[fmt.Sprintf("%s %d bare", kind, i)] = c
		}
	}
	return all
}

// wrap is the outer packet number i around an inner one.
func (c tunnel) wrap(inner []byte, i int) []byte {
	c.outer.id += uint16(i)
	c.outer.payload = append(append([]byte(nil), c.shim...), inner...)
	b := c.outer.build()
	if !c.sums {
		at := len(b) - len(c.outer.payload) - 2
		clear(b[at : at+2])
	}
	return b
}

func (c tunnel) frame(payload int) []byte {
	c.inner.payload = pattern(payload, 5)
	c.inner.partial = true
	return c.wrap(c.inner.build(), 0)
}

func (c tunnel) cutUp(payload, mss int) [][]byte {
	c.inner.payload = pattern(payload, 5)
	out := c.inner.cutUp(mss)
	for i := range out {
		out[i] = c.wrap(out[i], i)
	}
	return out
}

func (c tunnel) lengths() mbuf.Lengths {
	o, l := c.outer.lengths(0), c.inner.lengths(0)
	l.OuterL2, l.OuterL3 = o.L2, o.L3
	l.L2 += 8 + len(c.shim)
	return l
}

func TestTunnels(t *testing.T) {
	p := newPool(t, 256, 2048)
	out := make([]*mbuf.Mbuf, 128)
	for name, c := range tunnels() {
		for _, size := range []struct{ payload, mss int }{{1, 1}, {9, 2}, {1449, 1448}, {30000, 1001}} {
			m := packetOf(t, p, c.frame(size.payload))
			m.OlFlags = mbuf.RxLRO | mbuf.RxL4CksumNone | mbuf.RxOuterL4CksumInvalid
			l := mbuf.Lengths{}
			l.TSOSegSize = size.mss
			m.SetLengths(l)
			seg := New(Config{IP: c.outer.bare})
			for _, how := range []string{"found", "said", "asked"} {
				if how == "found" && c.unknown() {
					continue
				}
				switch how {
				case "said":
					l = c.lengths()
					l.TSOSegSize = size.mss
					m.SetLengths(l)
					m.PacketType = c.layout(m.AppendTo(nil)).PacketType
				case "asked":
					m.OlFlags = mbuf.TxTCPSeg | mbuf.TxIPv4 | c.tx
					if !c.inner.tcp {
						m.OlFlags = mbuf.TxUDPSeg | mbuf.TxIPv4 | c.tx
					}
					m.PacketType = 0
				}
				n, err := seg.Segment(m, p, out)
				if err != nil {
					t.Fatalf("%s, %s, %+v: %v", name, how, size, err)
				}
				for _, d := range out[:n] {
					flags := mbuf.RxL4CksumGood
					if c.sums {
						flags |= mbuf.RxOuterL4CksumGood
					}
					if !c.inner.v6 {
						flags |= mbuf.RxIPCksumGood
					}
					if d.Lengths() != c.lengths() || d.PacketType != c.layout(d.AppendTo(nil)).PacketType || d.PacketType&mbuf.PTypeTunnelMask != c.ptype || d.OlFlags != flags {
						t.Errorf("%s, %s: %+v, type %#x, flags %#x", name, how, d.Lengths(), d.PacketType, d.OlFlags)
					}
				}
				expect(t, out[:n], c.cutUp(size.payload, size.mss))
			}
			m.Free()
		}
	}
}

// TestTunnelSize: the largest packet is one whose outer header can say how long it is.
func TestTunnelSize(t *testing.T) {
	p := newPool(t, 256, 2048)
	out := make([]*mbuf.Mbuf, 8)
	for _, name := range []string{"vxlan 4", "vxlan 4 bare"} {
		c, ok := tunnels()[name]
		if !ok || c.outer.v6 || c.inner.v6 || !c.inner.tcp {
			t.Fatalf("%s is another one", name)
		}
		m := packetOf(t, p, c.frame(0xffff-40)) // its outer length does not fit
		m.OlFlags = mbuf.RxLRO | mbuf.RxL4CksumNone
		l := c.lengths()
		l.TSOSegSize = 0xffff
		m.SetLengths(l)
		m.PacketType = c.ptype
		seg := New(Config{IP: c.outer.bare})
		n, err := seg.Segment(m, p, out)
		if err != nil || n != 2 {
			t.Fatalf("%s: %d packets, %v", name, n, err)
		}
		if ip := out[0].AppendTo(nil)[l.OuterL2:]; len(ip) != 0xffff || header.IPLength(ip) != 0xffff {
			t.Errorf("%s: the first is of %d bytes, and says %d", name, len(ip), header.IPLength(ip))
		}
		mbuf.FreeBulk(out[:n])
		m.Free()
	}
}

// TestCoalesceTunnels: only where it is asked for, datagrams in which there is a tunnel are merged, and cut again they
// are what they were. Those without a checksum never are.
func TestCoalesceTunnels(t *testing.T) {
	p := newPool(t, 64, 2048)
	out := make([]*mbuf.Mbuf, 64)
	for name, c := range tunnels() {
		for _, merge := range []bool{false, true} {
			packets := c.cutUp(5000, 1000)
			var bufs []*mbuf.Mbuf
			for _, b := range packets {
				m := packetOf(t, p, b)
				m.PacketType = c.outer.parse(b).PacketType
				bufs = append(bufs, m)
			}
			co := NewCoalescer(CoalescerConfig{IP: c.outer.bare, Tunnels: merge})
			n, want := co.Burst(bufs), len(packets)
			if c.sums && (merge || c.unknown()) {
				want = 1 // of a kind that does not show they are datagrams like others
			}
			if n != want {
				t.Errorf("%s: %d packets are %d frames, want %d", name, len(packets), n, want)
			}
			seg := New(Config{IP: c.outer.bare})
			taken, k := seg.Burst(bufs[:n], p, out)
			if taken != n {
				t.Fatalf("%s: %d of %d frames cut", name, taken, n)
			}
			expect(t, out[:k], packets)
		}
	}
}
