// SPDX-License-Identifier: BSD-3-Clause

package netstack

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/adapters/netstack/internal/rig"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
)

const us, them = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x02"), tcpip.LinkAddress("\x02\x00\x00\x00\x00\x03")

// packet is what a dispatcher was handed.
type packet struct {
	protocol tcpip.NetworkProtocolNumber
	link     []byte
	bytes    []byte // behind the Ethernet header
	views    []int  // their sizes
	vouched  bool
	to       tcpip.PacketType
}

// recorder is a dispatcher that keeps what it gets.
type recorder chan packet

func (r recorder) DeliverNetworkPacket(protocol tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	p := packet{protocol: protocol, link: bytes.Clone(pkt.LinkHeader().Slice()), bytes: pkt.Data().AsRange().ToSlice(),
		vouched: pkt.RXChecksumValidated, to: pkt.PktType}
	views, _ := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		p.views = append(p.views, v.Size())
	}
	r <- p
}

func (r recorder) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

func (r recorder) next(t *testing.T) packet {
	t.Helper()
	select {
	case p := <-r:
		return p
	case <-time.After(nettest.Bound(wait)):
		t.Fatal("nothing was delivered")
		panic("unreachable")
	}
}

func (r recorder) none(t *testing.T) {
	t.Helper()
	select {
	case p := <-r:
		t.Fatalf("%d bytes were delivered: %x", len(p.bytes), p.bytes[:min(len(p.bytes), 60)])
	default:
	}
}

// lone is an endpoint without a stack, in a namespace in which the kernel keeps quiet.
type lone struct {
	*Endpoint
	t  *testing.T
	ns *netns.NS
	in *traffic.Injector
}

func newLone(t *testing.T, cfg Config) *lone {
	t.Helper()
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	cfg.Port.NetNS = nsPath(ns)
	if cfg.Port.Mode != rtap.ModeTUN {
		cfg.LinkAddress = us
	}
	ep, err := New(cfg)
	must(t, err)
	t.Cleanup(func() {
		ep.Close()
		if ep.left != nil {
			t.Errorf("left behind: %v", ep.left)
		}
		noRefs(t)
	})
	in, err := traffic.NewQueuedInjector(ns, ep.Device().Info().IfIndex)
	must(t, err)
	t.Cleanup(func() { in.Close() })
	return &lone{ep, t, ns, in}
}

// udp is an IP packet with a UDP datagram, checksums included.
func udp(version int, payload []byte) []byte {
	n := header.UDPMinimumSize + len(payload)
	var ip []byte
	src, dst := tcpip.AddrFromSlice(rig.Kernel[version].Addr().AsSlice()), tcpip.AddrFromSlice(rig.Stack[version].AsSlice())
	if version == 4 {
		ip = make([]byte, header.IPv4MinimumSize+n)
		h := header.IPv4(ip)
		h.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip)), TTL: 64, Protocol: uint8(header.UDPProtocolNumber), SrcAddr: src, DstAddr: dst})
		h.SetChecksum(^h.CalculateChecksum())
	} else {
		ip = make([]byte, header.IPv6MinimumSize+n)
		header.IPv6(ip).Encode(&header.IPv6Fields{PayloadLength: uint16(n), TransportProtocol: header.UDPProtocolNumber, HopLimit: 64,
			SrcAddr: src, DstAddr: dst})
	}
	u := header.UDP(ip[len(ip)-n:])
	u.Encode(&header.UDPFields{SrcPort: 7, DstPort: 7, Length: uint16(n)})
	copy(u.Payload(), payload)
	xsum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, src, dst, uint16(n))
	u.SetChecksum(^u.CalculateChecksum(checksum.Checksum(payload, xsum)))
	return ip
}

