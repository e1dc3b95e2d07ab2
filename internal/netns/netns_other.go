// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package netns

import (
	"errors"
	"fmt"
)

var errLinuxOnly = fmt.Errorf("netns: Linux only: %w", errors.ErrUnsupported)

// NS is one network namespace. There are none on this system.
type NS struct{}

// Current returns an error that wraps [errors.ErrUnsupported].
func Current() (*NS, error) { return nil, errLinuxOnly }

// Open returns an error that wraps [errors.ErrUnsupported].
func Open(path string) (*NS, error) { return nil, errLinuxOnly }

// FromFD returns an error that wraps [errors.ErrUnsupported], and leaves fd alone.
func FromFD(fd int) (*NS, error) { return nil, errLinuxOnly }

// New returns an error that wraps [errors.ErrUnsupported].
func New() (*NS, error) { return nil, errLinuxOnly }

// Do returns an error that wraps [errors.ErrUnsupported] without running f.
func (*NS) Do(f func() error) error { return errLinuxOnly }

// FD returns -1.
func (*NS) FD() int { return -1 }

// ID returns an error that wraps [errors.ErrUnsupported].
func (*NS) ID() (ID, error) { return ID{}, errLinuxOnly }

// Equal reports false.
func (*NS) Equal(other *NS) bool { return false }

// Close does nothing.
func (*NS) Close() error { return nil }
