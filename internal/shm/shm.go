// SPDX-License-Identifier: BSD-3-Clause

// Package shm makes memory files that several processes map, at the same address where they hold pointers.
//
// A file can be neither shrunk nor grown, and all its pages are there from the start: no process can make
// another one fault. Linux only; elsewhere everything fails with errors.ErrUnsupported.
package shm

import (
	"errors"
	"unsafe"
)

var (
	// ErrTaken: the address range is in use in this process.
	ErrTaken = errors.New("address range is taken")
	// ErrUnsealed: the descriptor is not that of a memory file whose size is fixed.
	ErrUnsealed = errors.New("not a sealed memory file")
)

// Memory is a mapped memory file. It lives until Close; its methods but Close may be called at any time by
// anyone.
type Memory struct {
	mem []byte
	fd  int
}

// Bytes returns the memory, nil once closed. Its length is that of the file: what was asked for, rounded up
// to pages.
func (m *Memory) Bytes() []byte { return m.mem }

// FD returns the descriptor, which stays the Memory's and is closed with it; -1 once closed.
func (m *Memory) FD() int { return m.fd }

// Addr returns where the memory is mapped, 0 once closed.
func (m *Memory) Addr() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(m.mem))) }

// Close unmaps the memory and closes the descriptor. Other processes keep theirs. Closing twice does nothing.
func (m *Memory) Close() error {
	mem, fd := m.mem, m.fd
	if mem == nil {
		return nil
	}
	m.mem, m.fd = nil, -1
	return unmap(mem, fd)
}
