// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"unsafe"

	"github.com/rtap-project/rtap/internal/shm"
)

// Defaults of Config.
const (
	DefaultCount     = 4096
	DefaultDataRoom  = 2048
	DefaultHeadroom  = 128 // RTE_PKTMBUF_HEADROOM
	DefaultCacheSize = 256
)

// MaxBufLen is the largest sum of Headroom and DataRoom: BufLen has 16 bits.
const MaxBufLen = 0xffff

// maxRegion is how much one registered buffer of io_uring may cover.
const maxRegion = 1 << 30

// Config says what [NewPool] makes. The zero value works.
type Config struct {
	// Name is for messages and /proc/PID/maps. At most 64 bytes.
	Name string
	// Count is the number of mbufs. 0: DefaultCount.
	Count int
	// DataRoom is the number of bytes an mbuf holds behind the headroom.
	// 0: DefaultDataRoom.
	DataRoom int
	// Headroom is the number of bytes in front of the data of a fresh mbuf.
	// 0: DefaultHeadroom; -1: none.
	Headroom int
	// PrivSize is the size of each mbuf's private area, a multiple of 8.
	PrivSize int
	// Hugepages takes the memory from the machine's default huge pages
	// (since Linux 4.14), which must have been set aside.
	Hugepages bool
	// CacheSize is the size of caches made by NewCache(0), at most
	// MaxCacheSize. 0: DefaultCacheSize.
	CacheSize int
}

// Region is a piece of memory, by address and size in bytes.
type Region struct {
	Base, Size uintptr
}

// Pool is a fixed number of mbufs in one memory file, and the list of those
// that are free; or one process's part in it. It implements [Allocator]. All methods except Close may be
// called by any number of goroutines, on any thread, at the same time.
type Pool struct {
	cfg Config // with the defaults filled in

	hdr  *header // nil once closed; set under mu
	proc int     // 0: the pool's maker
	base uintptr

	mu      sync.Mutex  // control plane only
	mem     *shm.Memory // nil once closed, and in Go memory
	regions []Region
	caches  map[*Cache]struct{}
	rings   map[*Ring]struct{}
}

// withDefaults fills in the zero fields and checks the others.
func (c Config) withDefaults() (Config, error) {
	set := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	if c.Name == "" {
		c.Name = "mbufs"
	}
	set(&c.Count, DefaultCount)
	set(&c.DataRoom, DefaultDataRoom)
	set(&c.Headroom, DefaultHeadroom)
	set(&c.CacheSize, DefaultCacheSize)
	if c.Headroom == -1 {
		c.Headroom = 0
	}
	return c, c.validate()
}

func (c Config) validate() error {
	bad := func(field string, value any, right string) error {
		return fmt.Errorf("%w: %s %v: must be %s", ErrConfig, field, value, right)
	}
	switch {
	case len(c.Name) > maxName:
		return bad("Name", c.Name, "64 bytes or less")
	case c.Count < 1 || c.Count > maxCount:
		return bad("Count", c.Count, fmt.Sprintf("1 to %d", maxCount))
	case c.Headroom < 0 || c.Headroom >= MaxBufLen:
		return bad("Headroom", c.Headroom, "-1 (none) to 65534")
	case c.DataRoom < 1 || c.DataRoom+c.Headroom > MaxBufLen:
		return bad("DataRoom", c.DataRoom, fmt.Sprintf("1 to %d with a headroom of %d", MaxBufLen-c.Headroom, c.Headroom))
	case c.PrivSize < 0 || c.PrivSize > 0xfff8 || c.PrivSize%8 != 0:
		return bad("PrivSize", c.PrivSize, "a multiple of 8 up to 65528")
	case c.CacheSize < 1 || c.CacheSize > MaxCacheSize:
		return bad("CacheSize", c.CacheSize, fmt.Sprintf("1 to %d", MaxCacheSize))
	}
	return nil
}

// geometry is where things lie in a pool's memory, in bytes.
type geometry struct {
	opsOff, linksOff, stateOff, elemsOff, elemSize, size uint64
}

