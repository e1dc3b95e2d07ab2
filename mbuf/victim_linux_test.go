// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"os"
	"os/exec"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/internal/nettest"
)

// victimEnv makes the test program map the pool of its parent, descriptor 3,
// and take and return mbufs until it is killed.
const victimEnv = "RTAP_MBUF_VICTIM"

func victim() {
	var st unix.Stat_t
	if unix.Fstat(3, &st) != nil {
		os.Exit(1)
	}
	mem, err := unix.Mmap(3, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		os.Exit(1)
	}
	// Not where the parent has it: the list must not care.
	h := (*header)(unsafe.Pointer(&mem[0]))
	bufs := make([]*Mbuf, 50)
	for n := 1; ; n = n%50 + 1 {
		h.push(bufs[:h.pop(bufs[:n])])
	}
}

// A process that shares the list is killed again and again while it works on
// it, and so do we. The list must stay whole, but for what the dead one held.
func TestKilledProcess(t *testing.T) {
	p := newPool(t, Config{Count: 200, DataRoom: 1})
	for round := range nettest.Scale(20) {
		cmd := victimCommand(t, p)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Its updates show in the tag.
		before := p.hdr.head.Load() >> 32
		nettest.Eventually(t, 20*time.Second, "the other process starts", func() bool {
			return p.hdr.head.Load()>>32-before > 100
		})
		bufs := make([]*Mbuf, 30)
		for range 500 * (round + 1) {
			p.FreeBulk(bufs[:p.AllocBulk(bufs)])
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // says that it was killed
		recoverLost(t, p)
	}
	checkFree(t, p)
}

func victimCommand(t *testing.T, p *Pool) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(uintptr(p.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "pool")
	t.Cleanup(func() { file.Close() })
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), victimEnv+"=1")
	cmd.ExtraFiles = []*os.File{file}
	t.Cleanup(func() {
		if cmd.Process != nil && cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

// recoverLost walks the list, which nobody changes now, and pushes what is
// not in it.
func recoverLost(t *testing.T, p *Pool) {
	t.Helper()
	h := p.hdr
	free := make(map[uint32]bool)
	for i := uint32(h.head.Load()); i != none; {
		if i >= h.count || free[i] {
			t.Fatalf("element %d of %d after %d others: out of range or twice", i, h.count, len(free))
		}
		free[i] = true
		link := h.link(i).Load()
		if depth := int(link >> 32); depth != h.length()-len(free)+1 {
			t.Fatalf("element %d: depth %d, %d before it, length %d", i, depth, len(free)-1, h.length())
		}
		i = uint32(link)
	}
	if len(free) != h.length() || len(free) < p.Count()-50 {
		t.Fatalf("%d elements in the list, length %d", len(free), h.length())
	}
	for i := range h.count {
		if !free[i] {
			h.push([]*Mbuf{h.mbuf(i)})
		}
	}
}
