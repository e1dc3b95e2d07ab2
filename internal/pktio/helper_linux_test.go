// SPDX-License-Identifier: BSD-3-Clause

package pktio

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/internal/uring"
	"golang.org/x/sys/unix"
)

const (
	hdrLen    = tuntap.VnetHdrSize
	etherType = 0x88b5 // IEEE 802 local experimental
	numberAt  = 14     // where a frame has its number
	slotSize  = 2048
	queueLen  = 1000 // packets that the TAP keeps for us
)

func bound() time.Duration { return nettest.Bound(20 * time.Second) }

// tap is an interface in a namespace of its own, where nothing but the test
// sends or receives.
type tap struct {
	*tuntap.Queue
	ns    *netns.NS
	conn  *rtnl.Conn
	index int
	in    *traffic.Injector
}

func newTap(t testing.TB) *tap {
	t.Helper()
	nettest.NeedTun(t)
	p := &tap{ns: nettest.NS(t)}
	err := p.ns.Do(func() (err error) {
		// IPv6 would send into the interface as soon as it is up.
		err = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		p.Queue, err = tuntap.Attach("port", tuntap.Options{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	p.conn = nettest.Conn(t, p.ns)
	l, err := p.conn.LinkByName("port")
	if err != nil {
		t.Fatal(err)
	}
	p.index = l.Index
	if err := errors.Join(p.conn.SetTxQueueLen(p.index, queueLen), p.conn.SetUp(p.index)); err != nil {
		t.Fatal(err)
	}
	if p.in, err = traffic.NewInjector(p.ns, p.index); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.in.Close() })
	return p
}

// inject puts count frames, numbered from 0, into the TAP's queue.
func (p *tap) inject(t testing.TB, count int, frames ...[]byte) {
	t.Helper()
	if count == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound())
	defer cancel()
	r, err := p.in.Flood(ctx, traffic.FloodConfig{Frames: frames, Count: count, Stamp: numberAt})
	if err != nil || r.Sent != count {
		t.Fatalf("injected %d of %d frames: %v", r.Sent, count, err)
	}
}

func (p *tap) capture(t testing.TB) *capture {
	t.Helper()
	c, err := traffic.NewCapturer(p.ns, p.index)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &capture{c}
}

type capture struct{ *traffic.Capturer }

func (c *capture) next(t testing.TB) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound())
	defer cancel()
	f, err := c.Next(ctx, func(f []byte) bool { return binary.BigEndian.Uint16(f[12:]) == etherType })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// frame is an Ethernet broadcast of n bytes with a number.
func frame(n, number int) []byte {
	f := bytes.Repeat([]byte{0xff}, n)
	f[6] = 0x02
	binary.BigEndian.PutUint16(f[12:], etherType)
	for i := numberAt + 4; i < n; i++ {
		f[i] = byte(i*7 + n)
	}
	binary.BigEndian.PutUint32(f[numberAt:], uint32(number))
	return f
}

// sizes are of frames that the tests send in turn.
var sizes = []int{60, 61, 1514, 18, 600, 999}

func frames() [][]byte {
	var list [][]byte
	for _, n := range sizes {
		list = append(list, frame(n, 0))
	}
	return list
}

// engines returns the names that can be had here.
func engines(t testing.TB) []string {
	if nettest.UringForbidden() {
		return []string{Syscall}
	}
	return []string{Uring, UringWaiting, Syscall}
}

func selectEngine(t testing.TB, name string, p *tap) Engine {
	t.Helper()
	e, _, err := Select(name, p.FD())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, e.Close()) })
	return e
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// forms are the ways of describing memory.
var forms = []string{"flat", "fixed", "iovec"}

// arena is memory outside the Go heap, in slots.
type arena struct {
	mem   []byte
	base  uintptr
	vec   *uring.Vectors
	descs []Desc
}

// iovecs of a slot, of sizes that fit nothing.
var pieces = []int{hdrLen - 3, 1, 50, 700, slotSize - hdrLen + 3 - 751}

func newArena(t testing.TB, slots int, form string) *arena {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, slots*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, unix.Munmap(mem)) })
	a := &arena{mem: mem, base: uintptr(unsafe.Pointer(&mem[0]))}
	if a.vec, err = uring.NewVectors(slots*len(pieces), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, a.vec.Close()) })
	for i := range slots {
		a.descs = append(a.descs, a.desc(i, slotSize, form))
	}
	return a
}