func (c Config) geometry() geometry {
	const line = 64
	up := func(n uint64) uint64 { return (n + line - 1) &^ (line - 1) }
	g := geometry{opsOff: uint64(unsafe.Sizeof(header{}))}
	g.linksOff = g.opsOff + seats*opsPerSeat*uint64(unsafe.Sizeof(operation{}))
	end := g.linksOff + up(uint64(c.Count)*8)
	if debug {
		g.stateOff = end
		end += up(uint64(c.Count) * 4)
	}
	g.elemsOff = up(end)
	// An odd number of cache lines, so that the descriptions of consecutive
	// mbufs do not compete for the same few sets of the cache.
	g.elemSize = up(uint64(Size+c.PrivSize+c.Headroom+c.DataRoom)) | line
	g.size = g.elemsOff + uint64(c.Count)*g.elemSize
	return g
}

// NewPool creates a pool. All its memory is taken and mapped at once.
//
// Errors wrap the cause: ErrConfig, errors.ErrUnsupported (not Linux), ENOMEM
// or ENOSPC with the sum in bytes, EMFILE. Close the pool to give the memory
// back. Linux 3.17.
func NewPool(cfg Config) (*Pool, error) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, fmt.Errorf("mbuf: little-endian machines only: %w", errors.ErrUnsupported)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	g := cfg.geometry()
	mem, err := shm.New(cfg.Name, g.size, cfg.Hugepages)
	if err != nil {
		return nil, fmt.Errorf("mbuf: pool %q: %d bytes of memory (%d mbufs of %d bytes): %w",
			cfg.Name, g.size, cfg.Count, g.elemSize, err)
	}
	p := newPoolIn(mem.Bytes(), cfg, g)
	p.mem = mem
	return p, nil
}

// newPoolIn makes a pool in memory that is there, zeroed and aligned to a
// cache line.
func newPoolIn(mem []byte, cfg Config, g geometry) *Pool {
	h := (*header)(unsafe.Pointer(unsafe.SliceData(mem)))
	h.init(cfg, g)
	return poolOf(h, cfg, 0)
}

// poolOf returns process proc's handle on a pool.
func poolOf(h *header, cfg Config, proc int) *Pool {
	return &Pool{
		cfg: cfg, hdr: h, proc: proc, base: uintptr(unsafe.Pointer(h)),
		caches: make(map[*Cache]struct{}), rings: make(map[*Ring]struct{}),
		regions: regions(uintptr(unsafe.Pointer(h.mbuf(0))), uintptr(h.elemSize), uintptr(cfg.Count)),
	}
}

// regions covers count elements from base.
func regions(base, elem, count uintptr) []Region {
	var r []Region
	for count > 0 {
		n := min(count, maxRegion/elem)
		r = append(r, Region{base, n * elem})
		base, count = base+n*elem, count-n
	}
	return r
}

// init fills in the header, every mbuf and the list.
func (h *header) init(cfg Config, g geometry) {
	h.count = uint32(cfg.Count)
	h.dataRoom, h.privSize = uint16(cfg.DataRoom), uint16(cfg.PrivSize)
	h.headroom, h.bufLen = uint16(cfg.Headroom), uint16(cfg.Headroom+cfg.DataRoom)
	h.elemSize, h.elemsOff = g.elemSize, g.elemsOff
	h.opsOff, h.linksOff, h.stateOff = g.opsOff, g.linksOff, g.stateOff
	h.maker, h.id, h.base = self, rand.Uint64(), uint64(uintptr(unsafe.Pointer(h)))
	h.layout, h.cacheLen = layoutVersion, uint32(cfg.CacheSize)
	h.recip = ^uint64(0)/g.elemSize + 1
	h.nameLen = uint32(copy(h.name[:], cfg.Name))
	fresh := Mbuf{DataOff: h.headroom, RefCnt: 1, NbSegs: 1, Port: PortInvalid}
	h.rearm = *(*uint64)(unsafe.Add(unsafe.Pointer(&fresh), refOff))
	for i := range h.count {
		m := h.mbuf(i)
		m.ownBuffer(h)
		m.pool = unsafe.Pointer(h)
		m.reset(h.rearm)
		next := i + 1
		if next == h.count {
			next = none
		}
		h.link(i).Store(uint64(h.count-i)<<32 | uint64(next))
	}
	h.initOps()
	h.head.Store(0)
	h.magic = poolMagic
}

// AllocBulk implements [Allocator].
func (p *Pool) AllocBulk(bufs []*Mbuf) int {
	h := p.hdr
	if h == nil {
		return 0
	}
	n := h.pop(bufs)
	h.resetAll(bufs[:n])
	if n < len(bufs) {
		h.exhausted.Add(uint64(len(bufs) - n))
	}
	return n
}

