// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"errors"
	"strings"
	"testing"
	"unsafe"
)

func TestZeroConfig(t *testing.T) {
	p := newPool(t, Config{})
	if p.Count() != 4096 || p.DataRoom() != 2048 || p.Headroom() != 128 || p.Name() == "" {
		t.Errorf("count %d, data room %d, headroom %d, name %q", p.Count(), p.DataRoom(), p.Headroom(), p.Name())
	}
	if p.FD() < 0 || p.AvailCount() != 4096 || p.InUseCount() != 0 || p.Exhausted() != 0 {
		t.Errorf("fd %d, available %d, in use %d, exhausted %d", p.FD(), p.AvailCount(), p.InUseCount(), p.Exhausted())
	}
}

// Sizes at their ends: every mbuf is distinct, in a region, on a cache line,
// and its buffer ends before the next one starts.
func TestGeometry(t *testing.T) {
	for _, cfg := range []Config{
		{Count: 1}, {Count: 3, DataRoom: 1, Headroom: -1},
		{Count: 5, DataRoom: 65535, Headroom: -1}, {Count: 5, DataRoom: 1, Headroom: 65534},
		{Count: 7, DataRoom: 65535 - 128}, {Count: 9, PrivSize: 65528}, {Count: 1000, DataRoom: 1664},
	} {
		p := newPool(t, cfg)
		r := p.Regions()
		if len(r) != 1 {
			t.Fatalf("%+v: %d regions", cfg, len(r))
		}
		bufs := make([]*Mbuf, cfg.Count)
		if n := p.AllocBulk(bufs); n != cfg.Count {
			t.Fatalf("%+v: got %d mbufs", cfg, n)
		}
		for i, m := range bufs {
			at, end := uintptr(unsafe.Pointer(m)), m.BufAddr()+uintptr(m.BufLen)
			if at%64 != 0 || at < r[0].Base || end > r[0].Base+r[0].Size {
				t.Fatalf("%+v: mbuf %d at %x to %x, region %x", cfg, i, at, end, r[0])
			}
			if i > 0 && at < bufs[i-1].BufAddr()+uintptr(bufs[i-1].BufLen) {
				t.Fatalf("%+v: mbuf %d overlaps the one before", cfg, i)
			}
			if p.hdr.mbuf(p.hdr.index(m)) != m {
				t.Fatalf("%+v: index %d of mbuf %d", cfg, p.hdr.index(m), i)
			}
			if n := len(m.Append(p.DataRoom())); n != p.DataRoom() || m.Tailroom() != 0 {
				t.Fatalf("%+v: room for %d bytes", cfg, n)
			}
		}
		p.FreeBulk(bufs)
	}
}

// The multiplication that stands for a division must be exact for every
// element size and the largest pools.
func TestIndexReciprocal(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) < 8 {
		t.Skip("needs addresses of 64 bits")
	}
	for size := uint64(192); size < 1<<18; size += 128 * 7 {
		h := &header{elemSize: size, elemsOff: 640, recip: ^uint64(0)/size + 1}
		for _, i := range []uint32{0, 1, 2, 1000, 1<<24 - 1, 1<<31 + 1, 0xfffffffd} {
			addr := uintptr(unsafe.Pointer(h)) + uintptr(h.elemsOff) + uintptr(uint64(i)*size)
			if got := h.indexAt(addr); got != i {
				t.Fatalf("element size %d: index %d, want %d", size, got, i)
			}
		}
	}
}

func TestRegionsSplit(t *testing.T) {
	const elem = 65792 // an odd number of lines
	got := regions(0x1000, elem, 40000)
	var sum uintptr
	at := uintptr(0x1000)
	for _, r := range got {
		if r.Base != at || r.Size%elem != 0 || r.Size > 1<<30 || r.Size == 0 {
			t.Errorf("region %+v after %x", r, at)
		}
		at += r.Size
		sum += r.Size
	}
	if len(got) != 3 || sum != 40000*elem {
		t.Errorf("%d regions, sum %d", len(got), sum)
	}
}

