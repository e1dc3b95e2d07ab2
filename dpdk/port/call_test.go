// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package port

import (
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/rtap-project/rtap"
)

// refused checks that an operation returned -want and that the log says all of parts.
func (b *bench) refused(got int32, want syscall.Errno, parts ...string) {
	b.t.Helper()
	log := "\n" + b.host.log() + "\n"
	if got != -int32(want) {
		b.t.Errorf("%v, want %v; the log: %s", syscall.Errno(-got), want, log)
	}
	for _, p := range append(parts, "\n4 ") {
		if !strings.Contains(log, p) {
			b.t.Errorf("the log lacks %q: %s", p, log)
		}
	}
}

// TestCallSizes: an argument that is not as long as it must be is refused by every operation, and none reads beyond.
func TestCallSizes(t *testing.T) {
	b := newBench(t)
	b.run(0, 1)
	var arg [2048]byte
	for i := range handlers {
		op, h := Op(i), &handlers[i]
		if h.do == nil || h.size == 0 {
			continue
		}
		b.refused(b.Call(op, 0, unsafe.Pointer(&arg), uint32(h.size)-1), syscall.EINVAL, fmt.Sprintf("want %d", h.size))
		b.refused(b.Call(op, 0, nil, uint32(h.size)), syscall.EINVAL)
		if h.each == 0 {
			b.refused(b.Call(op, 0, unsafe.Pointer(&arg), uint32(h.size)+1), syscall.EINVAL)
			b.refused(b.Call(op, 0, unsafe.Pointer(&arg), math.MaxUint32), syscall.EINVAL)
		}
	}
}

// TestCallUnknown: operations and ports that there are none of.
func TestCallUnknown(t *testing.T) {
	b := newBench(t)
	for _, op := range []Op{0, OpRuntime + 1, 1 << 31, math.MaxUint32} {
		b.refused(b.Call(op, 0, nil, 0), syscall.ENOTSUP, "no such operation")
	}
	for _, id := range []uint16{0, 31, 32, math.MaxUint16} {
		b.refused(call(b, OpStats, id, new(Stats)), syscall.ENODEV, "no such port")
	}
	var l Link
	if do(b, OpLink, 0, &l); l.Up != 0 {
		t.Error("the link of a port that is closed is up")
	}
	for _, op := range []Op{OpRxRelease, OpTxRelease} {
		do(b, op, 0, new(U32)) // ethdev does so after OpClose
	}
	b.plain(OpStop, 0)
	b.plain(OpClose, 0)
	if r := b.Remove(0); r != 0 {
		t.Errorf("remove: %d", r)
	}
	b.refused(b.Probe(32, "net_rtap32", "", false), syscall.ENOSPC, "32 ports")
}

// TestSecondaryOps: a secondary asks itself for a few things only.
func TestSecondaryOps(t *testing.T) {
	b := newBench(t)
	if r := b.Probe(3, "net_rtap3", "", true); r != 0 {
		t.Fatal(b.host.log())
	}
	var arg [2048]byte
	for i := range handlers {
		op, h := Op(i), &handlers[i]
		if h.do == nil || h.where&(inSecondary|noPort) != 0 {
			continue
		}
		b.refused(b.Call(op, 3, unsafe.Pointer(&arg), uint32(h.size)), syscall.ENOTSUP, "net_rtap3", "secondary")
	}
	b.refused(call(b, OpIntrOn, 3, new(U32)), syscall.EIO)
	do(b, OpIntrOff, 3, new(U32))
	b.plain(OpClose, 3)
	b.refused(call(b, OpMTU, 3, &U32{1500}), syscall.ENODEV)
}

// TestPanic: a panic in an operation is an error of that operation.
func TestPanic(t *testing.T) {
	b := newBench(t)
	b.probe(0, "")
	dev := b.port(0).dev
	b.port(0).dev = nil
	b.refused(call(b, OpLink, 0, new(Link)), syscall.EFAULT, "panic", "read link of net_rtap0", "call.go")
	b.port(0).dev = dev
	do(b, OpLink, 0, new(Link)) // no lock is left behind
	ports := b.ports
	b.ports = nil
	b.refused(b.Probe(0, "net_rtap0", "", false), syscall.ENOSPC)
	b.ports = ports
}

