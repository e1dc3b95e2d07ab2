// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"fmt"
	"unsafe"

	"github.com/rtap-project/rtap/internal/shm"
)

// AttachPool joins the pool of another process, as rte_mempool_lookup in a
// secondary process of DPDK: fd is the descriptor of its
// memory ([Pool.FD]), base where that process has it ([Pool.Base]), proc the
// number that its maker has given to this process, 1 to MaxProcs, which no other
// process has. It takes fd over, and closes it if it fails.
//
// The pool works as any other; what this process holds when it dies its maker
// gets back by [Pool.Reclaim]. References do not cross processes: an mbuf whose
// buffer is shared with a clone stays in one, and a [Ring] copies it.
//
// Close the pool to leave it. It then unmaps the memory: mbufs of the pool that
// are still known to this process must not be touched any more, not even to free
// them.
//
// Errors: ErrConfig (proc), ErrLayout if the memory is not a pool of the same
// build, ErrAddress if the addresses are in use here, ErrTaken if the number is,
// those of mmap(2).
// Linux 4.17.
func AttachPool(fd int, base uintptr, proc int) (*Pool, error) {
	fail := func(err error) (*Pool, error) {
		return nil, fmt.Errorf("mbuf: attach to pool at %#x as process %d: %w", base, proc, err)
	}
	mem, err := shm.Attach(fd, base)
	if err != nil {
		return fail(err)
	}
	if err = checkPool(mem, proc); err != nil {
		mem.Close()
		return fail(err)
	}
	h := (*header)(unsafe.Pointer(unsafe.SliceData(mem.Bytes())))
	s := &seat{h: h, proc: uint32(proc)}
	if !s.sit() {
		mem.Close()
		return fail(fmt.Errorf("%w: a process with this number uses the pool, or died and was not reclaimed", ErrTaken))
	}
	p := poolOf(h, h.config(), proc)
	p.mem = mem
	return p, nil
}

// checkPool looks whether memory is a pool that this program can use.
func checkPool(mem *shm.Memory, proc int) error {
	b := mem.Bytes()
	h := (*header)(unsafe.Pointer(unsafe.SliceData(b)))
	wrong := func(what string, got, want any) error {
		return fmt.Errorf("%w: %s is %v, not %v", ErrLayout, what, got, want)
	}
	build := map[bool]string{false: "one without -tags mbufdebug", true: "one with -tags mbufdebug"}
	switch {
	case proc < 1 || proc > MaxProcs:
		return fmt.Errorf("%w: proc %d: must be 1 to %d", ErrConfig, proc, MaxProcs)
	case uintptr(len(b)) < unsafe.Sizeof(*h):
		return wrong("its size in bytes", len(b), "that of a pool")
	case h.magic != poolMagic:
		return wrong("its first word", fmt.Sprintf("%#x", h.magic), "that of a pool")
	case h.layout != layoutVersion:
		return wrong("its layout", fmt.Sprintf("%#x", h.layout), fmt.Sprintf("%#x", layoutVersion))
	case build[h.stateOff != 0] != build[debug]:
		return wrong("its build", build[h.stateOff != 0], build[debug])
	case h.base != uint64(mem.Addr()):
		return wrong("its address", fmt.Sprintf("%#x", h.base), fmt.Sprintf("%#x", mem.Addr()))
	}
	return h.checkGeometry(uint64(len(b)))
}

// checkGeometry looks whether what the header says of itself is so.
func (h *header) checkGeometry(size uint64) error {
	if h.nameLen > maxName {
		return fmt.Errorf("%w: a name of %d bytes", ErrLayout, h.nameLen)
	}
	cfg := h.config()
	if err := cfg.validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrLayout, err)
	}
	g := cfg.geometry()
	got := geometry{h.opsOff, h.linksOff, h.stateOff, h.elemsOff, h.elemSize, g.size}
	if got != g || g.size > size {
		return fmt.Errorf("%w: %d bytes that hold %+v, not %+v", ErrLayout, size, got, g)
	}
	return nil
}

// config is what the pool was made with.
func (h *header) config() Config {
	return Config{
		Name: string(h.name[:h.nameLen]), Count: int(h.count), DataRoom: int(h.dataRoom),
		Headroom: int(h.headroom), PrivSize: int(h.privSize), CacheSize: int(h.cacheLen),
	}
}

// Base returns the address that the pool is mapped at, which is the same in all
// processes that use it. It stays the same when the pool is closed.
func (p *Pool) Base() uintptr { return p.base }

// Proc returns the number of this process in the pool, 0 in the one that made it.
func (p *Pool) Proc() int { return p.proc }

// Held returns how many mbufs a process has, in use or in its caches; of the
// pool's maker it is what neither the list nor anybody else has. Exact when
// nobody allocates or frees meanwhile. It looks at every mbuf, and is not for
// the data path. 0 once the pool is closed.
func (p *Pool) Held(proc int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.hdr == nil:
		return 0
	case proc == 0:
		return max(p.cfg.Count-p.hdr.length()-p.hdr.marked(func(holder uint32) bool { return holder != 0 }), 0)
	}
	return p.hdr.held(proc)
}

func (h *header) held(proc int) int {
	return h.marked(func(holder uint32) bool { return holder == uint32(proc) })
}

// marked counts the elements that are marked as held by some.
func (h *header) marked(by func(holder uint32) bool) int {
	n := 0
	for i := range h.count {
		if l := h.link(i).Load(); l&heldBit != 0 && by(uint32(l)) {
			n++
		}
	}
	return n
}

// Reclaim takes back what a process held that has died, or has closed its Pool:
// every mbuf that it had in use, in caches, or in its hands when it was killed.
// It returns their number. The process's ends of the pool's rings are vacated;
// what is in a ring stays there. The number is free for another process then.
// DPDK has nothing of the kind: what a dead secondary process held is lost.
//
// For the pool's maker; elsewhere it does nothing. A process that still lives
// must not have its mbufs taken away: it would go on using them. It is dead when
// its pidfd says so: all its threads have ended then, and so have its requests to
// io_uring. Others may use the pool meanwhile. It looks at every mbuf: some
// milliseconds for a large pool.
func (p *Pool) Reclaim(proc int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hdr == nil || p.proc != 0 || proc < 1 || proc > MaxProcs {
		return 0
	}
	return p.reclaim(proc)
}
