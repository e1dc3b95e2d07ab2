// SPDX-License-Identifier: BSD-3-Clause

// Package telemetry shows ports over DPDK's telemetry protocol.
package telemetry

import "github.com/rtap-project/rtap"

// Port is a port that is shown, under the number and name that the program gives it.
type Port struct {
	ID     int
	Name   string // "net_rtap0"
	Device *rtap.Device
}
