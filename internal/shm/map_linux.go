// SPDX-License-Identifier: BSD-3-Clause

package shm

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where New maps. With 64 bits: above the arenas of Go's heap and the shadow memory of AddressSanitizer, below
// that of ThreadSanitizer and below where the kernel puts what may lie anywhere. With 32: between the program with
// its heap and what the kernel puts at the top. A process that attaches later is most likely to have the same
// place free.
const (
	is64        = uint64(^uintptr(0) >> 63)
	placesStart = is64*0x1100_0000_0000 + (1-is64)*0x6000_0000
	placesEnd   = is64*0x1f00_0000_0000 + (1-is64)*0xb000_0000
	placeAlign  = is64<<30 + (1-is64)<<24 // 1 GiB suits every size of huge page that fits
	placeTries  = 8
)

// New makes a memory file of size bytes, rounded up to pages, takes all of them and maps it. It is zeroed.
// Where the address space has room for it, the address is one that another process most likely has free too.
//
// name is shown in /proc/PID/maps. huge takes the machine's default huge pages. Errors wrap ENOMEM or ENOSPC,
// EMFILE. Linux 3.17; before 4.17 the address is anywhere.
func New(name string, size uint64, huge bool) (*Memory, error) {
	if size > math.MaxInt-(1<<30) {
		return nil, fmt.Errorf("more than an address space: %w", unix.ENOMEM)
	}
	fd, err := memfd("rtap:"+name, huge)
	if err != nil {
		return nil, err
	}
	mem, err := fillAndMap(fd, int64(size), huge)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Memory{mem, fd}, nil
}

// Attach maps a file that New made, here or in another process, at addr exactly, or anywhere if that is 0. It
// takes fd over, and closes it if it fails.
//
// Errors: ErrUnsealed if the file's size may change; ErrTaken, naming the range and what lies there, if the
// addresses are in use.
func Attach(fd int, addr uintptr) (*Memory, error) {
	mem, err := attach(fd, addr)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	unix.CloseOnExec(fd)
	return &Memory{mem, fd}, nil
}

func attach(fd int, addr uintptr) ([]byte, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	switch {
	case errors.Is(err, unix.EBADF):
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	case err != nil: // no file of memfd_create(2)
		return nil, fmt.Errorf("descriptor %d: %w (fcntl F_GET_SEALS: %w)", fd, ErrUnsealed, err)
	case seals&unix.F_SEAL_SHRINK == 0:
		return nil, fmt.Errorf("descriptor %d: %w: its owner could shrink it (seals %#x lack F_SEAL_SHRINK)",
			fd, ErrUnsealed, seals)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("fstat: %w", err)
	}
	if st.Size <= 0 || st.Size > math.MaxInt-(1<<30) {
		return nil, fmt.Errorf("memory file of %d bytes: %w", st.Size, unix.EINVAL)
	}
	return mapAt(fd, addr, int(st.Size))
}

// place maps a fresh file where others can have it too, or else wherever the kernel likes.
func place(fd, size int) ([]byte, error) {
	if span := placesEnd - placesStart; uint64(size) <= span {
		places := (span-uint64(size))/placeAlign + 1
		for range placeTries {
			mem, err := mapAt(fd, uintptr(placesStart+rand.Uint64N(places)*placeAlign), size)
			if err == nil {
				return mem, nil
			}
		}
	}
	return mapAt(fd, 0, size)
}

// mapAt maps the file at addr, and nowhere else unless that is 0.
func mapAt(fd int, addr uintptr, size int) ([]byte, error) {
	flags := unix.MAP_SHARED | unix.MAP_POPULATE
	if addr != 0 {
		flags |= unix.MAP_FIXED_NOREPLACE
	}
	p, err := unix.MmapPtr(fd, 0, pointer(addr), uintptr(size), unix.PROT_READ|unix.PROT_WRITE, flags)
	if errors.Is(err, unix.EEXIST) {
		return nil, taken(addr, size)
	}
	if err != nil {
		return nil, fmt.Errorf("mmap of %d bytes at %#x: %w", size, addr, err)
	}
	if addr != 0 && uintptr(p) != addr {
		// Linux before 4.17 does not know the flag and takes the address as a hint.
		_ = unix.MunmapPtr(p, uintptr(size))
		return nil, taken(addr, size)
	}
	return unsafe.Slice((*byte)(p), size), nil
}

// pointer makes an address outside the Go heap a pointer, which go vet cannot know.
func pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

func unmap(mem []byte, fd int) error {
	err := unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(mem)), uintptr(len(mem)))
	return errors.Join(err, unix.Close(fd))
}

// taken says what lies where size bytes were to be mapped.
func taken(addr uintptr, size int) error {
	start, end := uint64(addr), uint64(addr)+uint64(size)
	return fmt.Errorf("%#x-%#x: %w by %s", start, end, ErrTaken, occupant(start, end))
}

// occupant names the first mapping of this process in a range of addresses.
func occupant(start, end uint64) string {
	maps, _ := os.ReadFile("/proc/self/maps")
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		if n, _ := fmt.Sscanf(line, "%x-%x", &from, &to); n != 2 || to <= start || from >= end {
			continue
		}
		if f := strings.Fields(line); len(f) > 5 {
			return strings.Join(f[5:], " ") + " at " + f[0]
		}
		return fmt.Sprintf("memory without a name at %x-%x", from, to)
	}
	return "something"
}
