// SPDX-License-Identifier: BSD-3-Clause

//go:build !race

// The race detector's instructions are too many to be led through.

package mbuf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	gc "runtime/debug"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/shm"
)

// A process may be killed between any two instructions. So here one is led
// through its operations instruction by instruction, by ptrace(2): after each
// that has changed the shared memory, it counts as killed, its things are
// reclaimed, everything must be there; then the memory is put back as it was
// and it lives on. The same again with others at work on the pool in between,
// at each instruction.

// stepControl is how the traced process is told what to do.
type stepControl struct {
	tid  atomic.Int64
	do   atomic.Uint64 // number of the order<<8 | operation
	done atomic.Uint64
}

// stepOps are what the traced process can do. Its things are bufs.
var stepOps = []func(c *stepChild){
	opTake:    func(c *stepChild) { c.bufs = c.buf[:c.pool.AllocBulk(c.buf[:3])] },
	opGive:    func(c *stepChild) { c.pool.FreeBulk(c.bufs); c.bufs = nil },
	opPrepare: (*stepChild).prepare,
	opSend:    func(c *stepChild) { c.sent = c.out.Producer().Enqueue(c.bufs) },
	opSettle:  (*stepChild).settle,
	opReceive: func(c *stepChild) { c.bufs = c.buf[:c.in.Consumer().Dequeue(c.buf[:3])] },
}

const (
	opTake = iota
	opGive
	opPrepare
	opSend
	opSettle
	opReceive
)

type stepChild struct {
	pool    *Pool
	out, in *Ring
	buf     [4]*Mbuf
	bufs    []*Mbuf
	sent    int
	shared  *Mbuf
	seq     uint64
}

// prepare makes three packets: of one segment, of two, and one that somebody
// refers to.
func (c *stepChild) prepare() {
	for i := range 3 {
		m := c.pool.Alloc()
		if i == 1 {
			Chain(m, c.pool.Alloc())
		}
		number(m, c.seq)
		c.seq++
		c.buf[i] = m
	}
	c.shared = c.buf[2]
	c.shared.RefUpdate(1)
	c.bufs = c.buf[:3]
}

// settle gives up what was not sent, and the second reference.
func (c *stepChild) settle() {
	c.pool.FreeBulk(c.bufs[c.sent:])
	c.seq -= uint64(len(c.bufs) - c.sent)
	c.shared.Free()
	c.bufs = nil
}

// stepVictim is the traced process: descriptors 3 to 6 are the pool, the rings
// out and in, and the orders.
func stepVictim(v *victimArgs) error {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(2)
	}()
	gc.SetGCPercent(-1)
	runtime.LockOSThread()
	var c stepChild
	var err error
	if c.pool, err = AttachPool(3, v.base, v.proc); err != nil {
		return err
	}
	if c.out, err = AttachRing(4, c.pool); err != nil {
		return err
	}
	if c.in, err = AttachRing(5, c.pool); err != nil {
		return err
	}
	mem, err := shm.Attach(6, 0)
	if err != nil {
		return err
	}
	ctl := (*stepControl)(unsafe.Pointer(unsafe.SliceData(mem.Bytes())))
	for _, op := range []int{opTake, opGive, opPrepare, opSettle} { // once, to have the stack grown
		stepOps[op](&c)
	}
	c.seq = 0
	ctl.tid.Store(int64(unix.Gettid()))
	for last := uint64(0); ; {
		do := ctl.do.Load()
		if do == last {
			continue
		}
		stepOps[do&0xff](&c)
		last = do
		ctl.done.Store(do)
	}
}

// stepper leads such a process.
type stepper struct {
	t       *testing.T
	pool    *Pool
	out, in *Ring
	ctl     *stepControl
	tid     int
	orders  uint64

	other        *seat   // of a third process
	mine, others []*Mbuf // what we and it hold
	outSeq       uint64  // of the packet that comes out next
	inSeq        uint64  // of the packet that goes in next
	save         [3][]byte
	states       []int // instructions after which the memory had changed
	windows      int   // states that were looked at
	dead         int   // mbufs of a fourth process, which has died
	deaths       uint64
}

