// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"reflect"
	"syscall"

	"github.com/rtap-project/rtap/internal/netns"
	"golang.org/x/sys/unix"
)

// Injector sends frames out of an interface; for a TAP, into its program. They bypass the queueing
// discipline (PACKET_QDISC_BYPASS), so that what the interface does not take is lost at once. One
// goroutine at a time may use it.
type Injector struct {
	fd int // -1 once closed
}

// NewInjector opens the socket to inject through. The interface may be down until the first frame.
//
// If the interface may be deleted while frames are injected, use [NewQueuedInjector]: the bypass takes the number of the
// CPU modulo that of the interface's queues, which is 0 from a certain moment on (packet_pick_tx_queue in
// net/packet/af_packet.c; remove_queue_kobjects in net/core/net-sysfs.c). Linux 6.1 was seen to die of it.
func NewInjector(ns *netns.NS, ifindex int) (*Injector, error) {
	in, err := NewQueuedInjector(ns, ifindex)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(in.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		in.Close()
		return nil, fmt.Errorf("traffic: inject: %w", err)
	}
	return in, nil
}

// NewQueuedInjector is NewInjector without the bypass.
func NewQueuedInjector(ns *netns.NS, ifindex int) (*Injector, error) {
	fd, err := openPacket(ns, ifindex, 0)
	if err != nil {
		return nil, err
	}
	return &Injector{fd: fd}, nil
}

// NewOffloadInjector is NewInjector for frames with a struct virtio_net_hdr of 10 bytes in front, in the
// machine's byte order (PACKET_VNET_HDR in packet(7), package vnethdr): the kernel takes them for what it
// would itself hand to the interface, with a checksum to complete or to be cut into packets. Such a frame
// may be longer than the MTU. They go through the queueing discipline.
func NewOffloadInjector(ns *netns.NS, ifindex int) (*Injector, error) {
	in, err := NewQueuedInjector(ns, ifindex) // the bypass drops what the interface cannot cut itself (dev_direct_xmit in net/core/dev.c)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(in.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		in.Close()
		return nil, fmt.Errorf("traffic: inject: %w", err)
	}
	return in, nil
}

// Close gives the socket back. It is safe to call more than once.
func (in *Injector) Close() error {
	if in.fd < 0 {
		return nil
	}
	fd := in.fd
	in.fd = -1
	if err := unix.Close(fd); err != nil && err != unix.EINTR {
		return fmt.Errorf("traffic: inject: %w", err)
	}
	return nil
}

// Inject sends one frame, at least 14 bytes, with its Ethernet header. EMSGSIZE if it is longer than the
// interface's MTU and that header, ENETDOWN if the interface is down, ENOBUFS if its queue is full.
func (in *Injector) Inject(frame []byte) error {
	if in.fd < 0 {
		return fmt.Errorf("traffic: inject: %w", os.ErrClosed)
	}
	for {
		err := unix.Send(in.fd, frame, 0)
		switch err {
		case nil:
			return nil
		case unix.EINTR:
			continue
		case unix.EAGAIN: // the socket's own buffer is full: frames of it are elsewhere, being read
			if err = in.writable(); err == nil {
				continue
			}
		}
		return fmt.Errorf("traffic: inject %d bytes: %w", len(frame), err)
	}
}