// frame puts an Ethernet header in front.
func frame(dst tcpip.LinkAddress, protocol tcpip.NetworkProtocolNumber, b []byte) []byte {
	f := make([]byte, header.EthernetMinimumSize, header.EthernetMinimumSize+len(b))
	header.Ethernet(f).Encode(&header.EthernetFields{SrcAddr: them, DstAddr: dst, Type: protocol})
	return append(f, b...)
}

func TestConfigErrors(t *testing.T) {
	for name, c := range map[string]Config{
		"memory":       {Port: rtap.Config{Memory: &memory{}}},
		"rx offloads":  {Port: rtap.Config{RxOffloads: 1}},
		"tx offloads":  {Port: rtap.Config{TxOffloads: 1}},
		"long address": {LinkAddress: "1234567"},
		"multicast":    {LinkAddress: "\x01\x00\x00\x00\x00\x01"},
		"router":       {Router: true, TXChecksumOffload: true},
		"TUN address":  {LinkAddress: us, Port: rtap.Config{Mode: rtap.ModeTUN}},
		"both":         {Device: &rtap.Device{}, Port: rtap.Config{Name: "x"}},
	} {
		if ep, err := New(c); !errors.Is(err, errConfig) {
			t.Errorf("%s: %v, %v", name, ep, err)
		}
	}
	nettest.NeedTun(t)
	if ep, err := New(Config{Port: rtap.Config{Name: "a/b"}}); err == nil || ep != nil {
		t.Errorf("the driver's error was lost: %v", err)
	}
	// Whatever fails after the port was opened, it is closed.
	ns := nettest.NS(t)
	var bad *rtap.ConfigError
	_, err := New(Config{Port: rtap.Config{NetNS: nsPath(ns), MaxLROPktSize: 1}})
	if !errors.As(err, &bad) {
		t.Errorf("MaxLROPktSize 1: %v", err)
	}
}

// What the stack asks an endpoint once, and plans by.
func TestProperties(t *testing.T) {
	type want struct {
		caps stack.LinkEndpointCapabilities
		gso  stack.SupportedGSO
		hdr  uint16
		arp  header.ARPHardwareType
		mtu  uint32
	}
	const rx, tx, res = stack.CapabilityRXChecksumOffload, stack.CapabilityTXChecksumOffload, stack.CapabilityResolutionRequired
	for name, c := range map[string]struct {
		cfg  Config
		want want
	}{
		"TAP":           {Config{}, want{caps: rx | res, hdr: 14, arp: header.ARPHardwareEther, mtu: 1500}},
		"TUN":           {Config{Port: rtap.Config{Mode: rtap.ModeTUN, MTU: 1400}}, want{caps: rx, arp: header.ARPHardwareNone, mtu: 1400}},
		"all checksums": {Config{TXChecksumOffload: true}, want{caps: rx | tx | res, hdr: 14, arp: header.ARPHardwareEther, mtu: 1500}},
		"router":        {Config{Router: true}, want{caps: res, hdr: 14, arp: header.ARPHardwareEther, mtu: 1500}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newLone(t, c.cfg)
			got := want{caps: e.Capabilities(), gso: e.SupportedGSO(), hdr: e.MaxHeaderLength(), arp: e.ARPHardwareType(), mtu: e.MTU()}
			c.want.gso = stack.HostGSOSupported
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			if n := e.GSOMaxSize(); n < 60000 || n > 65536 {
				t.Errorf("GSOMaxSize %d", n)
			}
			on := e.Device().Info().EnabledRxOffloads
			if lro := on&rtap.RxOffloadTCPLRO != 0; lro == c.cfg.Router {
				t.Errorf("LRO %t", lro)
			}
		})
	}
}

