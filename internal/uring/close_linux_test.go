// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pend submits n reads and a poll that wait for fd.
func pend(t *testing.T, r *Ring, fd, n int, flags uint8, addr uintptr) {
	t.Helper()
	for range n {
		s := r.SQE()
		s.PrepRead(int32(fd), addr, 1, 0)
		s.Flags = flags
	}
	s := r.SQE()
	s.PrepPollAdd(int32(fd), unix.POLLIN)
	s.Flags = flags
	enter(t, r, n+1)
	if r.Ready() != 0 {
		t.Fatalf("completed: %+v", *r.Completion(0))
	}
}

// quickly closes the ring, which must not need its timeouts for it.
func quickly(t *testing.T, r *Ring) {
	t.Helper()
	within(t, "Close", func() {
		begin := time.Now()
		closeRing(t, r)
		if d := time.Since(begin); d > closeTimeout/2 {
			t.Errorf("Close took %v", d)
		}
		closeRing(t, r) // does nothing
	})
}

func TestClosePipe(t *testing.T) {
	for _, n := range []int{0, 1, 100} {
		r := newRing(t, Config{Entries: 128})
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(p[1])
		_, addr := memory(t, 1)
		if err := r.RegisterFiles([]int32{int32(p[0])}); err != nil {
			t.Fatal(err)
		}
		pend(t, r, 0, n, FixedFile, addr)
		unix.Close(p[0])
		quickly(t, r)
		if _, err := unix.Write(p[1], []byte("x")); err != unix.EPIPE {
			t.Errorf("%d reads: write: %v, want EPIPE: the ring still holds the pipe", n, err)
		}
	}
}

// TestCloseTap: neither requests nor registration keep the interface alive.
func TestCloseTap(t *testing.T) {
	for _, flags := range []uint8{0, FixedFile} {
		p := newTap(t)
		r := newRing(t, Config{Entries: 64})
		_, addr := memory(t, 1)
		fd := p.FD()
		if flags != 0 {
			if err := r.RegisterFiles([]int32{int32(fd)}); err != nil {
				t.Fatal(err)
			}
			fd = 0
		}
		pend(t, r, fd, 32, flags, addr)
		quickly(t, r)
		if p.gone(t) {
			t.Fatal("the interface has vanished before its descriptor was closed")
		}
		p.Close()
		if !p.gone(t) {
			t.Errorf("flags %d: the interface is still there", flags)
		}
	}
}

// TestCloseElsewhere closes a ring whose requests were made by a thread that is
// asleep, in a system call, busy or dead: the kernel completes a request in the
// thread that made it.
func TestCloseElsewhere(t *testing.T) {
	var stop atomic.Bool
	for name, occupy := range map[string]func(t *testing.T, quit chan struct{}){
		"asleep": func(_ *testing.T, quit chan struct{}) { <-quit },
		"in a system call": func(t *testing.T, quit chan struct{}) {
			rd, wr := stream(t)
			go func() { <-quit; unix.Write(wr, []byte("x")) }()
			unix.Read(rd, make([]byte, 1))
		},
		"busy": func(*testing.T, chan struct{}) {
			for !stop.Load() {
			}
		},
		"dead": func(*testing.T, chan struct{}) {},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTap(t)
			r := newRing(t, Config{Entries: 64})
			if err := r.RegisterFiles([]int32{int32(p.FD())}); err != nil {
				t.Fatal(err)
			}
			_, addr := memory(t, 1)
			made, quit, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread() // and end it with the goroutine
				pend(t, r, 0, 32, FixedFile, addr)
				close(made)
				occupy(t, quit)
			}()
			<-made
			quickly(t, r)
			p.Close()
			if !p.gone(t) {
				t.Error("the interface is still there")
			}
			stop.Store(true)
			close(quit)
			<-done
			stop.Store(false)
		})
	}
}

// TestCloseWoken closes while what the requests wait for happens.
func TestCloseWoken(t *testing.T) {
	for round := range 50 {
		r := newRing(t, Config{Entries: 64})
		rd, wr := stream(t)
		_, addr := memory(t, 1)
		pend(t, r, rd, 16, 0, addr)
		started := make(chan struct{})
		go func() {
			close(started)
			for range round {
				unix.Write(wr, []byte("x"))
			}
		}()
		<-started
		quickly(t, r)
	}
}

// TestCloseOverflowed closes with more completions waiting than the ring holds.
func TestCloseOverflowed(t *testing.T) {
	r := newRing(t, Config{Entries: 4})
	for range 10 {
		for range 4 {
			*r.SQE() = SQE{Opcode: opNop}
		}
		enter(t, r, 4)
	}
	quickly(t, r)
}

// TestCloseUnsubmitted: what was filled and not entered is not submitted.
func TestCloseUnsubmitted(t *testing.T) {
	r := newRing(t, Config{Entries: 2})
	rd, wr := stream(t)
	mem, addr := memory(t, 1)
	mem[0] = 'x'
	for range 2 {
		r.SQE().PrepWrite(int32(wr), addr, 1, 0)
	}
	quickly(t, r)
	if err := unix.SetNonblock(rd, true); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(rd, make([]byte, 2)); err != syscall.EAGAIN {
		t.Errorf("%d bytes were written (%v)", n, err)
	}
}

// TestCloseAfterSkip: a ring that has seen CQESkipSuccess cannot wait with
// IOSQE_IO_DRAIN, and has nothing to wait for.
func TestCloseAfterSkip(t *testing.T) {
	r := newRing(t, Config{Entries: 2})
	s := r.SQE()
	*s = SQE{Opcode: opNop, Flags: CQESkipSuccess}
	enter(t, r, 1)
	if r.Ready() != 0 {
		t.Errorf("completed: %+v", *r.Completion(0))
	}
	quickly(t, r)
}

// TestCloseManyTimes makes and closes rings with requests in flight; TestMain
// looks for what was left behind.
func TestCloseManyTimes(t *testing.T) {
	rd, _ := stream(t)
	_, addr := memory(t, 1)
	for range 200 {
		r := newRing(t, Config{Entries: 8})
		pend(t, r, rd, 7, 0, addr)
		quickly(t, r)
	}
}
