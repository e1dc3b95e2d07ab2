// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"fmt"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func (r *Ring) register(op uintptr, arg unsafe.Pointer, n int) syscall.Errno {
	_, errno := r.registerCount(op, arg, n)
	return errno
}

// registerCount is io_uring_register(2). Calls that wait, such as those that
// unregister while requests are in flight before Linux 6.13, are broken off by
// signals, among them the ones that Go's scheduler sends, and change nothing then.
func (r *Ring) registerCount(op uintptr, arg unsafe.Pointer, n int) (int, syscall.Errno) {
	for {
		done, _, errno := syscall.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), op, uintptr(arg), uintptr(n), 0, 0)
		if errno != syscall.EINTR {
			return int(done), errno
		}
	}
}

// RegisterFiles lets requests name fds by their index, with FixedFile, which
// spares the kernel a look-up with a reference count for each. The ring holds
// the files open until UnregisterFiles or Close. EBADF for what is no descriptor:
// the kernel would take -1 for an index to be filled later.
func (r *Ring) RegisterFiles(fds []int32) error {
	if i := slices.IndexFunc(fds, func(fd int32) bool { return fd < 0 }); i >= 0 {
		return fmt.Errorf("uring: register file %d: %w", fds[i], syscall.EBADF)
	}
	if errno := r.register(registerFiles, unsafe.Pointer(unsafe.SliceData(fds)), len(fds)); errno != 0 {
		return fmt.Errorf("uring: register %d files: %w", len(fds), errno)
	}
	r.files = len(fds)
	return nil
}

// UnregisterFiles undoes RegisterFiles. Requests in flight keep their files until
// they complete.
func (r *Ring) UnregisterFiles() error {
	if r.files == 0 {
		return nil
	}
	if errno := r.register(unregisterFiles, nil, 0); errno != 0 {
		return fmt.Errorf("uring: unregister files: %w", errno)
	}
	r.files = 0
	return nil
}

// MaxBufferSize is the most that one registered buffer can cover, 1 GB
// (io_uring/rsrc.c, io_buffer_validate).
const MaxBufferSize = 1 << 30

// RegisterBuffers pins bufs for PrepReadFixed and PrepWriteFixed, which then
// need not look up and pin their pages for each request. Pinned memory counts
// against RLIMIT_MEMLOCK, once for each ring, unless CAP_IPC_LOCK is held; the
// error is ENOMEM when that is too low.
func (r *Ring) RegisterBuffers(bufs []Iovec) error {
	if errno := r.register(registerBuffers, unsafe.Pointer(unsafe.SliceData(bufs)), len(bufs)); errno != 0 {
		return fmt.Errorf("uring: register %d buffers: %w", len(bufs), errno)
	}
	r.buffers = len(bufs)
	return nil
}

// CloneBuffers shares the buffers that src registered: nothing is pinned or
// charged again. Since Linux 6.12; EINVAL before.
func (r *Ring) CloneBuffers(src *Ring) error {
	arg := cloneBuffers{srcFD: uint32(src.fd)}
	if errno := r.register(registerCloneBuffers, unsafe.Pointer(&arg), 1); errno != 0 {
		return fmt.Errorf("uring: clone buffers: %w", errno)
	}
	r.buffers = src.buffers
	return nil
}

// UnregisterBuffers undoes RegisterBuffers or CloneBuffers.
func (r *Ring) UnregisterBuffers() error {
	if r.buffers == 0 {
		return nil
	}
	if errno := r.register(unregisterBuffers, nil, 0); errno != 0 {
		return fmt.Errorf("uring: unregister buffers: %w", errno)
	}
	r.buffers = 0
	return nil
}

// registerRingFD spares each Enter the look-up of the ring's descriptor. The
// registration belongs to the calling thread. Where it fails, the plain
// descriptor does.
func (r *Ring) registerRingFD() syscall.Errno {
	arg := ringUpdate{offset: ^uint32(0), data: uint64(r.fd)}
	n, errno := r.registerCount(registerRingFDs, unsafe.Pointer(&arg), 1)
	if errno == 0 && n == 1 {
		r.enterFD, r.enterFlag = uintptr(arg.offset), enterRegisteredRing
	}
	return errno
}

func (r *Ring) unregisterRingFD() {
	if r.enterFlag == 0 {
		return
	}
	arg := ringUpdate{offset: uint32(r.enterFD)}
	r.register(unregisterRingFDs, unsafe.Pointer(&arg), 1) // fails only on another thread, and ends with it
	r.enterFD, r.enterFlag = uintptr(r.fd), 0
}
