// SPDX-License-Identifier: BSD-3-Clause

package shm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// memfd calls memfd_create(2). MFD_NOEXEC_SEAL is new in Linux 6.3; without
// it newer kernels warn, and refuse if vm.memfd_noexec is 2.
func memfd(name string, huge bool) (int, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	if huge {
		flags |= unix.MFD_HUGETLB
	}
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	return fd, nil
}

func fillAndMap(fd int, size int64, huge bool) ([]byte, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return nil, fmt.Errorf("fstatfs: %w", err)
	}
	page := int64(fs.Bsize) // that of the huge pages for hugetlb
	size = (size + page - 1) / page * page
	if err := checkMemory(size, page, huge); err != nil {
		return nil, err
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		return nil, fmt.Errorf("ftruncate: %w", err)
	}
	// Now, and as an error: later it would be a SIGBUS.
	if err := allocate(fd, size); err != nil {
		return nil, fmt.Errorf("fallocate: %w", err)
	}
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("fcntl F_ADD_SEALS: %w", err)
	}
	return place(fd, int(size))
}

// allocateStep is how much is asked for at once. A signal, such as the runtime's
// own for preemption, makes fallocate(2) on a memory file undo the step and fail
// with EINTR (mm/shmem.c, seen on Linux 6.1), so a step is short.
const allocateStep = 16 << 20

func allocate(fd int, size int64) error {
	for off := int64(0); off < size; {
		n := min(size-off, allocateStep)
		switch err := unix.Fallocate(fd, 0, off, n); err {
		case nil:
			off += n
		case unix.EINTR:
		default:
			return err
		}
	}
	return nil
}

// checkMemory asks whether the memory is there. Without it the kernel would
// not refuse the pages of a memory file but look for a process to kill.
func checkMemory(size, page int64, huge bool) error {
	if huge {
		want := size / page
		if free, ok := meminfo("HugePages_Free:"); ok && free < want {
			return fmt.Errorf("needs %d huge pages of %d bytes, %d are free (set vm.nr_hugepages): %w",
				want, page, free, unix.ENOMEM)
		}
		return nil
	}
	if avail, ok := meminfo("MemAvailable:"); ok && size > avail*1024 {
		return fmt.Errorf("%d bytes are available: %w", avail*1024, unix.ENOMEM)
	}
	return nil
}

// meminfo returns a number from /proc/meminfo, and whether it is there.
func meminfo(key string) (int64, bool) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	_, rest, found := bytes.Cut(text, []byte("\n"+key))
	f := bytes.Fields(rest)
	if !found || len(f) == 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(f[0]), 10, 64)
	return n, err == nil
}
