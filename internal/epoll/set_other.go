// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package epoll

import (
	"context"
	"errors"
	"fmt"
)

var errLinuxOnly = fmt.Errorf("epoll: Linux only: %w", errors.ErrUnsupported)

// Set is not supported.
type Set struct{}

// New is not supported.
func New() (*Set, error) { return nil, errLinuxOnly }

// FD is not supported.
func (*Set) FD() int { return -1 }

// Add is not supported.
func (*Set) Add(int) error { return errLinuxOnly }

// Ring is not supported.
func (*Set) Ring(bool) error { return errLinuxOnly }

// Delete is not supported.
func (*Set) Delete(int) error { return errLinuxOnly }

// Wait is not supported.
func (*Set) Wait(context.Context, func() error) error { return errLinuxOnly }

// Wake is not supported.
func (*Set) Wake() {}

// Close is not supported.
func (*Set) Close() error { return nil }
