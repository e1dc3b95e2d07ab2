// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxEntries is the largest submission ring (IORING_MAX_ENTRIES).
const MaxEntries = 32768

// Config says what ring to make. Entries is required.
type Config struct {
	// Entries of the submission ring: the most requests one Enter can submit.
	// Rounded up to a power of two. The completion ring has twice as many.
	Entries int

	// SingleThread promises that one OS thread alone will use the ring. The
	// ring descriptor is then registered with that thread, and the kernel
	// skips the locks it needs otherwise (SINGLE_ISSUER, DEFER_TASKRUN, since
	// Linux 6.1; left out where the kernel lacks them).
	SingleThread bool
}

// Ring is one io_uring instance. One goroutine at a time may use it.
type Ring struct {
	fd        int // -1 once closed
	enterFD   uintptr
	enterFlag uintptr
	setup     uint32

	// Submission: we own the tail, the kernel the head. sqTail is our tail
	// including entries that SQE handed out and Enter has not published.
	sqes    unsafe.Pointer
	sqMask  uint32
	sqSize  uint32
	sqTail  uint32
	kSQHead *uint32
	kSQTail *uint32

	// Completion: the kernel owns the tail, we the head.
	cqes      unsafe.Pointer
	cqMask    uint32
	cqHead    uint32
	kCQHead   *uint32
	kCQTail   *uint32
	kOverflow *uint32

	// Arguments of Wait, here because the kernel gets waitTime's address as a
	// number: a Ring is on the heap and does not move.
	waitArg  waitArg
	waitTime [2]int64 // struct __kernel_timespec

	ringMem, sqeMem []byte
	files, buffers  int // how many are registered
}

// optionalFlags are asked for in this order and given up from the end while
// the kernel answers EINVAL: the newest last.
var optionalFlags = []struct {
	flags        uint32
	singleThread bool
}{
	{setupClamp | setupSubmitAll, false},
	{setupCoopTaskrun | setupTaskrunFlag, false},
	{setupSingleIssuer, true},
	{setupDeferTaskrun, true},
	{setupNoSQArray, false},
}

// New makes a ring. Errors wrap the errno of io_uring_setup(2): EPERM where
// kernel.io_uring_disabled or a seccomp profile forbids it, ENOSYS where the
// kernel has none, ENOMEM where locked memory is short.
func New(cfg Config) (*Ring, error) {
	if cfg.Entries < 1 || cfg.Entries > MaxEntries {
		return nil, fmt.Errorf("uring: Entries is %d: want 1 to %d", cfg.Entries, MaxEntries)
	}
	fd, p, err := setup(cfg)
	if err != nil {
		return nil, fmt.Errorf("uring: io_uring_setup: %w", err)
	}
	r := &Ring{fd: fd, enterFD: uintptr(fd), setup: p.flags}
	if err := r.mmap(p); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if cfg.SingleThread {
		r.registerRingFD()
	}
	return r, nil
}

func setup(cfg Config) (int, *params, error) {
	for n := len(optionalFlags); ; n-- {
		p := &params{}
		for _, o := range optionalFlags[:n] {
			if !o.singleThread || cfg.SingleThread {
				p.flags |= o.flags
			}
		}
		fd, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, uintptr(cfg.Entries), uintptr(unsafe.Pointer(p)), 0)
		switch {
		case errno == 0 && p.features&(featSingleMmap|featNoDrop) != featSingleMmap|featNoDrop:
			unix.Close(int(fd))
			return -1, nil, syscall.ENOSYS // before Linux 5.5: nothing the driver needs is there
		case errno == 0:
			return int(fd), p, nil
		case errno != syscall.EINVAL || n == 0:
			return -1, nil, errno
		}
	}
}

