// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Ping sends ICMP echo requests, one at a time, and measures how long the replies take. The time is that
// of a thread blocked in recv(2), as ping(8) has it, without Go's poller in between. Requests without
// reply are counted, not an error; so are replies with another content. The error is the context's, or
// that of making the socket (EPERM without CAP_NET_RAW) or of sending.
func Ping(ctx context.Context, cfg PingConfig) (PingResult, error) {
	var r PingResult
	err := cfg.defaults()
	if err == nil {
		err = inside(cfg.NS, func() error { return ping(ctx, cfg, &r) })
	}
	if err != nil {
		return r, fmt.Errorf("traffic: ping %v: %w", cfg.Dst, err)
	}
	return r, nil
}

func ping(ctx context.Context, cfg PingConfig, r *PingResult) error {
	fd, err := openICMP(cfg.Dst)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetNonblock(fd, cfg.Spin); err != nil {
		return fmt.Errorf("set non-blocking: %w", err)
	}
	e := newEcho(cfg.Dst, uint16(rand.Uint32()), cfg.SizeBytes)
	buf := make([]byte, 65536)
	for seq := range cfg.Count {
		start := time.Now()
		if err := send1(fd, e.encode(uint16(seq))); err != nil {
			if !unreachable(err) {
				return fmt.Errorf("send: %w", err)
			}
			r.Unreachable = err
		}
		r.Sent++
		got, err := await(ctx, fd, e, uint16(seq), start.Add(cfg.Timeout), buf, r)
		if err != nil {
			return err
		}
		if got {
			r.RTTs = append(r.RTTs, time.Since(start))
		}
		if seq+1 < cfg.Count {
			if err := cfg.pause(ctx, start.Add(cfg.Interval)); err != nil {
				return err
			}
		}
	}
	return nil
}

// slice is how long a thread may wait in the kernel before it looks at the context.
const slice = 50 * time.Millisecond

// openICMP makes a raw socket, connected to dst so that nobody else's messages come in, and filtered so
// that only replies do.
func openICMP(dst netip.Addr) (int, error) {
	family, proto := unix.AF_INET6, unix.IPPROTO_ICMPV6
	if dst.Is4() {
		family, proto = unix.AF_INET, unix.IPPROTO_ICMP
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err == unix.EPERM {
		return -1, fmt.Errorf("socket: %w (needs the capability CAP_NET_RAW)", err)
	}
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := prepareICMP(fd, dst); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func prepareICMP(fd int, dst netip.Addr) error {
	if err := filterReplies(fd, dst); err != nil {
		return fmt.Errorf("filter: %w", err)
	}
	tv := unix.NsecToTimeval(int64(slice))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("receive timeout: %w", err)
	}
	sa, err := sockaddr(dst)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, sa); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// filterReplies blocks all types but the reply: raw(7) and RFC 3542, section 3.2. A bit set is a type
// blocked.
func filterReplies(fd int, dst netip.Addr) error {
	if dst.Is4() {
		const icmpFilter = 1 // uapi linux/icmp.h
		return unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << echoReply4))
	}
	var f unix.ICMPv6Filter
	for i := range f.Data {
		f.Data[i] = ^uint32(0)
	}
	f.Data[echoReply6/32] &^= 1 << (echoReply6 % 32)
	return unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, &f)
}

func sockaddr(dst netip.Addr) (unix.Sockaddr, error) {
	if dst.Is4() {
		return &unix.SockaddrInet4{Addr: dst.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Addr: dst.As16()}
	if zone := dst.Zone(); zone != "" {
		index, err := strconv.ParseUint(zone, 10, 32)
		if err != nil {
			ifc, err := net.InterfaceByName(zone) // asks on this thread, so in this namespace
			if err != nil {
				return nil, fmt.Errorf("zone: %w", err)
			}
			index = uint64(ifc.Index)
		}
		sa.ZoneId = uint32(index)
	}
	return sa, nil
}

func send1(fd int, b []byte) error {
	for {
		if err := unix.Send(fd, b, 0); err != unix.EINTR {
			return err
		}
	}
}

// await waits for one reply. What is reported meanwhile about an earlier request does not end it.
func await(ctx context.Context, fd int, e *echo, seq uint16, end time.Time, buf []byte, r *PingResult) (bool, error) {
	for time.Now().Before(end) {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		n, err := unix.Read(fd, buf)
		switch {
		case err == nil && e.matches(buf[:n], seq):
			return true, nil
		case err == nil, err == unix.EINTR, err == unix.EAGAIN:
		case unreachable(err):
			r.Unreachable = err
		default:
			return false, fmt.Errorf("receive: %w", err)
		}
	}
	return false, nil
}

// unreachable reports whether an error is the network's, not the socket's.
func unreachable(err error) bool {
	switch err {
	case unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ECONNREFUSED, unix.EHOSTDOWN, unix.ENETDOWN, unix.ENOBUFS:
		return true
	}
	return false
}

func (cfg *PingConfig) pause(ctx context.Context, until time.Time) error {
	if cfg.Spin {
		for time.Now().Before(until) && ctx.Err() == nil {
		}
		return context.Cause(ctx)
	}
	d := time.Until(until)
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
