// SPDX-License-Identifier: BSD-3-Clause

// Package rtnl reads and sets network interfaces over rtnetlink(7), by interface index, so that a
// rename changes nothing. A [Conn] speaks to one network namespace, wherever its user runs.
//
// Every error is an [*Error] that names the operation and the interface, carries the kernel's own
// explanation where there is one (since Linux 4.12), and wraps the errno for errors.Is.
package rtnl

import (
	"fmt"
	"net"
	"syscall"
)

// ErrNotFound is in the chain of the error when there is no such interface (any more): ENODEV.
var ErrNotFound error = syscall.ENODEV

// Error is what the methods of [Conn] return.
type Error struct {
	Op    string // "get link", "set MTU", ...
	Index int    // the interface, or 0
	Name  string // the interface, when it was asked for by name
	Err   error  // wraps the errno
}

// Error gives "rtnl: set MTU of interface 7: invalid argument: mtu less than device minimum".
func (e *Error) Error() string {
	switch {
	case e.Name != "":
		return fmt.Sprintf("rtnl: %s %q: %v", e.Op, e.Name, e.Err)
	case e.Index != 0:
		return fmt.Sprintf("rtnl: %s of interface %d: %v", e.Op, e.Index, e.Err)
	}
	return fmt.Sprintf("rtnl: %s: %v", e.Op, e.Err)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Link is an interface as the kernel described it at one moment.
type Link struct {
	Index int
	Name  string
	Kind  string // "tun" for TAP and TUN, "veth", ..., "" for hardware and loopback
	MAC   net.HardwareAddr
	// MTU is the largest packet in bytes, without the Ethernet header. MinMTU and MaxMTU bound what
	// SetMTU accepts; MaxMTU is 0 where there is no bound.
	MTU, MinMTU, MaxMTU int
	TxQueueLen          int // in packets; for a TAP, the depth of each queue's ring
	// GSOMaxSize bounds, in bytes, the large packets that the kernel makes for the interface to cut up;
	// TSOMaxSize is what SetGSOMaxSize accepts at most (since Linux 5.19). GSOIPv4MaxSize is the bound
	// for IPv4, since Linux 6.3; before, GSOMaxSize is. 0 where the kernel does not say.
	GSOMaxSize, GSOIPv4MaxSize, TSOMaxSize int

	Up         bool // administratively up (IFF_UP)
	Carrier    bool // the cable is plugged in, whether the interface is up or not
	OperUp     bool // up and with carrier (IFF_RUNNING); follows them with some delay
	Promisc    bool // set by SetPromisc; a capture's own promiscuity does not show here
	AllMulti   bool // set by SetAllMulticast
	Persistent bool // a TAP or TUN that outlives its descriptors (IFLA_TUN_PERSIST)
	TunQueues  int  // descriptors that a multi-queue TAP or TUN has, disabled ones included

	Stats Stats
}

// Stats are the interface's counters since it was created, seen from the kernel: Tx is what the kernel
// sent into the interface, which for a TAP is what its program receives (struct rtnl_link_stats64).
type Stats struct {
	RxPackets, TxPackets uint64
	RxBytes, TxBytes     uint64
	RxErrors, TxErrors   uint64
	RxDropped, TxDropped uint64
}

// Message is what a [Watcher] has to say.
type Message struct {
	Link Link // the interface's state at that moment, all of it
	// Gone means that the interface is no longer where it was: it was deleted or moved, or its namespace is
	// being destroyed. Link is empty.
	Gone bool
	// Resync means that the kernel dropped messages, at this one or up to a few before it.
	Resync bool
	// Answer is the number of the question that this answers ([Watcher.Ask]), or 0.
	Answer uint32
}
