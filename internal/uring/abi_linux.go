// SPDX-License-Identifier: BSD-3-Clause

package uring

// SQE is struct io_uring_sqe: one request, 64 bytes. Fields that are unions in
// the header have the name of the member that the driver uses.
type SQE struct {
	Opcode   uint8
	Flags    uint8 // IOSQE_*
	IOPrio   uint16
	FD       int32 // a descriptor, or an index with FixedFile
	Off      uint64
	Addr     uint64
	Len      uint32
	OpFlags  uint32 // rw_flags, poll32_events or cancel_flags
	UserData uint64
	BufIndex uint16
	_        [6]byte // personality, splice_fd_in
	_        [16]byte
}

// CQE is struct io_uring_cqe: one completion, 16 bytes.
type CQE struct {
	UserData uint64
	Res      int32 // result, or minus an errno
	Flags    uint32
}

// sqOffsets, cqOffsets and params are struct io_sqring_offsets,
// io_cqring_offsets and io_uring_params.
type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
	_                                                           uint64
}

type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
	_                                                           uint64
}

type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sqOff                                                                  sqOffsets
	cqOff                                                                  cqOffsets
}

// syncCancel is struct io_uring_sync_cancel_reg.
type syncCancel struct {
	addr        uint64
	fd          int32
	flags       uint32
	timeoutSec  int64
	timeoutNsec int64
	opcode      uint8
	_           [7]uint8
	_           [3]uint64
}

// cloneBuffers is struct io_uring_clone_buffers.
type cloneBuffers struct {
	srcFD, flags, srcOff, dstOff, nr uint32
	_                                [3]uint32
}

// waitArg is struct io_uring_getevents_arg.
type waitArg struct {
	sigmask          uint64
	sigmaskSize, pad uint32
	timespec         uint64
}

// ringUpdate is struct io_uring_rsrc_update, as IORING_REGISTER_RING_FDS takes it.
type ringUpdate struct {
	offset, _ uint32
	data      uint64
}

// Opcodes of the requests that the driver makes (enum io_uring_op).
const (
	opNop         = 0
	opReadv       = 1
	opWritev      = 2
	opReadFixed   = 4
	opWriteFixed  = 5
	opPollAdd     = 6
	opAsyncCancel = 14
	opRead        = 22
	opWrite       = 23
)

// Request flags (SQE.Flags).
const (
	FixedFile      = 1 << 0 // IOSQE_FIXED_FILE: FD is an index of RegisterFiles
	CQESkipSuccess = 1 << 6 // IOSQE_CQE_SKIP_SUCCESS, since Linux 5.17: only errors complete
	ioDrain        = 1 << 1 // IOSQE_IO_DRAIN
)

// RWFNoWait is RWF_NOWAIT of preadv2(2): answer EAGAIN instead of waiting. On
// TAP descriptors since Linux 6.4, EOPNOTSUPP before.
const RWFNoWait = 0x8

// Set-up flags (io_uring_setup(2)).
const (
	setupClamp        = 1 << 4
	setupSubmitAll    = 1 << 7  // since Linux 5.18
	setupCoopTaskrun  = 1 << 8  // since Linux 5.19
	setupSingleIssuer = 1 << 12 // since Linux 6.0
	setupDeferTaskrun = 1 << 13 // since Linux 6.1
	setupNoSQArray    = 1 << 16 // since Linux 6.6
)

// Flags of io_uring_enter(2) and bits that the kernel shows in the SQ ring.
const (
	enterGetEvents      = 1 << 0
	enterExtArg         = 1 << 3
	enterRegisteredRing = 1 << 4
)

const (
	featSingleMmap = 1 << 0
	featNoDrop     = 1 << 1
	featExtArg     = 1 << 8  // since Linux 5.11
	featCQESkip    = 1 << 11 // since Linux 5.17
)

// Registration opcodes (io_uring_register(2)).
const (
	registerBuffers      = 0
	unregisterBuffers    = 1
	registerFiles        = 2
	unregisterFiles      = 3
	registerRingFDs      = 20 // since Linux 5.18
	unregisterRingFDs    = 21
	registerSyncCancel   = 24 // since Linux 6.0
	registerCloneBuffers = 30 // since Linux 6.12
)

// Cancel flags (SQE.OpFlags of an ASYNC_CANCEL), since Linux 5.19.
const (
	cancelAll = 1 << 0
	cancelAny = 1 << 2
)

// Offsets for mmap(2) of a ring descriptor.
const (
	offSQRing = 0
	offSQEs   = 0x10000000
)

const (
	sqeSize = 64
	cqeSize = 16
)
