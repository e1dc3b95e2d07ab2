// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"errors"
	"fmt"
	"syscall"
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

	// SingleThread promises that one OS thread alone will use the ring, from
	// New to Close: the caller has locked its goroutine to it. The ring
	// descriptor is then registered with that thread, and the kernel skips the
	// locks it needs otherwise (SINGLE_ISSUER, DEFER_TASKRUN, since Linux 6.1;
	// left out where the kernel lacks them).
	SingleThread bool
}

// Ring is one io_uring instance. One goroutine at a time may use it; after
// Close, none.
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
//
// COOP_TASKRUN is not among them. It leaves the completion of an armed request
// until the thread that made it enters the kernel; a Go thread may by then run
// other goroutines, which need not do that before the next timer tick.
var optionalFlags = []struct {
	flags        uint32
	singleThread bool
}{
	{setupClamp | setupSubmitAll, false},
	{setupSingleIssuer, true},
	{setupDeferTaskrun, true},
	{setupNoSQArray, false},
}

// needed are the features without which the driver cannot work; CQE_SKIP is the
// youngest, of Linux 5.17.
const needed = featSingleMmap | featNoDrop | featExtArg | featCQESkip

// New makes a ring. Errors wrap the errno of io_uring_setup(2): EPERM where
// kernel.io_uring_disabled or a seccomp profile forbids it, ENOSYS where the
// kernel has none or one before Linux 5.17, ENOMEM where memory is short.
// Explain says more.
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
		fd, errno := setupRing(uint32(cfg.Entries), p)
		switch {
		case errno == 0 && p.features&needed != needed:
			unix.Close(fd)
			return -1, nil, syscall.ENOSYS
		case errno == 0:
			return fd, p, nil
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

// Flags names what the kernel granted, for reports.
func (r *Ring) Flags() []string {
	var names []string
	for _, f := range []struct {
		bit  uint32
		name string
	}{
		{setupSubmitAll, FeatureSubmitAll},
		{setupSingleIssuer, FeatureSingleIssuer}, {setupDeferTaskrun, FeatureDeferTaskrun}, {setupNoSQArray, FeatureNoSQArray},
	} {
		if r.setup&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	if r.enterFlag&enterRegisteredRing != 0 {
		names = append(names, FeatureRingFD)
	}
	return names
}
