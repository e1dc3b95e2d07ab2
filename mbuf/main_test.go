// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"
	"unsafe"

	"github.com/rtap-project/rtap/internal/nettest"
)

func TestMain(m *testing.M) {
	if os.Getenv(victimEnv) != "" {
		victim()
	}
	nettest.Main(m)
}

// newPool makes a pool that must have all its mbufs back when the test ends.
func newPool(t testing.TB, cfg Config) *Pool {
	t.Helper()
	p, err := NewPool(cfg)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closePool(t, p) })
	return p
}

// newHeapPool makes a pool in Go memory, where the race detector watches. It
// does not see memory mapped from a file.
func newHeapPool(t testing.TB, cfg Config) *Pool {
	t.Helper()
	p := newHeapPoolUnchecked(t, cfg)
	t.Cleanup(func() { checkFree(t, p) })
	return p
}

func newHeapPoolUnchecked(t testing.TB, cfg Config) *Pool {
	t.Helper()
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	g := cfg.geometry()
	words := make([]uint64, g.size/8+16)
	first := (64 - uintptr(unsafe.Pointer(&words[0]))%64) % 64 / 8
	mem := unsafe.Slice((*byte)(unsafe.Pointer(&words[first])), g.size)
	return newPoolIn(mem, cfg, g)
}

func closePool(t testing.TB, p *Pool) {
	t.Helper()
	if p.FD() < 0 {
		return
	}
	checkFree(t, p)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// checkFree takes all mbufs, which must be there, and looks whether each is
// as a fresh one has to be and none comes twice.
func checkFree(t testing.TB, p *Pool) {
	t.Helper()
	if n := p.InUseCount(); n != 0 {
		t.Errorf("%d mbufs lost", n)
		return
	}
	checkList(t, p.hdr)
	all := make([]*Mbuf, p.Count()+1)
	if n := p.AllocBulk(all); n != p.Count() {
		t.Errorf("%d of %d mbufs could be allocated", n, p.Count())
	}
	all = all[:p.Count()]
	seen := make(map[*Mbuf]bool)
	for _, m := range all {
		if m == nil || seen[m] {
			t.Fatalf("mbuf %p was handed out twice or is nil", m)
		}
		seen[m] = true
		checkFresh(t, p, m)
	}
	p.FreeBulk(all)
	if n := p.AvailCount(); n != p.Count() {
		t.Errorf("%d of %d mbufs are free", n, p.Count())
	}
}

// checkList walks the list and looks at what DPDK promises of free mbufs.
func checkList(t testing.TB, h *header) {
	t.Helper()
	for i, n := indexOf(h.head.Load()), h.count; i < h.count && n > 0; n-- {
		m := h.mbuf(i)
		if m.RefCnt != 1 || m.Next != nil || m.NbSegs != 1 {
			t.Errorf("free mbuf %d: RefCnt %d, Next %p, NbSegs %d", i, m.RefCnt, m.Next, m.NbSegs)
		}
		i = uint32(h.link(i).Load())
	}
}

// checkFresh looks at what rte_pktmbuf_reset promises.
func checkFresh(t testing.TB, p *Pool, m *Mbuf) {
	t.Helper()
	want := Mbuf{
		bufAddr: unsafe.Add(unsafe.Pointer(m), Size+p.cfg.PrivSize),
		DataOff: uint16(p.Headroom()), RefCnt: 1, NbSegs: 1, Port: PortInvalid,
		Hash: m.Hash, BufLen: uint16(p.Headroom() + p.DataRoom()),
		pool: unsafe.Pointer(p.hdr), shinfo: m.shinfo,
		PrivSize: uint16(p.cfg.PrivSize), timesync: m.timesync, dynfield1: m.dynfield1,
	}
	want.BufIOVA = uint64(uintptr(want.bufAddr))
	if *m != want {
		t.Errorf("mbuf is not fresh:\n%+v, want\n%+v", *m, want)
	}
}

// packet makes a packet that holds data.
func packet(t testing.TB, a Allocator, data []byte) *Mbuf {
	t.Helper()
	m := allocOne(a)
	if m == nil {
		t.Fatal("exhausted")
	}
	if err := m.CopyIn(data, a); err != nil {
		t.Fatal(err)
	}
	return m
}

// pattern returns n bytes that differ from those with another seed.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8) + seed
	}
	return b
}

// expect checks a packet's consistency and contents.
func expect(t testing.TB, m *Mbuf, want []byte) {
	t.Helper()
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	got := m.AppendTo(nil)
	if string(got) != string(want) {
		t.Fatalf("packet of %d bytes %x, want %d: %x", len(got), head(got), len(want), head(want))
	}
}

func head(b []byte) []byte { return b[:min(len(b), 64)] }

// listed returns the elements in the list, which nobody changes now. Each must be
// there once and its depth right.
func listed(h *header) (map[uint32]bool, error) {
	free := make(map[uint32]bool)
	length := h.length()
	for i := indexOf(h.head.Load()); i != none; {
		if i >= h.count || free[i] {
			return nil, fmt.Errorf("element %d of %d after %d others: out of range or twice", i, h.count, len(free))
		}
		free[i] = true
		link := h.link(i).Load()
		if d := int(depth(link)); d != length-len(free)+1 {
			return nil, fmt.Errorf("element %d: link %#x, %d before it, length %d", i, link, len(free)-1, length)
		}
		i = uint32(link)
	}
	if len(free) != length {
		return nil, fmt.Errorf("%d elements in the list, length %d", len(free), length)
	}
	return free, nil
}

// number makes n the content of a packet, in every segment.
func number(m *Mbuf, n uint64) {
	m.PktLen = 0
	for s := m; s != nil; s = s.Next {
		s.DataLen = 0
		binary.LittleEndian.PutUint64(s.window(int(s.DataOff), 8), n)
		s.DataLen = 8
		m.PktLen += 8
	}
}

// numberOf is the inverse.
func numberOf(m *Mbuf) (uint64, error) {
	if err := m.Check(); err != nil {
		return 0, err
	}
	n := binary.LittleEndian.Uint64(m.Bytes())
	for s := m; s != nil; s = s.Next {
		if len(s.Bytes()) != 8 || binary.LittleEndian.Uint64(s.Bytes()) != n {
			return 0, fmt.Errorf("packet %d has a segment of %x", n, s.Bytes())
		}
	}
	return n, nil
}
