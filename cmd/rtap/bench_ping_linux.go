// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/tuntap"
)

// plainPing answers pings on a TAP descriptor by itself.
type plainPing struct {
	lab      lab
	tap      *tuntap.Queue
	loop     func(*plainPing, context.Context) error
	interval time.Duration
}

func openPlainPing(loop func(*plainPing, context.Context) error) (*plainPing, error) {
	l, err := newLab(1)
	if err != nil {
		return nil, err
	}
	p := &plainPing{lab: l, loop: loop}
	if err := p.open(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *plainPing) open() error {
	if err := p.lab.withoutIPv6(0); err != nil {
		return err
	}
	err := p.lab[0].Do(func() (err error) {
		p.tap, err = tuntap.Attach("plain%d", tuntap.Options{})
		return err
	})
	if err != nil {
		return err
	}
	index, err := p.tap.IfIndex()
	if err != nil {
		return err
	}
	conn, err := rtnl.Dial(p.lab[0].FD())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.AddAddr(index, cable4[0]); err != nil {
		return err
	}
	if err := conn.SetUp(index); err != nil {
		return err
	}
	// The loop knows no ARP.
	return conn.AddNeigh(index, cable4[1].Addr(), net.HardwareAddr{2, 0, 0, 0, 0, 1})
}

func (p *plainPing) close() error {
	var err error
	if p.tap != nil {
		err = p.tap.Close()
	}
	return errors.Join(err, p.lab.close())
}

func (p *plainPing) round(ctx context.Context, _ cell, d time.Duration) (sample, error) {
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- p.loop(p, running) }()
	s, err := pingFor(ctx, p.lab[0], d, p.interval)
	stop()
	return s, errors.Join(err, <-done)
}

// echo reads and writes packet by packet, without a pause, as the driver's
// workers do.
func (p *plainPing) echo(ctx context.Context) error {
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		n, err := p.turn(buf)
		if err != nil {
			return err
		}
		if n == 0 && runtime.GOMAXPROCS(0) == 1 {
			runtime.Gosched()
		}
	}
	return nil
}

// echoAsleep is echo by a thread that sleeps in epoll_wait(2) between packets.
func (p *plainPing) echoAsleep(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(ep)
	events := []unix.EpollEvent{{Events: unix.EPOLLIN}}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, p.tap.FD(), &events[0]); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		if _, err := unix.EpollWait(ep, events, asleepMilliseconds); err != nil && err != unix.EINTR {
			return err
		}
		for n := 1; n > 0; {
			if n, err = p.turn(buf); err != nil {
				return err
			}
		}
	}
	return nil
}

// asleepMilliseconds is how long echoAsleep sleeps at most before it looks at its context.
const asleepMilliseconds = 20

// turn answers one packet, and returns its size: 0 if there was none.
func (p *plainPing) turn(buf []byte) (int, error) {
	n, err := unix.Read(p.tap.FD(), buf)
	if err == unix.EAGAIN {
		return 0, nil
	}
	if err == nil && answerPing(buf[tuntap.VnetHdrSize:n]) {
		_, err = unix.Write(p.tap.FD(), buf[:n])
	}
	return n, err
}

// answerPing turns an IPv4 echo request without options into its reply.
func answerPing(f []byte) bool {
	const ip, icmp = 14, 34
	if len(f) < icmp+8 || binary.BigEndian.Uint16(f[12:]) != 0x0800 || f[ip+9] != unix.IPPROTO_ICMP || f[icmp] != 8 {
		return false
	}
	swap(f[0:6], f[6:12])
	swap(f[ip+12:ip+16], f[ip+16:ip+20])
	f[icmp] = 0
	sum := uint32(binary.BigEndian.Uint16(f[icmp+2:])) + 0x0800 // RFC 1624: the type went from 8 to 0
	binary.BigEndian.PutUint16(f[icmp+2:], uint16(sum+sum>>16))
	return true
}

func swap(a, b []byte) {
	for i := range a {
		a[i], b[i] = b[i], a[i]
	}
}
