// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/vnethdr"
)

// largeTCP is a TCP frame of size bytes, to be cut into segments, with the header
// that says so in front.
func largeTCP(size, segment int, v6 bool) (frame []byte, hdr vnethdr.Header) {
	l3, typ := 20, uint8(vnethdr.GSOTCPv4)
	if v6 {
		l3, typ = 40, vnethdr.GSOTCPv6
	}
	headers := 14 + l3 + 20
	frame = make([]byte, size)
	copy(frame, []byte{2, 0, 0, 0, 0, 0xbb, 2, 0, 0, 0, 0, 0xaa})
	for i := headers; i < size; i++ {
		frame[i] = byte(i*7 + i>>8)
	}
	ip := frame[14:]
	if v6 {
		binary.BigEndian.PutUint16(frame[12:], 0x86dd)
		ip[0], ip[6], ip[7], ip[8], ip[24] = 0x60, 6, 64, 0xfd, 0xfd
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-l3))
	} else {
		binary.BigEndian.PutUint16(frame[12:], 0x0800)
		ip[0], ip[8], ip[9], ip[12], ip[16] = 0x45, 64, 6, 10, 11
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[10:], header.IPv4Checksum(ip[:l3]))
	}
	tcp := ip[l3:]
	tcp[12], tcp[13] = 5<<4, 0x10 // ACK
	binary.BigEndian.PutUint16(tcp[16:], header.PseudoSum(ip, 6, len(tcp)))
	return frame, vnethdr.Header{Flags: vnethdr.FlagNeedsCsum, GSOType: typ, HdrLen: uint16(headers), GSOSize: uint16(segment),
		CsumStart: uint16(14 + l3), CsumOffset: 16}
}

// largeIP is largeTCP without the Ethernet header.
func largeIP(size, segment int, v6 bool) (packet []byte, hdr vnethdr.Header) {
	frame, hdr := largeTCP(size+14, segment, v6)
	hdr.HdrLen -= 14
	hdr.CsumStart -= 14
	return frame[14:], hdr
}

// TestOffloadFrameSizes: LRO frames as long as they may be, one byte less, and one
// more, which the kernel cuts.
func TestOffloadFrameSizes(t *testing.T) {
	eachEngineIfFast(t, func(t *testing.T, e Engine) {
		for _, c := range []struct {
			name string
			cfg  Config
			room int
		}{
			{"16 KB", Config{}, 16384},
			{"64 KB", Config{}, 65407},
			{"chain", Config{RxOffloads: RxOffloadScatter}, 2048},
			{"chain of 20000", Config{RxOffloads: RxOffloadScatter, MaxLROPktSize: 20000}, 2048},
			{"1024", Config{MaxLROPktSize: 1024}, 16384},
			{"9000", Config{MTU: 9000, MaxLROPktSize: 30000}, 16384},
		} {
			for _, v6 := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/v6=%t", c.name, v6), func(t *testing.T) {
					c.cfg.Engine = e
					c.cfg.RxOffloads |= relayRx
					c.cfg.RxRing = 64
					c.cfg.Memory = newPool(t, mbuf.Config{Name: "sizes", DataRoom: c.room, Count: 100 * (1 + 66000/c.room)})
					testFrameSizes(t, c.cfg, v6)
				})
			}
		}
	})
}

func testFrameSizes(t *testing.T, cfg Config, v6 bool) {
	p := startPort(t, cfg)
	in, err := traffic.NewOffloadInjector(p.ns, p.index)
	must(t, err)
	defer in.Close()
	l2, build := p.layer2(), largeTCP
	if l2.isTUN() {
		build = largeIP
	}
	inject := func(size int) []byte {
		t.Helper()
		f, hdr := build(size, 700, v6)
		b := make([]byte, vnethdr.Size, vnethdr.Size+size)
		hdr.Encode(b)
		must(t, in.Inject(append(b, f...)))
		return f
	}
	longest := p.Info().MaxLROPktSize - l2.tag // without a tag
	for _, size := range []int{longest - 1, longest} {
		p.wantLRO(inject(size), 700)
	}
	if longest < MaxLROPktSize-vlanLen { // more does not fit an IP packet
		p.wantCut(inject(longest+1), v6)
	}
	// Longer ones than the driver asked for, because someone else did.
	must(t, p.conn.SetGSOMaxSize(p.index, 65536))
	slot := p.RxQueue(0).longest()
	errors := uint64(0)
	for _, size := range []int{slot - 1, slot, slot + 1, 65535, slot} {
		switch {
		case size > 65535:
		case size > slot:
			inject(size)
			errors++
		default:
			p.wantLRO(inject(size), 700)
		}
	}
	f := p.flow(1, 60)
	must(t, in.Inject(append(make([]byte, vnethdr.Size), f...)))
	m := p.burst(0, 1)[0]
	if err := checkPacket(m, f); err != nil {
		t.Error(err)
	}
	m.Free()
	if s := p.stats(); s.IErrors != errors || s.IMissed != 0 || s.RxNoMbuf != 0 {
		t.Errorf("%d frames did not fit: %+v", errors, s)
	}
}

