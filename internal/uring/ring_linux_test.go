// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"cmp"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestEntriesOutOfRange(t *testing.T) {
	for _, n := range []int{-1, 0, MaxEntries + 1} {
		if r, err := New(Config{Entries: n}); err == nil || !strings.Contains(err.Error(), "want 1 to 32768") {
			t.Errorf("Entries %d: %v, %v", n, r, err)
		}
	}
}

func TestSizeIsPowerOfTwo(t *testing.T) {
	for _, c := range [][2]int{{1, 1}, {2, 2}, {3, 4}, {100, 128}, {4096, 4096}} {
		r := newRing(t, Config{Entries: c[0]})
		if r.Size() != c[1] || r.Free() != c[1] {
			t.Errorf("Entries %d: size %d, free %d, want %d", c[0], r.Size(), r.Free(), c[1])
		}
	}
}

// TestOptionalFlags makes the kernel refuse the newest flags, one kernel version
// after another back, down to the first: a ring that works comes out of each.
func TestOptionalFlags(t *testing.T) {
	needRing(t)
	for n := range len(optionalFlags) + 1 {
		for _, single := range []bool{false, true} {
			var allowed uint32
			for _, o := range optionalFlags[:n] {
				allowed |= o.flags
			}
			t.Run("", func(t *testing.T) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				asked := refuse(t, func(p *params) syscall.Errno {
					if p.flags&^allowed != 0 {
						return syscall.EINVAL
					}
					return 0
				})
				r, err := New(Config{Entries: 8, SingleThread: single})
				if err != nil {
					t.Fatal(err)
				}
				defer closeRing(t, r)
				if r.setup&^allowed != 0 {
					t.Errorf("flags %#x granted, %#x are known", r.setup, allowed)
				}
				if !single && r.setup&(setupSingleIssuer|setupDeferTaskrun) != 0 {
					t.Errorf("flags %#x tie the ring to a thread unasked", r.setup)
				}
				if first := (*asked)[0]; first&setupNoSQArray == 0 {
					t.Errorf("asked for %#x first: not for all", first)
				}
				works(t, r)
			})
		}
	}
}

// works runs both rings over their ends some times.
func works(t *testing.T, r *Ring) {
	t.Helper()
	next := uint64(0)
	for round := range 5 * r.Size() {
		n := round%r.Size() + 1
		b := r.Reserve(n)
		for i := range n {
			*b.At(i) = SQE{Opcode: opNop, UserData: next + uint64(i)}
		}
		enter(t, r, n)
		for _, c := range complete(t, r, n) {
			if c.UserData != next || c.Res != 0 {
				t.Fatalf("completion %d has the number %d, result %d", next, c.UserData, c.Res)
			}
			next++
		}
	}
}

func TestSetupErrors(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.ENOSYS, syscall.ENOMEM, syscall.EMFILE, syscall.EINVAL} {
		asked := refuse(t, func(*params) syscall.Errno { return errno })
		if r, err := New(Config{Entries: 1}); r != nil || !errors.Is(err, errno) {
			t.Errorf("%v became %v", errno, err)
		}
		if n := len(*asked); (n > 1) != (errno == syscall.EINVAL) {
			t.Errorf("%v: tried %d times", errno, n)
		}
	}
}

// TestOldKernel: a ring without what the driver needs is no ring.
func TestOldKernel(t *testing.T) {
	real := setupRing
	defer func() { setupRing = real }()
	fd := -1
	setupRing = func(uint32, *params) (int, syscall.Errno) { // grants everything and has no features
		var err error
		if fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		return fd, 0
	}
	if _, err := New(Config{Entries: 1}); !errors.Is(err, syscall.ENOSYS) {
		t.Errorf("error is %v, want ENOSYS", err)
	}
	if err := unix.Close(fd); err == nil {
		t.Error("the descriptor was not closed")
	}
}

// TestMmapFails: New that fails half-way leaves nothing behind.
func TestMmapFails(t *testing.T) {
	real := setupRing
	defer func() { setupRing = real }()
	fd := -1
	setupRing = func(_ uint32, p *params) (int, syscall.Errno) { // an eventfd cannot be mapped
		fd, _ = unix.Eventfd(0, unix.EFD_CLOEXEC)
		p.features, p.sqEntries, p.cqEntries = needed, 1, 2
		return fd, 0
	}
	if _, err := New(Config{Entries: 1}); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("error is %v, want ENODEV", err)
	}
	if err := unix.Close(fd); err == nil {
		t.Error("the descriptor was not closed")
	}
}

