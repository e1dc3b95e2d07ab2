// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"golang.org/x/sys/unix"
)

// FrameMax is the largest Ethernet frame in bytes, without checksum, that a TAP interface carries.
const FrameMax = 65535

// openPacket makes a raw packet(7) socket bound to an interface, receiving frames of the protocol given;
// 0 receives none.
func openPacket(ns *netns.NS, ifindex int, proto uint16) (fd int, err error) {
	err = inside(ns, func() error {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err == unix.EPERM {
		return -1, fmt.Errorf("traffic: packet socket: %w (needs the capability CAP_NET_RAW)", err)
	}
	if err != nil {
		return -1, fmt.Errorf("traffic: packet socket: %w", err)
	}
	// The socket is unbound and without a protocol until here, so that no frame of another interface
	// is in it: packet(7).
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(proto), Ifindex: ifindex}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("traffic: packet socket on interface %d: %w", ifindex, err)
	}
	return fd, nil
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// Capturer receives the frames that come in on an interface; for a TAP, what its program transmits. One
// goroutine at a time may use it; Close may be called at any time.
type Capturer struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte
	oob  []byte
	lost uint64
}

// captureBuffer holds a burst of the largest frames, for which the kernel charges twice their size.
const captureBuffer = 32 << 20

// NewCapturer starts capturing: frames are kept from here on until they are fetched or no longer fit a
// buffer of 32 MiB ([Capturer.Dropped]).
func NewCapturer(ns *netns.NS, ifindex int) (*Capturer, error) {
	fd, err := openPacket(ns, ifindex, 0)
	if err != nil {
		return nil, err
	}
	if err := prepareCapture(fd, ifindex); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("traffic: capture on interface %d: %w", ifindex, err)
	}
	c := &Capturer{
		file: os.NewFile(uintptr(fd), "packet socket"),
		buf:  make([]byte, FrameMax+vlanTagLen),
		oob:  make([]byte, 256),
	}
	if c.raw, err = c.file.SyscallConn(); err != nil {
		c.file.Close()
		return nil, fmt.Errorf("traffic: capture on interface %d: %w", ifindex, err)
	}
	return c, nil
}

// prepareCapture sets the options before the protocol, so that they hold from the first frame on.
func prepareCapture(fd, ifindex int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer); err != nil {
		// Without CAP_NET_ADMIN it is as large as net.core.rmem_max allows.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, captureBuffer); err != nil {
			return err
		}
	}
	// The kernel takes VLAN tags out of frames; they come back from here: packet(7).
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return err
	}
	// What the kernel sends is not for us (since Linux 4.20).
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return err
	}
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifindex})
}

// Next waits for a frame that keep returns true for, and returns a copy of it; others are thrown away.
// A nil keep takes every frame. keep must not hold on to its argument. The interface may go down and up,
// or away, meanwhile. The error is the context's, or wraps os.ErrClosed after Close.
func (c *Capturer) Next(ctx context.Context, keep func(frame []byte) bool) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { c.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		frame, err := c.receive()
		switch {
		case err == nil && (keep == nil || keep(frame)):
			return append([]byte(nil), frame...), nil
		case err == nil && ctx.Err() == nil, errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ENETDOWN):
			// Said once when the interface goes down or is; the capture goes on when it is up: packet(7).
			continue
		case ctx.Err() != nil:
			return nil, fmt.Errorf("traffic: capture: %w", context.Cause(ctx))
		case errors.Is(err, os.ErrDeadlineExceeded):
			// Left over from the context of an earlier call.
			c.file.SetReadDeadline(time.Time{})
		default:
			return nil, fmt.Errorf("traffic: capture: %w", err)
		}
	}
}

// receive waits for one frame. It is valid until the next.
func (c *Capturer) receive() (frame []byte, err error) {
	pollErr := c.raw.Read(func(fd uintptr) bool {
		var n, oobn int
		// Room in front, for the tag.
		n, oobn, _, _, err = unix.Recvmsg(int(fd), c.buf[vlanTagLen:], c.oob, 0)
		if err == unix.EAGAIN {
			return false
		}
		if err == nil {
			frame = untake(c.buf[:vlanTagLen+n], c.oob[:oobn])
		}
		return true
	})
	switch {
	case pollErr == nil:
		return frame, err
	case errors.Is(pollErr, os.ErrDeadlineExceeded):
		return nil, pollErr
	}
	return nil, os.ErrClosed // package os does not translate its poller's own error here
}

const (
	vlanTagLen     = 4
	macsLen        = 12 // the two addresses, in front of the tag
	vlanValid      = unix.TP_STATUS_VLAN_VALID
	vlanTPIDValid  = unix.TP_STATUS_VLAN_TPID_VALID
	auxStatus      = 0 // offsets in struct tpacket_auxdata, uapi linux/if_packet.h
	auxVlanTCI     = 16
	auxVlanTPID    = 18
	auxLen         = 20
	defaultTagType = unix.ETH_P_8021Q
)

// untake puts the VLAN tag that the kernel took out of a frame back. The frame begins vlanTagLen bytes
// into b.
func untake(b, oob []byte) []byte {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return b[vlanTagLen:]
	}
	for _, m := range msgs {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < auxLen {
			continue
		}
		status := binary.NativeEndian.Uint32(m.Data[auxStatus:])
		if status&vlanValid == 0 || len(b) < vlanTagLen+macsLen {
			continue
		}
		tpid := uint16(defaultTagType)
		if status&vlanTPIDValid != 0 {
			tpid = binary.NativeEndian.Uint16(m.Data[auxVlanTPID:])
		}
		copy(b, b[vlanTagLen:vlanTagLen+macsLen])
		binary.BigEndian.PutUint16(b[macsLen:], tpid)
		binary.BigEndian.PutUint16(b[macsLen+2:], binary.NativeEndian.Uint16(m.Data[auxVlanTCI:]))
		return b
	}
	return b[vlanTagLen:]
}

// Dropped returns how many frames were lost so far because they were not fetched in time.
func (c *Capturer) Dropped() (uint64, error) {
	var st *unix.TpacketStats
	var err error
	ctlErr := c.raw.Control(func(fd uintptr) {
		st, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	})
	if err := errors.Join(ctlErr, err); err != nil {
		return c.lost, fmt.Errorf("traffic: capture statistics: %w", err)
	}
	c.lost += uint64(st.Drops) // the kernel counts from the last time it was asked
	return c.lost, nil
}

// Close ends the capture, and a Next that waits. It is safe to call more than once.
func (c *Capturer) Close() error {
	if err := c.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("traffic: capture: %w", err)
	}
	return nil
}