// wantLRO receives f as one packet.
func (p *port) wantLRO(f []byte, segment int) {
	p.t.Helper()
	m := p.burst(0, 1)[0]
	defer m.Free()
	if err := checkPacket(m, f); err != nil {
		p.t.Fatalf("frame of %d bytes: %v", len(f), err)
	}
	if m.OlFlags&(mbuf.RxLRO|mbuf.RxL4CksumMask) != mbuf.RxLRO|mbuf.RxL4CksumNone || m.Lengths().TSOSegSize != segment {
		p.t.Fatalf("frame of %d bytes: flags %#x, %+v", len(f), m.OlFlags, m.Lengths())
	}
}

// wantCut receives f's payload in several packets, whose checksums come right.
func (p *port) wantCut(f []byte, v6 bool) {
	p.t.Helper()
	l2 := p.layer2()
	headers := l2.header + 40
	if v6 {
		headers += 20
	}
	for at := headers; at < len(f); {
		m := p.burst(0, 1)[0]
		if err := m.Check(); err != nil {
			p.t.Fatal(err)
		}
		b := m.AppendTo(nil)
		n := len(b) - headers
		if n <= 0 || at+n > len(f) {
			p.t.Fatalf("a packet of %d bytes at %d of %d", len(b), at, len(f))
		}
		if err := sameBytes(b[headers:], f[at:at+n]); err != nil {
			p.t.Fatalf("at %d: %v", at, err)
		}
		if n == len(f)-headers {
			p.t.Fatalf("a frame of %d bytes came in one piece", len(f))
		}
		if !header.Complete(m) || !header.VerifyL4(m, l2.parse(b)) {
			p.t.Fatalf("at %d: wrong checksum, flags %#x", at, m.OlFlags)
		}
		at += n
		m.Free()
	}
}

// TestOffloadPacketSizes: without LRO, packets as long as the MTU allows, one byte
// less, and longer ones, for which someone raised the MTU and the driver has not heard
// of it yet, with tags that are taken out and without.
func TestOffloadPacketSizes(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		for _, mtu := range []int{1500, 9000, 65000} {
			for _, room := range []int{2048, 16384, 65407} {
				t.Run(fmt.Sprintf("mtu=%d/room=%d", mtu, room), func(t *testing.T) { testPacketSizes(t, e, mtu, room) })
			}
		}
	})
}

func testPacketSizes(t *testing.T, e Engine, mtu, room int) {
	pool := newPool(t, mbuf.Config{Name: "sizes", DataRoom: room, Count: 40 * (1 + 66000/room)})
	p := startPort(t, Config{Engine: e, MTU: mtu, Memory: pool, RxRing: 16, RxOffloads: RxOffloadChecksum | relayStrip})
	p.deafen()
	must(t, p.conn.SetMTU(p.index, MaxMTU))
	slot := p.RxQueue(0).longest()
	want := Stats{}
	for _, size := range []int{mtu + 13, mtu + 14, mtu + 18, mtu + 22, slot - 1, slot, slot + 1, MaxMTU + 14, 60} {
		for tags := range 3 {
			if size > min(MaxMTU+14, 65535) {
				continue
			}
			f, stripped := tagOf(frame(size, size), tags)
			p.inject(f)
			if size > slot {
				want.IErrors++
				continue
			}
			m := p.burst(0, 1)[0]
			if err := checkPacket(m, stripped); err != nil {
				t.Errorf("%d bytes with %d tags: %v", size, tags, err)
			}
			m.Free()
			want.IPackets++
			want.IBytes += uint64(size)
		}
	}
	p.wantStats(Stats{QueueStats: want.QueueStats})
}

// tagOf puts tags in the place of a frame's first bytes of content, and returns also
// what is left when they are taken out.
func tagOf(f []byte, tags int) (frame, stripped []byte) {
	stripped = append(append([]byte(nil), f[:12]...), f[12+4*tags:]...)
	switch tags {
	case 1:
		copy(f[12:], []byte{0x81, 0, 0x20, 5})
	case 2:
		copy(f[12:], []byte{0x88, 0xa8, 0x20, 5, 0x81, 0, 0x40, 6})
	}
	if tags > 0 { // the type that was overwritten
		copy(f[12+4*tags:], []byte{0x88, 0xb5})
		copy(stripped[12:], []byte{0x88, 0xb5})
	}
	return f, stripped
}
