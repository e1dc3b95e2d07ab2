// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/vnethdr"
)

const everyTx = TxOffloadVLANInsert | TxOffloadQinQInsert | TxOffloadIPv4Cksum | TxOffloadOuterIPv4Cksum | TxOffloadUDPCksum | TxOffloadTCPCksum |
	TxOffloadTCPTSO | TxOffloadUDPTSO | TxOffloadVXLANTnlTSO | TxOffloadGENEVETnlTSO | TxOffloadUDPTnlTSO | TxOffloadOuterUDPCksum

// txWire is what a queue tells the engine to write for m: nothing if it refuses m. The
// engine moves no bytes, so the pieces are found by where they are.
func txWire(t *testing.T, l2 *layer2, c PortConfig, m *mbuf.Mbuf) (hdr vnethdr.Header, data []byte, ok bool) {
	t.Helper()
	var q *TxQueue
	e := &fakeEngine{write: func(descs []pktio.Desc, _ []pktio.Completion) (int, int) {
		ok = true
		d := descs[0]
		if d.NIov == 0 {
			if d.Addr != m.DataAddr()-uintptr(q.hdrLen) || int(d.Len) != q.hdrLen+int(m.DataLen) {
				t.Fatalf("the description is not that of the mbuf with a header in front")
			}
			hdr, data = vnethdr.Decode(m.Front(q.hdrLen)), m.AppendTo(nil)
			return 1, 0
		}
		for i, v := range q.vec.Iov[:d.NIov] {
			if i == 0 {
				data = append(data, q.scratch(0)[:v.Len]...)
				continue
			}
			data = append(data, pieceAt(t, m, v.Base, int(v.Len))...)
		}
		hdr, data = vnethdr.Decode(data[:q.hdrLen]), data[q.hdrLen:]
		return 1, 0
	}}
	q = fakeTx(t, e, TxConfig{Ring: 1})
	q.layer2 = l2
	q.fit(&c)
	if n := q.Burst([]*mbuf.Mbuf{m}); n != 1 {
		t.Fatalf("Burst took %d", n)
	}
	want := QueueStats{OErrors: 1}
	if ok {
		want = QueueStats{OPackets: 1, OBytes: uint64(len(data))}
	}
	if got := q.counted(); got != want {
		t.Fatalf("written: %v; %+v, want %+v", ok, got, want)
	}
	return hdr, data, ok
}

// pieceAt is the n bytes of the packet at an address.
func pieceAt(t *testing.T, m *mbuf.Mbuf, base uintptr, n int) []byte {
	t.Helper()
	for s := m; s != nil; s = s.Next {
		if off := base - s.DataAddr(); base >= s.DataAddr() && int(off)+n <= int(s.DataLen) {
			return s.Bytes()[off:][:n]
		}
	}
	t.Fatal("an iovec points outside the packet")
	return nil
}

// txCase is a packet, and what is to be written.
type txCase struct {
	name    string
	spec    spec
	flags   uint64
	seg     int
	edit    func(m *mbuf.Mbuf)
	only    uint64 // offloads that the port has; 0: all
	hdr     vnethdr.Header
	data    []byte // nil: the frame as it was
	refused bool
	bare    bool // the packet is sent without its Ethernet header
}

func plus(h vnethdr.Header, start int) vnethdr.Header {
	h.CsumStart += uint16(start)
	if h.HdrLen != 0 {
		h.HdrLen += uint16(start)
	}
	return h
}

func setLengths(f func(l *mbuf.Lengths)) func(m *mbuf.Mbuf) {
	return func(m *mbuf.Mbuf) {
		l := m.Lengths()
		f(&l)
		m.SetLengths(l)
	}
}

func overwrite(at int, b ...byte) func(m *mbuf.Mbuf) {
	return func(m *mbuf.Mbuf) { copy(m.Bytes()[at:], b) }
}

// shorten cuts a packet within its first segment.
func shorten(m *mbuf.Mbuf, n int) {
	if m.Next != nil {
		m.Next.Free()
		m.Next, m.NbSegs, m.PktLen = nil, 1, uint32(m.DataLen)
	}
	m.Trim(int(m.DataLen) - n)
}

