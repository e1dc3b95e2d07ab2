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
		cfg := Config{Name: "vast", Count: 1 << 25, DataRoom: 60000, Hugepages: huge}
		_, err := NewPool(cfg)
		want := fmt.Sprintf(`mbuf: pool "vast": %d bytes of memory (33554432 mbufs of 60352 bytes)`,
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
