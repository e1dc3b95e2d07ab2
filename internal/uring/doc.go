// SPDX-License-Identifier: BSD-3-Clause

// Package uring speaks io_uring over the raw system calls: set-up, the two
// rings, registration of files and buffers, and the eight operations the driver
// uses. It is not a general binding: what the driver does not need is not here.
//
// A [Ring] belongs to one goroutine at a time, which may move between OS
// threads: nothing in it depends on the submitting thread unless
// [Config.SingleThread] asks for that. Methods allocate nothing after [New].
//
// Memory ordering follows io_uring(7): the ring's four indices are published
// and observed through sync/atomic only, each access naming its counterpart in
// the kernel (io_uring/io_uring.c).
//
// Since Linux 6.0 (IORING_REGISTER_SYNC_CANCEL). Layouts are those of
// include/uapi/linux/io_uring.h; a test holds them against the header that is
// installed. [Probe] says what of all this is to be had on a machine.
package uring