// TestErrno: what DPDK gets to see of errors.
func TestErrno(t *testing.T) {
	wrap := func(err error) error {
		return &rtap.OpError{Op: "start", Interface: "x", Queue: -1, Err: fmt.Errorf("why: %w", err)}
	}
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{syscall.EPERM, syscall.EPERM},
		{errors.Join(errors.New("x"), os.NewSyscallError("ioctl", syscall.EMFILE)), syscall.EMFILE},
		{rtap.ErrStarted, syscall.EBUSY},
		{rtap.ErrLeased, syscall.EBUSY},
		{rtap.ErrGone, syscall.EIO},
		{errors.Join(syscall.EINVAL, rtap.ErrGone), syscall.EIO},
		{rtap.ErrClosed, syscall.ENODEV},
		{rtap.ErrNotConfigured, syscall.EINVAL},
		{rtap.ErrQueueNotSetUp, syscall.EINVAL},
		{&rtap.ConfigError{Field: "f", Value: 1, Want: "2"}, syscall.EINVAL},
		{&rtap.OffloadError{}, syscall.EINVAL},
		{syscall.Errno(0), syscall.EIO},
		{errors.New("else"), syscall.EIO},
	} {
		if got := errnoOf(wrap(c.err)); got != c.want {
			t.Errorf("%v is %v, want %v", c.err, got, c.want)
		}
	}
}

// TestShimHeader: the operations have the numbers that plugin/shim.h gives them, where "any" marks those that a
// secondary may ask of the primary, and "own" those that it asks of itself.
func TestShimHeader(t *testing.T) {
	src, err := os.ReadFile("../plugin/shim.h")
	must(t, err)
	_, enum, _ := strings.Cut(string(src), "enum rtap_op {")
	enum, _, _ = strings.Cut(enum, "};")
	ops := regexp.MustCompile(`(?m)^\s*RTAP_(\w+)( = 1)?,(.*)$`).FindAllStringSubmatch(enum, -1)
	if len(ops) != len(handlers)-1 {
		t.Fatalf("shim.h has %d operations, %d are handled", len(ops), len(handlers)-1)
	}
	for i, m := range ops {
		h := &handlers[i+1]
		if h.do == nil {
			t.Errorf("RTAP_%s (%d) is not handled", m[1], i+1)
			continue
		}
		if own := strings.Contains(m[3], "own"); own != (h.where&(inSecondary|noPort) != 0) && m[1] != "CLOSE" {
			t.Errorf("RTAP_%s: shim.h says own: %v", m[1], own)
		}
		if any := strings.Contains(m[3], "any"); any && h.where&inPrimary == 0 {
			t.Errorf("RTAP_%s: shim.h says that the primary does it", m[1])
		}
	}
}

// TestCallConcurrently: control calls, bursts, and the end of the port come from any threads.
func TestCallConcurrently(t *testing.T) {
	b := newBench(t)
	for range 5 {
		b.run(0, 2)
		done := make(chan bool)
		for _, f := range []func(){
			func() { call(b, OpStats, 0, new(Stats)) },
			func() { call(b, OpInfo, 0, new(Info)) },
			func() { call(b, OpIntrOn, 0, new(U32)); call(b, OpIntrOff, 0, new(U32)) },
			func() { b.rx(0, 0, nil); b.Waiting(0, 1) },
			func() { call(b, OpMTU, 0, &U32{1400}) },
			func() { b.Call(OpIsRemoved, 0, nil, 0); call(b, OpRuntime, 0, new(Runtime)) },
		} {
			go func() {
				for range 30 {
					f()
				}
				done <- true
			}()
		}
		<-done
		b.plain(OpClose, 0)
		for range 5 {
			<-done
		}
		runtime.KeepAlive(b)
	}
}
