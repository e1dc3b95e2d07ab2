// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package traffic

import (
	"context"
	"errors"
	"fmt"

	"github.com/rtap-project/rtap/internal/netns"
)

var errLinuxOnly = fmt.Errorf("traffic: Linux only: %w", errors.ErrUnsupported)

// FrameMax is the largest Ethernet frame in bytes, without checksum, that a TAP interface carries.
const FrameMax = 65535

// Capturer is not supported.
type Capturer struct{}

// NewCapturer returns an error that wraps [errors.ErrUnsupported].
func NewCapturer(ns *netns.NS, ifindex int) (*Capturer, error) { return nil, errLinuxOnly }

// Next is not supported.
func (*Capturer) Next(ctx context.Context, keep func(frame []byte) bool) ([]byte, error) {
	return nil, errLinuxOnly
}

// Dropped is not supported.
func (*Capturer) Dropped() (uint64, error) { return 0, errLinuxOnly }

// Close does nothing.
func (*Capturer) Close() error { return nil }

// Injector is not supported.
type Injector struct{}

// NewInjector returns an error that wraps [errors.ErrUnsupported].
func NewInjector(ns *netns.NS, ifindex int) (*Injector, error) { return nil, errLinuxOnly }

// Inject is not supported.
func (*Injector) Inject(frame []byte) error { return errLinuxOnly }

// Flood is not supported.
func (*Injector) Flood(ctx context.Context, cfg FloodConfig) (FloodResult, error) {
	return FloodResult{}, errLinuxOnly
}

// Close does nothing.
func (*Injector) Close() error { return nil }

// Ping is not supported.
func Ping(ctx context.Context, cfg PingConfig) (PingResult, error) {
	return PingResult{}, errLinuxOnly
}
