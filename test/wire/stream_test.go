// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package wire

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

const (
	rxAll   = rtap.RxOffloadChecksum | rtap.RxOffloadTCPLRO
	txAll   = rtap.TxOffloadIPv4Cksum | rtap.TxOffloadUDPCksum | rtap.TxOffloadTCPCksum | rtap.TxOffloadTCPTSO | rtap.TxOffloadMultiSegs
	rxStrip = rtap.RxOffloadVLANStrip | rtap.RxOffloadQinQStrip
	txTags  = rtap.TxOffloadVLANInsert | rtap.TxOffloadQinQInsert
)

// TestStream: what the kernel sends through two ports in large frames is, when it has been cut behind them, what
// it would have sent itself.
func TestStream(t *testing.T) {
	capa := capabilities(t)
	uso := capa.RxOffloads&rtap.RxOffloadUDPLRO | capa.TxOffloads&rtap.TxOffloadUDPTSO
	for _, tags := range [][]traffic.VLANTag{nil, {{Type: 0x8100, TCI: 0x6064}}, {{Type: 0x88a8, TCI: 7}, {Type: 0x8100, TCI: 100}}} {
		for _, strip := range []bool{false, true} {
			for _, engine := range []rtap.Engine{rtap.EngineUring, rtap.EngineSyscall} {
				cfg := rtap.Config{Engine: engine, RxOffloads: rxAll | uso&rtap.RxOffloadUDPLRO, TxOffloads: txAll | uso&rtap.TxOffloadUDPTSO,
					RxRing: 64, TxQueueLen: 20000}
				if strip {
					cfg.RxOffloads |= rxStrip
					cfg.TxOffloads |= txTags
				}
				t.Run(fmt.Sprintf("%v/tags=%d/strip=%t", engine, len(tags), strip), func(t *testing.T) { testStream(t, cfg, tags) })
			}
		}
	}
}

func testStream(t *testing.T, cfg rtap.Config, tags []traffic.VLANTag) {
	near := quietNS(t)
	pool := mbuf.Config{Name: "stream", DataRoom: 65407, Count: 200}
	cfg.Memory = newPool(t, pool)
	from := start(t, near, cfg)
	cfg.Memory = newPool(t, pool)
	s := newStation(t, cfg)
	v4, v6 := join(t, tags, near, from.Info().IfIndex, s.far, s.index)
	for _, d := range []*rtap.Device{from, s.Device} {
		must(t, d.ResetStats()) // the kernel counts what it drops while tc is set up
	}
	relay(t, from, s.Device)
	for _, dst := range []netip.Addr{v4, v6} {
		nettest.Eventually(t, 10*time.Second, "an answer from "+dst.String(), func() bool {
			r, err := traffic.Ping(t.Context(), traffic.PingConfig{NS: near, Dst: dst, Timeout: nettest.Bound(200 * time.Millisecond)})
			return err == nil && r.Lost() == 0
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(60*time.Second))
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, dst := range []netip.Addr{v4, v6} {
			to := netip.AddrPortFrom(dst, 7777)
			if _, err := traffic.TCP(ctx, traffic.TCPConfig{Client: near, Server: s.far, Addr: to, Bytes: streamBytes}); err != nil {
				t.Error(err)
			}
			r, err := traffic.UDP(ctx, traffic.UDPConfig{Client: near, Server: s.far, Addr: to, Count: datagrams, SizeBytes: 1301, Segments: 20, Tail: 17,
				Linger: nettest.Bound(5 * time.Second)})
			if err != nil || r.Lost() != 0 || r.Corrupt != 0 {
				t.Errorf("%+v, %v", r, err)
			}
		}
		// The end, for the capture.
		if _, err := traffic.UDP(ctx, traffic.UDPConfig{Client: near, Server: s.far, Addr: netip.AddrPortFrom(v4, endPort)}); err != nil {
			t.Error(err)
		}
	}()
	s.audit(tags)
	<-done
	clean(t, from, s.Device)
}

const (
	streamBytes = 4 << 20
	datagrams   = 400
	endPort     = 7778
)

// audit takes every packet apart that the far end receives, until the last, and adds up what they carry.
func (s *station) audit(tags []traffic.VLANTag) {
	s.t.Helper()
	tcp, udp, last := map[bool]int{}, map[bool]int{}, false
	for !last {
		p := s.next(func(p gopacket.Packet) bool { return p.TransportLayer() != nil })
		if err := checkTags(p, tags); err != nil {
			s.t.Errorf("%v: %v", err, p)
		}
		_, v6 := p.NetworkLayer().(*layers.IPv6)
		switch l := p.TransportLayer().(type) {
		case *layers.TCP:
			tcp[v6] += len(l.Payload)
		case *layers.UDP:
			last = l.DstPort == endPort
			if l.DstPort == 7777 {
				udp[v6]++
			}
		}
	}
	if n, err := s.wire.Dropped(); n != 0 || err != nil {
		s.t.Errorf("the capture lost %d frames: %v", n, err)
	}
	for _, v6 := range []bool{false, true} {
		if tcp[v6] < streamBytes || udp[v6] != datagrams {
			s.t.Errorf("v6 %t: captured %d bytes of TCP, %d datagrams", v6, tcp[v6], udp[v6])
		}
	}
}

// checkTags says how p does not have these tags.
func checkTags(p gopacket.Packet, tags []traffic.VLANTag) error {
	typ := p.LinkLayer().(*layers.Ethernet).EthernetType
	var got []traffic.VLANTag
	for _, l := range p.Layers() {
		if tag, ok := l.(*layers.Dot1Q); ok {
			got = append(got, traffic.VLANTag{Type: uint16(typ), TCI: tci(*tag)})
			typ = tag.Type
		}
	}
	if !slices.Equal(got, tags) {
		return fmt.Errorf("tags %x, want %x", got, tags)
	}
	return nil
}

// join gives two interfaces addresses in one network, behind tags, and returns those of the second.
func join(t testing.TB, tags []traffic.VLANTag, a *netns.NS, ai int, b *netns.NS, bi int) (v4, v6 netip.Addr) {
	t.Helper()
	for i, e := range []struct {
		ns    *netns.NS
		index int
	}{{a, ai}, {b, bi}} {
		if len(tags) > 0 {
			must(t, traffic.PushVLAN(e.ns, e.index, tags...))
		}
		c := nettest.Conn(t, e.ns)
		v4 = netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)})
		v6 = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(1 + i)})
		must(t, c.AddAddr(e.index, netip.PrefixFrom(v4, 24)))
		must(t, c.AddAddr(e.index, netip.PrefixFrom(v6, 64)))
	}
	return v4, v6
}

// relay forwards between two ports until the end of the test.
func relay(t testing.TB, a, b *rtap.Device) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	pass := func(from, to *rtap.Device, bufs []*mbuf.Mbuf) int {
		n := from.RxQueue(0).Burst(bufs)
		mbuf.PassThrough(bufs[:n])
		sent := to.TxQueue(0).Burst(bufs[:n])
		if sent < n {
			t.Errorf("%d of %d packets sent", sent, n)
			mbuf.FreeBulk(bufs[sent:n])
		}
		return n
	}
	wg.Go(func() {
		bufs := make([]*mbuf.Mbuf, 32)
		for idle := 0; !stop.Load(); idle++ {
			if pass(a, b, bufs)+pass(b, a, bufs) > 0 {
				idle = 0
			}
			if idle > 50 {
				time.Sleep(20 * time.Microsecond)
			}
		}
	})
	t.Cleanup(func() {
		stop.Store(true)
		wg.Wait()
	})
}