func txCases() []txCase {
	tcp4, tcp6 := spec{payload: 3000}, spec{v6: true, payload: 3000}
	udp4, udp6 := spec{udp: true, payload: 3000}, spec{udp: true, v6: true, payload: 3000}
	cwr := spec{payload: 3000, flags: tcpCWR}
	vlan := spec{payload: 3000, tags: []uint32{0x8100<<16 | 5}}
	inner, inner6 := spec{payload: 3000}, spec{v6: true, payload: 3000}
	vx4, vx6 := spec{udp: true, vxlan: &inner}, spec{udp: true, v6: true, vxlan: &inner6}
	const t4, t6, u4, u6 = mbuf.TxTCPCksum | mbuf.TxIPv4, mbuf.TxTCPCksum | mbuf.TxIPv6, mbuf.TxUDPCksum | mbuf.TxIPv4, mbuf.TxUDPCksum | mbuf.TxIPv6
	const vxlanV4 = mbuf.TxTunnelVXLAN | mbuf.TxOuterIPv4 | t4
	tag := func(m *mbuf.Mbuf) { m.VlanTCI, m.VlanTCIOuter = 0x2005, 0x0007 }
	noCksum := func(at int) func(*mbuf.Mbuf) { return overwrite(at, 0xab, 0xcd) }
	tunnelHdr := large(vx4, vnethdr.GSOTCPv4|vnethdr.GSOUDPTunnelIPv4, 1000)
	tunnelHdr6 := large(vx6, vnethdr.GSOTCPv6|vnethdr.GSOUDPTunnelIPv6, 1000)
	tunnelHdr6.Flags |= vnethdr.FlagUDPTunnelCsum
	begun := vx6.partial() // both checksums
	binary.BigEndian.PutUint16(begun[60:], header.PseudoSum(begun[14:], protoUDP, len(begun)-54))
	tagged := func(tags ...uint32) []byte { return spec{payload: 3000, tags: tags}.partial() }
	return []txCase{
		{name: "nothing but what it is", spec: tcp4, flags: mbuf.TxIPv4, data: tcp4.partial()},
		{name: "TCP v4", spec: tcp4, flags: t4, hdr: needsCsum(tcp4)},
		{name: "TCP v6", spec: tcp6, flags: t6, hdr: needsCsum(tcp6)},
		{name: "UDP v4", spec: udp4, flags: u4, hdr: needsCsum(udp4)},
		{name: "UDP v6", spec: udp6, flags: u6, hdr: needsCsum(udp6)},
		{name: "tag in the data", spec: vlan, flags: t4, hdr: needsCsum(vlan)},
		{name: "TSO v4", spec: tcp4, flags: t4 | mbuf.TxTCPSeg, seg: 1448, hdr: large(tcp4, vnethdr.GSOTCPv4, 1448)},
		{name: "TSO v4 implies the checksum", spec: tcp4, flags: mbuf.TxIPv4 | mbuf.TxTCPSeg, seg: 1448, only: TxOffloadTCPTSO, hdr: large(tcp4, vnethdr.GSOTCPv4, 1448)},
		{name: "TSO v6", spec: tcp6, flags: t6 | mbuf.TxTCPSeg, seg: 1428, hdr: large(tcp6, vnethdr.GSOTCPv6, 1428)},
		{name: "TSO with ECN", spec: cwr, flags: t4 | mbuf.TxTCPSeg, seg: 1448, hdr: large(cwr, vnethdr.GSOTCPv4|vnethdr.GSOECN, 1448)},
		{name: "USO v4", spec: udp4, flags: u4 | mbuf.TxUDPSeg, seg: 100, hdr: large(udp4, vnethdr.GSOUDPL4, 100)},
		{name: "USO v6", spec: udp6, flags: u6 | mbuf.TxUDPSeg, seg: 100, hdr: large(udp6, vnethdr.GSOUDPL4, 100)},
		{name: "in VXLAN", spec: vx4, flags: vxlanV4, hdr: needsCsum(vx4)},
		{name: "TSO in VXLAN", spec: vx4, flags: vxlanV4 | mbuf.TxTCPSeg, seg: 1000, hdr: tunnelHdr},
		{name: "TSO in VXLAN v6 with checksum", spec: vx6, flags: mbuf.TxTunnelVXLAN | mbuf.TxOuterIPv6 | t6 | mbuf.TxOuterUDPCksum | mbuf.TxTCPSeg, seg: 1000, edit: noCksum(60), hdr: tunnelHdr6, data: begun},
		{name: "TSO of one packet in VXLAN v6 with checksum", spec: vx6, flags: mbuf.TxTunnelVXLAN | mbuf.TxOuterIPv6 | t6 | mbuf.TxOuterUDPCksum | mbuf.TxTCPSeg, seg: 3000, edit: noCksum(60), hdr: needsCsum(vx6), data: vx6.partial()},
		{name: "TSO in something over UDP", spec: vx4, flags: mbuf.TxTunnelUDP | mbuf.TxOuterIPv4 | t4 | mbuf.TxTCPSeg, seg: 1000, hdr: tunnelHdr},

		{name: "IPv4 header", spec: tcp4, flags: t4 | mbuf.TxIPCksum, edit: noCksum(24), hdr: needsCsum(tcp4), data: tcp4.partial()},
		{name: "outer IPv4 header", spec: vx4, flags: vxlanV4 | mbuf.TxOuterIPCksum, edit: noCksum(24), hdr: needsCsum(vx4), data: vx4.partial()},
		{name: "both IPv4 headers", spec: vx4, flags: vxlanV4 | mbuf.TxOuterIPCksum | mbuf.TxIPCksum,
			edit: func(m *mbuf.Mbuf) { noCksum(24)(m); noCksum(74)(m) }, hdr: needsCsum(vx4), data: vx4.partial()},
		{name: "VLAN", spec: tcp4, flags: t4 | mbuf.TxVLAN, edit: tag, hdr: plus(needsCsum(tcp4), 4), data: tagged(0x8100<<16 | 0x2005)},
		{name: "VLAN alone", spec: tcp4, flags: mbuf.TxVLAN, edit: tag, data: tagged(0x8100<<16 | 0x2005)},
		{name: "VLAN and TSO and IPv4 header", spec: tcp4, flags: t4 | mbuf.TxVLAN | mbuf.TxTCPSeg | mbuf.TxIPCksum, seg: 100, edit: func(m *mbuf.Mbuf) { tag(m); noCksum(24)(m) },
			hdr: plus(large(tcp4, vnethdr.GSOTCPv4, 100), 4), data: tagged(0x8100<<16 | 0x2005)},
		{name: "QinQ", spec: tcp4, flags: t4 | mbuf.TxQinQ | mbuf.TxVLAN, edit: tag, hdr: plus(needsCsum(tcp4), 8), data: tagged(0x88a8<<16|7, 0x8100<<16|0x2005)},

		{name: "not enabled: TCP", spec: tcp4, flags: t4, only: TxOffloadUDPCksum, refused: true},
		{name: "not enabled: UDP", spec: udp4, flags: u4, only: TxOffloadTCPCksum, refused: true},
		{name: "not enabled: TSO", spec: tcp4, flags: t4 | mbuf.TxTCPSeg, seg: 100, only: TxOffloadTCPCksum, refused: true},
		{name: "not enabled: USO", spec: udp4, flags: u4 | mbuf.TxUDPSeg, seg: 100, only: TxOffloadUDPCksum, refused: true},
		{name: "not enabled: VLAN", spec: tcp4, flags: mbuf.TxVLAN, only: TxOffloadQinQInsert, refused: true},
		{name: "not enabled: QinQ", spec: tcp4, flags: mbuf.TxQinQ, only: TxOffloadVLANInsert, refused: true},
		{name: "not enabled: IPv4 header", spec: tcp4, flags: mbuf.TxIPv4 | mbuf.TxIPCksum, only: TxOffloadTCPCksum, refused: true},
		{name: "not enabled: GENEVE", spec: vx4, flags: mbuf.TxTunnelGENEVE | mbuf.TxOuterIPv4 | t4 | mbuf.TxTCPSeg, seg: 100, only: TxOffloadVXLANTnlTSO | TxOffloadTCPTSO, refused: true},
		{name: "never: SCTP", spec: tcp4, flags: mbuf.TxSCTPCksum | mbuf.TxIPv4, refused: true},
		{name: "never: TSO in GRE", spec: vx4, flags: mbuf.TxTunnelGRE | mbuf.TxOuterIPv4 | t4 | mbuf.TxTCPSeg, seg: 100, refused: true},

		{name: "neither v4 nor v6", spec: tcp4, flags: mbuf.TxTCPCksum, refused: true},
		{name: "both v4 and v6", spec: tcp4, flags: t4 | mbuf.TxIPv6, refused: true},
		{name: "v6 that is v4", spec: tcp4, flags: t6, refused: true},
		{name: "v4 that is v6", spec: tcp6, flags: t4, refused: true},
		{name: "TCP that is UDP", spec: udp4, flags: t4, refused: true},
		{name: "UDP that is TCP", spec: tcp6, flags: u6, refused: true},
		{name: "TSO of UDP", spec: udp4, flags: u4 | mbuf.TxTCPSeg, seg: 100, refused: true},
		{name: "USO of TCP", spec: tcp4, flags: t4 | mbuf.TxUDPSeg, seg: 100, refused: true},
		{name: "TSO and USO", spec: tcp4, flags: mbuf.TxIPv4 | mbuf.TxTCPSeg | mbuf.TxUDPSeg, seg: 100, refused: true},
		{name: "a fragment", spec: tcp4, flags: t4, edit: overwrite(20, 0x20, 0), refused: true},
		{name: "a later fragment", spec: tcp4, flags: t4, edit: overwrite(20, 0, 1), refused: true},
		{name: "no segment size", spec: tcp4, flags: t4 | mbuf.TxTCPSeg, refused: true},
		{name: "TSO of one packet", spec: tcp4, flags: t4 | mbuf.TxTCPSeg, seg: 3000, hdr: needsCsum(tcp4)},
		{name: "TSO of nothing", spec: spec{}, flags: t4 | mbuf.TxTCPSeg, seg: 100, hdr: needsCsum(spec{})},
		{name: "TSO of two packets", spec: tcp4, flags: t4 | mbuf.TxTCPSeg, seg: 2999, hdr: large(tcp4, vnethdr.GSOTCPv4, 2999)},
		{name: "L2 too long", spec: tcp4, flags: t4, edit: setLengths(func(l *mbuf.Lengths) { l.L2 = 100 }), refused: true},
		{name: "L2 too short", spec: tcp4, flags: t4, edit: setLengths(func(l *mbuf.Lengths) { l.L2 = 0 }), refused: true},
		{name: "L3 too long", spec: tcp4, flags: t4, edit: setLengths(func(l *mbuf.Lengths) { l.L3 = 24 }), refused: true},
		{name: "L3 too short", spec: tcp6, flags: t6, edit: setLengths(func(l *mbuf.Lengths) { l.L3 = 20 }), refused: true},
		{name: "L3 beyond the packet", spec: spec{v6: true}, flags: t6, edit: setLengths(func(l *mbuf.Lengths) { l.L3 = 400 }), refused: true},
		{name: "L4 wrong for TSO", spec: tcp4, flags: t4 | mbuf.TxTCPSeg, seg: 100, edit: setLengths(func(l *mbuf.Lengths) { l.L4 = 24 }), refused: true},
		{name: "L4 wrong for USO", spec: udp4, flags: u4 | mbuf.TxUDPSeg, seg: 100, edit: setLengths(func(l *mbuf.Lengths) { l.L4 = 12 }), refused: true},
		{name: "cut off", spec: tcp4, flags: t4, edit: func(m *mbuf.Mbuf) { shorten(m, 53) }, refused: true},
		{name: "tunnel without outer IP", spec: vx4, flags: mbuf.TxTunnelVXLAN | t4, refused: true},
		{name: "outer v6 that is v4", spec: vx4, flags: mbuf.TxTunnelVXLAN | mbuf.TxOuterIPv6 | t4, refused: true},
		{name: "TSO in no tunnel", spec: vx4, flags: mbuf.TxOuterIPv4 | t4 | mbuf.TxTCPSeg, seg: 100, refused: true},
		{name: "outer IPv4 header of v6", spec: vx6, flags: mbuf.TxTunnelVXLAN | mbuf.TxOuterIPv6 | t6 | mbuf.TxOuterIPCksum, refused: true},
		{name: "outer UDP of TCP", spec: tcp4, flags: mbuf.TxTunnelVXLAN | mbuf.TxOuterIPv4 | mbuf.TxOuterUDPCksum, edit: setLengths(func(l *mbuf.Lengths) { *l = mbuf.Lengths{OuterL2: 14, OuterL3: 20, L2: 30} }), refused: true},
		{name: "outer UDP too short", spec: vx4, flags: mbuf.TxTunnelVXLAN | mbuf.TxOuterIPv4 | mbuf.TxOuterUDPCksum, edit: setLengths(func(l *mbuf.Lengths) { l.L2 = 4 }), refused: true},
		{name: "IPv4 header of v6", spec: tcp6, flags: t6 | mbuf.TxIPCksum, refused: true},
	}
}

