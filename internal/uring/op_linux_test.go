// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"golang.org/x/sys/unix"
)

// ops are the six ways of moving bytes, each over n bytes at addr, of which iov
// describes the same in three pieces; buf is the registered buffer.
var ops = []struct {
	name  string
	read  func(s *SQE, fd int32, addr, iov uintptr, n uint32)
	write func(s *SQE, fd int32, addr, iov uintptr, n uint32)
}{
	{"plain",
		func(s *SQE, fd int32, addr, _ uintptr, n uint32) { s.PrepRead(fd, addr, n, 0) },
		func(s *SQE, fd int32, addr, _ uintptr, n uint32) { s.PrepWrite(fd, addr, n, 0) }},
	{"fixed",
		func(s *SQE, fd int32, addr, _ uintptr, n uint32) { s.PrepReadFixed(fd, addr, n, 1, 0) },
		func(s *SQE, fd int32, addr, _ uintptr, n uint32) { s.PrepWriteFixed(fd, addr, n, 1, 0) }},
	{"vector",
		func(s *SQE, fd int32, _, iov uintptr, _ uint32) { s.PrepReadv(fd, iov, 3, 0) },
		func(s *SQE, fd int32, _, iov uintptr, _ uint32) { s.PrepWritev(fd, iov, 3, 0) }},
}

// eachOp runs f for every operation, with a plain and with a registered fd.
func eachOp(t *testing.T, f func(t *testing.T, r *Ring, op int, fds []int32, flags uint8), fds ...int) {
	for i, op := range ops {
		for _, flags := range []uint8{0, FixedFile} {
			t.Run(fmt.Sprintf("%s/flags=%d", op.name, flags), func(t *testing.T) {
				r := newRing(t, Config{Entries: 4})
				var use []int32
				for k, fd := range fds {
					use = append(use, int32(fd))
					if flags != 0 {
						use[k] = int32(k)
					}
				}
				if flags != 0 {
					all := make([]int32, len(fds))
					for k, fd := range fds {
						all[k] = int32(fd)
					}
					if err := r.RegisterFiles(all); err != nil {
						t.Fatal(err)
					}
				}
				f(t, r, i, use, flags)
			})
		}
	}
}

// pieces returns n bytes of memory, described by three iovecs as well, and
// registers them as the ring's buffer 1.
func pieces(t *testing.T, r *Ring, n int) (mem []byte, addr, iov uintptr) {
	t.Helper()
	v := vectors(t, 3, n)
	addr = v.ScratchAddr(0)
	third := uintptr(n / 3)
	v.Iov[0] = Iovec{addr, third}
	v.Iov[1] = Iovec{addr + third, 1}
	v.Iov[2] = Iovec{addr + third + 1, uintptr(n) - third - 1}
	_, other := memory(t, 64)
	if err := r.RegisterBuffers([]Iovec{{other, 64}, {addr, uintptr(n)}}); err != nil {
		t.Fatal(err)
	}
	return v.Scratch, addr, v.Addr(0)
}

func TestReadWriteStream(t *testing.T) {
	needRing(t)
	rd, wr := stream(t)
	eachOp(t, func(t *testing.T, r *Ring, op int, fds []int32, flags uint8) {
		mem, addr, iov := pieces(t, r, 1000)
		want := frame(1000, op)
		copy(mem, want)
		res := do(t, r, func(s *SQE) { ops[op].write(s, fds[1], addr, iov, 1000); s.Flags = flags })
		if res != 1000 {
			t.Fatalf("write: %d", res)
		}
		if got := readAll(t, rd, 2000); !bytes.Equal(got, want) {
			t.Errorf("%d bytes came", len(got))
		}
		want = frame(700, op+1)
		writeAll(t, wr, want)
		clear(mem)
		res = do(t, r, func(s *SQE) { ops[op].read(s, fds[0], addr, iov, 1000); s.Flags = flags })
		if res != 700 || !bytes.Equal(mem[:700], want) || mem[700] != 0 {
			t.Errorf("read: %d", res)
		}
	}, rd, wr)
}

