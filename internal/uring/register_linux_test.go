// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"errors"
	"io"
	"os"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// endOfFile reports whether the pipe has no writer left.
func endOfFile(t *testing.T, rd int) bool {
	t.Helper()
	if err := unix.SetNonblock(rd, true); err != nil {
		t.Fatal(err)
	}
	n, err := unix.Read(rd, make([]byte, 1))
	if err != nil && err != unix.EAGAIN {
		t.Fatal(err)
	}
	return n == 0 && err == nil
}

// TestUnregisterFiles: the ring keeps the file open, and lets it go at once.
func TestUnregisterFiles(t *testing.T) {
	for name, release := range map[string]func(*Ring) error{"UnregisterFiles": (*Ring).UnregisterFiles, "Close": (*Ring).Close} {
		t.Run(name, func(t *testing.T) {
			r := newRing(t, Config{Entries: 1})
			var p [2]int
			if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			defer unix.Close(p[0])
			if err := r.RegisterFiles([]int32{int32(p[1])}); err != nil {
				t.Fatal(err)
			}
			unix.Close(p[1])
			if endOfFile(t, p[0]) {
				t.Fatal("the ring did not keep the file open")
			}
			if err := release(r); err != nil {
				t.Fatal(err)
			}
			if !endOfFile(t, p[0]) {
				t.Error("the ring still keeps the file open")
			}
		})
	}
}

func TestRegisterFilesTwice(t *testing.T) {
	r := newRing(t, Config{Entries: 1})
	fds := []int32{int32(eventfd(t))}
	for range 3 {
		if err := r.RegisterFiles(fds); err != nil {
			t.Fatal(err)
		}
		if err := r.RegisterFiles(fds); !errors.Is(err, syscall.EBUSY) {
			t.Errorf("over another: %v, want EBUSY", err)
		}
		if err := errors.Join(r.UnregisterFiles(), r.UnregisterFiles()); err != nil {
			t.Error(err)
		}
	}
	for _, fd := range []int32{1 << 20, -1} {
		if err := r.RegisterFiles([]int32{fd}); !errors.Is(err, syscall.EBADF) {
			t.Errorf("descriptor %d: %v, want EBADF", fd, err)
		}
	}
	if err := r.RegisterFiles(nil); err == nil {
		t.Error("no descriptor at all was registered")
	}
}

func TestRegisterBuffersErrors(t *testing.T) {
	r := newRing(t, Config{Entries: 1})
	if err := r.RegisterBuffers(nil); err == nil {
		t.Error("no buffer at all was registered")
	}
	if err := r.RegisterBuffers([]Iovec{{4096, 4096}}); !errors.Is(err, syscall.EFAULT) {
		t.Errorf("not mapped: %v, want EFAULT", err)
	}
	if err := r.UnregisterBuffers(); err != nil {
		t.Errorf("nothing to unregister: %v", err)
	}
}

// TestCloneBuffers: a clone works, also when the ring it came from is gone.
func TestCloneBuffers(t *testing.T) {
	needFeature(t, FeatureClone)
	src, err := New(Config{Entries: 1})
	if err != nil {
		t.Fatal(err)
	}
	mem, addr, _ := pieces(t, src, 100)
	r := newRing(t, Config{Entries: 1})
	if err := r.CloneBuffers(src); err != nil {
		t.Fatal(err)
	}
	if r.buffers != src.buffers {
		t.Errorf("%d buffers, want %d", r.buffers, src.buffers)
	}
	closeRing(t, src)
	rd, wr := stream(t)
	writeAll(t, wr, []byte("cloned"))
	if res := do(t, r, func(s *SQE) { s.PrepReadFixed(int32(rd), addr+10, 6, 1, 0) }); res != 6 || string(mem[10:16]) != "cloned" {
		t.Errorf("read: %d, %q", res, mem[10:16])
	}
	if err := r.UnregisterBuffers(); err != nil {
		t.Error(err)
	}
}

func TestCloneBuffersOfNone(t *testing.T) {
	needFeature(t, FeatureClone)
	r := newRing(t, Config{Entries: 1})
	if err := r.CloneBuffers(newRing(t, Config{Entries: 1})); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("error is %v, want ENXIO", err)
	}
}

// TestLockedMemoryLimit registers more than RLIMIT_MEMLOCK allows, in a thread
// without CAP_IPC_LOCK.
func TestLockedMemoryLimit(t *testing.T) {
	needRing(t)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &old); err != nil {
		t.Fatal(err)
	}
	limit := unix.Rlimit{Cur: 64 << 10, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_MEMLOCK, &old)
	within(t, "registering buffers", func() {
		runtime.LockOSThread() // capabilities belong to the thread, which ends here
		dropCap(t, unix.CAP_IPC_LOCK)
		r, err := New(Config{Entries: 1})
		if err != nil {
			t.Error(err)
			return
		}
		defer closeRing(t, r)
		_, addr := memory(t, 1<<20)
		err = r.RegisterBuffers([]Iovec{{addr, 1 << 20}})
		if !errors.Is(err, syscall.ENOMEM) {
			t.Errorf("error is %v, want ENOMEM", err)
		}
		const want = "RLIMIT_MEMLOCK allows 64 KB of locked memory per user, and CAP_IPC_LOCK is missing"
		if why := Explain(err); why != want {
			t.Errorf("Explain says %q, want %q", why, want)
		}
		for _, f := range Probe() {
			if f.Name == FeatureBuffers && f.Detail != want {
				t.Errorf("Probe says %v", f)
			}
		}
	})
}

func dropCap(t *testing.T, bit uint) {
	t.Helper()
	var data [2]unix.CapUserData
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		t.Error(err)
	}
	data[bit/32].Effective &^= 1 << (bit % 32)
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		t.Error(err)
	}
}

// TestRegisteredRing: Enter and Wait by the registered descriptor, and a
// registration that goes with the ring: 16 a thread is all there are.
func TestRegisteredRing(t *testing.T) {
	needFeature(t, FeatureRingFD)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range 40 {
		r, err := New(Config{Entries: 2, SingleThread: true})
		if err != nil {
			t.Fatal(err)
		}
		if r.enterFlag != enterRegisteredRing {
			t.Fatal("the ring descriptor was not registered")
		}
		works(t, r)
		closeRing(t, r)
	}
}

// TestVectors: what Addr says is where Iov is.
func TestVectors(t *testing.T) {
	v := vectors(t, 3, 10)
	rd, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	copy(v.Scratch, "0123456789")
	v.Iov[1] = Iovec{v.ScratchAddr(7), 3}
	v.Iov[2] = Iovec{v.ScratchAddr(2), 2}
	_, _, errno := syscall.Syscall(unix.SYS_WRITEV, wr.Fd(), v.Addr(1), 2)
	if err := wr.Close(); errno != 0 || err != nil {
		t.Fatal(errno, err)
	}
	if got, _ := io.ReadAll(rd); string(got) != "78923" {
		t.Errorf("wrote %q", got)
	}
	if err := errors.Join(v.Close(), v.Close()); err != nil {
		t.Error(err)
	}
}
