// SPDX-License-Identifier: BSD-3-Clause

// Command server runs servers on gVisor's network stack, in this process, and an interface through which the kernel, and
// whoever it routes for, reaches them: a web server on port 80, one that reads whatever it gets on port 9 (discard), and one that
// sends for as long as somebody reads on port 19 (chargen).
//
//	server -name tap0 -addr 10.77.0.2/24 &
//	ip addr add 10.77.0.1/24 dev tap0
//	curl http://10.77.0.2/
//	head -c 10G /dev/zero | nc -N 10.77.0.2 9
//	nc 10.77.0.2 19 | head -c 10G > /dev/null
//
// It ends with Ctrl-C, and its interface with it. Linux only; it needs CAP_NET_ADMIN.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/adapters/netstack"
)

const nic = 1

func main() {
	var port rtap.Config
	var addr netip.Prefix
	flag.StringVar(&port.Name, "name", "", "`NAME` of the interface (default: one that is free)")
	flag.StringVar((*string)(&port.Mode), "mode", "tap", "tap or tun")
	flag.IntVar(&port.Queues, "queues", 1, "`N`umber of queues, each with a goroutine")
	flag.TextVar(&addr, "addr", netip.MustParsePrefix("10.77.0.2/24"), "the stack's address and network, IPv4 or IPv6")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := serve(ctx, port, addr, func(name string) {
		fmt.Printf("%s is up, and %v behind it; give the interface an address in %v\n", name, addr.Addr(), addr.Masked())
	})
	if err != nil {
		log.Fatal(err)
	}
}

// serve runs the servers until ctx is done or the interface is gone, and calls ready when they can be reached.
func serve(ctx context.Context, port rtap.Config, addr netip.Prefix, ready func(name string)) error {
	gone := make(chan error, 1)
	ep, err := netstack.New(netstack.Config{Port: port, Closed: func(err error) { gone <- err }})
	if err != nil {
		return err
	}
	s := newStack()
	defer s.Destroy()
	if err := connect(s, ep, addr); err != nil {
		ep.Close()
		return err
	}
	web := &http.Server{Handler: http.HandlerFunc(hello), ReadHeaderTimeout: 10 * time.Second}
	defer web.Close()
	for port, run := range map[uint16]func(net.Listener){
		80: func(l net.Listener) { web.Serve(l) },
		9:  func(l net.Listener) { each(l, sink) },
		19: func(l net.Listener) { each(l, source) },
	} {
		l, err := listen(s, addr.Addr(), port)
		if err != nil {
			return err
		}
		defer l.Close()
		go run(l)
	}
	ready(ep.Device().Name())
	select {
	case <-ctx.Done():
		return nil
	case err := <-gone:
		return err
	}
}

// newStack is a stack for TCP at speed: gVisor's defaults have small buffers.
func newStack() *stack.Stack {
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4,
			icmp.NewProtocol6},
	})
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 8 << 20}
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 8 << 20}
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &rcv, &snd} {
		s.SetTransportProtocolOption(tcp.ProtocolNumber, o) // values within gVisor's bounds: it cannot fail
	}
	return s
}

// connect gives the stack its interface, address and routes. The stack owns ep afterwards.
func connect(s *stack.Stack, ep stack.LinkEndpoint, addr netip.Prefix) error {
	if err := s.CreateNIC(nic, ep); err != nil {
		return fmt.Errorf("create NIC: %s", err)
	}
	a := tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(addr.Addr().AsSlice()), PrefixLen: addr.Bits()}
	err := s.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: network(addr.Addr()), AddressWithPrefix: a}, stack.AddressProperties{})
	if err != nil {
		return errors.New("add address: " + err.String())
	}
	s.SetRouteTable([]tcpip.Route{{Destination: a.Subnet(), NIC: nic}})
	return nil
}

func network(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func listen(s *stack.Stack, a netip.Addr, port uint16) (net.Listener, error) {
	l, err := gonet.ListenTCP(s, tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFromSlice(a.AsSlice()), Port: port}, network(a))
	if err != nil {
		return nil, fmt.Errorf("listen on port %d: %w", port, err)
	}
	return l, nil
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hello %s, from gVisor's stack over rtap\n", r.RemoteAddr)
}

// each handles the connections of l until it is closed.
func each(l net.Listener, handle func(net.Conn)) {
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

func sink(c net.Conn) {
	buf := make([]byte, 256<<10) // io.Copy would read 8 KB at a time
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

func source(c net.Conn) {
	buf := make([]byte, 256<<10)
	for {
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}
