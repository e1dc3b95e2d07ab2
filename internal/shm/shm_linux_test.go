// SPDX-License-Identifier: BSD-3-Clause

package shm

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

func TestHugepages(t *testing.T) {
	free, ok := meminfo("HugePages_Free:")
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
