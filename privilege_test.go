// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/internal/nettest"
)

// TestNoPrivilege: the error says which capability is missing.
func TestNoPrivilege(t *testing.T) {
	const child = "RTAP_TEST_NO_NET_ADMIN"
	if os.Getenv(child) != "" {
		d, err := Open(Config{})
		if err == nil {
			d.Close()
		}
		wantIs(t, err, syscall.EPERM)
		if !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
			t.Errorf("error does not name the capability: %v", err)
		}
		return
	}
	nettest.NeedTun(t)
	without(t, child, unix.CAP_NET_ADMIN)
}

// TestNetAdminIsEnough: as in a container that was given CAP_NET_ADMIN, and no
// other capability.
func TestNetAdminIsEnough(t *testing.T) {
	const child = "RTAP_TEST_NET_ADMIN"
	if os.Getenv(child) != "" {
		netAdminLife(t)
		return
	}
	nettest.NeedTun(t)
	var others []uintptr
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if c != unix.CAP_NET_ADMIN && c != unix.CAP_DAC_OVERRIDE {
			others = append(others, c)
		}
	}
	without(t, child, others...)
}

func netAdminLife(t *testing.T) {
	d, err := Start(Config{Queues: 2})
	must(t, err)
	defer d.Close()
	must(t, d.SetMTU(9000))
	must(t, d.SetCarrier(false))
	s, err := d.Link()
	must(t, err)
	if s.MTU != 9000 || !s.Up || s.Carrier {
		t.Errorf("link status is %+v", s)
	}
	must(t, d.Stop())
	must(t, d.Configure(PortConfig{RxQueues: 3, TxQueues: 3}))
	must(t, d.SetupRxQueue(2, RxConfig{}))
	must(t, d.SetupTxQueue(2, TxConfig{}))
	must(t, d.Start())
	must(t, d.Close())
}

// without runs this test again in a process that has env set, but lacks the
// capabilities, in a namespace of its own.
func without(t *testing.T, env string, caps ...uintptr) {
	t.Helper()
	ns := newNS(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), env+"=1", "CI=")
	var out []byte
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err = unix.Setns(ns.FD(), unix.CLONE_NEWNET); err != nil {
			return
		}
		for _, c := range caps {
			// execve of root gives what the bounding set has: capabilities(7).
			if e := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); e != nil && !errors.Is(e, unix.EINVAL) { // EINVAL: an older kernel, without it
				err = e
				return
			}
		}
		out, err = cmd.CombinedOutput()
	}()
	<-ended
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in a process without capabilities: %v\n%s", err, out)
	}
}
