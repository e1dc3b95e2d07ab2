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
)

// uringEngine moves a batch of packets per io_uring_enter.
type uringEngine struct {
	rwFlags uint32 // RWF_NOWAIT where TAP descriptors have it

	mu     sync.Mutex
	shared []sharedBuffers
	notes  []string
}

// sharedBuffers is one registration of memory, cloned by every ring that uses
// the same regions, so that its pages are pinned and charged once.
type sharedBuffers struct {
	regions []Region
	ring    *uring.Ring
}

// newUringEngine tries what the engine needs on fd itself, instead of guessing
// from a version.
func newUringEngine(fd int) (Engine, error) {
	nowait, err := probe(fd)
	if err != nil {
		return nil, err
	}
	e := &uringEngine{}
	if nowait {
		e.rwFlags = uring.RWFNoWait
	} else {
		e.notes = append(e.notes, "receives by posting reads and cancelling what found nothing, because TAP has no RWF_NOWAIT before Linux 6.4")
	}
	return e, nil
}

// probe submits a write that is too short to be a packet: TAP refuses it with
// EINVAL, or with EOPNOTSUPP before it looks when it lacks RWF_NOWAIT.
func probe(fd int) (nowait bool, err error) {
	r, err := uring.New(uring.Config{Entries: 1})
	if err != nil {
		return false, explain(err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	vec, err := uring.NewVectors(1, 1)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, vec.Close()) }()
	r.SQE().PrepWrite(int32(fd), vec.ScratchAddr(0), 1, uring.RWFNoWait)
	if n, errno := r.Enter(1); errno != 0 || n != 1 {
		return false, explain(fmt.Errorf("io_uring_enter: %w", errno))
	}
	defer r.Release(1)
	switch errno := syscall.Errno(-r.Completion(0).Res); errno {
	case syscall.EINVAL:
		return true, nil
	case syscall.EOPNOTSUPP:
		return false, nil
	default:
		return false, fmt.Errorf("io_uring write to the TAP: unexpected result: %w", errno)
	}
}

// explain says what to do about the errors that administrators cause.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w (kernel.io_uring_disabled or a seccomp profile forbids it)", err)
	case errors.Is(err, syscall.ENOSYS):
		return fmt.Errorf("%w (the kernel has no io_uring, or a seccomp profile hides it)", err)
	case errors.Is(err, syscall.ENOMEM):
		return fmt.Errorf("%w (locked memory: raise RLIMIT_MEMLOCK or grant CAP_IPC_LOCK)", err)
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

func (e *uringEngine) NewReader(fd, depth int, regions []Region) (Reader, error) {
	q, err := e.newQueue(fd, depth, regions)
	if err != nil {
		return nil, err
	}
	return &uringReader{*q, syscallIO{fd}}, nil
}

func (e *uringEngine) NewWriter(fd, depth int, regions []Region) (Writer, error) {
	q, err := e.newQueue(fd, depth, regions)
	if err != nil {
		return nil, err
	}
	return &uringWriter{*q, syscallIO{fd}}, nil
}

// Close frees the shared registrations. Readers and writers are closed first.
func (e *uringEngine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var err error
	for _, s := range e.shared {
		err = errors.Join(err, s.ring.Close())
	}
	e.shared = nil
	return err
}

// queue is what a reader and a writer have in common.
type queue struct {
	ring    *uring.Ring
	rwFlags uint32
	fixed   []fixedBuffer
}

// fixedBuffer is one registered buffer: addresses from base to end.
type fixedBuffer struct{ base, end uintptr }

func (e *uringEngine) newQueue(fd, depth int, regions []Region) (*queue, error) {
	if depth < 1 || depth > MaxDepth {
		return nil, fmt.Errorf("queue depth is %d: want 1 to %d", depth, MaxDepth)
	}
	r, err := uring.New(uring.Config{Entries: depth})
	if err != nil {
		return nil, explain(err)
	}
	if err := r.RegisterFiles([]int32{int32(fd)}); err != nil {
		return nil, errors.Join(explain(err), r.Close())
	}
	q := &queue{ring: r, rwFlags: e.rwFlags}
	if err := e.registerBuffers(r, regions); err != nil {
		e.note("without registered buffers: " + explain(err).Error())
	} else {
		q.fixed = split(regions)
	}
	return q, nil
}

