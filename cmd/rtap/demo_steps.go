// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/forward"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/traffic"
)

// Shares of the duration, in twelfths.
const (
	pingShare = 1 // each of four
	udpShare  = 2
	tcpShare  = 3 // each of two
)

func (m *demo) share(twelfths int) time.Duration { return m.duration * time.Duration(twelfths) / 12 }

const (
	demoPings = 20
	// demoGrace is how long something that did not get through is waited for.
	demoGrace = 30 * time.Second
	// demoReply is how long a ping is waited for: an unanswered question for the neighbour is asked again after a second.
	demoReply = 10 * time.Second
)

// host is a port that answers for the second of the cable's addresses, as a
// host at the other end would.
func (m *demo) host(ctx context.Context) error {
	l, err := newLab(1)
	if err != nil {
		return err
	}
	defer l.close()
	s, err := openSession(sessionConfig{
		ports:   []portConfig{{"net_rtap0", rtap.Config{Engine: m.engine, NetNS: l.path(0)}}},
		forward: forward.Config{Mode: "icmpecho", Owned: []netip.Addr{cable4[1].Addr(), cable6[1].Addr()}},
	})
	if err != nil {
		return err
	}
	dev := s.ports[0].dev
	if err := l.address(0, dev, cable4[0]); err != nil {
		return errors.Join(err, s.close())
	}
	no6 := ipv6Missing(l.address(0, dev, cable6[0]))
	m.part(ctx, "A port that answers the kernel (mode icmpecho)", s, func(ctx context.Context) {
		m.step(ctx, s, "ARP", func(ctx context.Context) (string, error) { return arp(ctx, l[0], dev) })
		m.step(ctx, s, "ping, IPv4", func(ctx context.Context) (string, error) { return m.ping(ctx, l[0], cable4[1].Addr(), nil) })
		m.step(ctx, s, "ping, IPv6", func(ctx context.Context) (string, error) { return m.ping(ctx, l[0], cable6[1].Addr(), no6) })
	})
	m.failed("closing", s.close())
	return nil
}

// cable is two ports with a forwarder between them.
func (m *demo) cable(ctx context.Context) error {
	c, err := openCable(m.engine, sessionConfig{forward: forward.Config{Burst: rtap.DefaultBurst}}, func(lab, int) error { return nil })
	if err != nil {
		return err
	}
	var no6 error
	for i, p := range c.s.ports {
		no6 = errors.Join(no6, ipv6Missing(c.lab.address(i, p.dev, cable6[i])))
	}
	a, b := c.lab[0], c.lab[1]
	m.part(ctx, "\nTwo ports and a forwarder between them (mode io)", c.s, func(ctx context.Context) {
		m.step(ctx, c.s, "ping through, IPv4", func(ctx context.Context) (string, error) { return m.ping(ctx, a, cable4[1].Addr(), nil) })
		m.step(ctx, c.s, "ping through, IPv6", func(ctx context.Context) (string, error) { return m.ping(ctx, a, cable6[1].Addr(), no6) })
		m.step(ctx, c.s, "UDP through", func(ctx context.Context) (string, error) { return m.udp(ctx, a, b) })
		m.step(ctx, c.s, "TCP through", func(ctx context.Context) (string, error) { return m.tcp(ctx, a, b) })
	})
	m.failed("closing", c.close())
	return nil
}

// large is the two ports again, with all the offloads of this kernel.
func (m *demo) large(ctx context.Context) error {
	cfg := sessionConfig{forward: forward.Config{Burst: rtap.DefaultBurst}, offloads: offloadSet{all: true}}
	c, err := openCable(m.engine, cfg, func(lab, int) error { return nil })
	if err != nil {
		return err
	}
	m.part(ctx, "\nThe same with offloads: frames of up to 64 KB, passed on as they come", c.s, func(ctx context.Context) {
		m.step(ctx, c.s, "TCP in large frames", func(ctx context.Context) (string, error) { return m.tcp(ctx, c.lab[0], c.lab[1]) })
	})
	m.failed("closing", c.close())
	return nil
}

