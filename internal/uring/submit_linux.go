// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Size is the number of submission entries, a power of two.
func (r *Ring) Size() int { return int(r.sqSize) }

// SQE is the next free submission entry, or nil when the ring is full. The
// caller fills it before the next Enter.
func (r *Ring) SQE() *SQE {
	// Acquire: pairs with the kernel's release of sq.head after it has read
	// the entries (io_commit_sqring).
	if r.sqTail-atomic.LoadUint32(r.kSQHead) >= r.sqSize {
		return nil
	}
	s := r.sqe(r.sqTail)
	r.sqTail++
	return s
}

func (r *Ring) sqe(index uint32) *SQE {
	return (*SQE)(unsafe.Add(r.sqes, uintptr(index&r.sqMask)*sqeSize))
}

// Reserve is SQE for a batch: the next n entries, n at most Free(), are to be
// had with At(0) … At(n-1) after it and are published by Enter.
func (r *Ring) Reserve(n int) Batch {
	b := Batch{r.sqes, r.sqTail, r.sqMask}
	r.sqTail += uint32(n)
	return b
}

// Batch is a run of submission entries.
type Batch struct {
	sqes       unsafe.Pointer
	tail, mask uint32
}

// At is the batch's i-th entry.
func (b Batch) At(i int) *SQE {
	return (*SQE)(unsafe.Add(b.sqes, uintptr((b.tail+uint32(i))&b.mask)*sqeSize))
}

// Free is how many submission entries SQE and Reserve can give now.
func (r *Ring) Free() int {
	return int(r.sqSize - (r.sqTail - atomic.LoadUint32(r.kSQHead))) // acquire, as in SQE
}

// Enter publishes the filled entries and submits them. It returns how many the
// kernel took; requests that need not wait for anything have completed then.
// With an error or a short count, what it did not take is withdrawn: Enter never
// leaves entries behind for a later call. It does not wait, so it does not tell
// Go's scheduler that it is in a system call.
func (r *Ring) Enter() (int, syscall.Errno) {
	head := atomic.LoadUint32(r.kSQHead)
	n := r.sqTail - head
	// Release: the kernel's acquire is in io_sqring_entries.
	atomic.StoreUint32(r.kSQTail, r.sqTail)
	done, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, r.enterFD, uintptr(n), 0, r.enterFlag, 0, 0)
	if errno == 0 && done == uintptr(n) {
		return int(n), 0
	}
	r.withdraw()
	return int(r.sqTail - head), errno
}

// withdraw takes back the entries that the kernel has not taken. It reads the
// tail inside Enter only (there is no SQPOLL thread).
func (r *Ring) withdraw() {
	r.sqTail = atomic.LoadUint32(r.kSQHead)
	atomic.StoreUint32(r.kSQTail, r.sqTail)
}

// Wait waits until n completions, at most as many as the completion ring has
// room for, are there to be read, or the timeout, which it reports as ETIME. It
// submits nothing, lets the kernel deliver completions that found the ring full,
// and runs what waits for this thread to complete.
func (r *Ring) Wait(n int, timeout time.Duration) syscall.Errno {
	r.waitTime = [2]int64{int64(timeout / time.Second), int64(timeout % time.Second)}
	r.waitArg = waitArg{timespec: uint64(uintptr(unsafe.Pointer(&r.waitTime)))}
	for {
		_, _, errno := syscall.Syscall6(unix.SYS_IO_URING_ENTER, r.enterFD, 0, uintptr(n),
			r.enterFlag|enterGetEvents|enterExtArg, uintptr(unsafe.Pointer(&r.waitArg)), unsafe.Sizeof(r.waitArg))
		if errno != syscall.EINTR {
			return errno
		}
	}
}

// Ready is how many completions can be read with Completion.
func (r *Ring) Ready() int {
	// Acquire: pairs with the kernel's release in io_commit_cqring.
	return int(atomic.LoadUint32(r.kCQTail) - r.cqHead)
}

// Completion is the i-th completion that was not yet released, i below Ready.
// It is valid until Release.
func (r *Ring) Completion(i int) *CQE {
	return (*CQE)(unsafe.Add(r.cqes, uintptr((r.cqHead+uint32(i))&r.cqMask)*cqeSize))
}

// Release gives the oldest n completions back to the kernel.
func (r *Ring) Release(n int) {
	r.cqHead += uint32(n)
	// Release: pairs with the kernel's acquire when it looks for room.
	atomic.StoreUint32(r.kCQHead, r.cqHead)
}

// Overflows is how many completions the kernel has lost for want of memory. One
// that finds the ring full is not lost: the kernel keeps it (IORING_FEAT_NODROP)
// and delivers it with a later Wait.
func (r *Ring) Overflows() uint32 { return atomic.LoadUint32(r.kOverflow) }
