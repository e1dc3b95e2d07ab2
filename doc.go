// SPDX-License-Identifier: BSD-3-Clause

// Package rtap is a poll-mode driver for Linux TAP and TUN interfaces over io_uring.
//
// The kernel sees an ordinary network interface, on which ip, ethtool and
// tcpdump work; the program sees an ethdev: queues, bursts, mbufs, statistics.
//
//	dev, err := rtap.Start(rtap.Config{Name: "tap0"})
//	if err != nil {
//		return err
//	}
//	defer dev.Close()
//	rx, tx := dev.RxQueue(0), dev.TxQueue(0)
//	bufs := make([]*mbuf.Mbuf, 64)
//	for running() {
//		n := rx.Burst(bufs)          // these n packets are ours now
//		sent := tx.Burst(bufs[:n])   // the first sent are the driver's again
//		mbuf.FreeBulk(bufs[sent:n])
//	}
//
// A TUN ([Config].Mode is [ModeTUN]) is the same at layer 3: its packets begin with their IP header, so Mbuf's
// L2Len is 0, and there are no MAC addresses and no VLAN tags.
//
// # Life of a port
//
// [Open] creates the interface, or takes over a persistent one. [Device.Configure]
// sets how many queue pairs it has, [Device.SetupRxQueue] and
// [Device.SetupTxQueue] give each queue its memory, [Device.Start] lets packets
// flow, [Device.Stop] ends that, [Device.Close] removes everything. [Start] does
// the first four in one call. These are the rules of DPDK's ethdev: no
// configuration while started; Rx and Tx queue counts equal, because a queue
// pair is one descriptor.
//
// # Concurrency
//
// Device methods may be called by any goroutine at any time. A queue is for one
// goroutine at a time, any goroutine, any thread: a second one that calls Burst
// meanwhile gets 0. Stop and Close may be called while bursts run and wait for
// them; a Burst on a stopped queue returns 0.
//
// # Events
//
// [Device.Events], a channel, and [Device.OnEvent], a callback, tell what happens to
// the interface, whoever makes it happen: up and down, carrier, MTU, address, name,
// another namespace, deletion.
//
// # Sleeping
//
// [RxQueue.Wait] and [RxWaiter] park a goroutine until packets come; [RxWaiter.Idle] is for loops
// that poll while there is something to do. [RxQueue.InterruptFD] is for epoll(7).
//
// # Requirements
//
// Needs Linux 6.1 or newer and CAP_NET_ADMIN in the user namespace that owns the
// network namespace. On other systems the package builds, and Open returns an
// error.
package rtap
