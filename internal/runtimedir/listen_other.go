// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package runtimedir

import (
	"errors"
	"fmt"
	"net"
)

// Listener is of Linux only.
type Listener struct{}

// Listen is of Linux only.
func Listen(base, prefix, name string) (*Listener, error) {
	return nil, fmt.Errorf("socket %s: Linux only: %w", name, errors.ErrUnsupported)
}

// Accept is of Linux only.
func (*Listener) Accept() (*net.UnixConn, error) { return nil, net.ErrClosed }

// Path is of Linux only.
func (*Listener) Path() string { return "" }

// Close is of Linux only.
func (*Listener) Close() error { return nil }

// PeerPID is of Linux only.
func PeerPID(*net.UnixConn) (int, error) { return 0, errors.ErrUnsupported }

// CheckPeer is of Linux only.
func CheckPeer(*net.UnixConn) error { return errors.ErrUnsupported }

// MessageLimit is of Linux only.
func MessageLimit(_ *net.UnixConn, limit int) int { return limit }