func (e *uringEngine) note(s string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Contains(e.notes, s) {
		e.notes = append(e.notes, s)
	}
}

// registerBuffers gives r the regions: cloned from the ring that holds them for
// all, or, where the kernel cannot clone, registered once more.
func (e *uringEngine) registerBuffers(r *uring.Ring, regions []Region) error {
	if len(regions) == 0 {
		return nil
	}
	src, err := e.sharedRing(regions)
	if err != nil {
		return err
	}
	if r.CloneBuffers(src) == nil {
		return nil
	}
	return r.RegisterBuffers(iovecs(regions))
}

func (e *uringEngine) sharedRing(regions []Region) (*uring.Ring, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.shared {
		if slices.Equal(s.regions, regions) {
			return s.ring, nil
		}
	}
	r, err := uring.New(uring.Config{Entries: 1})
	if err != nil {
		return nil, err
	}
	if err := r.RegisterBuffers(iovecs(regions)); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	e.shared = append(e.shared, sharedBuffers{slices.Clone(regions), r})
	return r, nil
}

// split cuts regions into pieces that one registered buffer can cover.
func split(regions []Region) []fixedBuffer {
	var out []fixedBuffer
	for _, g := range regions {
		for off := uintptr(0); off < g.Size; off += uring.MaxBufferSize {
			out = append(out, fixedBuffer{g.Base + off, g.Base + min(g.Size, off+uring.MaxBufferSize)})
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
		if f := &q.fixed[i]; d.Addr >= f.base && d.Addr+uintptr(d.Len) <= f.end {
			return uint16(i), true
		}
	}
	return 0, false
}

func (q *queue) Close() error { return q.ring.Close() }

// uringReader has a plain descriptor beside the ring: one packet alone, or the
// poll of an idle queue, is cheaper by read(2), which has no request to set up
// and no completion to post.
type uringReader struct {
	queue
	single syscallIO
}

// Read submits all reads at once. Each runs inside the call: it finds a packet,
// or an empty queue, which RWF_NOWAIT turns into EAGAIN.
func (q *uringReader) Read(descs []Desc, done []Completion) int {
	if len(descs) == 1 {
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
	taken, _ := q.ring.Enter(0)
	if q.ring.Ready() < taken {
		q.settle(taken)
	}
	return q.reap(done)
}

// settleRound bounds one wait of settle. A wait that runs out is repeated with
// a new cancel request.
const settleRound = 10 * time.Millisecond

// settle makes n requests complete of which some did not: before Linux 6.4 a
// read that finds nothing waits for a packet instead. They are cancelled; one
// for which a packet comes at the last instant may still succeed. Completions
// keep the order of the packets, because all requests run in this task.
func (q *queue) settle(n int) {
	for q.ring.Ready() < n {
		if s := q.ring.SQE(); s != nil {
			s.PrepCancelAll()
			s.Flags = uring.CQESkipSuccess
			s.UserData = cancelData
			q.ring.Enter(0)
		}
		q.ring.Wait(n, settleRound)
	}
}

// cancelData marks the completion of a cancel request that found nothing.
const cancelData = ^uint64(0)

// reap reports completions other than "nothing there".
func (q *queue) reap(done []Completion) int {
	ready, n := q.ring.Ready(), 0
	for i := range ready {
		c := q.ring.Completion(i)
		if c.Res == -int32(syscall.EAGAIN) || c.Res == -int32(syscall.ECANCELED) || c.UserData == cancelData {
			continue
		}
		done[n] = Completion{uint32(c.UserData), c.Res}
		n++
	}
	q.ring.Release(ready)
	return n
}

// uringWriter has a plain descriptor for the reason that uringReader has one.
type uringWriter struct {
	queue
	single syscallIO
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
	taken, _ = q.ring.Enter(0)
	if q.ring.Ready() == 0 {
		return taken, 0
	}
	return taken, q.reapRefused(failed)
}

func (q *queue) reapRefused(failed []Completion) int {
	n := q.ring.Ready()
	for i := range n {
		c := q.ring.Completion(i)
		failed[i] = Completion{uint32(c.UserData), c.Res}
	}
	q.ring.Release(n)
	return n
}
