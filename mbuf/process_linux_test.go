// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/shm"
)

func init() {
	victimRoles["churn"] = churnUntilEOF
	victimRoles["pump"] = pump
	memories["attached memfd"] = attachedPool
	memories["attached heap"] = attachedHeapPool
}

// orphan makes a pool whose maker is, by its header, another process, and returns
// its memory's descriptor and address, at which nothing is mapped.
func orphan(t testing.TB, cfg Config, spoil func(h *header)) (int, uintptr) {
	t.Helper()
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	g := cfg.geometry()
	mem, err := shm.New(cfg.Name, g.size, false)
	if err != nil {
		nettest.NeedLinux(t, err)
		t.Fatal(err)
	}
	defer mem.Close()
	h := newPoolIn(mem.Bytes(), cfg, g).hdr
	h.maker++
	if spoil != nil {
		spoil(h)
	}
	return dup(t, mem.FD()), mem.Addr()
}

func dup(t testing.TB, fd int) int {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// attachedPool returns a pool that this process has from AttachPool.
func attachedPool(t testing.TB, cfg Config) *Pool {
	t.Helper()
	fd, base := orphan(t, cfg, nil)
	p, err := AttachPool(fd, base, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closePool(t, p) })
	return p
}

// attachedHeapPool is the same in Go memory.
func attachedHeapPool(t testing.TB, cfg Config) *Pool {
	t.Helper()
	p := newHeapPoolUnchecked(t, cfg)
	p.hdr.maker++
	p.proc = 3
	if s := (&seat{h: p.hdr, proc: 3}); !s.sit() {
		t.Fatal("the seat is taken")
	}
	t.Cleanup(func() {
		checkFree(t, p)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestAttachPool(t *testing.T) {
	cfg := Config{Name: "theirs", Count: 60, DataRoom: 100, Headroom: -1, PrivSize: 16, CacheSize: 7}
	fd, base := orphan(t, cfg, nil)
	p, err := AttachPool(fd, base, MaxProcs)
	if err != nil {
		t.Fatal(err)
	}
	if p.Proc() != MaxProcs || p.Base() != base || p.FD() != fd || p.cfg != mustFill(t, cfg) {
		t.Errorf("process %d at %#x (want %#x), descriptor %d: %+v", p.Proc(), p.Base(), base, p.FD(), p.cfg)
	}
	if r := p.Regions(); len(r) != 1 || r[0].Base != uintptr(unsafe.Pointer(p.hdr.mbuf(0))) {
		t.Errorf("regions %x", r)
	}
	if p.AvailCount() != 60 || p.InUseCount() != 0 {
		t.Errorf("%d available, %d in use", p.AvailCount(), p.InUseCount())
	}
	m := packet(t, p, pattern(250, 0))
	c := p.NewCache(0)
	one := c.Alloc()
	if p.InUseCount() != 4 || p.Held(MaxProcs) != 3+7 || p.AvailCount() != 56 || p.Held(1) != 0 {
		t.Errorf("%d in use, %d held, %d available, %d held by another",
			p.InUseCount(), p.Held(MaxProcs), p.AvailCount(), p.Held(1))
	}
	if n := p.Reclaim(MaxProcs); n != 0 || p.Held(MaxProcs) != 10 {
		t.Errorf("a process that did not make the pool reclaimed %d mbufs", n)
	}
	one.Free()
	if err := p.Close(); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "3 of 60 mbufs and 1 caches") {
		t.Errorf("closed with a cache open: %v", err)
	}
	c.Close()
	if err := p.Close(); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "3 of 60 mbufs and 0 caches") {
		t.Errorf("closed with mbufs in use: %v", err)
	}
	m.Free()
	checkFree(t, p)
	again := dup(t, fd)
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if p.Alloc() != nil || p.Held(MaxProcs) != 0 {
		t.Error("a closed pool gives mbufs")
	}
	// The seat is free again, and what was left is a whole pool.
	if p, err = AttachPool(again, base, MaxProcs); err != nil {
		t.Fatal(err)
	}
	closePool(t, p)
}

func TestAttachPoolErrors(t *testing.T) {
	leaks := nettest.Leaks()
	small := Config{Count: 3, DataRoom: 10}
	spoilt := func(spoil func(h *header)) func(t *testing.T) (int, uintptr) {
		return func(t *testing.T) (int, uintptr) { return orphan(t, small, spoil) }
	}
	file := func(make func() (int, error)) func(t *testing.T) (int, uintptr) {
		return func(t *testing.T) (int, uintptr) {
			fd, err := make()
			if err != nil {
				t.Fatal(err)
			}
			return fd, 0
		}
	}
	for name, c := range map[string]struct {
		make func(t *testing.T) (int, uintptr)
		proc int
		want error
		text string
	}{
		"no descriptor": {file(func() (int, error) { return 12345, nil }), 1, unix.EBADF, "descriptor 12345"},
		"a plain file": {file(func() (int, error) {
			return unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}), 1, shm.ErrUnsealed, ""},
		"a device": {file(func() (int, error) { return unix.Open("/dev/zero", unix.O_RDWR, 0) }), 1, shm.ErrUnsealed, ""},
		"not sealed": {file(func() (int, error) {
			fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
			return fd, errors.Join(err, unix.Ftruncate(fd, 1<<20))
		}), 1, shm.ErrUnsealed, "F_SEAL_SHRINK"},
		"empty": {file(func() (int, error) {
			fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
			_, err2 := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
			return fd, errors.Join(err, err2)
		}), 1, unix.EINVAL, "0 bytes"},
		"less than a header": {file(func() (int, error) {
			fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
			err = errors.Join(err, unix.Ftruncate(fd, 100))
			_, err2 := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
			return fd, errors.Join(err, err2)
		}), 1, ErrLayout, "size in bytes is 100"},
		"magic":     {spoilt(func(h *header) { h.magic++ }), 1, ErrLayout, "first word"},
		"layout":    {spoilt(func(h *header) { h.layout++ }), 1, ErrLayout, "layout"},
		"debug":     {spoilt(func(h *header) { h.stateOff = 4096 - min(h.stateOff, 4096) }), 1, ErrLayout, "mbufdebug"},
		"address":   {spoilt(func(h *header) { h.base += 4096 }), 1, ErrLayout, "address"},
		"count":     {spoilt(func(h *header) { h.count = 1 << 20 }), 1, ErrLayout, "bytes that hold"},
		"no count":  {spoilt(func(h *header) { h.count = 0 }), 1, ErrLayout, "Count 0"},
		"elements":  {spoilt(func(h *header) { h.elemsOff += 64 }), 1, ErrLayout, "bytes that hold"},
		"records":   {spoilt(func(h *header) { h.opsOff = 1 << 40 }), 1, ErrLayout, "bytes that hold"},
		"long name": {spoilt(func(h *header) { h.nameLen = 65 }), 1, ErrLayout, "name of 65"},
		"number 0":  {spoilt(nil), 0, ErrConfig, "must be 1 to 31"},
		"number 32": {spoilt(nil), 32, ErrConfig, "must be 1 to 31"},
		"number taken": {spoilt(func(h *header) { h.owner(5).Store(77) }), 5, ErrTaken,
			"as process 5: mbuf: taken: a process with this number"},
		"address taken": {func(t *testing.T) (int, uintptr) {
			p := newPool(t, small)
			return dup(t, p.FD()), p.Base()
		}, 1, ErrAddress, "/memfd:rtap:mbufs"},
	} {
		t.Run(name, func(t *testing.T) {
			fd, base := c.make(t)
			p, err := AttachPool(fd, base, c.proc)
			if p != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("pool %v, error %v; want %v, %q", p, err, c.want, c.text)
			}
			if !strings.HasPrefix(err.Error(), fmt.Sprintf("mbuf: attach to pool at %#x as process %d: ", base, c.proc)) {
				t.Errorf("error says %v", err)
			}
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
				t.Errorf("the descriptor is still open: %v", err)
			}
		})
	}
	leaks.Check(t)
}

