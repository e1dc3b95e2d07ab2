// SPDX-License-Identifier: BSD-3-Clause

// Package tuntap creates TAP and TUN interfaces and attaches queues to them through /dev/net/tun.
//
// A [Queue] is one descriptor: a plain int, non-blocking and close-on-exec, never an os.File, because
// the data path hands it to io_uring or to raw system calls. The interface belongs to the network
// namespace in which the descriptor was opened, that is, of the thread that called [Attach]; see
// package netns for how to be there.
//
// What the kernel does with such a descriptor, from uapi linux/if_tun.h and drivers/net/tun.c, and
// checked by this package's tests:
//
//   - The interface exists as long as one descriptor is attached to it or detached from its traffic
//     by [Queue.Disable], or for good once persistent. With no descriptor at all it has no carrier.
//   - A disabled queue reads EAGAIN, but still writes, and answers every request: it is enough to
//     follow the interface through renames and moves ([Queue.Name], [Queue.NetNS]).
//   - Once the interface is deleted, every descriptor answers EBADFD to everything but [Queue.Enable]
//     and [Queue.Disable] (EINVAL), [Queue.Features] and Close; poll(2) reports POLLERR.
//   - Offloads, header size and byte order belong to the interface, not to the queue, so Attach
//     leaves them alone when it adds a queue ([Options.IfIndex]). The carrier, too: Attach turns it
//     on for an interface that had no queue, and leaves it otherwise.
//   - The namespace of the descriptor's socket (SIOCGSKNS) is the one it was opened in, for ever.
//     Where the interface is now is TUNGETDEVNETNS, since Linux 5.7: [Queue.NetNS].
package tuntap

import (
	"errors"
	"strings"
)

const (
	// NameMax is the longest interface name in bytes: IFNAMSIZ less the terminating zero.
	NameMax = 15
	// QueuesMax is how many descriptors an interface takes, disabled ones included: MAX_TAP_QUEUES
	// in drivers/net/tun.c. One more is refused with E2BIG.
	QueuesMax = 256
	// VnetHdrSize is the size in bytes of the header in front of every frame: struct virtio_net_hdr.
	VnetHdrSize = 10
)

// Offloads for [Queue.SetOffload], the TUN_F_* of uapi linux/if_tun.h: what the program takes. What it may
// write does not depend on them. The segmentation offloads need
// OffloadCsum; the two USO only go together (since Linux 6.2). Those of UDP tunnels are there since 6.17.
const (
	OffloadCsum   uint32 = 0x01
	OffloadTSO4   uint32 = 0x02
	OffloadTSO6   uint32 = 0x04
	OffloadTSOECN uint32 = 0x08
	OffloadUSO4   uint32 = 0x20
	OffloadUSO6   uint32 = 0x40
	// OffloadUDPTunnelGSO is for VXLAN and the like, without an outer checksum. It goes with one of the
	// other segmentation offloads, and needs a header of 24 bytes: while it is on and the header is
	// shorter, every read fails with EFAULT, and the frame is lost.
	OffloadUDPTunnelGSO uint32 = 0x80
	// OffloadUDPTunnelGSOCsum is for tunnels with an outer checksum, with OffloadUDPTunnelGSO.
	OffloadUDPTunnelGSOCsum uint32 = 0x100
)

// ErrForeign is in the chain of Attach's error when an interface of that name exists and is not a
// multi-queue TAP, or TUN. The errno in the chain is EINVAL.
var ErrForeign = errors.New("an interface of that name exists and is not")

// Options says how Attach attaches. The zero value creates the interface, or attaches to the
// multi-queue TAP of that name.
type Options struct {
	// TUN is for an interface of IP packets without an Ethernet header, instead of a TAP.
	TUN bool
	// Exclusive refuses an interface that exists already, with EBUSY.
	Exclusive bool
	// IfIndex, if not 0, is the interface that name must mean: one more queue for an interface that
	// the caller has. Nothing is created, even if the name changes hands meanwhile: that is EBUSY.
	// The settings that belong to the interface (see the package comment) stay as they are.
	IfIndex int
}

// Error is what the functions of this package return.
type Error struct {
	Op   string // what was tried: "open", "attach", "set offload", ...
	Name string // the interface as the caller called it, or ""
	Err  error  // the errno, perhaps with a sentinel of this package
	Hint string // what would help, or ""
}

// Error gives "tuntap: attach tap0: operation not permitted (needs ...)".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("tuntap: " + e.Op)
	if e.Name != "" {
		b.WriteString(" " + e.Name)
	}
	b.WriteString(": " + e.Err.Error())
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Unwrap returns Err, so that errors.Is finds the errno.
func (e *Error) Unwrap() error { return e.Err }
