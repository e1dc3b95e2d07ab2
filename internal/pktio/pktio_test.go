// SPDX-License-Identifier: BSD-3-Clause

package pktio

import (
	"errors"
	"runtime"
	"syscall"
	"testing"
)

func TestCompletionErrno(t *testing.T) {
	for res, want := range map[int32]syscall.Errno{0: 0, 1514: 0, -int32(syscall.EIO): syscall.EIO} {
		if got := (Completion{Res: res}).Errno(); got != want {
			t.Errorf("%d: %v, want %v", res, got, want)
		}
	}
}

func TestSelectUnknown(t *testing.T) {
	if e, _, err := Select("dpdk", -1); e != nil || !errors.Is(err, ErrUnknownEngine) {
		t.Errorf("%v, %v", e, err)
	}
}

func TestSelectSyscall(t *testing.T) {
	e, why, err := Select(Syscall, -1)
	if err != nil || e.Name() != Syscall || why == "" || e.Notes() == "" {
		t.Errorf("%v, %q, %v", e, why, err)
	}
}

// TestSelectNoTap: without a descriptor to try it on there is no uring engine,
// and auto takes the other, saying why.
func TestSelectNoTap(t *testing.T) {
	if _, _, err := Select(Uring, -1); err == nil {
		t.Error("the uring engine came up without a descriptor")
	} else if runtime.GOOS != "linux" && !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	e, why, err := Select(Auto, -1)
	if err != nil || e.Name() != Syscall {
		t.Fatal(e, err)
	}
	t.Log(why)
}