// A process that is stopped is as good as dead: what it would leave is looked at,
// and put back before it goes on.
func (v *process) asDead(t *testing.T, p *Pool, look func()) {
	t.Helper()
	v.signal(t, unix.SIGSTOP)
	nettest.Eventually(t, 20*time.Second, "the process stops", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.cmd.Process.Pid))
		_, state, _ := strings.Cut(string(stat), ") ")
		return err == nil && state[0] == 'T'
	})
	save := append([]byte(nil), p.mem.Bytes()...)
	look()
	copy(p.mem.Bytes(), save)
	v.signal(t, unix.SIGCONT)
}

func (v *process) signal(t *testing.T, sig unix.Signal) {
	t.Helper()
	if err := v.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// Two processes and we take, hold, check and return mbufs, directly and through
// caches, on several threads each. One is killed again and again. What it held
// comes back, exactly; what the others hold stays theirs.
func TestKilledProcess(t *testing.T) {
	p := newPool(t, Config{Count: 600, DataRoom: 16})
	survivor := startVictim(t, "churn", p, 2, p.FD())
	nettest.Eventually(t, 20*time.Second, "the survivor starts", func() bool { return p.Held(2) > 0 })
	total := 0
	for range nettest.Scale(40) {
		v := startVictim(t, "churn", p, 1, p.FD())
		nettest.Eventually(t, 20*time.Second, "the other process starts", func() bool { return p.Held(1) > 0 })
		mine := holder{rng: rand.New(rand.NewPCG(rand.Uint64(), 0)), mark: 1 << 60}
		for range 1 + rand.IntN(2000) {
			if err := mine.turn(p); err != nil {
				t.Fatal(err)
			}
		}
		v.kill()
		if err := v.wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the victim had ended: %v", err)
		}
		total += p.Reclaim(1)
		if n := p.Held(1); n != 0 {
			t.Fatalf("%d mbufs are held by the dead", n)
		}
		survivor.asDead(t, p, func() {
			p.Reclaim(2)
			free, err := listed(p.hdr)
			if n := len(free); err != nil || n+len(mine.bufs) != p.Count() || p.InUseCount() != len(mine.bufs) {
				t.Fatalf("%d mbufs are free, %d ours, of %d; in use %d: %v", n, len(mine.bufs), p.Count(), p.InUseCount(), err)
			}
			for _, m := range mine.bufs {
				if free[p.hdr.index(m)] {
					t.Fatal("an mbuf of ours is free")
				}
			}
			checkList(t, p.hdr)
		})
		if err := mine.release(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d mbufs came back", total)
	survivor.stdin.Close()
	if err := survivor.wait(); err != nil {
		t.Errorf("the survivor: %v", err)
	}
	if n := p.Held(2); n != 0 || p.Reclaim(2) != 0 {
		t.Errorf("%d mbufs are held by a process that closed its pool", n)
	}
	checkFree(t, p)
}

// holder holds mbufs for a while, each with a mark of its own.
type holder struct {
	rng  *rand.Rand
	mark uint64
	bufs []*Mbuf
}

// turn takes some and returns some, which must be as they were left.
func (h *holder) turn(a Allocator) error {
	var bufs [40]*Mbuf
	for _, m := range bufs[:a.AllocBulk(bufs[:h.rng.IntN(40)])] {
		h.mark++
		m.TxOffload = h.mark
		binary.LittleEndian.PutUint64(m.Append(8), h.mark)
		h.bufs = append(h.bufs, m)
	}
	h.rng.Shuffle(len(h.bufs), func(i, j int) { h.bufs[i], h.bufs[j] = h.bufs[j], h.bufs[i] })
	return h.give(a, min(h.rng.IntN(40), len(h.bufs)))
}

func (h *holder) give(a Allocator, n int) error {
	// Now and then many at once, so that the pool is not empty all the time.
	if len(h.bufs) > 80 {
		n = len(h.bufs) / 2
	}
	bufs := h.bufs[len(h.bufs)-n:]
	for _, m := range bufs {
		if got := binary.LittleEndian.Uint64(m.Bytes()); got != m.TxOffload || got>>40 != h.mark>>40 {
			return fmt.Errorf("an mbuf of holder %x has mark %x and %x", h.mark, got, m.TxOffload)
		}
	}
	a.FreeBulk(bufs)
	h.bufs = h.bufs[:len(h.bufs)-n]
	return nil
}

func (h *holder) release() error {
	for len(h.bufs) > 0 {
		if err := h.give(nopAllocator{}, len(h.bufs)); err != nil {
			return err
		}
	}
	return nil
}

// nopAllocator frees to where things come from.
type nopAllocator struct{}

func (nopAllocator) AllocBulk([]*Mbuf) int { return 0 }
func (nopAllocator) FreeBulk(bufs []*Mbuf) { FreeBulk(bufs) }

// churnUntilEOF is the other process of TestKilledProcess.
func churnUntilEOF(v *victimArgs) error {
	p, err := AttachPool(3, v.base, v.proc)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var stop atomic.Bool
	fail := make(chan error, 8)
	for i := range uint64(4) {
		wg.Go(func() {
			h := holder{rng: rand.New(rand.NewPCG(rand.Uint64(), i)), mark: uint64(v.proc)<<56 | i<<48}
			var a Allocator = p
			if i%2 == 0 {
				c := p.NewCache(16)
				defer c.Close()
				a = c
			}
			for !stop.Load() {
				if err := h.turn(a); err != nil {
					fail <- err
					return
				}
			}
			if err := h.release(); err != nil {
				fail <- err
			}
		})
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	go func() { wg.Wait(); close(fail) }()
	if err := <-fail; err != nil {
		return err
	}
	return p.Close()
}

// pump is a process between two rings: descriptors 3 to 5 are the pool, and the
// rings that it takes from and gives to.
func pump(v *victimArgs) error {
	p, err := AttachPool(3, v.base, v.proc)
	if err != nil {
		return err
	}
	in, err := AttachRing(4, p)
	if err != nil {
		return err
	}
	out, err := AttachRing(5, p)
	if err != nil {
		return err
	}
	var stop atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	var bufs [16]*Mbuf
	for !stop.Load() {
		n := in.Consumer().Dequeue(bufs[:])
		for k := 0; k < n; {
			k += out.Producer().Enqueue(bufs[k:n])
		}
	}
	return errors.Join(in.Close(), out.Close(), p.Close())
}

// Packets go from us through two processes and back to us. One of the two is
// killed again and again. What is in the rings arrives, in order and intact;
// what does not was in the dead one's hands, and has been reclaimed.
func TestRingKilledProcess(t *testing.T) {
	p := newPool(t, Config{Count: 400, DataRoom: 8})
	rings := []*Ring{newTestRing(t, p, 32), newTestRing(t, p, 8), newTestRing(t, p, 32)}
	for _, err := range []error{rings[0].Assign(Producing, 0), rings[2].Assign(Consuming, 0)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var procs [3]*process
	start := func(proc int) {
		from, to := rings[proc-1], rings[proc]
		for _, err := range []error{from.Assign(Consuming, proc), to.Assign(Producing, proc)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		procs[proc] = startVictim(t, "pump", p, proc, p.FD(), from.FD(), to.FD())
	}
	start(1)
	start(2)
	s := &stream{t: t, pool: p, in: rings[0].Producer(), out: rings[2].Consumer()}
	for range nettest.Scale(40) {
		before := s.received
		s.until("packets arrive", func() bool { return s.received-before > 100 })
		for range rand.IntN(300) {
			s.turn()
		}
		victim := 1 + rand.IntN(2)
		procs[victim].kill()
		_ = procs[victim].wait()
		s.reclaimed += p.Reclaim(victim)
		for e, r := range []*Ring{Producing: rings[victim], Consuming: rings[victim-1]} {
			if holder, ok := r.Holder(End(e)); ok {
				t.Fatalf("process %d still has the %v end", holder, End(e))
			}
		}
		start(victim)
	}
	s.closed = true
	s.until("the rings run empty", func() bool { return s.received+s.missing == s.sent || s.allIn(rings) })
	for proc := 1; proc <= 2; proc++ {
		procs[proc].stdin.Close()
		if err := procs[proc].wait(); err != nil {
			t.Errorf("process %d: %v", proc, err)
		}
		s.reclaimed += p.Reclaim(proc)
	}
	for s.turn() > 0 {
	}
	s.lost(s.sent)
	t.Logf("%d packets sent, %d lost; %d mbufs reclaimed", s.sent, s.missing, s.reclaimed)
	if s.missingSegs != s.reclaimed {
		t.Errorf("%d mbufs did not arrive, %d were reclaimed", s.missingSegs, s.reclaimed)
	}
	if p.InUseCount() != 0 {
		t.Errorf("%d mbufs in use", p.InUseCount())
	}
}

// stream is a numbered sequence of packets.
type stream struct {
	t              *testing.T
	pool           *Pool
	in             *Producer
	out            *Consumer
	closed         bool
	sent, received uint64
	next           uint64 // number that is expected
	missing        uint64
	missingSegs    int
	reclaimed      int
}

func segsOf(n uint64) int { return 1 + int(n%3) }

// turn sends and receives some, and returns how many it received.
func (s *stream) turn() int {
	var bufs [8]*Mbuf
	for i := 0; i < len(bufs) && !s.closed && s.pool.AvailCount() > 50; i++ {
		m := s.pool.Alloc()
		for range segsOf(s.sent) - 1 {
			if Chain(m, s.pool.Alloc()) != nil {
				s.t.Fatal("chain")
			}
		}
		number(m, s.sent)
		if s.in.Enqueue([]*Mbuf{m}) != 1 {
			m.Free()
			break
		}
		s.sent++
	}
	n := s.out.Dequeue(bufs[:])
	for _, m := range bufs[:n] {
		got, err := numberOf(m)
		if err != nil || got < s.next || got >= s.sent || int(m.NbSegs) != segsOf(got) {
			s.t.Fatalf("packet %d of %d segments, want %d or more: %v", got, m.NbSegs, s.next, err)
		}
		s.lost(got)
		s.next, s.received = got+1, s.received+1
	}
	FreeBulk(bufs[:n])
	return n
}

// lost counts what is missing before number end.
func (s *stream) lost(end uint64) {
	for ; s.next < end; s.next++ {
		s.missing++
		s.missingSegs += segsOf(s.next)
	}
}

func (s *stream) until(what string, cond func() bool) {
	s.t.Helper()
	nettest.Eventually(s.t, 30*time.Second, what, func() bool {
		for range 100 {
			s.turn()
		}
		return cond()
	})
}

func (s *stream) allIn(rings []*Ring) bool {
	for _, r := range rings {
		if r.Len() > 0 {
			return false
		}
	}
	return s.pool.InUseCount() == 0
}
