// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package tuntap

import (
	"errors"
	"syscall"
)

var errLinuxOnly = &Error{Op: "attach", Err: errors.ErrUnsupported, Hint: "Linux only"}

// Queue is one descriptor of a TAP interface. There are none on this system.
type Queue struct{}

// Attach returns an error that wraps [errors.ErrUnsupported].
func Attach(name string, o Options) (*Queue, error) { return nil, errLinuxOnly }

// FD returns -1.
func (*Queue) FD() int { return -1 }

// Close does nothing.
func (*Queue) Close() error { return nil }

// Name returns an error that wraps [errors.ErrUnsupported].
func (*Queue) Name() (string, error) { return "", errLinuxOnly }

// NetNS returns an error that wraps [errors.ErrUnsupported].
func (*Queue) NetNS() (int, error) { return -1, errLinuxOnly }

// IfIndex returns an error that wraps [errors.ErrUnsupported].
func (*Queue) IfIndex() (int, error) { return 0, errLinuxOnly }

// Disable returns an error that wraps [errors.ErrUnsupported].
func (*Queue) Disable() error { return errLinuxOnly }

// Enable returns an error that wraps [errors.ErrUnsupported].
func (*Queue) Enable() error { return errLinuxOnly }

// SetPersist returns an error that wraps [errors.ErrUnsupported].
func (*Queue) SetPersist(on bool) error { return errLinuxOnly }

// SetCarrier returns an error that wraps [errors.ErrUnsupported].
func (*Queue) SetCarrier(on bool) error { return errLinuxOnly }

// SetOffload returns an error that wraps [errors.ErrUnsupported].
func (*Queue) SetOffload(offloads uint32) error { return errLinuxOnly }

// SetVnetHdrSize returns an error that wraps [errors.ErrUnsupported].
func (*Queue) SetVnetHdrSize(size int) error { return errLinuxOnly }

// FromFD returns a Queue of which nothing works.
func FromFD(fd int) *Queue { return &Queue{} }

// Features returns an error that wraps [errors.ErrUnsupported].
func (*Queue) Features() (uint32, error) { return 0, errLinuxOnly }

// Read fails with ENOSYS.
func Read(fd int, addr, n uintptr) (int, syscall.Errno) { return 0, syscall.ENOSYS }

// Write fails with ENOSYS.
func Write(fd int, addr, n uintptr) (int, syscall.Errno) { return 0, syscall.ENOSYS }

// Readv fails with ENOSYS.
func Readv(fd int, iov, cnt uintptr) (int, syscall.Errno) { return 0, syscall.ENOSYS }

// Writev fails with ENOSYS.
func Writev(fd int, iov, cnt uintptr) (int, syscall.Errno) { return 0, syscall.ENOSYS }

// Readable is false.
func Readable(fd int) bool { return false }
