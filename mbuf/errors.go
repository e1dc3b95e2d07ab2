// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"errors"

	"github.com/rtap-project/rtap/internal/shm"
)

// Errors of this package. They are fixed values, so that returning one costs
// nothing; compare with errors.Is.
var (
	// ErrExhausted: the allocator had no more mbufs.
	ErrExhausted = errors.New("mbuf: no free mbufs")
	// ErrNoRoom: the data does not fit the buffer.
	ErrNoRoom = errors.New("mbuf: not enough room in the buffer")
	// ErrShared: the operation would write to, or re-attach, an mbuf whose
	// buffer others can see (indirect, external or referenced more than once).
	ErrShared = errors.New("mbuf: buffer is shared")
	// ErrTooManySegs: the chain would be longer than MaxSegs, or the packet
	// longer than PktLen can count.
	ErrTooManySegs = errors.New("mbuf: chain too long")
	// ErrTooManyRefs: the direct mbuf has as many references as can be counted.
	ErrTooManyRefs = errors.New("mbuf: too many references")
	// ErrExternal: the mbuf's data is in an external buffer, which this
	// package cannot share.
	ErrExternal = errors.New("mbuf: external buffer")
	// ErrInUse: the pool cannot be closed while its mbufs or caches are out.
	ErrInUse = errors.New("mbuf: in use")
	// ErrTaken: another process has that end of the ring, or that number.
	ErrTaken = errors.New("mbuf: taken")
	// ErrAddress: the addresses that a pool must be mapped at are in use in this process.
	ErrAddress = shm.ErrTaken
	// ErrLayout: what a descriptor gave is not what this build of the package makes.
	ErrLayout = errors.New("mbuf: memory of another kind")
	// ErrConfig: a field of Config has a value that cannot work.
	ErrConfig = errors.New("mbuf: bad configuration")
)
