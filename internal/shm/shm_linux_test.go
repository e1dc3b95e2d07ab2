// SPDX-License-Identifier: BSD-3-Clause

package shm

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

func TestHugepages(t *testing.T) {
	free, ok := meminfo("HugePages_Free:")
	if !ok && nettest.CI() {
		t.Fatal("no huge pages in this kernel: Debian's have them (CONFIG_HUGETLBFS)")
	}
	if !ok {
		t.Skip("no huge pages in this kernel")
	}
	size, ok := meminfo("Hugepagesize:") // KiB
	if !ok {
		t.Fatal("no Hugepagesize")
	}
	m, err := New("huge", 10, true)
	t.Logf("%d huge pages free: %v", free, err)
	if free == 0 {
		if !errors.Is(err, unix.ENOMEM) || !strings.Contains(err.Error(), "vm.nr_hugepages") {
			t.Errorf("no huge pages set aside: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(m.FD(), &fs); err != nil || int64(fs.Bsize) != size*1024 {
		t.Errorf("page size %d, want %d KiB: %v", fs.Bsize, size, err)
	}
	if n := int64(len(m.Bytes())); n != size*1024 {
		t.Errorf("%d bytes, want a page of %d KiB", n, size)
	}
}

// dup returns another descriptor of the memory.
func dup(t *testing.T, m *Memory) int {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(m.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func newMemory(t *testing.T, size uint64) *Memory {
	t.Helper()
	m, err := New("test", size, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// New memory is zeroed, sealed and lies where other processes have room.
func TestNew(t *testing.T) {
	addrs := make(map[uintptr]bool)
	for _, size := range []uint64{1, 4096, 4097, 5 << 20} {
		m := newMemory(t, size)
		b := m.Bytes()
		if uint64(len(b)) < size || len(b)%4096 != 0 || m.FD() < 0 {
			t.Errorf("%d bytes for %d, descriptor %d", len(b), size, m.FD())
		}
		for i, v := range b {
			if v != 0 {
				t.Fatalf("byte %d is %d", i, v)
			}
			b[i] = byte(i)
		}
		if at := uint64(m.Addr()); at < placesStart || at >= placesEnd {
			t.Errorf("at %#x", m.Addr())
		}
		addrs[m.Addr()] = true
		for _, n := range []int64{0, 1 << 30} {
			if err := unix.Ftruncate(m.FD(), n); !errors.Is(err, unix.EPERM) {
				t.Errorf("resized to %d: %v", n, err)
			}
		}
	}
	if len(addrs) != 4 {
		t.Errorf("addresses %v", addrs)
	}
}

func TestClose(t *testing.T) {
	m := newMemory(t, 1)
	fd := m.FD()
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if m.Bytes() != nil || m.FD() != -1 || m.Addr() != 0 {
		t.Error("closed memory has something left")
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("the descriptor is still open: %v", err)
	}
}

// The same memory twice; where the first one was, and anywhere.
func TestAttach(t *testing.T) {
	m := newMemory(t, 10000)
	second, err := Attach(dup(t, m), 0)
	if err != nil {
		t.Fatal(err)
	}
	m.Bytes()[9999] = 7
	if len(second.Bytes()) != len(m.Bytes()) || second.Bytes()[9999] != 7 || second.Addr() == m.Addr() {
		t.Errorf("%d bytes at %#x, the first at %#x", len(second.Bytes()), second.Addr(), m.Addr())
	}
	addr, fd := m.Addr(), dup(t, m)
	m.Close()
	again, err := Attach(fd, addr)
	if err != nil {
		t.Fatal(err)
	}
	if again.Addr() != addr || again.FD() != fd || again.Bytes()[9999] != 7 {
		t.Errorf("at %#x, want %#x", again.Addr(), addr)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %x: %v", flags, err)
	}
	again.Close()
	second.Close()
}

// What cannot be attached is refused in plain words, closed, and leaves nothing.
func TestAttachErrors(t *testing.T) {
	m := newMemory(t, 10000)
	leaks := nettest.Leaks()
	sealed := func(size int64, seals int) int {
		fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		err = errors.Join(err, unix.Ftruncate(fd, size))
		_, sealErr := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
		if err = errors.Join(err, sealErr); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	zero, err := unix.Open("/dev/zero", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fd   int
		addr uintptr
		want error
		text string
	}{
		{-1, 0, unix.EBADF, "descriptor -1"},
		{zero, 0, ErrUnsealed, "F_GET_SEALS"},
		{sealed(4096, 0), 0, ErrUnsealed, "seals 0x0 lack F_SEAL_SHRINK"},
		{sealed(4096, unix.F_SEAL_GROW), 0, ErrUnsealed, "seals 0x4 lack F_SEAL_SHRINK"},
		{sealed(0, unix.F_SEAL_SHRINK), 0, unix.EINVAL, "0 bytes"},
		{dup(t, m), m.Addr() + 1, unix.EINVAL, fmt.Sprintf("at %#x", m.Addr()+1)},
		{dup(t, m), m.Addr(), ErrTaken, fmt.Sprintf("%#x-%#x: address range is taken by /memfd:rtap:test (deleted) at %x-",
			m.Addr(), m.Addr()+uintptr(len(m.Bytes())), m.Addr())},
		{dup(t, m), m.Addr() - 4096, ErrTaken, "/memfd:rtap:test"}, // its end
	} {
		got, err := Attach(c.fd, c.addr)
		if got != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("descriptor %d at %#x: %v, want %v, %q", c.fd, c.addr, err, c.want, c.text)
		}
		if _, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("descriptor %d is still open: %v", c.fd, err)
		}
	}
	leaks.Check(t)
	if m.Bytes()[0] = 1; m.Bytes()[0] != 1 {
		t.Error("the memory in the way is gone")
	}
}
