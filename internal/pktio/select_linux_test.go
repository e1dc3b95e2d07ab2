// SPDX-License-Identifier: BSD-3-Clause

package pktio

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/uring"
	"golang.org/x/sys/unix"
)

func TestSelectAuto(t *testing.T) {
	p := newTap(t)
	for _, name := range []string{Auto, ""} {
		e, why, err := Select(name, p.FD())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %s; %s", e.Name(), why, e.Notes())
		if uring.Supported() {
			if e.Name() != Uring || why != "io_uring works here" {
				t.Errorf("%s: %s", e.Name(), why)
			}
		} else if e.Name() != Syscall || !strings.Contains(why, "io_uring_disabled") {
			t.Errorf("%s: %s", e.Name(), why)
		}
		check(t, e.Close())
	}
	if _, _, err := Select(Uring, p.FD()); (err == nil) != uring.Supported() {
		t.Errorf("uring: %v", err)
	}
}

func TestDepth(t *testing.T) {
	nettest.NeedUring(t)
	p := newTap(t)
	e := selectEngine(t, Uring, p)
	for depth, ok := range map[int]bool{-1: false, 0: false, 1: true, 3: true, MaxDepth: true, MaxDepth + 1: false} {
		r, err := e.NewReader(p.FD(), depth, nil, &Counts{})
		if (err == nil) != ok {
			t.Errorf("depth %d: %v", depth, err)
		}
		if err == nil {
			check(t, r.Close())
		}
	}
	if _, err := e.NewReader(-1, 1, nil, &Counts{}); !errors.Is(err, syscall.EBADF) {
		t.Errorf("a reader without a descriptor: %v", err)
	}
	check(t, unix.SetNonblock(p.FD(), false))
	if _, err := e.NewWriter(p.FD(), 1, nil, &Counts{}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a writer with a blocking descriptor: %v", err)
	}
}