// allTxCases has each case also for a TUN, if it is one there.
func allTxCases() []txCase {
	cases := txCases()
	for _, c := range cases {
		if c, ok := c.withoutEther(); ok {
			c.name = "TUN " + c.name
			cases = append(cases, c)
		}
	}
	return cases
}

// TestTxRequest: what a packet asks for is what the kernel is told, or the packet is
// refused, however it lies in mbufs.
func TestTxRequest(t *testing.T) {
	for _, shape := range []struct {
		name   string
		cfg    mbuf.Config
		shared bool
	}{
		{"one", mbuf.Config{DataRoom: 4000}, false},
		{"no headroom", mbuf.Config{DataRoom: 4000, Headroom: -1}, false},
		{"chain", mbuf.Config{DataRoom: 130}, false},
		{"shared", mbuf.Config{DataRoom: 4000}, true},
	} {
		shape.cfg.Name, shape.cfg.Count = "request", 64
		pool := newPool(t, shape.cfg)
		for _, c := range allTxCases() {
			t.Run(shape.name+"/"+c.name, func(t *testing.T) {
				m := c.mbuf(t, pool)
				before := m.AppendTo(nil)
				if shape.shared {
					m.RefUpdate(1)
					defer m.Free()
				}
				c.check(t, m, before)
				if shape.shared {
					must(t, sameBytes(m.AppendTo(nil), before))
				}
			})
		}
	}
}

