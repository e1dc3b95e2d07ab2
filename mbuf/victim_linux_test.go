// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/internal/nettest"
)

// victimEnv makes the test program join the pool of its parent, descriptor 3,
// at the address that it says, and take and return mbufs until it is killed.
const victimEnv = "RTAP_MBUF_VICTIM"

func victim() {
	base, err := strconv.ParseUint(os.Getenv(victimEnv), 16, 64)
	if err != nil {
		os.Exit(1)
	}
	p, err := AttachPool(3, uintptr(base), 1)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	bufs := make([]*Mbuf, 50)
	for n := 1; ; n = n%50 + 1 {
		p.FreeBulk(bufs[:p.AllocBulk(bufs[:n])])
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
		before := p.hdr.head.Load() >> tagShift
		nettest.Eventually(t, 20*time.Second, "the other process starts", func() bool {
			return p.hdr.head.Load()>>tagShift-before > 100
		})
		bufs := make([]*Mbuf, 30)
		for range 500 * (round + 1) {
			p.FreeBulk(bufs[:p.AllocBulk(bufs)])
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // says that it was killed
		p.Reclaim(1)
		checkFree(t, p)
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
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%x", victimEnv, p.Base()))
	cmd.ExtraFiles = []*os.File{file}
	t.Cleanup(func() {
		if cmd.Process != nil && cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}
