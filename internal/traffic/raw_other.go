// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

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

// NewQueuedInjector is not supported.
func NewQueuedInjector(ns *netns.NS, ifindex int) (*Injector, error) { return nil, errLinuxOnly }

// NewInjector returns an error that wraps [errors.ErrUnsupported].
func NewInjector(ns *netns.NS, ifindex int) (*Injector, error) { return nil, errLinuxOnly }

// NewOffloadInjector returns an error that wraps [errors.ErrUnsupported].
func NewOffloadInjector(ns *netns.NS, ifindex int) (*Injector, error) { return nil, errLinuxOnly }

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

func (cfg *TCPConfig) prepare(_, _ string, _ syscall.RawConn) error {
	if cfg.Congestion != "" || cfg.MSS != 0 || cfg.PacingBytes != 0 {
		return errLinuxOnly
	}
	return nil
}

func senderInfo(*net.TCPConn) (TCPInfo, error) { return TCPInfo{}, errLinuxOnly }

func (cfg *UDPConfig) prepareClient(_, _ string, _ syscall.RawConn) error {
	if cfg.Segments != 1 {
		return errLinuxOnly
	}
	return nil
}

func (cfg *UDPConfig) prepareServer(_, _ string, _ syscall.RawConn) error {
	if cfg.GRO {
		return errLinuxOnly
	}
	return nil
}

func mergedSize([]byte) int { return 0 }

// AddVLAN is not supported.
func AddVLAN(ns *netns.NS, below int, name string, tag VLANTag) (index int, err error) {
	return 0, errLinuxOnly
}

// PushVLAN is not supported.
func PushVLAN(ns *netns.NS, index int, tags ...VLANTag) error { return errLinuxOnly }

// Redirect is not supported.
func Redirect(ns *netns.NS, from, to int) error { return errLinuxOnly }

// AddVXLAN is not supported.
func AddVXLAN(ns *netns.NS, below int, name string, vni, port int, local, remote netip.Addr, checksum bool) (index int, err error) {
	return 0, errLinuxOnly
}

// AddVXLANGPE is not supported.
func AddVXLANGPE(ns *netns.NS, name string, port int) (index int, err error) {
	return 0, errLinuxOnly
}

// SetTunnelRoute is not supported.
func SetTunnelRoute(ns *netns.NS, dst netip.Prefix, index, vni int, remote netip.Addr, checksum bool) error {
	return errLinuxOnly
}

// AddVeth is not supported.
func AddVeth(a *netns.NS, nameA string, b *netns.NS, nameB string) (indexA, indexB int, err error) {
	return 0, 0, errLinuxOnly
}

// RouteMTU is not supported.
func RouteMTU(ns *netns.NS, dst netip.Addr) (int, error) { return 0, errLinuxOnly }

// SetRoute is not supported.
func SetRoute(ns *netns.NS, dst netip.Prefix, via netip.Addr, index, mtu int) error {
	return errLinuxOnly
}

// Features are the offloads of an interface that are on.
type Features map[string]bool

// ReadFeatures is not supported.
func ReadFeatures(ns *netns.NS, index int) (Features, error) { return nil, errLinuxOnly }

// SetFeatures is not supported.
func SetFeatures(ns *netns.NS, index int, want Features) error { return errLinuxOnly }