// mbuf is the case's packet.
func (c *txCase) mbuf(t *testing.T, pool *mbuf.Pool) *mbuf.Mbuf {
	t.Helper()
	m := pool.Alloc()
	must(t, m.CopyIn(c.spec.partial(), pool))
	l := c.spec.lengths()
	l.TSOSegSize = c.seg
	m.SetLengths(l)
	m.OlFlags = c.flags
	if c.edit != nil {
		c.edit(m)
	}
	if c.bare {
		m.Adj(14)
		m.SetLengths(bareLengths(m.Lengths()))
	}
	return m
}

func (c *txCase) layer2() *layer2 {
	if c.bare {
		return noLayer2
	}
	return ethernet
}

// withoutEther is the same without the Ethernet header, as a TUN's packets are. It is false where there is no such
// case.
func (c txCase) withoutEther() (txCase, bool) {
	if c.name == "L2 too short" || !c.refused && (c.flags&(mbuf.TxVLAN|mbuf.TxQinQ) != 0 || len(c.spec.tags) > 0) {
		return c, false
	}
	c.bare, c.hdr = true, minus14(c.hdr)
	if c.data != nil {
		c.data = c.data[14:]
	}
	return c, true
}

func (c *txCase) check(t *testing.T, m *mbuf.Mbuf, before []byte) {
	t.Helper()
	only := c.only
	if only == 0 {
		only = everyTx
	}
	conf := PortConfig{TxOffloads: only, RxOffloads: RxOffloadTCPLRO | RxOffloadTunnelLRO}
	hdr, data, ok := txWire(t, c.layer2(), conf, m)
	if ok == c.refused {
		t.Fatalf("refused: %v, want %v", !ok, c.refused)
	}
	if c.refused {
		return
	}
	if hdr != c.hdr {
		t.Errorf("header\n%+v, want\n%+v", hdr, c.hdr)
	}
	want := c.data
	if want == nil {
		want = before
	}
	if err := sameBytes(data, want); err != nil {
		t.Error(err)
	}
}

