// SPDX-License-Identifier: BSD-3-Clause

// Package rig is a gVisor stack and a network namespace of the kernel's with one interface between them, for the tests
// and the bench of package netstack.
package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/rtnl"
)

// NIC is the endpoint's number in the stack.
const NIC = 1

// The addresses of the kernel's end and of the stack's, by IP version.
var (
	Kernel = map[int]netip.Prefix{4: netip.MustParsePrefix("10.77.0.1/24"), 6: netip.MustParsePrefix("fd77::1/64")}
	Stack  = map[int]netip.Addr{4: netip.MustParseAddr("10.77.0.2"), 6: netip.MustParseAddr("fd77::2")}
)

// BufferMax is the largest size in bytes of a TCP buffer of the stack's, for which it aims under load.
const BufferMax = 8 << 20

// NewStack is a stack with one endpoint, its addresses and routes, and TCP options as a fast server has them. Without
// v6 it knows nothing of IPv6.
func NewStack(ep stack.LinkEndpoint, v6 bool) (*stack.Stack, error) {
	o := stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	}
	if v6 {
		o.NetworkProtocols = append(o.NetworkProtocols, ipv6.NewProtocol)
		o.TransportProtocols = append(o.TransportProtocols, icmp.NewProtocol6)
	}
	s := stack.New(o)
	if err := configure(s, ep, v6); err != nil {
		s.Destroy()
		return nil, fmt.Errorf("gVisor stack: %s", err)
	}
	return s, nil
}

func configure(s *stack.Stack, ep stack.LinkEndpoint, v6 bool) tcpip.Error {
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: BufferMax}
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: BufferMax}
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &rcv, &snd} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return err
		}
	}
	if err := s.CreateNIC(NIC, ep); err != nil {
		return err
	}
	for version, a := range Stack {
		if version == 6 && !v6 {
			continue
		}
		addr := tcpip.AddrFromSlice(a.AsSlice())
		pa := tcpip.ProtocolAddress{Protocol: Network(version),
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: addr, PrefixLen: Kernel[version].Bits()}}
		if err := s.AddProtocolAddress(NIC, pa, stack.AddressProperties{}); err != nil {
			return err
		}
		s.AddRoute(tcpip.Route{Destination: pa.AddressWithPrefix.Subnet(), NIC: NIC})
	}
	return nil
}

// Network is the protocol number of an IP version.
func Network(version int) tcpip.NetworkProtocolNumber {
	if version == 6 {
		return header.IPv6ProtocolNumber
	}
	return header.IPv4ProtocolNumber
}

// RaiseKernel gives the kernel's interface its addresses and sets it up.
func RaiseKernel(ns *netns.NS, name string, v6 bool) error {
	conn, err := rtnl.Dial(ns.FD())
	if err != nil {
		return err
	}
	defer conn.Close()
	link, err := conn.LinkByName(name)
	if err != nil {
		return err
	}
	err = errors.Join(conn.SetUp(link.Index), conn.AddAddr(link.Index, Kernel[4]))
	if v6 {
		err = errors.Join(err, conn.AddAddr(link.Index, Kernel[6]))
	}
	return err
}

// Listen listens in the stack.
func Listen(s *stack.Stack, version int, port uint16) (net.Listener, error) {
	addr := tcpip.FullAddress{NIC: NIC, Addr: tcpip.AddrFromSlice(Stack[version].AsSlice()), Port: port}
	return gonet.ListenTCP(s, addr, Network(version))
}

// Dial connects from the stack to a port of the kernel's.
func Dial(ctx context.Context, s *stack.Stack, version int, port uint16) (net.Conn, error) {
	addr := tcpip.FullAddress{NIC: NIC, Addr: tcpip.AddrFromSlice(Kernel[version].Addr().AsSlice()), Port: port}
	return gonet.DialContextTCP(ctx, s, addr, Network(version))
}

// DialKernel connects from the kernel to a port of the stack's.
func DialKernel(ctx context.Context, ns *netns.NS, version int, port uint16) (c net.Conn, err error) {
	var d net.Dialer
	err = ns.Do(func() error { // a socket is of the namespace in which it is made
		c, err = d.DialContext(ctx, "tcp", netip.AddrPortFrom(Stack[version], port).String())
		return err
	})
	return c, err
}

// ListenKernel listens in the kernel, on a port of its choice.
func ListenKernel(ns *netns.NS, version int) (l net.Listener, port uint16, err error) {
	err = ns.Do(func() error {
		l, err = net.Listen("tcp", netip.AddrPortFrom(Kernel[version].Addr(), 0).String())
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return l, l.Addr().(*net.TCPAddr).AddrPort().Port(), nil
}

// Each handles each connection of l in a goroutine of its own, until l is closed.
func Each(l net.Listener, handle func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			handle(c)
		}()
	}
}

// Sink reads what comes.
func Sink(c net.Conn) {
	buf := make([]byte, 256<<10) // not io.Copy: it would use 32 KB
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

// Source writes until it is told to stop.
func Source(c net.Conn) {
	buf := make([]byte, 256<<10)
	for {
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}

// Echo sends back what comes.
func Echo(c net.Conn) { io.Copy(c, c) }