func (r *Ring) mmap(p *params) error {
	sqLen := uint64(p.sqOff.array) + 4*uint64(p.sqEntries)
	cqLen := uint64(p.cqOff.cqes) + cqeSize*uint64(p.cqEntries)
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	var err error
	if r.ringMem, err = unix.Mmap(r.fd, offSQRing, int(max(sqLen, cqLen)), prot, flags); err != nil {
		return fmt.Errorf("uring: mmap of the rings: %w", err)
	}
	if r.sqeMem, err = unix.Mmap(r.fd, offSQEs, int(sqeSize*p.sqEntries), prot, flags); err != nil {
		return fmt.Errorf("uring: mmap of the submission entries: %w", err)
	}
	index := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.ringMem[off])) }
	r.sqes = unsafe.Pointer(&r.sqeMem[0])
	r.sqSize, r.sqMask = p.sqEntries, *index(p.sqOff.ringMask)
	r.kSQHead, r.kSQTail = index(p.sqOff.head), index(p.sqOff.tail)
	r.sqTail = *r.kSQTail
	r.cqes = unsafe.Pointer(&r.ringMem[p.cqOff.cqes])
	r.cqMask = *index(p.cqOff.ringMask)
	r.kCQHead, r.kCQTail = index(p.cqOff.head), index(p.cqOff.tail)
	r.cqHead = *r.kCQHead
	r.kOverflow = index(p.cqOff.overflow)
	if p.flags&setupNoSQArray == 0 {
		// Entries are used in ring order, so the indirection is the identity for good.
		array := unsafe.Slice(index(p.sqOff.array), p.sqEntries)
		for i := range array {
			array[i] = uint32(i)
		}
	}
	return nil
}

// Size is the number of submission entries, a power of two.
func (r *Ring) Size() int { return int(r.sqSize) }

// SQE is the next free submission entry, or nil when the ring is full. The
// caller fills it before the next Enter.
func (r *Ring) SQE() *SQE {
	// Acquire: pairs with the kernel's release of sq.head after it has read
	// the entries (io_commit_sqring).
	if r.sqTail-atomic.LoadUint32(r.kSQHead) >= r.sqSize {
		return nil
	}
	s := r.sqe(r.sqTail)
	r.sqTail++
	return s
}

func (r *Ring) sqe(index uint32) *SQE {
	return (*SQE)(unsafe.Add(r.sqes, uintptr(index&r.sqMask)*sqeSize))
}

// Reserve is SQE for a batch: the next n entries, n at most Free(), are to be
// had with At(0) … At(n-1) after it and are published by Enter.
func (r *Ring) Reserve(n int) Batch {
	b := Batch{r.sqes, r.sqTail, r.sqMask}
	r.sqTail += uint32(n)
	return b
}

// Batch is a run of submission entries.
type Batch struct {
	sqes       unsafe.Pointer
	tail, mask uint32
}

// At is the batch's i-th entry.
func (b Batch) At(i int) *SQE {
	return (*SQE)(unsafe.Add(b.sqes, uintptr((b.tail+uint32(i))&b.mask)*sqeSize))
}

// Free is how many submission entries SQE and Reserve can give now.
func (r *Ring) Free() int {
	return int(r.sqSize - (r.sqTail - atomic.LoadUint32(r.kSQHead))) // acquire, as in SQE
}

// Enter publishes the filled entries, submits them and waits until wait
// completions are there to be read. It returns how many the kernel took. With
// an error or a short count, what it did not take is withdrawn: Enter never
// leaves entries behind for a later call.
func (r *Ring) Enter(wait int) (int, syscall.Errno) {
	head := atomic.LoadUint32(r.kSQHead)
	n := r.sqTail - head
	// Release: the kernel's acquire is in io_sqring_entries.
	atomic.StoreUint32(r.kSQTail, r.sqTail)
	flags := r.enterFlag
	if wait > 0 {
		flags |= enterGetEvents
	}
	done, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, r.enterFD, uintptr(n), uintptr(wait), flags, 0, 0)
	if errno == 0 && done == uintptr(n) {
		return int(n), 0
	}
	// The kernel reads the tail inside the call only (there is no SQPOLL
	// thread), so the rest can be taken back.
	r.sqTail = atomic.LoadUint32(r.kSQHead)
	atomic.StoreUint32(r.kSQTail, r.sqTail)
	return int(r.sqTail - head), errno
}

// Wait waits until n completions are there to be read, or the timeout, which
// it reports as ETIME. It submits nothing.
func (r *Ring) Wait(n int, timeout time.Duration) syscall.Errno {
	r.waitTime = [2]int64{int64(timeout / time.Second), int64(timeout % time.Second)}
	r.waitArg = waitArg{timespec: uint64(uintptr(unsafe.Pointer(&r.waitTime)))}
	for {
		_, _, errno := syscall.Syscall6(unix.SYS_IO_URING_ENTER, r.enterFD, 0, uintptr(n),
			r.enterFlag|enterGetEvents|enterExtArg, uintptr(unsafe.Pointer(&r.waitArg)), unsafe.Sizeof(r.waitArg))
		if errno != syscall.EINTR {
			return errno
		}
	}
}