func TestLinkAddress(t *testing.T) {
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	var seen []tcpip.LinkAddress
	for range 2 {
		e, err := New(Config{Port: rtap.Config{NetNS: nsPath(ns)}})
		must(t, err)
		defer e.Close()
		a := e.LinkAddress()
		link, err := e.Device().Link()
		must(t, err)
		if len(a) != 6 || a[0]&3 != 2 || string(a) == string(link.MAC) {
			t.Errorf("address %v beside the kernel's %v", a, link.MAC)
		}
		seen = append(seen, a)
		e.SetLinkAddress(us)
		if e.LinkAddress() != us {
			t.Error("SetLinkAddress did nothing")
		}
	}
	if seen[0] == seen[1] {
		t.Error("two endpoints have the same address")
	}
}

func TestAttach(t *testing.T) {
	eachMode(t, func(t *testing.T, mode rtap.Mode) {
		e := newLone(t, Config{Port: rtap.Config{Mode: mode, Queues: 2}})
		inject := func(payload string) {
			b := udp(4, []byte(payload))
			if mode == rtap.ModeTAP {
				b = frame(us, header.IPv4ProtocolNumber, b)
			}
			must(t, e.in.Inject(b))
		}
		wants := func(r recorder, payload string) {
			t.Helper()
			p := r.next(t)
			if p.protocol != header.IPv4ProtocolNumber || !bytes.HasSuffix(p.bytes, []byte(payload)) || !p.vouched ||
				len(p.link) != int(e.MaxHeaderLength()) {
				t.Errorf("delivered %+v", p)
			}
		}
		e.Wait() // nothing to wait for
		e.Attach(nil)
		if e.IsAttached() {
			t.Error("attached from the start")
		}
		first, second, third := make(recorder, 16), make(recorder, 16), make(recorder, 16)
		e.Attach(first)
		if !e.IsAttached() {
			t.Error("not attached")
		}
		inject("one")
		wants(first, "one")
		e.Attach(second) // there is one already
		inject("two")
		wants(first, "two")

		e.Attach(nil)
		if e.IsAttached() {
			t.Error("still attached")
		}
		e.Wait()
		inject("kept") // by the kernel
		first.none(t)
		e.Attach(third)
		wants(third, "kept")
		inject("three")
		wants(third, "three")
		for range 50 { // faster than goroutines end
			e.Attach(nil)
			e.Attach(third)
		}
		inject("four")
		wants(third, "four")
		second.none(t)

		e.Close()
		e.Wait()
		e.Attach(first)
		if e.IsAttached() {
			t.Error("attached after Close")
		}
		var list stack.PacketBufferList
		if n, err := e.WritePackets(list); n != 0 || err != nil {
			t.Errorf("no packets: %d, %v", n, err)
		}
		e.Close()
	})
}

// Stack.Wait calls Wait with a lock that a packet in the stack may want: Wait must not wait for that, Close must.
func TestWaitInStack(t *testing.T) {
	e := newLone(t, Config{})
	r := make(recorder) // in which the dispatcher gets stuck
	e.Attach(r)
	for range 3 {
		must(t, e.in.Inject(frame(us, header.IPv4ProtocolNumber, udp(4, nil))))
	}
	nettest.Eventually(t, wait, "the dispatcher to be in the stack", func() bool { return e.session.outside.Load() == 0 })
	waited := make(chan struct{})
	go func() { e.Wait(); close(waited) }()
	e.Attach(nil)
	select {
	case <-waited:
	case <-time.After(nettest.Bound(wait)):
		t.Fatal("Wait waits for the stack")
	}
	closed := make(chan struct{})
	go func() { e.Close(); close(closed) }()
	nettest.Eventually(t, wait, "Close to have begun", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.closed
	})
	select {
	case <-closed:
		t.Fatal("Close does not wait for the stack")
	default:
	}
	r.next(t)
	<-closed
	r.none(t) // the others are dropped
}

