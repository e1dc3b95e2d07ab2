// SPDX-License-Identifier: BSD-3-Clause

package tuntap_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/internal/tuntap"
	"golang.org/x/sys/unix"
)

// memory is outside the Go heap, as the calls want it.
func memory(t testing.TB, n int) (b []byte, addr uintptr) {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b, reflect.ValueOf(b).Pointer()
}

// frame is a broadcast frame of an experimental EtherType, full of something.
func frame(n int) []byte {
	b := bytes.Repeat([]byte{0xff}, 6)
	b = append(b, 2, 0, 0, 0, 0, 1, 0x88, 0xb5)
	for i := len(b); i < n; i++ {
		b = append(b, byte(i*7+i>>8))
	}
	return b
}

func ours(f []byte) bool { return len(f) >= 14 && f[12] == 0x88 && f[13] == 0xb5 }

// up is a port that is up and takes the largest frames.
func up(t testing.TB) (ns *netns.NS, q *tuntap.Queue, index int) {
	t.Helper()
	ns = nettest.NS(t)
	q = attach(t, ns, "port", tuntap.Options{})
	index = indexOf(t, q)
	c := nettest.Conn(t, ns)
	if err := c.SetMTU(index, traffic.FrameMax-14); err != nil {
		t.Fatal(err)
	}
	if err := c.SetUp(index); err != nil {
		t.Fatal(err)
	}
	return ns, q, index
}

func await(t testing.TB, q *tuntap.Queue) {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}
	for end := time.Now().Add(nettest.Bound(10 * time.Second)); time.Now().Before(end); {
		if n, err := unix.Poll(p, 100); n == 1 || err != nil && err != unix.EINTR {
			return
		}
	}
	t.Fatal("nothing to read")
}

// iovecs describes the memory at addr in pieces, as a struct iovec array.
func iovecs(t testing.TB, addr uintptr, pieces ...int) uintptr {
	t.Helper()
	b, at := memory(t, len(pieces)*2*unix.SizeofPtr)
	put := func(v uintptr) {
		if unix.SizeofPtr == 8 {
			binary.NativeEndian.PutUint64(b, uint64(v))
		} else {
			binary.NativeEndian.PutUint32(b, uint32(v))
		}
		b = b[unix.SizeofPtr:]
	}
	for _, n := range pieces {
		put(addr)
		put(uintptr(n))
		addr += uintptr(n)
	}
	return at
}

const hdr = tuntap.VnetHdrSize

func TestWriteIsReceivedByTheKernel(t *testing.T) {
	ns, q, index := up(t)
	in, err := traffic.NewCapturer(ns, index)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	mem, addr := memory(t, hdr+traffic.FrameMax)
	ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(10*time.Second))
	defer cancel()
	for _, size := range []int{14, 60, 1514, 9014, traffic.FrameMax} {
		want := frame(size)
		copy(mem[hdr:], want)
		total := hdr + size
		for _, write := range map[string]func() (int, syscall.Errno){
			"Write":  func() (int, syscall.Errno) { return tuntap.Write(q.FD(), addr, uintptr(total)) },
			"Writev": func() (int, syscall.Errno) { return tuntap.Writev(q.FD(), iovecs(t, addr, hdr, 7, total-hdr-7), 3) },
		} {
			if n, errno := write(); n != total || errno != 0 {
				t.Fatalf("%d bytes: wrote %d, %v", size, n, errno)
			}
			got, err := in.Next(ctx, ours)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes: captured %d, %v", size, len(got), err)
			}
		}
	}
}

func TestReadIsWhatTheKernelSends(t *testing.T) {
	ns, q, index := up(t)
	out, err := traffic.NewInjector(ns, index)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	mem, addr := memory(t, hdr+traffic.FrameMax)
	total := uintptr(len(mem))
	for _, size := range []int{14, 60, 1514, 9014, traffic.FrameMax} {
		want := frame(size)
		for name, read := range map[string]func() (int, syscall.Errno){
			"Read":  func() (int, syscall.Errno) { return tuntap.Read(q.FD(), addr, total) },
			"Readv": func() (int, syscall.Errno) { return tuntap.Readv(q.FD(), iovecs(t, addr, 10, 13, len(mem)-23), 3) },
		} {
			if err := out.Inject(want); err != nil {
				t.Fatal(err)
			}
			if err := next(t, q, mem, size, read); err != nil {
				t.Fatalf("%s of %d bytes: %v", name, size, err)
			}
			if !bytes.Equal(mem[hdr:hdr+size], want) {
				t.Errorf("%s: %d bytes differ", name, size)
			}
		}
	}
}

// next reads until a frame of ours, past those that the kernel sends when an interface comes up.
func next(t testing.TB, q *tuntap.Queue, mem []byte, size int, read func() (int, syscall.Errno)) error {
	t.Helper()
	for {
		await(t, q)
		n, errno := read()
		if errno != 0 {
			return errno
		}
		if !ours(mem[hdr:n]) {
			continue
		}
		if n != hdr+size {
			return fmt.Errorf("%d bytes instead of %d", n, hdr+size)
		}
		return nil
	}
}

func TestErrnosOfIO(t *testing.T) {
	ns, q, index := up(t)
	mem, addr := memory(t, 2048)
	c := nettest.Conn(t, ns)
	copy(mem[hdr:], frame(60))
	read := func() syscall.Errno { _, e := tuntap.Read(q.FD(), addr, 2048); return e }
	write := func(n uintptr) syscall.Errno { _, e := tuntap.Write(q.FD(), addr, n); return e }
	check := func(what string, got, want syscall.Errno) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	check("write shorter than an Ethernet header", write(hdr+13), syscall.EINVAL)
	check("write without a frame", write(hdr-1), syscall.EINVAL)
	if err := c.SetDown(index); err != nil {
		t.Fatal(err)
	}
	for read() == 0 { // what the kernel sent when the interface came up
	}
	check("read with nothing there", read(), syscall.EAGAIN)
	copy(mem[hdr:], frame(60))
	check("write while down", write(hdr+60), syscall.EIO)
	if err := c.SetUp(index); err != nil {
		t.Fatal(err)
	}
	if err := q.Disable(); err != nil {
		t.Fatal(err)
	}
	check("read while disabled", read(), syscall.EAGAIN)
	if err := c.Delete(index); err != nil {
		t.Fatal(err)
	}
	check("read when deleted", read(), syscall.EBADFD)
	check("write when deleted", write(hdr+60), syscall.EBADFD)
	if n, _ := tuntap.Read(q.FD(), addr, 2048); n != -1 {
		t.Errorf("the count of a failure is %d", n)
	}
}

func TestReadCutsOffWhatDoesNotFit(t *testing.T) {
	ns, q, index := up(t)
	out, err := traffic.NewInjector(ns, index)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	mem, addr := memory(t, 2048)
	if err := out.Inject(frame(1000)); err != nil {
		t.Fatal(err)
	}
	err = next(t, q, mem, 90, func() (int, syscall.Errno) { return tuntap.Read(q.FD(), addr, 100) })
	if err != nil {
		t.Error(err)
	}
}

func TestIODoesNotAllocate(t *testing.T) {
	_, q, _ := up(t)
	mem, addr := memory(t, 2048)
	copy(mem[hdr:], frame(60))
	n := nettest.Allocs(100, func() {
		tuntap.Write(q.FD(), addr, hdr+60)
		tuntap.Read(q.FD(), addr, 2048)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
