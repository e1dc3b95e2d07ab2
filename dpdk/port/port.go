// SPDX-License-Identifier: BSD-3-Clause

// Package port is a port of the DPDK plugin: what ethdev's callbacks do, in terms of package rtap. It knows
// nothing of cgo: package plugin hands in plain numbers and memory, tests do the same.
package port

import (
	"syscall"
	"unsafe"
)

// Ports are the plugin's ports in this process.
type Ports struct {
	host  Host
	table table
}

// New makes room for ports with the numbers 0 to max-1.
func New(host Host, lcores, max int, version string) *Ports {
	return &Ports{host: host, table: make(table, max)}
}

// Probe opens a port. args are devargs without the name. A secondary's port gets its queues by OpJoin.
func (p *Ports) Probe(port uint16, name, args string, secondary bool) int32 {
	return -int32(syscall.ENOTSUP)
}

// Remove closes a port, if it is not closed yet.
func (p *Ports) Remove(port uint16) int32 { return -int32(syscall.ENOTSUP) }

// Call does what an ethdev callback asks for. arg points to the struct that belongs to op and what follows
// it, len bytes in all. It returns 0, or what op says, or -errno.
func (p *Ports) Call(op Op, port uint16, arg unsafe.Pointer, len uint32) int32 {
	return -int32(syscall.ENOTSUP)
}
