// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// closeTimeout bounds how long Close waits for cancelled requests, closeRound
// how long until it cancels again.
const (
	closeTimeout = 5 * time.Second
	closeRound   = 10 * time.Millisecond
)

// barrier is the UserData of the request that Close adds.
const barrier = ^uint64(1)

// Close cancels what is pending, waits until the kernel holds no buffer and no
// file of the ring any more, and frees it. Completions that were not read are
// lost. A second Close does nothing. An error means that a request could not be
// cancelled in time; the descriptor is closed all the same, but the memory stays
// mapped, because the kernel may still write to the buffers.
//
// A ring that has seen CQESkipSuccess cannot wait: the requests with that flag
// must be such as run inside Enter, and the others must have completed.
func (r *Ring) Close() error {
	if r.fd < 0 {
		return nil
	}
	err := r.quiesce()
	// Unregistering now, not when the kernel's worker gets to it: a registered
	// TAP descriptor would keep its interface alive until then.
	err = errors.Join(err, r.UnregisterFiles(), r.UnregisterBuffers())
	r.unregisterRingFD()
	err = errors.Join(err, os.NewSyscallError("close", unix.Close(r.fd)))
	r.fd = -1
	if err != nil {
		return fmt.Errorf("uring: close: %w", err)
	}
	for _, mem := range [][]byte{r.ringMem, r.sqeMem} {
		if mem != nil {
			err = errors.Join(err, os.NewSyscallError("munmap", unix.Munmap(mem)))
		}
	}
	r.ringMem, r.sqeMem = nil, nil
	return err
}

// quiesce cancels every pending request and waits for the last of them.
//
// Cancelling alone is not enough: a cancelled request completes in the thread
// that submitted it, whenever that comes by; and a request that was just woken is
// in no list where the kernel would look for it. So it ends with a request that
// the kernel starts only when all before it have completed (IOSQE_IO_DRAIN).
func (r *Ring) quiesce() error {
	if r.sqeMem == nil {
		return nil // New failed half-way
	}
	r.withdraw()
	r.Release(r.Ready())
	*r.SQE() = SQE{Opcode: opNop, Flags: ioDrain, UserData: barrier}
	if n, errno := r.Enter(); n != 1 {
		return fmt.Errorf("wait for cancelled requests: %w", errno)
	}
	for end := time.Now().Add(closeTimeout); !r.passed(); {
		if time.Now().After(end) {
			return fmt.Errorf("wait for cancelled requests: %w", syscall.ETIME)
		}
		// Again in each round: what was woken may have armed itself anew.
		if err := r.cancelAll(); err != nil {
			return err
		}
		if errno := r.Wait(1, closeRound); errno != 0 && errno != syscall.ETIME {
			return fmt.Errorf("wait for cancelled requests: %w", errno)
		}
	}
	return nil
}

// passed takes the completions that are there and reports whether the barrier's
// is among them. After CQESkipSuccess the kernel refuses it with EOPNOTSUPP,
// which will have to do.
func (r *Ring) passed() bool {
	for n := r.Ready(); n > 0; n-- {
		last := r.Completion(0).UserData
		r.Release(1)
		if last == barrier {
			return true
		}
	}
	return false
}

// cancelAll asks the kernel to cancel every request that waits for something.
func (r *Ring) cancelAll() error {
	arg := syncCancel{fd: -1, flags: cancelAll | cancelAny, timeoutSec: int64(closeTimeout / time.Second)}
	switch errno := r.register(registerSyncCancel, unsafe.Pointer(&arg), 1); errno {
	case 0, syscall.ENOENT: // ENOENT: nothing was pending
		return nil
	default:
		return fmt.Errorf("cancel: %w", errno)
	}
}
