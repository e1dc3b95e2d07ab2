// SPDX-License-Identifier: BSD-3-Clause

package pktio

import (
	"syscall"

	"github.com/rtap-project/rtap/internal/tuntap"
)

// syscallEngine moves one packet per system call.
type syscallEngine struct{}

func newSyscallEngine() Engine { return syscallEngine{} }

func (syscallEngine) Name() string { return Syscall }

func (syscallEngine) Notes() string { return "one read or write call per packet" }

func (syscallEngine) Close() error { return nil }

func (syscallEngine) NewReader(fd, _ int, _ []Region, c *Counts) (Reader, error) {
	return syscallIO{fd, c}, nil
}

func (syscallEngine) NewWriter(fd, _ int, _ []Region, c *Counts) (Writer, error) {
	return syscallIO{fd, c}, nil
}

// syscallIO is the Reader and the Writer of one non-blocking descriptor.
type syscallIO struct {
	fd     int
	counts *Counts
}

func (syscallIO) Close() error { return nil }

// Read stops at the first descriptor that finds the queue empty.
func (s syscallIO) Read(descs []Desc, done []Completion) int {
	for i := range descs {
		n, errno := s.read(&descs[i])
		if errno == syscall.EAGAIN {
			s.counts.Syscalls += uint64(i) + 1
			s.counts.Empty++
			return i
		}
		done[i] = completion(i, n, errno)
	}
	s.counts.Syscalls += uint64(len(descs))
	return len(descs)
}

func (s syscallIO) read(d *Desc) (int, syscall.Errno) {
	if d.NIov != 0 {
		return tuntap.Readv(s.fd, d.Addr, uintptr(d.NIov))
	}
	return tuntap.Read(s.fd, d.Addr, uintptr(d.Len))
}

func (s syscallIO) Write(descs []Desc, failed []Completion) (taken, refused int) {
	for i := range descs {
		if n, errno := s.write(&descs[i]); errno != 0 {
			failed[refused] = completion(i, n, errno)
			refused++
		}
	}
	s.counts.Syscalls += uint64(len(descs))
	return len(descs), refused
}

func (s syscallIO) write(d *Desc) (int, syscall.Errno) {
	if d.NIov != 0 {
		return tuntap.Writev(s.fd, d.Addr, uintptr(d.NIov))
	}
	return tuntap.Write(s.fd, d.Addr, uintptr(d.Len))
}

func completion(i, n int, errno syscall.Errno) Completion {
	if errno != 0 {
		return Completion{uint32(i), -int32(errno)}
	}
	return Completion{uint32(i), int32(n)}
}
