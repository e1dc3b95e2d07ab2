// SPDX-License-Identifier: BSD-3-Clause

package pktio

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rtap-project/rtap/internal/uring"
	"golang.org/x/sys/unix"
)

// uringEngine moves a batch of packets per io_uring_enter.
type uringEngine struct {
	rwFlags uint32 // RWF_NOWAIT where TAP descriptors have it

	mu     sync.Mutex
	shared []*sharedBuffers
	notes  []string
}

// sharedBuffers is one registration of memory, cloned by every ring that uses
// the same regions, so that its pages are pinned and charged once. It lives as
// long as one of them: what is mapped at the same addresses later is other
// memory, and the registration would go on meaning the old pages.
type sharedBuffers struct {
	regions []Region
	ring    *uring.Ring
	users   int
}

// few is up to how many packets are read one by one. A batch of reads costs the
// kernel more to begin with than read(2) does, and a read in it that finds nothing
// about as much. When one more is asked for than there is, as a driver does that
// does not know, batches win from 5 on: BenchmarkReadBeyond.
const few = 4

// newUringEngine tries what the engine needs on fd itself, instead of guessing
// from a version.
func newUringEngine(fd int) (Engine, error) {
	switch f := uring.ProbeNoWait(fd); f.Outcome {
	case uring.Yes:
		return &uringEngine{rwFlags: uring.RWFNoWait}, nil
	case uring.No:
		return waitingEngine(), nil
	default:
		return nil, explain(f.Err)
	}
}

// newWaitingEngine is newUringEngine with RWF_NOWAIT left alone.
func newWaitingEngine(fd int) (Engine, error) {
	if f := uring.ProbeNoWait(fd); f.Outcome == uring.Unknown {
		return nil, explain(f.Err)
	}
	return waitingEngine(), nil
}

// waitingEngine is for TAPs without RWF_NOWAIT: a read by the ring would wait for
// a packet.
func waitingEngine() *uringEngine {
	return &uringEngine{notes: []string{
		"receives packet by packet, because TAP has no RWF_NOWAIT before Linux 6.4"}}
}

// explain adds what an administrator can do about it.
func explain(err error) error {
	if why := uring.Explain(err); why != "" {
		return fmt.Errorf("%w (%s)", err, why)
	}
	return err
}

func (e *uringEngine) Name() string { return Uring }

func (e *uringEngine) Notes() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.notes) == 0 {
		return "reads with RWF_NOWAIT"
	}
	return strings.Join(e.notes, "; ")
}

func (e *uringEngine) NewReader(fd, depth int, regions []Region, counts *Counts) (Reader, error) {
	if e.rwFlags == 0 {
		return syscallIO{fd, counts}, checkQueue(fd, depth)
	}
	q, err := e.newQueue(fd, depth, regions)
	if err != nil {
		return nil, err
	}
	return &uringReader{*q, syscallIO{fd, counts}, counts}, nil
}

func (e *uringEngine) NewWriter(fd, depth int, regions []Region, counts *Counts) (Writer, error) {
	q, err := e.newQueue(fd, depth, regions)
	if err != nil {
		return nil, err
	}
	return &uringWriter{*q, syscallIO{fd, counts}, counts}, nil
}

// Close does nothing: what the engine holds goes with the last queue that uses
// it. Readers and writers are closed first.
func (e *uringEngine) Close() error { return nil }

// queue is what a reader and a writer have in common.
type queue struct {
	engine  *uringEngine
	ring    *uring.Ring
	rwFlags uint32
	fixed   []fixedBuffer
	shared  *sharedBuffers // what fixed was cloned from, or nil
}

// fixedBuffer is one registered buffer: addresses from base to end.
type fixedBuffer struct{ base, end uintptr }