func TestSubmissionRingFull(t *testing.T) {
	r := newRing(t, Config{Entries: 4})
	for round := range 3 {
		for i := range 4 {
			if free := r.Free(); free != 4-i {
				t.Fatalf("round %d: %d entries free, want %d", round, free, 4-i)
			}
			*r.SQE() = SQE{Opcode: opNop}
		}
		if r.SQE() != nil || r.Free() != 0 {
			t.Fatalf("round %d: a fifth entry of four", round)
		}
		enter(t, r, 4)
		complete(t, r, 4)
	}
}

// TestCompletionRingFull: what finds no room is kept, in order, and delivered.
func TestCompletionRingFull(t *testing.T) {
	r := newRing(t, Config{Entries: 8})
	const total = 40
	for i := range total / 8 {
		b := r.Reserve(8)
		for k := range 8 {
			*b.At(k) = SQE{Opcode: opNop, UserData: uint64(8*i + k)}
		}
		enter(t, r, 8)
	}
	if r.Ready() != 16 {
		t.Fatalf("%d completions are there, the ring has room for 16", r.Ready())
	}
	for next := uint64(0); next < total; {
		if errno := r.Wait(1, bound()); errno != 0 {
			t.Fatalf("after %d completions: %v", next, errno)
		}
		for n := r.Ready(); n > 0; n-- {
			if c := r.Completion(0); c.UserData != next {
				t.Fatalf("completion %d has the number %d", next, c.UserData)
			}
			r.Release(1)
			next++
		}
	}
	if r.Overflows() != 0 {
		t.Errorf("%d completions lost", r.Overflows())
	}
}

// TestEnterWithdraws: without SUBMIT_ALL the kernel stops at a request that it
// cannot read. What it left is not submitted by the next Enter.
func TestEnterWithdraws(t *testing.T) {
	needRing(t)
	refuse(t, func(p *params) syscall.Errno {
		if p.flags&setupSubmitAll != 0 {
			return syscall.EINVAL
		}
		return 0
	})
	r := newRing(t, Config{Entries: 8})
	bad := SQE{Opcode: 255, UserData: 1}
	for i, s := range []SQE{{Opcode: opNop}, bad, {Opcode: opNop, UserData: 2}, {Opcode: opNop, UserData: 3}} {
		if *r.SQE() = s; r.Free() != 7-i {
			t.Fatalf("%d entries free", r.Free())
		}
	}
	if n, errno := r.Enter(); n != 2 || errno != 0 {
		t.Fatalf("Enter took %d (%v), want 2", n, errno)
	}
	if r.Free() != 8 {
		t.Errorf("%d entries free, want 8", r.Free())
	}
	c := complete(t, r, 2) // on Linux 6.1 the failed one comes first
	slices.SortFunc(c, func(a, b CQE) int { return cmp.Compare(a.UserData, b.UserData) })
	if c[0] != (CQE{}) || c[1].Res != -int32(syscall.EINVAL) {
		t.Errorf("completions %v", c)
	}
	works(t, r)
}

// TestEnterFails: a refused call submits nothing, now or later.
func TestEnterFails(t *testing.T) {
	needFeature(t, FeatureSingleIssuer)
	lockThread(t)
	r := newRing(t, Config{Entries: 4, SingleThread: true})
	*r.SQE() = SQE{Opcode: opNop}
	enter(t, r, 1)
	complete(t, r, 1)

	enterFD, enterFlag := r.enterFD, r.enterFlag
	within(t, "Enter in another thread", func() {
		runtime.LockOSThread() // and end it with the goroutine
		r.enterFD, r.enterFlag = uintptr(r.fd), 0
		*r.SQE() = SQE{Opcode: opNop}
		if n, errno := r.Enter(); n != 0 || errno != syscall.EEXIST {
			t.Errorf("Enter took %d (%v), want EEXIST", n, errno)
		}
	})
	r.enterFD, r.enterFlag = enterFD, enterFlag
	if r.Free() != 4 || r.Ready() != 0 {
		t.Errorf("%d entries free, %d completions; want 4 and 0", r.Free(), r.Ready())
	}
	works(t, r)
}

