// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A pool that no machine has memory for is refused, at once and with the sum.
func TestOutOfMemory(t *testing.T) {
	for _, huge := range []bool{false, true} {
		cfg := Config{Name: "vast", Count: 1 << 30, DataRoom: 60000, Hugepages: huge}
		_, err := NewPool(cfg)
		want := fmt.Sprintf(`mbuf: pool "vast": %d bytes of memory (1073741824 mbufs of 60352 bytes)`,
			mustFill(t, cfg).geometry().size)
		if !errors.Is(err, unix.ENOMEM) && !(huge && errors.Is(err, unix.ENOSYS)) ||
			!strings.HasPrefix(err.Error(), want) {
			t.Errorf("hugepages %v: %v, want %s", huge, err, want)
		}
	}
}

func mustFill(t *testing.T, cfg Config) Config {
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Descriptors that run out are an error, and none leaks.
func TestNoDescriptors(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := NewPool(Config{})
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); e != nil {
		t.Fatal(e)
	}
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("without descriptors: %v", err)
	}
}

func TestHugepages(t *testing.T) {
	free, ok := meminfo("HugePages_Free:")
	if !ok {
		t.Skip("no huge pages in this kernel")
	}
	size, ok := meminfo("Hugepagesize:") // KiB
	if !ok {
		t.Fatal("no Hugepagesize")
	}
	p, err := NewPool(Config{Count: 10, Hugepages: true})
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
	defer closePool(t, p)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(p.FD(), &fs); err != nil || int64(fs.Bsize) != size*1024 {
		t.Errorf("page size %d, want %d KiB: %v", fs.Bsize, size, err)
	}
	if p.InUseCount() != 0 {
		t.Errorf("in use %d", p.InUseCount())
	}
}

// Nobody who gets the descriptor can take pages away, and it shows its name.
func TestMemoryFile(t *testing.T) {
	p := newPool(t, Config{Name: "shown", Count: 10})
	if err := unix.Ftruncate(p.FD(), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("shrunk: %v", err)
	}
	if err := unix.Ftruncate(p.FD(), 1<<30); !errors.Is(err, unix.EPERM) {
		t.Errorf("grown: %v", err)
	}
	target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", p.FD()))
	if err != nil || !strings.HasPrefix(target, "/memfd:rtap:shown") {
		t.Errorf("descriptor of %q: %v", target, err)
	}
	flags, err := unix.FcntlInt(uintptr(p.FD()), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %x: %v", flags, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(p.FD(), &st); err != nil || uint64(st.Blocks)*512 < p.SizeBytes() {
		t.Errorf("%d blocks of 512 bytes taken for %d bytes: %v", st.Blocks, p.SizeBytes(), err)
	}
}
