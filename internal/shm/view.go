// SPDX-License-Identifier: BSD-3-Clause

package shm

import (
	"fmt"
	"unsafe"
)

// View is the memory as a T, which must hold no pointers, and which others may change at any time: atomics, mostly. It
// is valid until Close.
func View[T any](m *Memory) (*T, error) {
	if have, want := len(m.Bytes()), SizeOf[T](); have < want {
		return nil, fmt.Errorf("%d bytes of shared memory: want %d", have, want)
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(m.Bytes()))), nil
}

// SizeOf is the size of a T in bytes.
func SizeOf[T any]() int {
	var t *T
	return int(unsafe.Sizeof(*t))
}