// So it is when the endpoint was attached again meanwhile: whoever waits for their turn to poll must not be waited for either.
func TestWaitInStackBefore(t *testing.T) {
	e := newLone(t, Config{})
	r := make(recorder) // in which the dispatcher gets stuck
	e.Attach(r)
	must(t, e.in.Inject(frame(us, header.IPv4ProtocolNumber, udp(4, nil))))
	nettest.Eventually(t, wait, "the dispatcher to be in the stack", func() bool { return e.session.outside.Load() == 0 })
	for range 2 {
		e.Attach(nil)
		e.Attach(r)
	}
	e.Attach(nil)
	waited := make(chan struct{})
	go func() { e.Wait(); close(waited) }()
	select {
	case <-waited:
	case <-time.After(nettest.Bound(wait)):
		t.Error("Wait waits for the stack")
	}
	r.next(t)
	<-waited
}

func TestOnClose(t *testing.T) {
	e := newLone(t, Config{})
	calls := 0
	e.SetOnCloseAction(func() { calls += 100 })
	e.SetOnCloseAction(func() {
		if calls++; e.Device().Err() != nil {
			t.Error("called when all was over")
		}
	})
	e.Close()
	e.Close()
	if calls != 1 || !errors.Is(e.Err(), rtap.ErrClosed) {
		t.Errorf("%d calls; %v", calls, e.Err())
	}
	e = newLone(t, Config{})
	e.SetOnCloseAction(func() { t.Error("called, after it was taken back") })
	e.SetOnCloseAction(nil)
	e.Close()
}

