// SPDX-License-Identifier: BSD-3-Clause

// Package mbuf holds packet buffers: [Mbuf], laid out field for field as
// DPDK's struct rte_mbuf, and [Pool], which keeps them outside the Go heap in
// a memory file that the kernel may write to and other processes may map.
//
// # Start reading here
//
// mbuf.go has the layout, chain.go and copy.go what one does with a packet,
// free.go reference counts and the way home, clone.go indirect mbufs. Below
// them, pool.go creates the memory, freelist.go is the lock-free list in it
// and cache.go the per-goroutine stash in front of that list. process.go is a
// pool that several processes use; seat.go and reclaim.go make sure that one of
// them can be killed at any instruction, and ring.go hands packets over.
//
// # Ownership
//
// An mbuf has one owner at a time. AllocBulk hands it out, a queue's burst
// moves it between the program and the driver, FreeBulk takes it back. The
// owner alone reads and writes its fields. Only the reference count may be
// touched by several goroutines at once, because clones of one packet (see
// [Clone]) are freed wherever they end up; use [Mbuf.RefCount] and
// [Mbuf.RefUpdate] for it, not the field.
//
// # Several processes
//
// The process that makes a pool passes its memory's descriptor on, and others
// join it with [AttachPool], at the same address. All of them allocate and free
// as if they were alone. Packets go from one to another through a [Ring]. When
// one of them has died, the maker calls [Pool.Reclaim]; when the maker dies, the
// pool has no future: its mbufs stay readable and writable, but what is lost from
// then on stays lost.
//
// An mbuf has one owner across processes too, and no reference crosses: a
// packet, its clones and their original stay in one process. The processes trust
// each other: whoever maps the memory can write to all of it.
//
// # Cost
//
// Allocating and freeing take no lock, allocate nothing on the Go heap and
// report exhaustion as a count. Functions that can fail on the data path
// return nil, false or one of the package's fixed error values.
//
// # Debug build
//
// As in DPDK, freeing an mbuf twice, or one that comes from no pool of this
// package, is undefined. Build with -tags mbufdebug and both panic with a
// message naming the mbuf and its pool; so does an mbuf that was written to
// after it was freed, at its next allocation, and one that is freed or handed
// over by a process that does not hold it. Without the tag these checks are
// compiled out. Processes that share a pool are built the same way.
//
// # Limits
//
// Little-endian machines only. Pools need Linux; elsewhere [NewPool] returns
// an error that wraps errors.ErrUnsupported.
package mbuf