func TestReadWriteTap(t *testing.T) {
	p := newTap(t)
	c := p.capture(t)
	eachOp(t, func(t *testing.T, r *Ring, op int, fds []int32, flags uint8) {
		const n = hdrLen + 900
		mem, addr, iov := pieces(t, r, n)
		want := frame(900, op)
		copy(mem[hdrLen:], want)
		res := do(t, r, func(s *SQE) { ops[op].write(s, fds[0], addr, iov, n); s.Flags = flags })
		if got := next(t, c); res != n || !bytes.Equal(got, want) {
			t.Errorf("write: %d, and %d bytes came", res, len(got))
		}
		want = frame(600, op+1)
		p.inject(t, want)
		clear(mem)
		res = do(t, r, func(s *SQE) { ops[op].read(s, fds[0], addr, iov, n); s.Flags = flags })
		if res != hdrLen+600 || !bytes.Equal(mem[hdrLen:hdrLen+600], want) {
			t.Errorf("read: %d", res)
		}
	}, p.FD())
}

// TestFixedBufferBounds: the kernel keeps to what was registered.
func TestFixedBufferBounds(t *testing.T) {
	r := newRing(t, Config{Entries: 1})
	rd, wr := stream(t)
	writeAll(t, wr, []byte("x"))
	_, addr, _ := pieces(t, r, 1000)
	for _, c := range []struct {
		what string
		addr uintptr
		n    uint32
		buf  uint16
	}{
		{"before the start", addr - 1, 10, 1},
		{"past the end", addr + 991, 10, 1},
		{"in another buffer", addr, 10, 0},
		{"of no buffer", addr, 10, 2},
	} {
		res := do(t, r, func(s *SQE) { s.PrepReadFixed(int32(rd), c.addr, c.n, c.buf, 0) })
		if res != -int32(syscall.EFAULT) {
			t.Errorf("read %s: %d, want EFAULT", c.what, res)
		}
	}
}

// TestReadWaits: without RWF_NOWAIT a read of an empty connection waits, and a packet
// that comes completes it.
func TestReadWaits(t *testing.T) {
	r := newRing(t, Config{Entries: 2})
	rd, wr := stream(t)
	mem, addr := memory(t, 16)
	r.SQE().PrepRead(int32(rd), addr, 16, 0)
	enter(t, r, 1)
	if r.Ready() != 0 {
		t.Fatalf("completed: %+v", *r.Completion(0))
	}
	writeAll(t, wr, []byte("late"))
	if c := complete(t, r, 1); c[0].Res != 4 || string(mem[:4]) != "late" {
		t.Errorf("read %d bytes: %q", c[0].Res, mem)
	}
}

func TestReadNoWait(t *testing.T) {
	r := newRing(t, Config{Entries: 2})
	rd, wr := stream(t)
	_, addr := memory(t, 16)
	read := func(s *SQE) { s.PrepRead(int32(rd), addr, 16, RWFNoWait) }
	switch res := do(t, r, read); {
	case res == -int32(syscall.EOPNOTSUPP) && nettest.IsLinux61():
		t.Skip("sockets have RWF_NOWAIT since Linux 6.5")
	case res != -int32(syscall.EAGAIN):
		t.Errorf("of an empty one: %d, want EAGAIN", res)
	}
	writeAll(t, wr, []byte("x"))
	if res := do(t, r, read); res != 1 {
		t.Errorf("of a full one: %d", res)
	}
}

