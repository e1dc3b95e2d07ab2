// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"fmt"
	"unsafe"
)

// Iovec is struct iovec of readv(2): one piece of a packet. Base must lie
// outside the Go heap, or be kept alive and unmoved by other means.
type Iovec struct {
	Base uintptr
	Len  uintptr
}

const (
	ptrSize   = 4 << (^uintptr(0) >> 63)
	iovecSize = 2 * ptrSize
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
	mem, err := mapMemory(n*iovecSize + scratch)
	if err != nil {
		return nil, fmt.Errorf("uring: map %d bytes for %d iovecs: %w", n*iovecSize+scratch, n, err)
	}
	return &Vectors{
		Iov:     unsafe.Slice((*Iovec)(unsafe.Pointer(unsafe.SliceData(mem))), n),
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
	return unmapMemory(mem)
}
