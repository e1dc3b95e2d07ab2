// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package wire

import (
	"context"
	"errors"
	"fmt"
	"syscall"
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

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// quietNS is a namespace in which the kernel sends as little as possible of its own accord.
func quietNS(t testing.TB) *netns.NS {
	t.Helper()
	nettest.NeedTun(t)
	ns := nettest.NS(t)
	must(t, traffic.SetSysctl(ns, "ipv6/conf/default/accept_dad", "0"))
	must(t, traffic.SetSysctl(ns, "ipv6/conf/default/router_solicitations", "0"))
	return ns
}

// newPool is a pool that is closed at the end of the test, which fails if mbufs of it are still in use then.
func newPool(t testing.TB, cfg mbuf.Config) *mbuf.Pool {
	t.Helper()
	pool, err := mbuf.NewPool(cfg)
	must(t, err)
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Errorf("mbufs were lost: %v", err)
		}
	})
	return pool
}

func start(t testing.TB, ns *netns.NS, cfg rtap.Config) *rtap.Device {
	t.Helper()
	cfg.NetNS = fmt.Sprintf("/proc/self/fd/%d", ns.FD())
	d, err := rtap.Start(cfg)
	must(t, err)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// capabilities are what ports can do here.
func capabilities(t testing.TB) rtap.Info {
	t.Helper()
	return start(t, quietNS(t), rtap.Config{}).Info()
}

// station is a port whose packets go on, as they are, through a pair of interfaces that have no offloads.
type station struct {
	*rtap.Device
	t     testing.TB
	ns    *netns.NS // the port's
	far   *netns.NS // behind
	index int       // of the interface there
	wire  *traffic.Capturer
}

// hopMTU leaves room for two tags.
const hopMTU = 1508

func newStation(t testing.TB, cfg rtap.Config) *station {
	t.Helper()
	s := &station{t: t, ns: quietNS(t), far: quietNS(t)}
	s.Device = start(t, s.ns, cfg)
	var hop int
	nettest.NeedProbe(t, "veth", func() (err error) {
		hop, s.index, err = traffic.AddVeth(s.ns, "hop", s.far, "end")
		return err
	})
	plain(t, s.ns, hop)
	plain(t, s.far, s.index)
	tap := s.Info().IfIndex
	nettest.NeedProbe(t, "tc-bpf", func() error {
		err := errors.Join(traffic.Redirect(s.ns, tap, hop), traffic.Redirect(s.ns, hop, tap))
		if errors.Is(err, syscall.ENOENT) {
			err = errors.Join(err, errors.ErrUnsupported)
		}
		return err
	})
	must(t, s.ResetStats()) // the kernel counts what it drops meanwhile
	var err error
	s.wire, err = traffic.NewCapturer(s.far, s.index)
	must(t, err)
	t.Cleanup(func() { s.wire.Close() })
	return s
}

// plain takes all offloads from an interface.
func plain(t testing.TB, ns *netns.NS, index int) {
	t.Helper()
	must(t, nettest.Conn(t, ns).SetMTU(index, hopMTU))
	must(t, traffic.SetFeatures(ns, index, traffic.Features{
		"rx-checksum": false, "tx-checksum-ip-generic": false, "tx-tcp-segmentation": false, "tx-tcp6-segmentation": false,
		"tx-tcp-ecn-segmentation": false, "tx-udp-segmentation": false, "tx-generic-segmentation": false,
		"tx-udp_tnl-segmentation": false, "tx-udp_tnl-csum-segmentation": false,
		"tx-vlan-hw-insert": false, "tx-vlan-stag-hw-insert": false,
	}))
}

// next captures the next frame that ours is true for, and takes it apart.
func (s *station) next(ours func(p gopacket.Packet) bool) gopacket.Packet {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), nettest.Bound(10*time.Second))
	defer cancel()
	for {
		f, err := s.wire.Next(ctx, nil)
		if err != nil {
			stats, _ := s.Stats()
			s.t.Fatalf("%v (%+v)", err, stats)
		}
		p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
		if !ours(p) {
			continue
		}
		if err := verify(p); err != nil {
			s.t.Fatalf("%v\n%v", err, p)
		}
		return p
	}
}

// verify says what is wrong with a packet: a layer that cannot be decoded, a checksum, a length.
func verify(p gopacket.Packet) error {
	if l := p.ErrorLayer(); l != nil {
		return l.Error()
	}
	var ip gopacket.NetworkLayer
	for _, l := range p.Layers() { // each knows the one in front of it, also in a tunnel
		switch l := l.(type) {
		case gopacket.NetworkLayer:
			ip = l
		case interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}:
			if err := l.SetNetworkLayerForChecksum(ip); err != nil {
				return err
			}
		}
	}
	err, bad := p.VerifyChecksums()
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		return fmt.Errorf("checksum of %v is %#x, want %#x", bad[0].Layer.LayerType(), bad[0].Actual, bad[0].Correct)
	}
	length := 14
	for _, l := range p.Layers() {
		switch l := l.(type) {
		case *layers.Dot1Q:
			length += 4
		case *layers.UDP:
			if l.Checksum == 0 && l.DstPort != 4789 { // a tunnel may do without
				return errors.New("UDP without a checksum")
			}
		case *layers.IPv4:
			if len(p.Data()) < length+int(l.Length) {
				return fmt.Errorf("%d bytes of an IPv4 packet of %d", len(p.Data())-length, l.Length)
			}
		case *layers.IPv6:
			if len(p.Data()) < length+40+int(l.Length) {
				return fmt.Errorf("%d bytes of an IPv6 packet of 40+%d", len(p.Data())-length, l.Length)
			}
		}
	}
	if max := length + rtap.DefaultMTU; len(p.Data()) > max {
		return fmt.Errorf("a frame of %d bytes, at most %d fit the wire", len(p.Data()), max)
	}
	return nil
}

// clean fails the test if ports lost packets.
func clean(t testing.TB, ports ...*rtap.Device) {
	t.Helper()
	for _, d := range ports {
		s, err := d.Stats()
		must(t, err)
		if s.IErrors+s.OErrors+s.IMissed+s.RxNoMbuf != 0 {
			t.Errorf("%+v", s)
		}
	}
}