func (e *uringEngine) newQueue(fd, depth int, regions []Region) (*queue, error) {
	if err := checkQueue(fd, depth); err != nil {
		return nil, err
	}
	r, err := uring.New(uring.Config{Entries: depth})
	if err != nil {
		return nil, explain(err)
	}
	if err := r.RegisterFiles([]int32{int32(fd)}); err != nil {
		return nil, errors.Join(explain(err), r.Close())
	}
	q := &queue{engine: e, ring: r, rwFlags: e.rwFlags}
	if err := q.registerBuffers(regions); err != nil {
		e.note("without registered buffers: " + explain(err).Error())
	} else {
		q.fixed = split(regions)
	}
	return q, nil
}

// checkQueue refuses what newQueue cannot use. Before Linux 6.4 the kernel gives
// requests on a blocking TAP descriptor to a worker thread, so that Enter would
// return before they are done (io_uring/io_uring.c, __io_file_supports_nowait).
func checkQueue(fd, depth int) error {
	if depth < 1 || depth > MaxDepth {
		return fmt.Errorf("queue depth is %d: want 1 to %d", depth, MaxDepth)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_NONBLOCK == 0 {
		err = fmt.Errorf("not in non-blocking mode: %w", syscall.EINVAL)
	}
	if err != nil {
		return fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return nil
}

func (e *uringEngine) note(s string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Contains(e.notes, s) {
		e.notes = append(e.notes, s)
	}
}

// registerBuffers gives the ring the regions: cloned from the ring that holds
// them for all, or, where the kernel cannot clone, registered once more.
func (q *queue) registerBuffers(regions []Region) error {
	if len(regions) == 0 {
		return nil
	}
	shared, err := q.engine.share(regions)
	if err != nil {
		return err
	}
	if q.ring.CloneBuffers(shared.ring) == nil {
		q.shared = shared
		return nil
	}
	return errors.Join(q.ring.RegisterBuffers(iovecs(regions)), q.engine.unshare(shared))
}

// share returns the registration of regions, with one user more.
func (e *uringEngine) share(regions []Region) (*sharedBuffers, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.shared {
		if slices.Equal(s.regions, regions) {
			s.users++
			return s, nil
		}
	}
	r, err := uring.New(uring.Config{Entries: 1})
	if err != nil {
		return nil, err
	}
	if err := r.RegisterBuffers(iovecs(regions)); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	s := &sharedBuffers{slices.Clone(regions), r, 1}
	e.shared = append(e.shared, s)
	return s, nil
}

// unshare takes one user away, and with the last one the registration.
func (e *uringEngine) unshare(s *sharedBuffers) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.users--; s.users > 0 {
		return nil
	}
	e.shared = slices.DeleteFunc(e.shared, func(o *sharedBuffers) bool { return o == s })
	return s.ring.Close()
}

// split cuts regions into pieces that one registered buffer can cover.
func split(regions []Region) []fixedBuffer {
	var out []fixedBuffer
	for _, g := range regions {
		for base, left := g.Base, g.Size; left > 0; {
			n := min(left, uring.MaxBufferSize)
			out = append(out, fixedBuffer{base, base + n})
			base, left = base+n, left-n
		}
	}
	return out
}

func iovecs(regions []Region) []uring.Iovec {
	var out []uring.Iovec
	for _, f := range split(regions) {
		out = append(out, uring.Iovec{Base: f.base, Len: f.end - f.base})
	}
	return out
}

// lookup finds the registered buffer that holds d whole.
func (q *queue) lookup(d *Desc) (uint16, bool) {
	for i := range q.fixed {
		if f := &q.fixed[i]; d.Addr >= f.base && d.Addr <= f.end && uintptr(d.Len) <= f.end-d.Addr {
			return uint16(i), true
		}
	}
	return 0, false
}

// Close frees the ring, and its share of the registered memory. Closing again
// does nothing.
func (q *queue) Close() error {
	err := q.ring.Close()
	if s := q.shared; s != nil {
		q.shared = nil
		err = errors.Join(err, q.engine.unshare(s))
	}
	return err
}

// uringReader has a plain descriptor beside the ring, for a few packets or the
// poll of an idle queue: read(2) has no request to set up and no completion to
// post.
type uringReader struct {
	queue
	single syscallIO
	counts *Counts
}

// Read submits all reads at once. Each runs inside the call: it finds a packet,
// or an empty queue, which RWF_NOWAIT turns into EAGAIN.
func (q *uringReader) Read(descs []Desc, done []Completion) int {
	if len(descs) <= few {
		return q.single.Read(descs, done)
	}
	n := min(len(descs), q.ring.Free())
	b := q.ring.Reserve(n)
	for i := range n {
		d, s := &descs[i], b.At(i)
		if d.NIov != 0 {
			s.PrepReadv(0, d.Addr, d.NIov, q.rwFlags)
		} else if buf, ok := q.lookup(d); ok {
			s.PrepReadFixed(0, d.Addr, d.Len, buf, q.rwFlags)
		} else {
			s.PrepRead(0, d.Addr, d.Len, q.rwFlags)
		}
		s.Flags = uring.FixedFile
		s.UserData = uint64(i)
	}
	taken := q.counts.enter(q.ring, len(descs))
	completed, found := q.reap(done)
	for completed < taken { // not with RWF_NOWAIT; but the kernel has the memory until then
		q.ring.Wait(1, waitRound)
		q.counts.Enters++
		c, f := q.reap(done[found:])
		completed, found = completed+c, found+f
	}
	q.counts.Empty += uint64(completed - found)
	return found
}

// enter submits what is in the ring of the requests that were asked for, and returns how many
// the kernel took.
func (c *Counts) enter(r *uring.Ring, asked int) (taken int) {
	taken, _ = r.Enter()
	c.Enters++
	if taken < asked {
		c.Full++
	}
	return taken
}

// waitRound bounds one wait for what should be there.
const waitRound = 10 * time.Millisecond

// reap takes the completions that are there: it returns of how many reads, and
// reports those that did not find the queue empty.
func (q *uringReader) reap(done []Completion) (completed, found int) {
	ready := q.ring.Ready()
	for i := range ready {
		c := q.ring.Completion(i)
		if c.Res == -int32(syscall.EAGAIN) {
			continue
		}
		done[found] = Completion{uint32(c.UserData), c.Res}
		found++
	}
	q.ring.Release(ready)
	return ready, found
}

// uringWriter has a plain descriptor for single packets; two are as cheap by the
// ring.
type uringWriter struct {
	queue
	single syscallIO
	counts *Counts
}

// Write submits all writes at once. A TAP write never waits, so each runs
// inside the call and only a refused one posts a completion.
func (q *uringWriter) Write(descs []Desc, failed []Completion) (taken, refused int) {
	if len(descs) == 1 {
		return q.single.Write(descs, failed)
	}
	n := min(len(descs), q.ring.Free())
	b := q.ring.Reserve(n)
	for i := range n {
		d, s := &descs[i], b.At(i)
		if d.NIov != 0 {
			s.PrepWritev(0, d.Addr, d.NIov, q.rwFlags)
		} else if buf, ok := q.lookup(d); ok {
			s.PrepWriteFixed(0, d.Addr, d.Len, buf, q.rwFlags)
		} else {
			s.PrepWrite(0, d.Addr, d.Len, q.rwFlags)
		}
		s.Flags = uring.FixedFile | uring.CQESkipSuccess
		s.UserData = uint64(i)
	}
	taken = q.counts.enter(q.ring, len(descs))
	if q.ring.Ready() == 0 {
		return taken, 0
	}
	return taken, q.reapRefused(failed)
}

func (q *uringWriter) reapRefused(failed []Completion) int {
	n := q.ring.Ready()
	for i := range n {
		c := q.ring.Completion(i)
		failed[i] = Completion{uint32(c.UserData), c.Res}
	}
	q.ring.Release(n)
	return n
}