// Frames for others do not reach the stack; wrong ones neither, each counted where it belongs.
func TestFilter(t *testing.T) {
	flip := func(b []byte, i int) []byte { b = bytes.Clone(b); b[i] ^= 0x40; return b }
	good4, good6 := udp(4, []byte("v4")), udp(6, []byte("v6"))
	v4, v6 := header.IPv4ProtocolNumber, header.IPv6ProtocolNumber
	type want struct {
		stats     Stats
		delivered bool
	}
	ok := want{delivered: true}
	for name, c := range map[string]struct {
		cfg   Config
		frame []byte
		want  want
	}{
		"IPv4":                   {Config{}, frame(us, v4, good4), ok},
		"IPv6":                   {Config{}, frame(us, v6, good6), ok},
		"broadcast":              {Config{}, frame(header.EthernetBroadcastAddress, v4, good4), ok},
		"multicast":              {Config{}, frame("\x33\x33\x00\x00\x00\x01", v6, good6), ok},
		"unknown protocol":       {Config{}, frame(us, 0x88b5, make([]byte, 100)), ok},
		"short":                  {Config{}, frame(us, v4, nil), ok}, // an Ethernet header is all that there must be
		"for another":            {Config{}, frame(them, v4, good4), want{stats: Stats{RxOther: 1}}},
		"for another, wanted":    {Config{Promiscuous: true}, frame(them, v4, good4), ok},
		"IPv4 header checksum":   {Config{}, frame(us, v4, flip(good4, 8)), want{stats: Stats{RxChecksum: 1}}},
		"IPv4 UDP checksum":      {Config{}, frame(us, v4, flip(good4, len(good4)-1)), want{stats: Stats{RxChecksum: 1}}},
		"IPv6 UDP checksum":      {Config{}, frame(us, v6, flip(good6, len(good6)-1)), want{stats: Stats{RxChecksum: 1}}},
		"checksum, netstack's":   {Config{Router: true}, frame(us, v4, flip(good4, len(good4)-1)), ok},
		"TUN":                    {Config{Port: rtap.Config{Mode: rtap.ModeTUN}}, good6, ok},
		"TUN, UDP checksum":      {Config{Port: rtap.Config{Mode: rtap.ModeTUN}}, flip(good6, len(good6)-1), want{stats: Stats{RxChecksum: 1}}},
		"TUN, no IP":             {Config{Port: rtap.Config{Mode: rtap.ModeTUN}}, make([]byte, 60), want{stats: Stats{RxMalformed: 1}}},
		"VXLAN, UDP checksum":    {Config{}, frame(us, v4, vxlan(good4, false)), want{stats: Stats{RxChecksum: 1}}},
		"VXLAN":                  {Config{}, frame(us, v4, vxlan(good4, true)), ok},
		"VXLAN, inner incorrect": {Config{}, frame(us, v4, vxlan(flip(good4, len(good4)-1), true)), ok}, // data, to the stack
		"VXLAN, inner header":    {Config{}, frame(us, v4, vxlan(flip(good4, 8), true)), ok},            // likewise
		"VXLAN, header checksum": {Config{}, frame(us, v4, flip(vxlan(good4, true), 8)), want{stats: Stats{RxChecksum: 1}}},
		"TUN, IPIP":              {Config{Port: rtap.Config{Mode: rtap.ModeTUN}}, ipip(flip(good4, 8)), ok},
		"TUN, IPIP, checksum":    {Config{Port: rtap.Config{Mode: rtap.ModeTUN}}, flip(ipip(good6), 8), want{stats: Stats{RxChecksum: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newLone(t, c.cfg)
			r := make(recorder, 4)
			e.Attach(r)
			must(t, e.in.Inject(c.frame))
			if c.want.delivered {
				p := r.next(t)
				if got := append(p.link, p.bytes...); !bytes.Equal(got, c.frame) {
					t.Errorf("delivered %x, want %x", got, c.frame)
				}
				if p.vouched == c.cfg.Router {
					t.Errorf("checksum vouched for: %t", p.vouched)
				}
				if to := map[string]tcpip.PacketType{"broadcast": tcpip.PacketBroadcast, "multicast": tcpip.PacketMulticast,
					"for another, wanted": tcpip.PacketOtherHost}[name]; p.to != to {
					t.Errorf("it is of type %d, want %d", p.to, to)
				}
			} else {
				nettest.Eventually(t, wait, "the frame to be counted", func() bool { return e.Stats() != Stats{} })
			}
			r.none(t)
			if got := e.Stats(); got != c.want.stats {
				t.Errorf("%+v, want %+v", got, c.want.stats)
			}
		})
	}
}

// vxlan is an IPv4 packet in a VXLAN packet, whose own UDP checksum is good or not.
func vxlan(inner []byte, good bool) []byte {
	payload := append([]byte{8, 0, 0, 0, 0, 0, 1, 0}, frame(us, header.IPv4ProtocolNumber, inner)...)
	b := udp(4, payload)
	u := header.UDP(b[header.IPv4MinimumSize:])
	u.SetDestinationPort(4789)
	if u.SetChecksum(u.Checksum()); good {
		u.SetChecksum(0)
		src, dst := header.IPv4(b).SourceAddress(), header.IPv4(b).DestinationAddress()
		xsum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, src, dst, u.Length())
		u.SetChecksum(^u.CalculateChecksum(checksum.Checksum(u.Payload(), xsum)))
	}
	return b
}

// ipip is a packet in an IPv4 packet.
func ipip(inner []byte) []byte {
	const ipInIP = 4
	h := header.IPv4(udp(4, inner)[:header.IPv4MinimumSize])
	h.Encode(&header.IPv4Fields{TotalLength: uint16(len(h) + len(inner)), TTL: 64, Protocol: ipInIP, SrcAddr: h.SourceAddress(),
		DstAddr: h.DestinationAddress()})
	h.SetChecksum(^h.CalculateChecksum())
	return append(bytes.Clone(h), inner...)
}

// Large frames are delivered where the kernel put them, behind a view with their headers; others in one view.
func TestViews(t *testing.T) {
	e := newLone(t, Config{Port: rtap.Config{MTU: rtap.MaxMTU}})
	r := make(recorder, 4)
	e.Attach(r)
	for _, n := range []int{0, 1, 1000, copyMax - 42, copyMax - 41, 40000, rtap.MaxMTU - 28} {
		b := bytes.Repeat([]byte{1, 2, 3, 5, 7, 11, 13}, n/7+1)[:n]
		f := frame(us, header.IPv4ProtocolNumber, udp(4, b))
		must(t, e.in.Inject(f))
		p := r.next(t)
		if got := append(p.link, p.bytes...); !bytes.Equal(got, f) {
			t.Fatalf("%d bytes: others were delivered", n)
		}
		split := len(p.views) > 1
		if split != (len(f) > copyMax) || split && p.views[0] > someHeaders {
			t.Errorf("%d bytes are in views of %v", len(f), p.views)
		}
	}
}