// TestPrepare writes the sum of the pseudo-header where a checksum is to be
// completed, refuses what Burst refuses, and says which packet and why.
func TestPrepare(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "prepare", Count: 64, DataRoom: 4000})
	for _, c := range allTxCases() {
		t.Run(c.name, func(t *testing.T) {
			q := fakeTx(t, &fakeEngine{}, TxConfig{Ring: 1})
			q.layer2 = c.layer2()
			only := c.only
			if only == 0 {
				only = everyTx
			}
			q.fit(&PortConfig{TxOffloads: only})
			plain, m := pool.Alloc(), c.mbuf(t, pool)
			defer mbuf.FreeBulk([]*mbuf.Mbuf{plain, m})
			want := m.AppendTo(nil)
			if asks := m.OlFlags & (mbuf.TxL4Mask | txSeg); asks != 0 && !c.refused {
				binary.BigEndian.PutUint16(m.Bytes()[c.spec.cksumAt()-14+c.layer2().header:], 0x1234)
			}
			n, err := q.Prepare([]*mbuf.Mbuf{plain, m, plain})
			if c.refused {
				if n != 1 || err != ErrTxDisabled && err != ErrTxFlags {
					t.Fatalf("Prepare gives %d, %v", n, err)
				}
			} else if n != 3 || err != nil {
				t.Fatalf("Prepare gives %d, %v", n, err)
			}
			must(t, sameBytes(m.AppendTo(nil), want))
			if m.OlFlags != c.flags {
				t.Errorf("flags %#x, want %#x", m.OlFlags, c.flags)
			}
		})
	}
}

