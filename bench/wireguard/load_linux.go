// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/traffic"
)

// A load sends from one namespace to an address in another for a while, and returns how many bytes of payload
// arrived.
type load func(ctx context.Context, from, to *netns.NS, dst netip.Addr, o *options) (int64, error)

// tcp is one stream.
func tcp(ctx context.Context, from, to *netns.NS, dst netip.Addr, o *options) (int64, error) {
	t, err := traffic.TCP(ctx, traffic.TCPConfig{Client: from, Server: to, Addr: netip.AddrPortFrom(dst, 0), Duration: o.time, NoVerify: true})
	return t.Bytes, err
}

// udp is datagrams of one flow, each sent and received by a system call of its own. At most o.window are under
// way, so that what is measured is the way and not how fast a sender can overflow it.
func udp(_ context.Context, from, to *netns.NS, dst netip.Addr, o *options) (int64, error) {
	r, err := udpSocket(to)
	if err != nil {
		return 0, err
	}
	defer unix.Close(r)
	addr, err := bindUDP(r, dst)
	if err != nil {
		return 0, err
	}
	s, err := udpSocket(from)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	if err := unix.Connect(s, addr); err != nil {
		return 0, err
	}
	f := &flow{r: r, s: s, size: o.size, window: int64(o.window), room: make(chan struct{}, 1)}
	return f.run(o.time)
}

// flow is the two ends of the datagrams' way.
type flow struct {
	r, s, size int
	window     int64 // datagrams under way at most; 0: any number
	arrived    atomic.Int64
	ended      atomic.Bool
	room       chan struct{} // something has arrived
}

// patience is for how long nothing arrives before what is under way is given up.
const patience = 20 * time.Millisecond

func (f *flow) run(d time.Duration) (int64, error) {
	done := make(chan error, 1)
	go func() { done <- f.receive() }()
	err := f.send(time.Now().Add(d))
	got := f.arrived.Load()
	f.ended.Store(true)
	return got * int64(f.size), errors.Join(err, <-done)
}

func (f *flow) send(until time.Time) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b := make([]byte, f.size)
	lost := int64(0)
	for n := int64(0); n&31 != 0 || time.Now().Before(until); n++ {
		for f.window > 0 && n-f.arrived.Load()-lost >= f.window {
			select {
			case <-f.room:
			case <-time.After(patience):
				lost = n - f.arrived.Load()
			}
		}
		if _, err := unix.Write(f.s, b); err != nil && !passing(err) {
			return err
		}
	}
	return nil
}

// passing reports whether an error is a datagram lost, like any other.
func passing(err error) bool {
	return errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EINTR)
}

func (f *flow) receive() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b := make([]byte, 65536)
	for !f.ended.Load() {
		if _, err := unix.Read(f.r, b); err != nil {
			if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) { // the socket's timeout
				continue
			}
			return err
		}
		if f.arrived.Add(1)&15 == 0 {
			select {
			case f.room <- struct{}{}:
			default:
			}
		}
	}
	return nil
}

// udpSocket has room for all that may be under way.
func udpSocket(ns *netns.NS) (fd int, err error) {
	err = ns.Do(func() error {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	timeout := unix.NsecToTimeval(patience.Nanoseconds())
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
	return fd, err
}

func bindUDP(fd int, a netip.Addr) (unix.Sockaddr, error) {
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: a.As4()}); err != nil {
		return nil, err
	}
	return unix.Getsockname(fd)
}
