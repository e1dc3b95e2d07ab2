// SPDX-License-Identifier: BSD-3-Clause

// Package packetio opens a TAP or TUN interface and reads and writes its packets as byte slices, for programs that
// have an io.ReadWriteCloser today: songgao/water, or an os.File of /dev/net/tun. docs/migration.md shows the changes.
//
//	conn, err := packetio.Open(rtap.Config{Name: "tun0", Mode: rtap.ModeTUN})
//	if err != nil {
//		return err
//	}
//	defer conn.Close()
//	bufs := packetio.Buffers(64, 2048)
//	for {
//		n, err := conn.ReadPackets(bufs) // one packet or more, many in one system call
//		if err != nil {
//			return err
//		}
//		if _, err := conn.WritePackets(answer(bufs[:n])); err != nil {
//			return err
//		}
//	}
//
// Packets are copied, once each way, so the program's memory is its own. What this costs beside package rtap's bursts is
// the copy: programs that forward packets of some KB, or want checksum and segmentation offloads, which plain
// bytes cannot express, use those.
//
// # Concurrency
//
// One goroutine may read while another writes; more of either kind wait for their turn. Close may be called by any, at any
// time: it ends a read that waits. Waiting holds no thread, and while nothing arrives nothing runs.
//
// # Errors
//
// They are of type *os.PathError, with the operation and the interface's name. errors.Is tells them apart:
// os.ErrClosed after Close; [rtap.ErrGone] when the interface was deleted (ip link del); [rtap.ErrStopped]
// while the device is stopped; io.ErrShortBuffer, see [Conn.ReadPackets]; EMSGSIZE for a packet that is longer than any
// can be; ENOBUFS when the kernel has no memory for a packet. After the last three the Conn goes on working.
//
// A packet that the kernel refuses is not an error, but counted: [rtap.Stats].OErrors. It does so while the link is
// down, with less than an Ethernet header from a TAP's program, and with what is neither IPv4 nor IPv6 from a TUN's.
//
// Sources: Documentation/networking/tuntap.rst of Linux. Needs Linux 6.1, as package rtap does.
package packetio
