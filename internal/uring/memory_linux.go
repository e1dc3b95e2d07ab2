// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Vectors is an array of Iovecs outside the Go heap, where the kernel may read
// it, followed by a scratch area of bytes.
type Vectors struct {
	Iov     []Iovec
	Scratch []byte
	mem     []byte
}

// NewVectors maps n Iovecs and scratch bytes, all zero.
func NewVectors(n, scratch int) (*Vectors, error) {
	mem, err := unix.Mmap(-1, 0, n*iovecSize+scratch, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("uring: map %d bytes for %d iovecs: %w", n*iovecSize+scratch, n, err)
	}
	return &Vectors{
		Iov:     unsafe.Slice((*Iovec)(unsafe.Pointer(&mem[0])), n),
		Scratch: mem[n*iovecSize:],
		mem:     mem,
	}, nil
}

// Addr is the address of Iov[i].
func (v *Vectors) Addr(i int) uintptr { return uintptr(unsafe.Pointer(&v.Iov[i])) }

// ScratchAddr is the address of Scratch[i].
func (v *Vectors) ScratchAddr(i int) uintptr { return uintptr(unsafe.Pointer(&v.Scratch[i])) }

// Close unmaps the array. A second Close does nothing.
func (v *Vectors) Close() error {
	if v.mem == nil {
		return nil
	}
	mem := v.mem
	v.Iov, v.Scratch, v.mem = nil, nil, nil
	return unix.Munmap(mem)
}
