// SPDX-License-Identifier: BSD-3-Clause

package rtapsource

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
)

func TestMain(m *testing.M) { nettest.Main(m) }

// wait bounds whatever a test waits for.
const wait = 10 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func start(t testing.TB, ns *netns.NS, cfg rtap.Config) *rtap.Device {
	t.Helper()
	cfg.NetNS = fmt.Sprintf("/proc/self/fd/%d", ns.FD())
	dev, err := rtap.Start(cfg)
	must(t, err)
	t.Cleanup(func() { must(t, dev.Close()) })
	return dev
}

// source is one of a port in a quiet namespace, and a way to the port.
func source(t testing.TB, cfg rtap.Config) (*Source, *traffic.Injector) {
	t.Helper()
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	dev := start(t, ns, cfg)
	inj, err := traffic.NewQueuedInjector(ns, dev.Info().IfIndex)
	must(t, err)
	t.Cleanup(func() { must(t, inj.Close()) })
	src, err := New(context.Background(), dev, 0)
	must(t, err)
	t.Cleanup(src.Close)
	return src, inj
}

// packet is a UDP datagram with size bytes of payload, IPv4 or IPv6, with or without an Ethernet header.
func packet(t testing.TB, mode rtap.Mode, v6 bool, size int) []byte {
	t.Helper()
	udp := &layers.UDP{SrcPort: 40000, DstPort: 40001}
	var ip gopacket.SerializableLayer
	var kind layers.EthernetType
	if v6 {
		h := &layers.IPv6{Version: 6, HopLimit: 9, NextHeader: layers.IPProtocolUDP, SrcIP: make([]byte, 16), DstIP: make([]byte, 16)}
		must(t, udp.SetNetworkLayerForChecksum(h))
		ip, kind = h, layers.EthernetTypeIPv6
	} else {
		h := &layers.IPv4{Version: 4, TTL: 9, Protocol: layers.IPProtocolUDP, SrcIP: []byte{10, 0, 0, 1}, DstIP: []byte{10, 0, 0, 2}}
		must(t, udp.SetNetworkLayerForChecksum(h))
		ip, kind = h, layers.EthernetTypeIPv4
	}
	all := []gopacket.SerializableLayer{ip, udp, gopacket.Payload(make([]byte, size))}
	if mode == rtap.ModeTAP {
		eth := &layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 2}, EthernetType: kind}
		all = append([]gopacket.SerializableLayer{eth}, all...)
	}
	b := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...))
	return b.Bytes()
}