func TestConfigErrors(t *testing.T) {
	for field, cfg := range map[string]Config{
		"Count -1":        {Count: -1},
		"DataRoom -1":     {DataRoom: -1},
		"DataRoom 65408":  {DataRoom: 65408},
		"Headroom -2":     {Headroom: -2},
		"Headroom 65535":  {Headroom: 65535},
		"PrivSize 4":      {PrivSize: 4},
		"PrivSize -8":     {PrivSize: -8},
		"PrivSize 65536":  {PrivSize: 65536},
		"CacheSize 513":   {CacheSize: 513},
		"CacheSize -1":    {CacheSize: -1},
		"Name " + "xxxxx": {Name: strings.Repeat("x", 65)},
	} {
		_, err := NewPool(cfg)
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestExhaustion(t *testing.T) {
	p := newPool(t, Config{Count: 10})
	bufs := make([]*Mbuf, 16)
	if n := p.AllocBulk(bufs); n != 10 {
		t.Fatalf("got %d of 10", n)
	}
	if p.Alloc() != nil {
		t.Error("an eleventh mbuf")
	}
	if n := p.Exhausted(); n != 7 {
		t.Errorf("exhausted %d, want 6 and 1", n)
	}
	if p.InUseCount() != 10 || p.AvailCount() != 0 {
		t.Errorf("in use %d, available %d", p.InUseCount(), p.AvailCount())
	}
	bufs[4].Free()
	if m := p.Alloc(); m != bufs[4] {
		t.Errorf("got %p, freed %p", m, bufs[4])
	}
	p.FreeBulk(bufs) // nil entries behind the tenth
	if p.AllocBulk(nil) != 0 || p.Exhausted() != 7 {
		t.Error("asking for nothing counts as exhaustion")
	}
}

// Whatever the last owner left in an mbuf, the next one gets a fresh one; the
// free ones keep RefCnt 1, Next nil and NbSegs 1.
func TestFreeInvariants(t *testing.T) {
	p := newPool(t, Config{Count: 8, DataRoom: 64})
	for range 3 {
		m := packet(t, p, pattern(200, 0))
		segs := []*Mbuf{m, m.Next, m.Next.Next, m.Next.Next.Next}
		for _, s := range segs {
			s.DataOff, s.Port, s.OlFlags, s.PacketType = 3, 9, 1<<40, 7
			s.VlanTCI, s.VlanTCIOuter, s.TxOffload, s.NbSegs, s.PktLen = 1, 2, 3, 77, 88
		}
		segs[2].RefUpdate(1)
		segs[2].RefUpdate(-1)
		m.Free()
		checkFree(t, p)
	}
	c := p.NewCache(2)
	m := c.Alloc()
	m.NbSegs = 5
	c.FreeBulk([]*Mbuf{m})
	c.Close()
	checkFree(t, p)
}

func TestFreeBulkOfSeveralPools(t *testing.T) {
	a := newPool(t, Config{Name: "a", Count: 100, DataRoom: 64})
	b := newPool(t, Config{Name: "b", Count: 100, DataRoom: 100, PrivSize: 8})
	cache := a.NewCache(8)
	defer cache.Close()
	for name, free := range map[string]func([]*Mbuf){
		"function": FreeBulk, "pool": b.FreeBulk, "cache": cache.FreeBulk,
		"one by one": func(bufs []*Mbuf) {
			for _, m := range bufs {
				m.Free()
			}
		},
	} {
		var bufs []*Mbuf
		for i := range 20 {
			p, other := a, b
			if i%3 == 0 {
				p, other = b, a
			}
			m := p.Alloc()
			if i%2 == 0 { // a chain through both pools, its middle a clone
				mid := other.Alloc()
				c := Clone(mid, p)
				bufs = append(bufs, mid)
				if Chain(m, c) != nil || Chain(m, other.Alloc()) != nil {
					t.Fatal("chain")
				}
			}
			bufs = append(bufs, m, nil)
		}
		free(bufs)
		if a.InUseCount() != 0 || b.InUseCount() != 0 {
			t.Fatalf("%s: %d and %d mbufs lost", name, a.InUseCount(), b.InUseCount())
		}
		cache.Flush()
		checkFree(t, a)
		checkFree(t, b)
	}
}

func TestClose(t *testing.T) {
	p := newPool(t, Config{Name: "kept", Count: 10})
	m := p.Alloc()
	x := p.Alloc()
	c := p.NewCache(4)
	err := p.Close()
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), `"kept": 2 of 10 mbufs and 1 caches`) {
		t.Fatalf("closed with mbufs out: %v", err)
	}
	c.FreeBulk([]*Mbuf{m})
	x.Free()
	c.Flush()
	if err := p.Close(); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "0 of 10 mbufs and 1 caches") {
		t.Fatalf("closed with a cache open: %v", err)
	}
	if m = p.Alloc(); m == nil {
		t.Fatal("the refused Close spoiled the pool")
	}
	m.Free()
	c.Close()
	c.Close()
	checkFree(t, p)
	m = p.Alloc()
	if err := p.Close(); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "1 of 10 mbufs and 0 caches") {
		t.Fatalf("closed with an mbuf out: %v", err)
	}
	m.Free()
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if p.Alloc() != nil || c.Alloc() != nil || p.NewCache(3).Alloc() != nil {
		t.Error("a closed pool gives mbufs")
	}
	if p.FD() != -1 || p.AvailCount() != 0 || p.InUseCount() != 0 || p.Exhausted() != 0 || p.Regions() != nil {
		t.Error("a closed pool has something left")
	}
}

func TestNoAllocations(t *testing.T) {
	p := newPool(t, Config{Count: 256, DataRoom: 256})
	c := p.NewCache(32)
	defer c.Close()
	bufs := make([]*Mbuf, 32)
	data, out := pattern(700, 1), make([]byte, 0, 2000)
	for name, a := range map[string]Allocator{"pool": p, "cache": c, "foreign": foreign{p}} {
		work := func() {
			n := a.AllocBulk(bufs)
			m := bufs[0]
			if m.CopyIn(data, a) != nil || Chain(m, bufs[1]) != nil {
				t.Error("no packet")
			}
			bufs[1] = Clone(m, a)
			bufs[2].Free()
			bufs[2] = Copy(m, a, 5, -1)
			bufs[1].Prepend(3)
			bufs[1].Adj(5)
			out = bufs[2].AppendTo(out[:0])
			bufs[3].RefUpdate(1)
			bufs[3].Free()
			a.FreeBulk(bufs[:n])
			a.FreeBulk(nil)
		}
		if n := testing.AllocsPerRun(200, work); n != 0 && !(raceDetector && name == "foreign") {
			t.Errorf("%s: %v allocations", name, n)
		}
		if n := p.InUseCount(); n != 0 {
			t.Errorf("%s: %d mbufs lost", name, n)
		}
	}
}

// foreign is an allocator that this package does not know.
type foreign struct{ p *Pool }

func (f foreign) AllocBulk(bufs []*Mbuf) int { return f.p.AllocBulk(bufs) }
func (f foreign) FreeBulk(bufs []*Mbuf)      { f.p.FreeBulk(bufs) }
