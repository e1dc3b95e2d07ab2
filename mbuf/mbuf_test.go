// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"reflect"
	"testing"
	"unsafe"
)

// The offsets of struct rte_mbuf on 64-bit machines, DPDK 22.11 and later,
// kept here apart from the assertion in mbuf.go.
func TestLayout(t *testing.T) {
	want := map[string]uintptr{
		"bufAddr": 0, "BufIOVA": 8, "DataOff": 16, "RefCnt": 18, "NbSegs": 20, "Port": 22,
		"OlFlags": 24, "PacketType": 32, "PktLen": 36, "DataLen": 40, "VlanTCI": 42,
		"Hash": 44, "VlanTCIOuter": 52, "BufLen": 54, "pool": 56, "Next": 64,
		"TxOffload": 72, "shinfo": 80, "PrivSize": 88, "timesync": 90, "dynfield1": 92,
	}
	typ := reflect.TypeFor[Mbuf]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		off, known := want[f.Name]
		if f.Name == "_" {
			continue
		}
		if !known || f.Offset != off {
			t.Errorf("%s is at %d, want %d", f.Name, f.Offset, off)
		}
		delete(want, f.Name)
	}
	if len(want) != 0 {
		t.Errorf("fields missing: %v", want)
	}
	if typ.Size() != 128 {
		t.Errorf("size %d, want 128", typ.Size())
	}
}

func TestAccessors(t *testing.T) {
	p := newPool(t, Config{Count: 4, DataRoom: 100, Headroom: 20, PrivSize: 16})
	m := p.Alloc()
	defer m.Free()
	copy(m.Append(5), "hello")
	if got := string(m.Bytes()); got != "hello" {
		t.Errorf("Bytes %q", got)
	}
	if c := cap(m.Bytes()); c != 5 {
		t.Errorf("capacity %d: append would write to the tailroom", c)
	}
	if m.Headroom() != 20 || m.Tailroom() != 95 {
		t.Errorf("headroom %d tailroom %d", m.Headroom(), m.Tailroom())
	}
	base := uintptr(unsafe.Pointer(m)) + 128 + 16
	if m.BufAddr() != base || m.DataAddr() != base+20 {
		t.Errorf("buffer at %x, data at %x, mbuf at %p", m.BufAddr(), m.DataAddr(), m)
	}
	if !m.IsDirect() || !m.IsWritable() || !m.IsContiguous() {
		t.Error("a fresh mbuf must be direct, writable and contiguous")
	}
	if uintptr(unsafe.Pointer(&m.Bytes()[0])) != m.DataAddr() {
		t.Error("Bytes is not at DataAddr")
	}
}

// Offsets that a buggy program or a device left wrong must not reach memory
// outside the buffer.
func TestBytesStaysInBuffer(t *testing.T) {
	p := newPool(t, Config{Count: 1, DataRoom: 100})
	m := p.Alloc()
	defer m.Free()
	for _, c := range []struct{ off, n uint16 }{{0, 229}, {228, 1}, {65535, 65535}, {229, 0}} {
		m.DataOff, m.DataLen = c.off, c.n
		if b := m.Bytes(); b != nil {
			t.Errorf("offset %d, length %d of 228: %d bytes", c.off, c.n, len(b))
		}
		if n := m.Tailroom(); n != 0 {
			t.Errorf("offset %d, length %d of 228: tailroom %d", c.off, c.n, n)
		}
	}
	m.DataOff, m.DataLen = 0, 228
	if n := len(m.Bytes()); n != 228 {
		t.Errorf("the whole buffer: %d bytes", n)
	}
	m.DataOff, m.DataLen = 128, 0
	if b := new(Mbuf).Bytes(); b != nil {
		t.Error("an mbuf without buffer has bytes")
	}
}

func TestPrivSurvives(t *testing.T) {
	p := newPool(t, Config{Count: 2, PrivSize: 24})
	a, b := p.Alloc(), p.Alloc()
	if len(a.Priv()) != 24 {
		t.Fatalf("private area of %d bytes", len(a.Priv()))
	}
	copy(a.Priv(), pattern(24, 1))
	copy(b.Priv(), pattern(24, 2))
	for _, m := range []*Mbuf{a, b} {
		copy(m.Append(m.Tailroom()), pattern(2048, 3))
		copy(m.Prepend(m.Headroom()), pattern(128, 4))
	}
	if string(a.Priv()) != string(pattern(24, 1)) || string(b.Priv()) != string(pattern(24, 2)) {
		t.Error("data and private areas overlap")
	}
	a.Free()
	a = p.Alloc()
	if string(a.Priv()) != string(pattern(24, 1)) {
		t.Error("the private area did not survive")
	}
	FreeBulk([]*Mbuf{a, b})
}

func TestCheck(t *testing.T) {
	p := newPool(t, Config{Count: 8, DataRoom: 64})
	for name, spoil := range map[string]func(m *Mbuf){
		"PktLen":        func(m *Mbuf) { m.PktLen++ },
		"NbSegs less":   func(m *Mbuf) { m.NbSegs-- },
		"NbSegs more":   func(m *Mbuf) { m.NbSegs++ },
		"DataOff":       func(m *Mbuf) { m.Next.DataOff = m.BufLen + 1; m.Next.DataLen = 0 },
		"DataLen":       func(m *Mbuf) { m.Next.DataLen = m.BufLen },
		"RefCnt 0":      func(m *Mbuf) { m.RefCnt = 0 },
		"RefCnt 65535":  func(m *Mbuf) { m.Next.RefCnt = 0xffff },
		"no pool":       func(m *Mbuf) { m.Next.pool = nil },
		"no buffer":     func(m *Mbuf) { m.Next.bufAddr = nil },
		"looping chain": func(m *Mbuf) { m.LastSeg().Next = m },
	} {
		m := packet(t, p, pattern(150, 0))
		if err := m.Check(); err != nil {
			t.Fatal(err)
		}
		segs := []*Mbuf{m, m.Next, m.Next.Next}
		saved := []Mbuf{*segs[0], *segs[1], *segs[2]}
		spoil(m)
		if err := m.Check(); err == nil {
			t.Errorf("%s: not found", name)
		}
		for i, s := range segs {
			*s = saved[i]
		}
		m.Free()
	}
	if err := (*Mbuf)(nil).Check(); err == nil {
		t.Error("nil: not found")
	}
}

func TestFront(t *testing.T) {
	p := newPool(t, Config{Count: 1, Headroom: 10})
	m := p.Alloc()
	defer m.Free()
	copy(m.Append(4), "data")
	copy(m.Front(4), "head")
	if string(m.Bytes()) != "data" || m.Headroom() != 10 {
		t.Error("Front moved the data")
	}
	if string(m.Prepend(4)) != "head" || len(m.Front(6)) != 6 {
		t.Error("Front is not in front of the data")
	}
	if m.Front(7) != nil || m.Front(-1) != nil {
		t.Error("more than the headroom")
	}
	m.DataOff = m.BufLen + 1
	if m.Front(1) != nil {
		t.Error("outside the buffer")
	}
	m.DataOff, m.DataLen = 10, 0
}