// A device that is the caller's, with memory of its own, is used, and left alone.
func TestDevice(t *testing.T) {
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	dev, err := rtap.Start(rtap.Config{NetNS: nsPath(ns)})
	must(t, err)
	defer dev.Close()
	for range 2 {
		e, err := New(Config{Device: dev, LinkAddress: us})
		must(t, err)
		if e.SupportedGSO() != stack.GVisorGSOSupported || e.Capabilities() != stack.CapabilityResolutionRequired {
			t.Errorf("GSO %v, capabilities %x of a port without offloads", e.SupportedGSO(), e.Capabilities())
		}
		r := make(recorder, 4)
		e.Attach(r)
		in, err := traffic.NewInjector(ns, dev.Info().IfIndex)
		must(t, err)
		must(t, in.Inject(frame(us, header.IPv4ProtocolNumber, udp(4, nil))))
		r.next(t)
		in.Close()
		e.Close()
		if e.left != nil || dev.Err() != nil {
			t.Errorf("after Close: %v, device %v", e.left, dev.Err())
		}
	}
}

// A device without queues is refused, and one that is closed.
func TestDeviceNotReady(t *testing.T) {
	nettest.NeedTun(t)
	dev, err := rtap.Open(rtap.Config{NetNS: nsPath(nettest.QuietNS(t))})
	must(t, err)
	defer dev.Close()
	for _, c := range []struct {
		do   func() error
		want error
	}{
		{func() error { return nil }, errConfig},
		{func() error { return dev.Configure(rtap.PortConfig{RxQueues: 2, TxQueues: 2}) }, errConfig},
		{func() error { return dev.SetupTxQueue(0, rtap.TxConfig{}) }, errConfig},
		{dev.Close, rtap.ErrClosed},
	} {
		must(t, c.do())
		if e, err := New(Config{Device: dev}); e != nil || !errors.Is(err, c.want) {
			t.Errorf("%v, want %v", err, c.want)
		}
	}
}

// A device whose packets are not what the stack takes them for is refused.
func TestDeviceUnusable(t *testing.T) {
	nettest.NeedTun(t)
	dev, err := rtap.Open(rtap.Config{NetNS: nsPath(nettest.QuietNS(t))})
	must(t, err)
	has := dev.Info().RxOffloads
	must(t, dev.Close())
	for _, rx := range []uint64{rtap.RxOffloadVLANStrip, rtap.RxOffloadQinQStrip, rtap.RxOffloadUDPLRO, rtap.RxOffloadTunnelLRO | rtap.RxOffloadTCPLRO} {
		if rx&^has != 0 {
			continue
		}
		dev, err := rtap.Start(rtap.Config{NetNS: nsPath(nettest.QuietNS(t)), RxOffloads: rx})
		must(t, err)
		if e, err := New(Config{Device: dev}); e != nil || !errors.Is(err, errConfig) {
			t.Errorf("%v: %v", rtap.RxOffloadNames(rx), err)
		}
		must(t, dev.Close())
	}
}