// Alloc returns one fresh mbuf, or nil when there is none.
func (p *Pool) Alloc() *Mbuf {
	var one [1]*Mbuf
	p.AllocBulk(one[:])
	return one[0]
}

// FreeBulk implements [Allocator]. It is the function [FreeBulk]: each mbuf
// goes to its own pool, which need not be this one.
func (p *Pool) FreeBulk(bufs []*Mbuf) { FreeBulk(bufs) }

// Name returns the pool's name.
func (p *Pool) Name() string { return p.cfg.Name }

// Count returns the number of mbufs, free or not.
func (p *Pool) Count() int { return p.cfg.Count }

// DataRoom returns the bytes a fresh mbuf holds behind its headroom.
func (p *Pool) DataRoom() int { return p.cfg.DataRoom }

// Headroom returns the bytes in front of the data of a fresh mbuf.
func (p *Pool) Headroom() int { return p.cfg.Headroom }

// SizeBytes returns how much memory the pool takes, rounding to pages not
// counted.
func (p *Pool) SizeBytes() uint64 { return p.cfg.geometry().size }

// FD returns the descriptor of the memory file, -1 once the pool is closed.
// It belongs to the pool.
func (p *Pool) FD() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mem == nil {
		return -1
	}
	return p.mem.FD()
}

// Regions returns the memory all the mbufs and their buffers lie in, for
// registering with the kernel: pieces of at most 1 GiB, in order of address
// and adjacent, none of which ends inside an mbuf. Valid until Close.
func (p *Pool) Regions() []Region {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Region(nil), p.regions...)
}

// AvailCount returns the number of free mbufs, those in this process's caches
// included (rte_mempool_avail_count). Exact when nobody allocates or frees meanwhile.
// It takes a lock and is not for the data path.
func (p *Pool) AvailCount() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.avail()
}

func (p *Pool) avail() int {
	if p.hdr == nil {
		return 0
	}
	return min(p.hdr.length()+p.cached(), p.cfg.Count)
}

// cached is the number of mbufs in this process's caches.
func (p *Pool) cached() int {
	n := 0
	for c := range p.caches {
		n += int(c.level.Load())
	}
	return n
}

// InUseCount returns the number of mbufs that are not free: Count less
// AvailCount, those that other processes or rings have included. In a process
// that has the pool from [AttachPool] it is the number that this process holds
// outside its caches. 0 once the pool is closed. Not for the data path.
func (p *Pool) InUseCount() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hdr == nil {
		return 0
	}
	return p.inUse()
}

func (p *Pool) inUse() int {
	if p.proc != 0 {
		return max(p.hdr.held(p.proc)-p.cached(), 0)
	}
	return p.cfg.Count - p.avail()
}

// Exhausted returns how many mbufs were asked for in vain since the pool was
// made, by all processes that use it; 0 once it is closed.
func (p *Pool) Exhausted() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hdr == nil {
		return 0
	}
	return p.hdr.exhausted.Load()
}

// Close gives the memory back. While mbufs are in use or caches or rings open it
// refuses with an error that wraps ErrInUse and names their number, and the
// pool goes on working. In a process that has the pool from [AttachPool] what
// counts is this process's. Nobody may use the pool or its mbufs during Close,
// except through the methods that count. Afterwards AllocBulk gives none.
// Closing twice does nothing.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hdr == nil {
		return nil
	}
	if p.busy() {
		return fmt.Errorf("mbuf: pool %q: %s: %w", p.cfg.Name, p.holdings(), ErrInUse)
	}
	mem := p.mem
	if p.proc != 0 {
		seatOf(p.hdr).leave()
	}
	p.hdr, p.mem, p.regions = nil, nil, nil
	if mem == nil {
		return nil
	}
	return mem.Close()
}

// busy reports whether something of the pool is in use. If not, nobody can take
// anything any more.
func (p *Pool) busy() bool {
	if len(p.caches) > 0 || len(p.rings) > 0 {
		return true
	}
	if p.proc != 0 {
		return p.inUse() > 0
	}
	return !p.hdr.drain()
}

// holdings says what keeps the pool open.
func (p *Pool) holdings() string {
	s := fmt.Sprintf("%d of %d mbufs and %d caches", p.inUse(), p.cfg.Count, len(p.caches))
	if len(p.rings) > 0 {
		s += fmt.Sprintf(" and %d rings", len(p.rings))
	}
	return s
}