// TestPrepareShared: a shared buffer is not written to, and need not be when the
// field is right already.
func TestPrepareShared(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "shared", Count: 8, DataRoom: 4000})
	q := fakeTx(t, &fakeEngine{}, TxConfig{Ring: 1})
	q.fit(&PortConfig{TxOffloads: everyTx})
	c := txCase{spec: spec{payload: 50}, flags: mbuf.TxTCPCksum | mbuf.TxIPv4}
	m := c.mbuf(t, pool)
	defer m.Free()
	clone := mbuf.Clone(m, pool)
	defer clone.Free()
	clone.OlFlags |= c.flags
	if n, err := q.Prepare([]*mbuf.Mbuf{m, clone}); n != 2 || err != nil {
		t.Fatalf("Prepare gives %d, %v", n, err)
	}
	m.Bytes()[50] ^= 1
	if n, err := q.Prepare([]*mbuf.Mbuf{clone}); n != 0 || err != ErrTxShared {
		t.Fatalf("Prepare gives %d, %v", n, err)
	}
	if n, err := q.Prepare([]*mbuf.Mbuf{nil}); n != 0 || err != ErrTxFlags {
		t.Fatalf("Prepare of nil gives %d, %v", n, err)
	}
}

// TestTxOuterUDP: the outer checksum is that of the packet with the inner ones
// completed, whoever does that.
func TestTxOuterUDP(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "outer", Count: 64, DataRoom: 301})
	for _, v6 := range []bool{false, true} {
		for _, flags := range []uint64{0, mbuf.TxTCPCksum, mbuf.TxTCPCksum | mbuf.TxIPCksum, mbuf.TxIPCksum, mbuf.TxTCPCksum | mbuf.TxVLAN, mbuf.TxVLAN} {
			t.Run(fmt.Sprintf("v6=%v/%#x", v6, flags), func(t *testing.T) {
				s := spec{udp: true, v6: v6, vxlan: &spec{payload: 1001}}
				outer := mbuf.TxOuterIPv4
				if v6 {
					outer = mbuf.TxOuterIPv6
				}
				c := txCase{spec: s, flags: flags | mbuf.TxIPv4 | outer | mbuf.TxTunnelVXLAN | mbuf.TxOuterUDPCksum}
				m := c.mbuf(t, pool)
				l := s.lengths()
				b := m.Bytes()
				if flags&mbuf.TxTCPCksum == 0 {
					copy(b[s.cksumAt():], s.build()[s.cksumAt():][:2])
				}
				if flags&mbuf.TxIPCksum != 0 {
					binary.BigEndian.PutUint16(b[l.IPStart()+10:], 0xbeef)
				}
				binary.BigEndian.PutUint16(b[l.OuterL2+l.OuterL3+6:], 0xabcd)
				want, tags := s, 0
				if flags&mbuf.TxVLAN != 0 {
					want.tags, tags, m.VlanTCI = []uint32{0x8100<<16 | 7}, 4, 7
				}
				hdr, data, ok := txWire(t, ethernet, PortConfig{TxOffloads: everyTx}, m)
				if !ok {
					t.Fatal("refused")
				}
				if flags&mbuf.TxTCPCksum != 0 {
					at := int(hdr.CsumStart + hdr.CsumOffset)
					if at != tags+s.cksumAt() {
						t.Fatalf("the kernel is to write at %d, want %d", at, tags+s.cksumAt())
					}
					binary.BigEndian.PutUint16(data[at:], ^header.Sum(data[hdr.CsumStart:]))
				}
				must(t, sameBytes(data, want.build()))
			})
		}
	}
}
