// SPDX-License-Identifier: BSD-3-Clause

package uring

// The Prep methods overwrite the whole entry. fd is a descriptor, or an index
// of RegisterFiles when FixedFile is then set in Flags. Offsets are zero: a TAP
// is a stream, and a zero offset spares the kernel the file-position lock that
// -1 would take (io_uring/rw.c, io_kiocb_update_pos).

// PrepRead asks for a read of up to n bytes to addr (IORING_OP_READ).
func (s *SQE) PrepRead(fd int32, addr uintptr, n uint32, rwFlags uint32) {
	*s = SQE{Opcode: opRead, FD: fd, Addr: uint64(addr), Len: n, OpFlags: rwFlags}
}

// PrepWrite asks for a write of n bytes from addr (IORING_OP_WRITE).
func (s *SQE) PrepWrite(fd int32, addr uintptr, n uint32, rwFlags uint32) {
	*s = SQE{Opcode: opWrite, FD: fd, Addr: uint64(addr), Len: n, OpFlags: rwFlags}
}

// PrepReadFixed is PrepRead into the registered buffer buf, which must contain
// [addr, addr+n) (IORING_OP_READ_FIXED).
func (s *SQE) PrepReadFixed(fd int32, addr uintptr, n uint32, buf uint16, rwFlags uint32) {
	*s = SQE{Opcode: opReadFixed, FD: fd, Addr: uint64(addr), Len: n, OpFlags: rwFlags, BufIndex: buf}
}

// PrepWriteFixed is PrepWrite from the registered buffer buf, which must
// contain [addr, addr+n) (IORING_OP_WRITE_FIXED).
func (s *SQE) PrepWriteFixed(fd int32, addr uintptr, n uint32, buf uint16, rwFlags uint32) {
	*s = SQE{Opcode: opWriteFixed, FD: fd, Addr: uint64(addr), Len: n, OpFlags: rwFlags, BufIndex: buf}
}

// PrepReadv asks for a scattered read; iov is the address of n Iovecs that
// stay unchanged until the request was submitted (IORING_OP_READV).
func (s *SQE) PrepReadv(fd int32, iov uintptr, n uint32, rwFlags uint32) {
	*s = SQE{Opcode: opReadv, FD: fd, Addr: uint64(iov), Len: n, OpFlags: rwFlags}
}

// PrepWritev asks for a gathered write; iov as in PrepReadv (IORING_OP_WRITEV).
func (s *SQE) PrepWritev(fd int32, iov uintptr, n uint32, rwFlags uint32) {
	*s = SQE{Opcode: opWritev, FD: fd, Addr: uint64(iov), Len: n, OpFlags: rwFlags}
}

// PrepPollAdd asks for one completion when fd has one of events (POLLIN …), as
// poll(2) has them (IORING_OP_POLL_ADD).
func (s *SQE) PrepPollAdd(fd int32, events uint32) {
	*s = SQE{Opcode: opPollAdd, FD: fd, OpFlags: pollEvents(events)}
}

// PrepCancelAll cancels every request of the ring that has not completed; each
// of them completes with -ECANCELED (IORING_OP_ASYNC_CANCEL, since Linux 5.19
// with these flags).
func (s *SQE) PrepCancelAll() {
	*s = SQE{Opcode: opAsyncCancel, FD: -1, OpFlags: cancelAll | cancelAny}
}
