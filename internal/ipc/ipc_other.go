// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package ipc

import (
	"context"
	"errors"
	"fmt"
)

// Server is of Linux only, and so are all its methods.
type Server struct{}

// Peer is of Linux only.
type Peer struct{}

// Client is of Linux only.
type Client struct{}

var errLinux = fmt.Errorf("ipc: Linux only: %w", errors.ErrUnsupported)

// Listen is of Linux only.
func Listen(ServerConfig) (*Server, error) { return nil, errLinux }

// Dial is of Linux only.
func Dial(context.Context, ClientConfig) (*Client, error) { return nil, errLinux }

// Path is of Linux only.
func (*Server) Path() string { return "" }

// Close is of Linux only.
func (*Server) Close() error { return errLinux }

// ID is of Linux only.
func (*Peer) ID() int { return 0 }

// PID is of Linux only.
func (*Peer) PID() int { return 0 }

// Name is of Linux only.
func (*Peer) Name() string { return "" }

func (*Peer) String() string { return "" }

// Left is of Linux only.
func (*Peer) Left() bool { return false }

// Call is of Linux only.
func (*Peer) Call(context.Context, string, any, any) error { return errLinux }

// ID is of Linux only.
func (*Client) ID() int { return 0 }

// PrimaryPID is of Linux only.
func (*Client) PrimaryPID() int { return 0 }

// Call is of Linux only.
func (*Client) Call(context.Context, string, any, any) ([]int, error) { return nil, errLinux }

// Done is of Linux only.
func (*Client) Done() <-chan struct{} { return nil }

// Err is of Linux only.
func (*Client) Err() error { return errLinux }

// Close is of Linux only.
func (*Client) Close() error { return errLinux }

// CloseAll is of Linux only.
func CloseAll([]int) {}