// Ready is how many completions can be read with Completion.
func (r *Ring) Ready() int {
	// Acquire: pairs with the kernel's release in io_commit_cqring.
	return int(atomic.LoadUint32(r.kCQTail) - r.cqHead)
}

// Completion is the i-th completion that was not yet released, i below Ready.
// It is valid until Release.
func (r *Ring) Completion(i int) *CQE {
	return (*CQE)(unsafe.Add(r.cqes, uintptr((r.cqHead+uint32(i))&r.cqMask)*cqeSize))
}

// Release gives the oldest n completions back to the kernel.
func (r *Ring) Release(n int) {
	r.cqHead += uint32(n)
	// Release: pairs with the kernel's acquire when it looks for room.
	atomic.StoreUint32(r.kCQHead, r.cqHead)
}

// Overflows is how many completions found the ring full. The kernel keeps them
// (IORING_FEAT_NODROP) and delivers them with a later Enter.
func (r *Ring) Overflows() uint32 { return atomic.LoadUint32(r.kOverflow) }

// Flags names what the kernel granted, for reports.
func (r *Ring) Flags() []string {
	var names []string
	for _, f := range []struct {
		bit  uint32
		name string
	}{
		{setupSubmitAll, "SUBMIT_ALL"}, {setupCoopTaskrun, "COOP_TASKRUN"},
		{setupSingleIssuer, "SINGLE_ISSUER"}, {setupDeferTaskrun, "DEFER_TASKRUN"}, {setupNoSQArray, "NO_SQARRAY"},
	} {
		if r.setup&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	if r.enterFlag&enterRegisteredRing != 0 {
		names = append(names, "REGISTERED_RING")
	}
	return names
}

// closeTimeout bounds how long Close waits for cancelled requests.
const closeTimeout = 5 * time.Second

// Close cancels what is pending, waits until the kernel holds no buffer and no
// file of the ring any more, and frees it. A second Close does nothing. An
// error means that a request could not be cancelled in time; the descriptor is
// closed all the same, but the memory stays mapped, because the kernel may
// still write to the buffers.
func (r *Ring) Close() error {
	if r.fd < 0 {
		return nil
	}
	err := r.cancelAll()
	// Unregistering now, not when the kernel's worker gets to it: a registered
	// TAP descriptor would keep its interface alive until then.
	err = errors.Join(err, r.UnregisterFiles(), r.UnregisterBuffers())
	r.unregisterRingFD()
	err = errors.Join(err, os.NewSyscallError("close", unix.Close(r.fd)))
	r.fd = -1
	if err != nil {
		return fmt.Errorf("uring: close: %w", err)
	}
	for _, mem := range [][]byte{r.ringMem, r.sqeMem} {
		if mem != nil {
			err = errors.Join(err, os.NewSyscallError("munmap", unix.Munmap(mem)))
		}
	}
	r.ringMem, r.sqeMem = nil, nil
	return err
}

// cancelAll cancels every pending request and waits for the last of them.
func (r *Ring) cancelAll() error {
	arg := syncCancel{fd: -1, flags: cancelAll | cancelAny, timeoutSec: int64(closeTimeout / time.Second)}
	for {
		switch errno := r.register(registerSyncCancel, unsafe.Pointer(&arg), 1); errno {
		case 0, syscall.ENOENT: // ENOENT: nothing was pending
			return nil
		case syscall.EINTR:
		case syscall.EINVAL: // Linux 5.19
			return r.cancelByRequest()
		default:
			return fmt.Errorf("cancel: %w", errno)
		}
	}
}

// cancelByRequest is cancelAll for a kernel without IORING_REGISTER_SYNC_CANCEL.
// The cancelled requests complete before the cancel request does or right after;
// unregistering the files waits for the rest.
func (r *Ring) cancelByRequest() error {
	r.Release(r.Ready())
	s := r.SQE()
	if s == nil {
		return errors.New("cancel: the submission ring is full")
	}
	s.PrepCancelAll()
	if _, errno := r.Enter(0); errno != 0 {
		return fmt.Errorf("cancel: %w", errno)
	}
	if errno := r.Wait(1, closeTimeout); errno != 0 {
		return fmt.Errorf("cancel: %w", errno)
	}
	return nil
}