func TestPollAdd(t *testing.T) {
	r := newRing(t, Config{Entries: 2})
	fd := eventfd(t)
	poll := func() { r.SQE().PrepPollAdd(int32(fd), unix.POLLIN); enter(t, r, 1) }
	poll()
	if r.Ready() != 0 {
		t.Fatalf("completed: %+v", *r.Completion(0))
	}
	writeAll(t, fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	if c := complete(t, r, 1); c[0].Res != unix.POLLIN {
		t.Errorf("events %#x, want POLLIN", c[0].Res)
	}
	poll() // it is still readable
	complete(t, r, 1)
	if res := do(t, r, func(s *SQE) { s.PrepPollAdd(int32(fd), unix.POLLOUT) }); res != unix.POLLOUT {
		t.Errorf("events %#x, want POLLOUT", res)
	}
}

func TestPollAddTap(t *testing.T) {
	p := newTap(t)
	r := newRing(t, Config{Entries: 2})
	r.SQE().PrepPollAdd(int32(p.FD()), unix.POLLIN)
	enter(t, r, 1)
	if r.Ready() != 0 {
		t.Fatalf("completed: %+v", *r.Completion(0))
	}
	p.inject(t, frame(60, 0))
	if c := complete(t, r, 1); c[0].Res&unix.POLLIN == 0 {
		t.Errorf("events %#x, want POLLIN", c[0].Res)
	}
}

func TestCancelAll(t *testing.T) {
	r := newRing(t, Config{Entries: 16})
	rd, _ := stream(t)
	p := newTap(t)
	_, addr := memory(t, 16)
	for i := range uint64(12) {
		s := r.SQE()
		switch i % 3 {
		case 0:
			s.PrepRead(int32(rd), addr, 16, 0)
		case 1:
			s.PrepPollAdd(int32(rd), unix.POLLIN)
		case 2:
			s.PrepRead(int32(p.FD()), addr, 16, 0)
		}
		s.UserData = i
	}
	enter(t, r, 12)
	s := r.SQE()
	s.PrepCancelAll()
	s.UserData = 12
	enter(t, r, 1)
	seen := map[uint64]bool{}
	for _, c := range complete(t, r, 13) {
		seen[c.UserData] = true
		if c.UserData < 12 && c.Res != -int32(syscall.ECANCELED) {
			t.Errorf("request %d: %d, want ECANCELED", c.UserData, c.Res)
		}
		if c.UserData == 12 && c.Res != 12 {
			t.Errorf("%d were cancelled, want 12", c.Res)
		}
	}
	if len(seen) != 13 {
		t.Errorf("completed: %v", seen)
	}
	if res := do(t, r, (*SQE).PrepCancelAll); res != 0 {
		t.Errorf("with nothing to cancel: %d, want 0", res)
	}
}

// TestSkipSuccess: a request with CQESkipSuccess completes only if it fails.
func TestSkipSuccess(t *testing.T) {
	r := newRing(t, Config{Entries: 4})
	rd, wr := stream(t)
	mem, addr := memory(t, 3)
	copy(mem, "abc")
	for i := range uintptr(4) {
		s := r.SQE()
		s.PrepWrite(int32(wr), addr+i%3, 1, 0)
		if i == 2 {
			s.FD = -1
		}
		s.Flags = CQESkipSuccess
		s.UserData = uint64(i)
	}
	enter(t, r, 4)
	if c := complete(t, r, 1); c[0].UserData != 2 || c[0].Res != -int32(syscall.EBADF) {
		t.Errorf("completed: %+v", c)
	}
	if got := readAll(t, rd, 10); string(got) != "aba" {
		t.Errorf("written: %q", got)
	}
}

// TestBadDescriptor: the kernel says so in the completion.
func TestBadDescriptor(t *testing.T) {
	r := newRing(t, Config{Entries: 1})
	_, addr := memory(t, 1)
	for _, flags := range []uint8{0, FixedFile} {
		res := do(t, r, func(s *SQE) { s.PrepRead(1<<20, addr, 1, 0); s.Flags = flags })
		if res != -int32(syscall.EBADF) {
			t.Errorf("flags %d: %d, want EBADF", flags, res)
		}
	}
}
