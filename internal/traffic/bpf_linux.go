// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"syscall"

	"golang.org/x/sys/unix"
)

// Offsets in union bpf_attr of uapi linux/bpf.h for BPF_PROG_LOAD; addresses have 64 bits everywhere.
const (
	attrProgType = 0
	attrInsnCnt  = 4
	attrInsns    = 8
	attrLicense  = 16
	attrLogLevel = 24
	attrLogSize  = 28
	attrLogBuf   = 32
	attrLen      = 48

	insnLen = 8
	logSize = 4096
)

// loadFilter loads a program of a type (BPF_PROG_TYPE_...) and returns its descriptor. The kernel follows
// addresses that are mere numbers to Go, so what they refer to is mapped, not from the Go heap.
func loadFilter(kind uint32, program []byte) (fd int, err error) {
	const (
		license = "GPL\x00"
		prog    = attrLen + len(license) + (8-len(license)%8)%8
		log     = 8192 - logSize
	)
	if prog+len(program) > log {
		return -1, fmt.Errorf("program of %d bytes: %w", len(program), unix.E2BIG)
	}
	mem, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Munmap(mem) }()
	base := reflect.ValueOf(mem).Pointer()
	copy(mem[attrLen:], license)
	copy(mem[prog:], program)
	ne := binary.NativeEndian
	ne.PutUint32(mem[attrProgType:], kind)
	ne.PutUint32(mem[attrInsnCnt:], uint32(len(program)/insnLen))
	ne.PutUint64(mem[attrInsns:], uint64(base)+uint64(prog))
	ne.PutUint64(mem[attrLicense:], uint64(base)+attrLen)
	ne.PutUint32(mem[attrLogLevel:], 1)
	ne.PutUint32(mem[attrLogSize:], logSize)
	ne.PutUint64(mem[attrLogBuf:], uint64(base)+log)
	for range loadTries {
		n, _, errno := syscall.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, base, attrLen)
		switch errno {
		case 0:
			return int(n), nil // closed on exec, the kernel sees to that
		case unix.EAGAIN, unix.EINTR:
			err = errno
		default:
			return -1, fmt.Errorf("%w: %s", errno, unix.ByteSliceToString(mem[log:]))
		}
	}
	return -1, err
}

// loadTries is how often to load a program when a signal, of which Go's scheduler sends many, interrupts the
// kernel's verifier.
const loadTries = 20

func closeFD(fd int) { _ = unix.Close(fd) }
