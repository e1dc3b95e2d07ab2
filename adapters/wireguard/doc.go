// SPDX-License-Identifier: BSD-3-Clause

// Package wireguard gives wireguard-go an rtap port for its TUN interface: a tun.Device of
// golang.zx2c4.com/wireguard/tun that takes and hands over packets in batches.
//
//	dev, err := wireguard.CreateTUN("wg0", device.DefaultMTU) // was: tun.CreateTUN
//	wg := device.NewDevice(dev, conn.NewDefaultBind(), logger)
//
// wireguard-go's own device reads one packet in a system call, or one large one that the kernel's TCP or a program
// with UDP_SEGMENT has made. This one reads as many as there are, so that plain UDP and what is encapsulated in it, such
// as VXLAN, goes through wireguard-go in batches too: one message to each worker, one system call to send, and
// one frame of the kernel's UDP segmentation for many packets.
//
// # Start reading here
//
// device.go has the life of a device, read.go and write.go what a packet goes through, events.go what happens to the
// interface.
//
// # What is different from wireguard-go's own device
//
//   - [Device.File] is for ioctl(2): packets do not come through it. There is no tun.CreateTUNFromFile nor
//     tun.CreateUnmonitoredTUNFromFD here, as a port is more than a descriptor that somebody has attached: an interface
//     is handed on by its name, see [Device.File].
//   - [Device.Events] begins with what happens first: there is no tun.EventDown of an interface that is made
//     down, and tun.EventMTUUpdate comes with changes of the MTU alone.
//   - [Device.Write] does not fail when the interface is down. Such packets count in the port's oerrors.
//   - [Device.Name] follows a rename.
//   - [Device.Read] never returns tun.ErrTooManySegments: what does not fit comes with the next call.
//
// # Requirements
//
// Linux 6.1 or newer, CAP_NET_ADMIN. Elsewhere the package builds, and New returns an error. With io_uring forbidden
// it works too, slower (see rtap.Engine).
package wireguard
