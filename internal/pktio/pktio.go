// SPDX-License-Identifier: BSD-3-Clause

// Package pktio holds the driver's two engines, the ways of moving packets
// between a TAP descriptor and memory:
//
//   - uring: a batch of requests per io_uring_enter(2), registered files and
//     buffers, completed inline;
//   - syscall: one read(2) or write(2) per packet, for machines where io_uring
//     is forbidden.
//
// It knows memory and descriptors, not mbufs: what a packet is made of is the
// driver's business. Readers and writers allocate nothing, take no locks and
// return no error values; results are byte counts or errnos per packet.
package pktio

import (
	"errors"
	"fmt"
	"syscall"
)

// Desc says where one packet is read to or written from, virtio-net header
// included.
type Desc struct {
	Addr uintptr // of the bytes, or of NIov Iovecs when NIov is not 0
	Len  uint32  // bytes at Addr; unused when NIov is not 0
	NIov uint32
}

// Completion is the outcome of one Desc.
type Completion struct {
	Index uint32 // of the Desc in the slice that was passed
	Res   int32  // bytes moved, or minus an errno
}

// Errno is the completion's error, 0 if it succeeded.
func (c Completion) Errno() syscall.Errno {
	if c.Res >= 0 {
		return 0
	}
	return syscall.Errno(-c.Res)
}

// Region is memory that Descs will often point into. An engine may register it
// with the kernel, which makes packets there cheaper; others still work.
type Region struct{ Base, Size uintptr }

// Counts are what a reader or writer has cost so far. They are plain numbers: they
// belong to the goroutine that reads or writes, and between two calls it may clear
// them. It tells others.
type Counts struct {
	Enters   uint64 // io_uring_enter(2)
	Syscalls uint64 // read(2), readv(2), write(2) or writev(2)
	Empty    uint64 // reads that found nothing, in either way
	Full     uint64 // calls for which the ring was short of room, or of which the kernel took a part
}

// Reader receives packets from one descriptor. One goroutine at a time.
type Reader interface {
	// Read tries to read one packet into each Desc and reports, in the order
	// in which the packets came, those that got one or failed. Nothing to read
	// is not reported. done has room for len(descs). When Read returns, the
	// kernel holds none of the memory.
	Read(descs []Desc, done []Completion) int
	Close() error
}

// Writer sends packets to one descriptor. One goroutine at a time.
type Writer interface {
	// Write writes the packets in order. It returns how many the kernel took,
	// and how many of these it refused, which failed then lists in any order. When Write
	// returns, the kernel holds none of the memory. failed has room for
	// len(descs).
	Write(descs []Desc, failed []Completion) (taken, refused int)
	Close() error
}

// Engine makes readers and writers.
type Engine interface {
	Name() string
	// NewReader and NewWriter take up to depth packets per call from or to fd,
	// which stays the caller's, must outlive them and is non-blocking. They add to
	// counts what they cost.
	NewReader(fd, depth int, regions []Region, counts *Counts) (Reader, error)
	NewWriter(fd, depth int, regions []Region, counts *Counts) (Writer, error)
	// Notes says in a few words how the engine works here and what it had to
	// do without.
	Notes() string
	Close() error
}

// Names of the engines for Select.
const (
	Auto    = "auto"
	Uring   = "uring"
	Syscall = "syscall"

	// UringWaiting is Uring as it works before Linux 6.4, so that tests can have
	// it on any kernel. Its engine is called Uring.
	UringWaiting = "uring-waiting"
)

// MaxDepth is the most packets that one call can take.
const MaxDepth = 4096

// ErrUnknownEngine is wrapped by Select's error for a name that it does not know.
var ErrUnknownEngine = errors.New("unknown engine")

// Select opens the engine called name for TAP descriptors like fd, which must be
// attached; nothing is read from it and nothing reaches the network. Auto takes
// uring where it works and syscall elsewhere. The string says why.
func Select(name string, fd int) (Engine, string, error) {
	switch name {
	case Syscall:
		return newSyscallEngine(), "as configured", nil
	case Uring:
		e, err := newUringEngine(fd)
		if err != nil {
			return nil, "", err
		}
		return e, "as configured", nil
	case UringWaiting:
		e, err := newWaitingEngine(fd)
		if err != nil {
			return nil, "", err
		}
		return e, "as configured", nil
	case Auto, "":
		e, err := newUringEngine(fd)
		if err != nil {
			return newSyscallEngine(), fmt.Sprintf("io_uring does not work here: %v", err), nil
		}
		return e, "io_uring works here", nil
	}
	return nil, "", fmt.Errorf("%w %q: want %s, %s or %s", ErrUnknownEngine, name, Auto, Uring, Syscall)
}
