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
	outer spec   // its payload is made by frame
	shim  []byte // VXLAN's or GENEVE's header
	inner spec
	sums  bool // an outer UDP checksum
	ptype uint32
}

func tunnels() map[string]tunnel {
	all := make(map[string]tunnel)
	shims := map[string]tunnel{
		"vxlan":  {shim: []byte{8, 0, 0, 0, 0, 0, 42, 0}, ptype: mbuf.PTypeTunnelVXLAN},
		"geneve": {shim: []byte{1, 0, 0x65, 0x58, 0, 0, 42, 0, 0, 1, 2, 0, 1, 2, 3, 4}[:16], ptype: mbuf.PTypeTunnelGENEVE},
	}
	for kind, c := range shims {
		if kind == "geneve" {
			c.shim[0] = 2 // 8 bytes of options
			c.shim[11] = 1
		}
		for i := range 16 {
			c.outer, c.inner = base(i&1 != 0, false, 0), base(i&2 != 0, i&4 != 0, 0)
			c.outer.dport, c.outer.id, c.outer.host = 4789, 0xffff, 9
			if kind == "geneve" {
				c.outer.dport = 6081
			}
			c.inner.flags |= tcpPSH | tcpCWR
			c.inner.tags = []uint16{0x8100}[i&1:]
			c.outer.tags = []uint16{0x8100}[i>>1&1:]
			c.sums = i&8 != 0
			all[fmt.Sprintf("%s %d", kind, i)] = c
			c.outer.bare = true // the inner packet is a frame all the same
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
				switch how {
				case "said":
					l = c.lengths()
					l.TSOSegSize = size.mss
					m.SetLengths(l)
					m.PacketType = c.outer.parse(m.AppendTo(nil)).PacketType
				case "asked":
					m.OlFlags = mbuf.TxTCPSeg | mbuf.TxIPv4 | mbuf.TxTunnelVXLAN
					if !c.inner.tcp {
						m.OlFlags = mbuf.TxUDPSeg | mbuf.TxIPv4 | mbuf.TxTunnelGENEVE
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
					if d.Lengths() != c.lengths() || d.PacketType&mbuf.PTypeTunnelMask != c.ptype || d.OlFlags != flags {
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
			if merge && c.sums {
				want = 1
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