// ipv6Missing turns the kernel's refusal of an IPv6 address, where it has no
// IPv6 or must not use it, into one that skips.
func ipv6Missing(err error) error {
	for _, e := range []error{syscall.EOPNOTSUPP, syscall.EAFNOSUPPORT, syscall.EACCES} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: no IPv6 here: %v", errSkipped, err)
		}
	}
	return err
}

// arp makes the kernel ask for an address that it does not know yet, and sees
// the port's answer come in.
func arp(ctx context.Context, ns *netns.NS, dev *rtap.Device) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, demoGrace)
	defer cancel()
	in, err := traffic.NewCapturer(ns, dev.Info().IfIndex)
	if err != nil {
		return "", err
	}
	defer in.Close()
	dst := cable4[1].Addr()
	if _, err := traffic.Ping(ctx, traffic.PingConfig{NS: ns, Dst: dst, Timeout: 10 * time.Millisecond}); err != nil {
		return "", err
	}
	frame, err := in.Next(ctx, func(b []byte) bool { return isARPReply(b, dst) })
	if err != nil {
		return "", fmt.Errorf("no answer for %v: %w", dst, err)
	}
	return fmt.Sprintf("%v is at %v", dst, net.HardwareAddr(frame[22:28])), nil
}

// isARPReply reports whether a frame says where an IPv4 address is: RFC 826.
func isARPReply(b []byte, addr netip.Addr) bool {
	const etherARP, reply = "\x08\x06", "\x00\x02"
	return len(b) >= 42 && string(b[12:14]) == etherARP && string(b[20:22]) == reply && [4]byte(b[28:32]) == addr.As4()
}

// ping sends some and wants them all back. skip is why not.
func (m *demo) ping(ctx context.Context, ns *netns.NS, dst netip.Addr, skip error) (string, error) {
	if skip != nil {
		return "", skip
	}
	ctx, cancel := context.WithTimeout(ctx, m.share(pingShare)+demoGrace)
	defer cancel()
	r, err := traffic.Ping(ctx, traffic.PingConfig{NS: ns, Dst: dst, Count: demoPings, Interval: m.share(pingShare) / demoPings,
		Timeout: demoReply})
	if err == nil && r.Lost() > 0 {
		err = fmt.Errorf("%d of %d had no answer (%v)", r.Lost(), r.Sent, r.Unreachable)
	}
	return fmt.Sprintf("%d of %d answered, median %v", len(r.RTTs), r.Sent, r.Quantile(0.5).Round(time.Microsecond)), err
}

// udp sends numbered datagrams for a while, and wants them all.
func (m *demo) udp(ctx context.Context, from, to *netns.NS) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, m.share(udpShare)+demoGrace)
	defer cancel()
	var sum traffic.UDPResult
	for start := time.Now(); ; {
		r, err := traffic.UDP(ctx, traffic.UDPConfig{Client: from, Server: to,
			Addr: netip.AddrPortFrom(cable4[1].Addr(), 0), Count: 500, SizeBytes: 1400})
		if err != nil {
			return "", err
		}
		sum.Sent += r.Sent
		sum.Received += r.Received
		sum.Corrupt += r.Corrupt
		if time.Since(start) >= m.share(udpShare) {
			break
		}
	}
	if sum.Lost() > 0 || sum.Corrupt > 0 {
		return "", fmt.Errorf("%d of %d datagrams lost, %d corrupt", sum.Lost(), sum.Sent, sum.Corrupt)
	}
	return fmt.Sprintf("%d datagrams of 1400 bytes, each one intact", sum.Received), nil
}

// tcp sends a stream whose every byte is compared.
func (m *demo) tcp(ctx context.Context, from, to *netns.NS) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, m.share(tcpShare)+demoGrace)
	defer cancel()
	t, err := traffic.TCP(ctx, traffic.TCPConfig{Client: from, Server: to,
		Addr: netip.AddrPortFrom(cable4[1].Addr(), 0), Duration: m.share(tcpShare)})
	return fmt.Sprintf("%sB in %.1f s, %.2f Gb/s, every byte compared", short(float64(t.Bytes)), t.Elapsed.Seconds(),
		t.BitsPerSecond()/1e9), err
}
