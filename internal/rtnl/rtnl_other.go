// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package rtnl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

var errLinuxOnly = &Error{Op: "connect", Err: fmt.Errorf("Linux only: %w", errors.ErrUnsupported)}

// Conn is a connection to rtnetlink. There is none on this system: every method returns an error that
// wraps [errors.ErrUnsupported].
type Conn struct{}

// Dial returns an error that wraps [errors.ErrUnsupported].
func Dial(nsfd int) (*Conn, error) { return nil, errLinuxOnly }

// Close does nothing.
func (*Conn) Close() error { return nil }

// Link is not supported.
func (*Conn) Link(index int) (Link, error) { return Link{}, errLinuxOnly }

// LinkByName is not supported.
func (*Conn) LinkByName(name string) (Link, error) { return Link{}, errLinuxOnly }

// Links is not supported.
func (*Conn) Links() ([]Link, error) { return nil, errLinuxOnly }

// SetUp is not supported.
func (*Conn) SetUp(index int) error { return errLinuxOnly }

// SetDown is not supported.
func (*Conn) SetDown(index int) error { return errLinuxOnly }

// SetPromisc is not supported.
func (*Conn) SetPromisc(index int, on bool) error { return errLinuxOnly }

// SetAllMulticast is not supported.
func (*Conn) SetAllMulticast(index int, on bool) error { return errLinuxOnly }

// SetMTU is not supported.
func (*Conn) SetMTU(index, mtu int) error { return errLinuxOnly }

// SetMAC is not supported.
func (*Conn) SetMAC(index int, mac net.HardwareAddr) error { return errLinuxOnly }

// SetTxQueueLen is not supported.
func (*Conn) SetTxQueueLen(index, packets int) error { return errLinuxOnly }

// SetGSOMaxSize is not supported.
func (*Conn) SetGSOMaxSize(index, bytes int) error { return errLinuxOnly }

// SetName is not supported.
func (*Conn) SetName(index int, name string) error { return errLinuxOnly }

// SetNetNS is not supported.
func (*Conn) SetNetNS(index, nsfd int) error { return errLinuxOnly }

// Delete is not supported.
func (*Conn) Delete(index int) error { return errLinuxOnly }

// AddAddr is not supported.
func (*Conn) AddAddr(index int, p netip.Prefix) error { return errLinuxOnly }

// AddNeigh is not supported.
func (*Conn) AddNeigh(index int, ip netip.Addr, mac net.HardwareAddr) error { return errLinuxOnly }

// Watcher hears what happens to an interface. There is none on this system: every method returns an error
// that wraps [errors.ErrUnsupported].
type Watcher struct{}

// Watch returns an error that wraps [errors.ErrUnsupported].
func Watch(nsfd int) (*Watcher, error) { return nil, errLinuxOnly }

// Close does nothing.
func (*Watcher) Close() error { return nil }

// Follow is not supported.
func (*Watcher) Follow(nsfd int, name string) (Message, error) { return Message{}, errLinuxOnly }

// Ask is not supported.
func (*Watcher) Ask() (uint32, error) { return 0, errLinuxOnly }

// Next is not supported.
func (*Watcher) Next() (Message, error) { return Message{}, errLinuxOnly }

// SetBuffer is not supported.
func (*Watcher) SetBuffer(bytes int) error { return errLinuxOnly }