// TestIndexOverflow: the four indices run on to 2^32 and start again at 0. The
// kernel's cannot be set, so memory plays the kernel here.
func TestIndexOverflow(t *testing.T) {
	const size = 8
	start := uint32(math.MaxUint32 - 2*size - 3)
	var sqHead, sqTail, cqHead, cqTail = start, start, start, start
	var sqes [size]SQE
	var cqes [2 * size]CQE
	r := &Ring{
		sqes: unsafe.Pointer(&sqes), sqMask: size - 1, sqSize: size, sqTail: start, kSQHead: &sqHead, kSQTail: &sqTail,
		cqes: unsafe.Pointer(&cqes), cqMask: 2*size - 1, cqHead: start, kCQHead: &cqHead, kCQTail: &cqTail,
	}
	next := uint64(0)
	for round := range 20 {
		n := round%size + 1
		if r.Free() != size || r.Ready() != 0 {
			t.Fatalf("at %#x: %d free, %d ready", sqHead, r.Free(), r.Ready())
		}
		b := r.Reserve(n)
		for i := range n {
			b.At(i).UserData = next + uint64(i)
		}
		if r.Free() != size-n {
			t.Fatalf("at %#x: %d free of %d with %d reserved", sqHead, r.Free(), size, n)
		}
		for ; sqHead != r.sqTail; sqHead++ { // the kernel
			cqes[cqTail%uint32(len(cqes))] = CQE{UserData: sqes[sqHead%size].UserData}
			cqTail++
		}
		if r.Ready() != n {
			t.Fatalf("at %#x: %d ready, want %d", sqHead, r.Ready(), n)
		}
		for i := range n {
			if c := r.Completion(i); c.UserData != next {
				t.Fatalf("at %#x: completion %d has the number %d", sqHead, next, c.UserData)
			}
			next++
		}
		r.Release(n)
	}
	if sqHead > 1<<31 || cqHead != cqTail {
		t.Errorf("the indices are %#x, %#x, %#x", sqHead, cqHead, cqTail)
	}
}

func TestWaitTimesOut(t *testing.T) {
	r := newRing(t, Config{Entries: 1})
	begin := time.Now()
	if errno := r.Wait(1, 20*time.Millisecond); errno != syscall.ETIME {
		t.Errorf("Wait without requests: %v, want ETIME", errno)
	}
	if d := time.Since(begin); d < 20*time.Millisecond {
		t.Errorf("waited %v, want 20 ms", d)
	}
	if errno := r.Wait(1, 0); errno != syscall.ETIME {
		t.Errorf("Wait(1, 0): %v, want ETIME", errno)
	}
	if errno := r.Wait(0, time.Hour); errno != 0 {
		t.Errorf("Wait for nothing: %v", errno)
	}
}

func TestFlags(t *testing.T) {
	needFeature(t, FeatureDeferTaskrun)
	lockThread(t)
	got := newRing(t, Config{Entries: 1, SingleThread: true}).Flags()
	for _, want := range []string{FeatureSubmitAll, FeatureSingleIssuer, FeatureDeferTaskrun, FeatureRingFD} {
		if !slices.Contains(got, want) {
			t.Errorf("%v lacks %s", got, want)
		}
	}
	if got := newRing(t, Config{Entries: 1}).Flags(); slices.Contains(got, FeatureRingFD) || slices.Contains(got, FeatureSingleIssuer) {
		t.Errorf("a ring for any thread has %v", got)
	}
}

// TestAllocations: the data path's methods allocate nothing.
func TestAllocations(t *testing.T) {
	r := newRing(t, Config{Entries: 32})
	rd, wr := stream(t)
	mem, addr := memory(t, 4096)
	_ = mem
	allocs := testing.AllocsPerRun(100, func() {
		b := r.Reserve(8)
		for i := range 4 {
			b.At(i).PrepWrite(int32(wr), addr, 16, 0)
			b.At(i+4).PrepRead(int32(rd), addr, 16, 0)
		}
		r.SQE().PrepCancelAll()
		r.Enter()
		r.Wait(9, time.Second)
		for i := range r.Ready() {
			if c := r.Completion(i); c.Res < 0 {
				t.Error(c.Res)
			}
		}
		r.Release(r.Ready())
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
