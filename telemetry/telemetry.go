// SPDX-License-Identifier: BSD-3-Clause

// Package telemetry shows ports over DPDK's telemetry protocol: what dpdk-telemetry.py, collectd and
// Telegraf read from a DPDK program, they read from one that calls [Serve]. [Dial] is a client of it.
//
// The protocol is that of the "v2" socket of DPDK 24.11 (lib/telemetry): a Unix socket of type
// SOCK_SEQPACKET in the process's runtime directory, one message a request, "/command,parameters", and one
// message of JSON a reply, {"/command": value}. What is unknown, or of a port that is not there, has the
// value null. "/" lists the commands, and "/help,/command" explains one.
//
// Nothing here is on the data path. A request reads what [rtap.Device] and [mbuf.Pool] say of themselves,
// one request at a time, so that all clients together never take more than one CPU.
package telemetry

import (
	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/runtimedir"
)

// DefaultFilePrefix tells the runtime directory of this program from those of others, unless it has one
// of its own.
const DefaultFilePrefix = "rtap"

// ErrInUse says that a process which runs serves the same file prefix.
var ErrInUse = runtimedir.ErrInUse

// Port is a port that is shown, under the number and name that the program gives it.
type Port struct {
	ID     int
	Name   string // "net_rtap0"
	Device *rtap.Device
}

// Hello is what the server says of itself when a client connects, and to /info.
type Hello struct {
	Version      string `json:"version"`        // "DPDK 24.11.0 / " and Config.Version
	PID          int    `json:"pid"`            // of the process
	MaxOutputLen int    `json:"max_output_len"` // of its replies, bytes
}

// PortInfo is a port as /rtap/info describes it.
type PortInfo struct {
	ID           int    `json:"port_id"`
	Name         string `json:"name"`     // as Port.Name; Info.Name is the interface
	MTU          int    `json:"mtu"`      // bytes; 0 once the interface is gone, as what follows
	MAC          string `json:"mac_addr"` // empty for a TUN, too
	Up           bool   `json:"up"`       // administratively
	Carrier      bool   `json:"carrier"`  // see rtap.Device.SetCarrier
	Running      bool   `json:"running"`  // both: packets flow
	Promiscuous  bool   `json:"promiscuous"`
	AllMulticast bool   `json:"all_multicast"`
	Error        string `json:"error,omitempty"` // why nothing is left but to close the port
	rtap.Info
}

// PortStats is a port's counters, and those of each of its queue pairs.
type PortStats struct {
	rtap.Stats
	Queues []rtap.QueueStats `json:"queues"`
}

// PortProcess is another process that is attached to the ports of this one's file prefix (see rtap.Attach), and which
// queue pairs of a port it has leased.
type PortProcess struct {
	rtap.Process
	Queues []int `json:"queues"`
}
