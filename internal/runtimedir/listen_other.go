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
func Listen(base, prefix string) (*Listener, error) {
	return nil, fmt.Errorf("telemetry socket: Linux only: %w", errors.ErrUnsupported)
}

// Accept is of Linux only.
func (*Listener) Accept() (*net.UnixConn, error) { return nil, net.ErrClosed }

// Path is of Linux only.
func (*Listener) Path() string { return "" }

// Close is of Linux only.
func (*Listener) Close() error { return nil }

// MessageLimit is of Linux only.
func MessageLimit(_ *net.UnixConn, limit int) int { return limit }