func newStepper(t *testing.T) *stepper {
	runtime.LockOSThread() // the one that traces; it ends with the test
	s := &stepper{t: t, pool: newPool(t, Config{Count: 14, DataRoom: 8, Headroom: 8})}
	s.other = &seat{h: s.pool.hdr, proc: 2}
	s.out, s.in = newTestRing(t, s.pool, 8), newTestRing(t, s.pool, 8)
	assign(t, s.out, 1, 0)
	assign(t, s.in, 0, 1)
	mem, err := shm.New("orders", 4096, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	s.ctl = (*stepControl)(unsafe.Pointer(unsafe.SliceData(mem.Bytes())))
	t.Setenv("GODEBUG", "asyncpreemptoff=1") // signals would be dropped
	cmd := startVictim(t, "steps", s.pool, 1, s.pool.FD(), s.out.FD(), s.in.FD(), mem.FD())
	nettest.Eventually(t, 20*time.Second, "the other process starts", func() bool { return s.ctl.tid.Load() != 0 })
	s.tid = int(s.ctl.tid.Load())
	if err := unix.PtraceSeize(s.tid); errors.Is(err, unix.EPERM) && !nettest.CI() {
		t.Skipf("ptrace(2): %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	// On one CPU they take turns without waking another one up.
	var cpus unix.CPUSet
	if unix.SchedGetaffinity(0, &cpus) == nil {
		for i := 0; cpus.Count() > 1; i++ {
			cpus.Clear(i)
		}
		_ = errors.Join(unix.SchedSetaffinity(0, &cpus), unix.SchedSetaffinity(s.tid, &cpus))
	}
	t.Cleanup(func() {
		cmd.kill()
		var ws unix.WaitStatus
		for err := error(unix.EINTR); err == nil && !ws.Exited() && !ws.Signaled() || err == unix.EINTR; {
			_, err = unix.Wait4(s.tid, &ws, unix.WALL, nil)
		}
		cmd.wait()
		s.pool.Reclaim(1)
		s.out.Vacate(Consuming, 0)
		s.in.Vacate(Producing, 0)
	})
	s.interrupt()
	return s
}

func (s *stepper) interrupt() {
	if err := unix.PtraceInterrupt(s.tid); err != nil {
		s.t.Fatal(err)
	}
	s.await()
}

// await waits for the traced thread to stop. Signals are dropped.
func (s *stepper) await() {
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(s.tid, &ws, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || !ws.Stopped() {
			s.t.Fatalf("traced thread: status %x, %v", ws, err)
		}
		return
	}
}

func (s *stepper) step() {
	if err := unix.PtraceSingleStep(s.tid); err != nil {
		s.t.Fatal(err)
	}
	s.await()
}

func (s *stepper) order(op int) uint64 {
	s.orders++
	s.ctl.do.Store(s.orders<<8 | uint64(op))
	return s.orders<<8 | uint64(op)
}

// run lets the process do something without looking.
func (s *stepper) run(op int) {
	do := s.order(op)
	s.resume()
	nettest.Eventually(s.t, 20*time.Second, "the traced process has done it", func() bool {
		var ws unix.WaitStatus
		if pid, _ := unix.Wait4(s.tid, &ws, unix.WALL|unix.WNOHANG, nil); pid == s.tid {
			s.resume() // from a signal
		}
		return s.ctl.done.Load() == do
	})
	s.interrupt()
}

func (s *stepper) resume() {
	if err := unix.PtraceCont(s.tid, 0); err != nil {
		s.t.Fatal(err)
	}
}

// lead leads the process through op, with meanwhile happening after at
// instructions, and returns the number of instructions.
func (s *stepper) lead(op, at int, meanwhile func()) int {
	do := s.order(op)
	var now, seen []byte
	n := 0
	for s.ctl.done.Load() != do {
		if n == at {
			meanwhile()
		}
		s.step()
		n++
		if now = s.look(now[:0]); !bytes.Equal(now, seen) {
			seen = append(seen[:0], now...)
			s.verify()
			s.states = append(s.states, n)
			if s.t.Failed() {
				s.t.Fatalf("operation %d, instruction %d, others at work after %d", op, n, at)
			}
		}
	}
	return n
}

// look appends what may be of interest in the shared memory: head, the process's
// records, links and rings.
func (s *stepper) look(to []byte) []byte {
	h, mem := s.pool.hdr, s.pool.mem.Bytes()
	to = binary.LittleEndian.AppendUint64(to, h.head.Load())
	records := h.opsOff + opsPerSeat*64
	to = append(to, mem[records:records+64*2]...)
	to = append(to, mem[h.linksOff:h.elemsOff]...)
	const end = unsafe.Sizeof(ringHeader{}) + 8*4
	return append(append(to, s.out.mem.Bytes()[:end]...), s.in.mem.Bytes()[:end]...)
}

// verify looks what is left if the process is killed now.
func (s *stepper) verify() {
	s.windows++
	mems := [3][]byte{s.pool.mem.Bytes(), s.out.mem.Bytes(), s.in.mem.Bytes()}
	for i, mem := range mems {
		s.save[i] = append(s.save[i][:0], mem...)
	}
	if s.windows%2 == 0 {
		s.reclaimDead()
	}
	s.pool.Reclaim(1)
	if s.windows%2 == 1 {
		s.reclaimDead()
	}
	if again, n := s.pool.Reclaim(1), s.pool.Held(1); again != 0 || n != 0 {
		s.t.Errorf("%d mbufs are still held, %d came back later", n, again)
	}
	_ = s.in.Assign(Consuming, 0)
	got := append(s.drain(s.out, s.outSeq, 0), s.drain(s.in, 0, s.inSeq)...)
	s.whole(s.mine, s.others, got)
	for i, mem := range mems {
		copy(mem, s.save[i])
	}
}

// drain takes everything out of a ring. The numbers must be consecutive, from
// the first, or up to the last.
func (s *stepper) drain(r *Ring, first, last uint64) []*Mbuf {
	var bufs [16]*Mbuf
	n := r.Consumer().Dequeue(bufs[:])
	if last > 0 {
		first = last - uint64(n)
	}
	for i, m := range bufs[:n] {
		if got, err := numberOf(m); err != nil || got != first+uint64(i) {
			s.t.Errorf("packet %d of %d from the ring is %d, want %d: %v", i, n, got, first+uint64(i), err)
		}
	}
	return append([]*Mbuf(nil), bufs[:n]...)
}

// whole fails unless every mbuf is either free or one of those, and once.
func (s *stepper) whole(held ...[]*Mbuf) {
	seen, err := listed(s.pool.hdr)
	if err != nil {
		s.t.Error(err)
		return
	}
	for _, bufs := range held {
		for _, m := range bufs {
			for ; m != nil; m = m.Next {
				i := s.pool.hdr.index(m)
				if seen[i] {
					s.t.Errorf("mbuf %d is free and in use, or in use twice", i)
				}
				seen[i] = true
			}
		}
	}
	if len(seen) != s.pool.Count() {
		s.t.Errorf("%d of %d mbufs are there", len(seen), s.pool.Count())
	}
}

// What others do meanwhile: the pool's maker, and a third process.
var meanwhiles = []func(s *stepper){
	func(s *stepper) { s.pool.Alloc().Free() },
	func(s *stepper) { s.thirdTakes(2); s.thirdGives() },
	func(s *stepper) {
		m := s.pool.Alloc()
		number(m, 99)
		s.mine = append(s.mine, m)
	},
	func(s *stepper) { s.thirdTakes(1) },
	func(s *stepper) {
		FreeBulk(s.mine)
		n := s.pool.AllocBulk(s.mine[:cap(s.mine)])
		s.mine = s.mine[:n]
	},
	func(s *stepper) {
		var one [1]*Mbuf
		for s.out.Consumer().Dequeue(one[:]) > 0 {
			if n, err := numberOf(one[0]); err != nil || n != s.outSeq {
				s.t.Errorf("packet %d, want %d: %v", n, s.outSeq, err)
			}
			s.outSeq++
			one[0].Free()
		}
		s.put(1)
	},
}

// A fourth process dies in the middle of an operation, before or after its update
// of head. Nobody cleans up until the end.
func init() {
	for _, kind := range []uint64{opPop, opPush} {
		for _, done := range []bool{false, true} {
			meanwhiles = append(meanwhiles, func(s *stepper) { s.dies(kind, done) })
		}
	}
}

func (s *stepper) dies(kind uint64, done bool) {
	h, proc := s.pool.hdr, uint64(3)
	bufs := make([]*Mbuf, 2)
	if kind == opPush {
		bufs = bufs[:(&seat{h: h, proc: uint32(proc)}).pop(bufs)]
	}
	if len(bufs) == 0 {
		return
	}
	who := proc*opsPerSeat + 1 + s.deaths%(opsPerSeat-1)
	s.deaths++
	op, head := h.op(who), h.head.Load()
	op.expect.Store(head)
	next, first := uint32(0), indexOf(head)
	if kind == opPop {
		var n int
		if next, n = h.walk(head, bufs); n < len(bufs) {
			return
		}
	} else {
		first = h.index(bufs[len(bufs)-1])
		next = first
	}
	op.arg.Store(pack(kind, len(bufs), first))
	if kind == opPush {
		h.chain(bufs, head)
	}
	if done && !h.swap(head, nextHead(head, who, next)) {
		s.t.Error("nobody else is at work")
	}
	if done == (kind == opPop) {
		s.dead += len(bufs)
	}
}

func (s *stepper) reclaimDead() {
	if n := s.pool.Reclaim(3); n != s.dead {
		s.t.Errorf("%d mbufs of the fourth process came back, want %d", n, s.dead)
	}
}

func (s *stepper) thirdTakes(n int) {
	bufs := make([]*Mbuf, n)
	s.others = append(s.others, bufs[:s.other.pop(bufs)]...)
}

func (s *stepper) thirdGives() {
	if len(s.others) > 0 {
		s.other.push(s.others)
	}
	s.others = nil
}

// put sends packets to the traced process, of one and of two segments.
func (s *stepper) put(n int) {
	for i := range n {
		m := s.pool.Alloc()
		if m == nil {
			return
		}
		if seg := s.pool.Alloc(); seg != nil && i%2 == 1 {
			Chain(m, seg)
		} else if seg != nil {
			seg.Free()
		}
		number(m, s.inSeq)
		if s.in.Producer().Enqueue([]*Mbuf{m}) != 1 {
			m.Free()
			return
		}
		s.inSeq++
	}
}

// tidy gives everything back and looks whether it is all there.
func (s *stepper) tidy() {
	s.t.Helper()
	for s.in.Len() > 0 {
		s.run(opReceive)
		s.run(opGive)
	}
	got := s.drain(s.out, s.outSeq, 0)
	s.outSeq += uint64(len(got))
	FreeBulk(got)
	FreeBulk(s.mine)
	s.thirdGives()
	s.mine = nil
	s.reclaimDead()
	s.dead = 0
	if s.pool.InUseCount() != 0 || s.pool.Held(1)+s.pool.Held(2) != 0 {
		s.t.Fatalf("%d mbufs in use, process 1 holds %d, process 2 %d",
			s.pool.InUseCount(), s.pool.Held(1), s.pool.Held(2))
	}
	checkFree(s.t, s.pool)
}

// TestKilledAtEveryInstruction is the proof of Reclaim.
func TestKilledAtEveryInstruction(t *testing.T) {
	nettest.NeedFast(t)
	for name, c := range map[string]struct{ before, op, after []int }{
		"pop":     {nil, []int{opTake}, []int{opGive}},
		"push":    {[]int{opTake}, []int{opGive}, nil},
		"enqueue": {[]int{opPrepare}, []int{opSend}, []int{opSettle}},
		"dequeue": {nil, []int{opReceive}, []int{opGive}},
	} {
		if name != "pop" && nettest.Scale(2) < 2 {
			continue // a slow machine takes minutes for what is the same with every kernel
		}
		t.Run(name, func(t *testing.T) {
			s := newStepper(t)
			op := c.op[0]
			scene := func(at int, meanwhile func(s *stepper)) int {
				if op == opReceive {
					s.put(3)
				}
				s.mine = make([]*Mbuf, 2, 3)
				s.pool.AllocBulk(s.mine)
				for _, op := range c.before {
					s.run(op)
				}
				n := s.lead(op, at, func() { meanwhile(s) })
				for _, op := range c.after {
					s.run(op)
				}
				s.tidy()
				return n
			}
			total := scene(-1, nil)
			// In the middle between two changes there may be a load.
			at := []int{0}
			for i, n := range s.states[:len(s.states)-1] {
				at = append(at, n, (n+s.states[i+1])/2)
			}
			// One in so many, for some seconds at most. It must not always be the same one of ten.
			every := total*len(at)*len(meanwhiles)/nettest.Scale(nettest.Scale(200_000)) + 1
			for every%2 == 0 || every%5 == 0 {
				every++
			}
			for i := range len(at) * len(meanwhiles) {
				if i%every == 0 {
					scene(at[i/len(meanwhiles)], meanwhiles[i%len(meanwhiles)])
				}
			}
			t.Logf("%d instructions, %d states, others at work after %v, 1 in %d", total, s.windows, at, every)
			if len(at) < 10 {
				t.Errorf("only %d states seen", s.windows)
			}
		})
	}
}

func init() { victimRoles["steps"] = stepVictim }