// A device that the program stops ends the endpoint's work; started again, it can be attached again.
func TestStopped(t *testing.T) {
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	dev, err := rtap.Start(rtap.Config{NetNS: nsPath(ns), Queues: 3})
	must(t, err)
	defer dev.Close()
	told := make(chan error, 3)
	e, err := New(Config{Device: dev, LinkAddress: us, Closed: func(err error) { told <- err }})
	must(t, err)
	defer e.Close()
	r := make(recorder, 4)
	e.Attach(r)
	must(t, dev.Stop())
	select {
	case err := <-told:
		if !errors.Is(err, rtap.ErrStopped) {
			t.Errorf("Closed was told %v", err)
		}
	case <-time.After(nettest.Bound(wait)):
		t.Fatal("Closed was not called")
	}
	e.Wait()
	must(t, dev.Start())
	e.Attach(nil)
	e.Attach(r)
	in, err := traffic.NewInjector(ns, dev.Info().IfIndex)
	must(t, err)
	defer in.Close()
	must(t, in.Inject(frame(us, header.IPv4ProtocolNumber, udp(4, nil))))
	r.next(t)
	if len(told) > 0 {
		t.Error("Closed was called more than once")
	}
}

// The MTU is one, whoever changes it.
func TestMTU(t *testing.T) {
	eachMode(t, func(t *testing.T, mode rtap.Mode) {
		e := newLone(t, Config{Port: rtap.Config{Mode: mode}})
		conn := nettest.Conn(t, e.ns)
		index := e.Device().Info().IfIndex
		kernel := func() int {
			l, err := conn.Link(index)
			must(t, err)
			return l.MTU
		}
		e.SetMTU(9000)
		if e.MTU() != 9000 || kernel() != 9000 {
			t.Errorf("SetMTU(9000): %d, the kernel %d", e.MTU(), kernel())
		}
		e.SetMTU(1 << 20)
		if e.MTU() != 9000 || kernel() != 9000 {
			t.Errorf("one that cannot be: %d, the kernel %d", e.MTU(), kernel())
		}
		must(t, conn.SetMTU(index, 1280))
		nettest.Eventually(t, wait, "the endpoint to follow the kernel's MTU", func() bool { return e.MTU() == 1280 })
	})
}

// It is one also when several change it at the same time.
func TestMTURace(t *testing.T) {
	e := newLone(t, Config{})
	conn := nettest.Conn(t, e.ns)
	index := e.Device().Info().IfIndex
	for i := range nettest.Scale(1000) {
		var wg sync.WaitGroup
		for k := range 4 {
			wg.Go(func() { e.SetMTU(uint32(2000 + 4*i + k)) })
		}
		must(t, conn.SetMTU(index, 10000+i))
		wg.Wait()
		link, err := conn.Link(index)
		must(t, err)
		nettest.Eventually(t, wait, "the endpoint to know the MTU", func() bool { return e.MTU() == uint32(link.MTU) })
	}
}

// Packets are sent whole and in order, whatever pieces they are in.
func TestWritePackets(t *testing.T) {
	eachMode(t, func(t *testing.T, mode rtap.Mode) {
		e := newLone(t, Config{Port: rtap.Config{Mode: mode, Queues: 2, MTU: 60000}})
		c, err := traffic.NewCapturer(e.ns, e.Device().Info().IfIndex)
		must(t, err)
		defer c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(wait))
		defer cancel()
		for name, pieces := range map[string][]int{
			"one":        {100},
			"small ones": {1, 2, 3, 4, 5, 6, 7, 8, 9},
			"bytes":      make([]int, 3000), // of one byte each, more than there are mbufs
			"large ones": {5000, 20000, 30000},
			"mixed":      {10, 1024, 1025, 3, 2000, 1, 1024, 1024, 1024, 7},
		} {
			t.Run(name, func(t *testing.T) {
				var list stack.PacketBufferList
				var want [][]byte
				for i := range 100 { // more than a burst
					var b buffer.Buffer
					var payload []byte
					for k, n := range pieces {
						p := bytes.Repeat([]byte{byte(i), byte(k)}, n/2+1)[:max(n, 1)]
						b.Append(buffer.NewViewWithData(p))
						payload = append(payload, p...)
					}
					pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 100, Payload: b})
					pkt.NetworkProtocolNumber = 0x88b5
					ip := udp(4, nil)[:header.IPv4MinimumSize] // a TUN wants one
					if mode == rtap.ModeTUN {
						pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
						copy(pkt.NetworkHeader().Push(len(ip)), ip)
						payload = append(ip, payload...)
					}
					pkt.EgressRoute = stack.RouteInfo{}
					pkt.EgressRoute.LocalLinkAddress, pkt.EgressRoute.RemoteLinkAddress = us, them
					e.AddHeader(pkt)
					pkt.Hash = 5
					if mode == rtap.ModeTAP {
						payload = append(bytes.Clone(pkt.LinkHeader().Slice()), payload...)
					}
					want = append(want, payload)
					list.PushBack(pkt)
				}
				n, werr := e.WritePackets(list)
				if n != 100 || werr != nil {
					t.Errorf("sent %d: %v", n, werr)
				}
				list.Reset()
				for i, w := range want {
					got, err := c.Next(ctx, nil)
					if err != nil {
						t.Fatalf("frame %d of %d bytes: %v; %+v", i, len(w), err, e.Stats())
					}
					if !bytes.Equal(got, w) {
						t.Fatalf("frame %d has %d bytes, want %d: %x...", i, len(got), len(w), got[:min(len(got), 40)])
					}
				}
			})
		}
		if s := (Stats{}); e.Stats() != s {
			t.Errorf("%+v", e.Stats())
		}
	})
}