// desc describes the first n bytes of slot i.
func (a *arena) desc(i, n int, form string) Desc {
	addr := a.base + uintptr(i*slotSize)
	if form != "iovec" {
		return Desc{Addr: addr, Len: uint32(n)}
	}
	iov := a.vec.Iov[i*len(pieces):]
	for k, size := range pieces {
		size = min(size, n)
		iov[k] = uring.Iovec{Base: addr, Len: uintptr(size)}
		addr += uintptr(size)
		n -= size
	}
	return Desc{Addr: a.vec.Addr(i * len(pieces)), NIov: uint32(len(pieces))}
}

func (a *arena) slot(i int) []byte { return a.mem[i*slotSize : (i+1)*slotSize] }

func (a *arena) regions(form string) []Region {
	if form != "fixed" {
		return nil
	}
	return []Region{{a.base, uintptr(len(a.mem))}}
}

// put makes slot i a packet and returns its Desc.
func (a *arena) put(i int, f []byte, form string) Desc {
	clear(a.slot(i)[:hdrLen])
	copy(a.slot(i)[hdrLen:], f)
	return a.desc(i, hdrLen+len(f), form)
}

// each runs f for every engine and form.
func each(t *testing.T, f func(t *testing.T, engine, form string)) {
	for _, engine := range engines(t) {
		for _, form := range forms {
			t.Run(engine+"/"+form, func(t *testing.T) { f(t, engine, form) })
		}
	}
}

// reader is a Reader with its memory, and the checks that hold for every Read.
type reader struct {
	Reader
	*arena
	done   []Completion
	counts *Counts
}

func newReader(t testing.TB, p *tap, e Engine, depth int, form string) *reader {
	t.Helper()
	a, counts := newArena(t, depth, form), &Counts{}
	r, err := e.NewReader(p.FD(), depth, a.regions(form), counts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, errors.Join(r.Close(), r.Close())) })
	if u, ok := r.(*uringReader); ok && (len(u.fixed) == 1) != (form == "fixed") {
		t.Fatalf("%d buffers are registered: %s", len(u.fixed), e.Notes())
	}
	return &reader{r, a, make([]Completion, depth), counts}
}

// read reads up to n packets, checks each, and returns their numbers. Any
// goroutine may call it.
func (r *reader) read(t testing.TB, n int) (numbers []int) {
	t.Helper()
	seen := map[uint32]bool{}
	for _, c := range r.done[:r.Read(r.descs[:n], r.done)] {
		if c.Index >= uint32(n) || seen[c.Index] {
			t.Errorf("the index %d comes out of a Read of %d, or twice", c.Index, n)
			continue
		}
		seen[c.Index] = true
		if c.Res < hdrLen+numberAt+4 {
			t.Errorf("result %d (%v)", c.Res, c.Errno())
			continue
		}
		got := r.slot(int(c.Index))[:c.Res]
		number := int(binary.BigEndian.Uint32(got[hdrLen+numberAt:]))
		if !bytes.Equal(got[hdrLen:], frame(sizes[number%len(sizes)], number)) || !isZero(got[:hdrLen]) {
			t.Errorf("frame %d is not what was sent: %d bytes", number, c.Res)
		}
		numbers = append(numbers, number)
	}
	return numbers
}

func isZero(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) }

// armed returns what waits for something in any ring of this process (fdinfo of
// a ring, "PollList:", io_uring/fdinfo.c).
func armed(t testing.TB) (list []string) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, _ := os.Readlink(fd); target != "anon_inode:[io_uring]" {
			continue
		}
		info, err := os.ReadFile(strings.Replace(fd, "/fd/", "/fdinfo/", 1))
		if err != nil {
			t.Fatal(err)
		}
		_, polls, _ := strings.Cut(string(info), "PollList:\n")
		for line := range strings.Lines(polls) {
			if !strings.HasPrefix(line, "  op=") {
				break
			}
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list
}

// idle checks that nothing is left armed and nothing is left to read.
func (r *reader) idle(t testing.TB, p *tap) {
	t.Helper()
	if list := armed(t); len(list) != 0 {
		t.Errorf("still armed: %v", list)
	}
	if n, errno := tuntap.Read(p.FD(), r.base, slotSize); errno != syscall.EAGAIN {
		t.Errorf("a packet was left: %d bytes (%v)", n, errno)
	}
}
