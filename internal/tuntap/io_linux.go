// SPDX-License-Identifier: BSD-3-Clause

package tuntap

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The four calls below are the syscall engine's data path: one frame each, with its virtio header in
// front. They neither allocate nor tell the scheduler, so the descriptor must be non-blocking, and
// addresses are numbers: the memory must lie outside the Go heap or be pinned, and stay until the call
// returns. Any goroutine may call them at any time.
//
// The errno is 0 for success; otherwise the count is -1. EAGAIN: nothing to read. EBADFD: the interface
// was deleted. EIO: written while the interface is down. EINVAL: written frame shorter than its
// headers. A frame that is larger than the buffers read into is cut off, and the count is what fitted.

// Read reads one frame into n bytes at addr and returns its length, header included.
func Read(fd int, addr, n uintptr) (int, syscall.Errno) {
	return io(unix.SYS_READ, fd, addr, n)
}

// Write writes one frame of n bytes at addr.
func Write(fd int, addr, n uintptr) (int, syscall.Errno) {
	return io(unix.SYS_WRITE, fd, addr, n)
}

// Readv reads one frame into the cnt buffers of the struct iovec array at iov.
func Readv(fd int, iov, cnt uintptr) (int, syscall.Errno) {
	return io(unix.SYS_READV, fd, iov, cnt)
}

// Writev writes one frame gathered from the cnt buffers of the struct iovec array at iov.
func Writev(fd int, iov, cnt uintptr) (int, syscall.Errno) {
	return io(unix.SYS_WRITEV, fd, iov, cnt)
}

func io(trap uintptr, fd int, a, b uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(trap, uintptr(fd), a, b, 0, 0, 0) // which RawSyscall would call
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// Readable reports whether a frame waits in fd. It never waits, and tells the scheduler nothing.
func Readable(fd int) bool {
	p, now := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}, unix.Timespec{}
	n, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return errno == 0 && n == 1 && p.Revents&unix.POLLIN != 0
}