// Each flow has its queue, and the kernel answers on the same.
func TestQueues(t *testing.T) {
	const queues = 4
	e := newLone(t, Config{Port: rtap.Config{Queues: queues}})
	for hash := range uint32(2 * queues) {
		var list stack.PacketBufferList
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 14, Payload: buffer.MakeWithData(make([]byte, 60))})
		pkt.NetworkProtocolNumber, pkt.Hash = 0x88b5, hash
		e.AddHeader(pkt)
		list.PushBack(pkt)
		if n, err := e.WritePackets(list); n != 1 || err != nil {
			t.Errorf("sent %d: %v", n, err)
		}
		list.Reset()
	}
	for i := range queues {
		st, err := e.Device().QueueStats(i)
		must(t, err)
		if st.OPackets != 2 {
			t.Errorf("queue %d sent %d packets, want 2", i, st.OPackets)
		}
	}
}

// The interface is deleted while packets flow: the endpoint says so, and everything ends.
func TestDeleted(t *testing.T) {
	eachMode(t, func(t *testing.T, mode rtap.Mode) {
		told := make(chan error, 4)
		p := newPair(t, Config{Port: rtap.Config{Mode: mode, Queues: 2}, Closed: func(err error) { told <- err }})
		kernel, inside := p.connect(4)
		done := make(chan struct{}, 2)
		go func() { rig.Source(inside); done <- struct{}{} }()
		buf := make([]byte, 1<<20)
		_, err := kernel.Read(buf)
		must(t, err)
		conn := nettest.Conn(t, p.ns)
		must(t, conn.Delete(p.ep.Device().Info().IfIndex))
		select {
		case err := <-told:
			if !errors.Is(err, rtap.ErrGone) {
				t.Errorf("Closed was told %v", err)
			}
		case <-time.After(nettest.Bound(wait)):
			t.Fatal("nobody told that the interface is gone")
		}
		p.ep.Wait()
		if err := p.ep.Err(); !errors.Is(err, rtap.ErrGone) {
			t.Errorf("Err is %v", err)
		}
		var list stack.PacketBufferList
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(make([]byte, 60))})
		list.PushBack(pkt)
		n, werr := p.ep.WritePackets(list)
		if _, ok := werr.(*tcpip.ErrClosedForSend); n != 0 || !ok {
			t.Errorf("sent %d: %v", n, werr)
		}
		list.Reset()
		p.ep.SetMTU(1400)
		inside.Close()
		<-done
		if len(told) > 0 {
			t.Error("Closed was called more than once")
		}
	})
}