// writable waits, a second at most, until the socket takes another frame.
func (in *Injector) writable() error {
	p := []unix.PollFd{{Fd: int32(in.fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(p, 1000)
	if err == nil && n == 0 {
		return unix.ETIMEDOUT
	}
	if err == unix.EINTR {
		return nil
	}
	return err
}

// Flood sends frames as fast as it can, many in one system call (sendmmsg(2)). The end of the context is
// no error if Count is 0. On an error the result says how far it got.
//
// Whether the interface took a frame is what its driver says: a TAP reports a full queue since Linux
// 5.18, before it drops silently. What it dropped is in its tx_dropped in any case.
func (in *Injector) Flood(ctx context.Context, cfg FloodConfig) (FloodResult, error) {
	if in.fd < 0 {
		return FloodResult{}, fmt.Errorf("traffic: flood: %w", os.ErrClosed)
	}
	b, err := newBatch(cfg)
	if err != nil {
		return FloodResult{}, fmt.Errorf("traffic: flood: %w", err)
	}
	defer b.free()
	var r FloodResult
	for cfg.Count == 0 || b.next < cfg.Count {
		if ctx.Err() != nil {
			break
		}
		if err := in.sendBatch(b, &r); err != nil {
			return r, fmt.Errorf("traffic: flood: %w", err)
		}
	}
	if cfg.Count != 0 && b.next < cfg.Count {
		return r, fmt.Errorf("traffic: flood: after %d frames: %w", b.next, context.Cause(ctx))
	}
	return r, nil
}

// sendBatch fills the batch and sends it, past the frames that are refused.
func (in *Injector) sendBatch(b *batch, r *FloodResult) error {
	total := b.fill()
	for at := 0; at < total; {
		n, _, errno := syscall.Syscall6(unix.SYS_SENDMMSG, uintptr(in.fd), b.header(at), uintptr(total-at), 0, 0, 0)
		switch errno {
		case 0:
			r.Sent += int(n)
			at += int(n)
		case unix.ENOBUFS:
			r.Dropped++
			at++
		case unix.EINTR:
		case unix.EAGAIN:
			if err := in.writable(); err != nil {
				return err
			}
		default:
			return errno
		}
	}
	return nil
}

// batch is the memory of a flood: frames, then struct iovec and struct mmsghdr arrays that point to
// them. It is mapped, not from the Go heap, because the kernel follows addresses that are mere numbers
// to Go; and it is written as bytes, with no cast.
type batch struct {
	cfg   FloodConfig
	mem   []byte
	base  uintptr
	slot  int // bytes for a frame
	size  int // frames in the batch
	iov   int // offset of the iovec array
	hdr   int // offset of the mmsghdr array
	next  int // the running number of the next frame
	stamp bool
}

const (
	word       = unix.SizeofPtr
	iovLen     = 2 * word // struct iovec: base, length
	mmsghdrLen = 8 * word // struct mmsghdr, see below
	msgIov     = 2 * word // in it: name, namelen, iov, iovlen, control, controllen, flags; then the count
	msgIovLen  = 3 * word
)

// The layout above, held against the system's own.
var _ = [1]int{}[mmsghdrLen-word-unix.SizeofMsghdr]

func newBatch(cfg FloodConfig) (*batch, error) {
	b := &batch{cfg: cfg, size: cfg.Batch, stamp: cfg.Stamp != 0}
	if b.size <= 0 {
		b.size = 64
	}
	b.size = min(b.size, 1024) // UIO_MAXIOV, sendmmsg(2)
	if len(cfg.Frames) == 0 {
		return nil, fmt.Errorf("no frames: %w", unix.EINVAL)
	}
	for _, f := range cfg.Frames {
		if b.stamp && (cfg.Stamp < 0 || cfg.Stamp+4 > len(f)) {
			return nil, fmt.Errorf("no room for the number at offset %d of %d bytes: %w", cfg.Stamp, len(f), unix.EINVAL)
		}
		b.slot = max(b.slot, (len(f)+63)&^63)
	}
	b.iov = b.size * b.slot
	b.hdr = b.iov + b.size*iovLen
	mem, err := unix.Mmap(-1, 0, b.hdr+b.size*mmsghdrLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	b.mem, b.base = mem, reflect.ValueOf(mem).Pointer()
	for i := range b.size {
		h := b.mem[b.hdr+i*mmsghdrLen:]
		putWord(h[msgIov:], b.base+uintptr(b.iov+i*iovLen))
		putWord(h[msgIovLen:], 1)
		putWord(b.mem[b.iov+i*iovLen:], b.base+uintptr(i*b.slot))
	}
	return b, nil
}

func putWord(b []byte, v uintptr) {
	if word == 8 {
		binary.NativeEndian.PutUint64(b, uint64(v))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(v))
	}
}

// header is the address of the mmsghdr of the i-th frame in the batch.
func (b *batch) header(i int) uintptr { return b.base + uintptr(b.hdr+i*mmsghdrLen) }

// fill puts the next frames into the batch and returns how many.
func (b *batch) fill() int {
	n := b.size
	if b.cfg.Count != 0 {
		n = min(n, b.cfg.Count-b.next)
	}
	// A lone frame stays where it is from the first round on.
	same := len(b.cfg.Frames) == 1 && b.next >= b.size
	for i := range n {
		frame := b.mem[i*b.slot : (i+1)*b.slot]
		if !same {
			f := b.cfg.Frames[b.next%len(b.cfg.Frames)]
			copy(frame, f)
			putWord(b.mem[b.iov+i*iovLen+word:], uintptr(len(f)))
		}
		if b.stamp {
			binary.BigEndian.PutUint32(frame[b.cfg.Stamp:], uint32(b.next))
		}
		b.next++
	}
	return n
}

func (b *batch) free() {
	if err := unix.Munmap(b.mem); err == nil {
		b.mem = nil
	}
}
