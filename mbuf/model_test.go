// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

// model runs a program of chain operations, one for each few bytes, on some
// packets beside byte slices that say what each must hold. After every
// operation all packets must be consistent and hold just that; at the end no
// mbuf may be missing.
type model struct {
	t       testing.TB
	allocs  []Allocator
	program []byte
	packets []*Mbuf
	want    [][]byte
	fill    byte
}

// ops are the operations, on packet i. Each predicts whether it succeeds.
var ops = []func(d *model, i int, m *Mbuf){
	(*model).prepend, (*model).append, (*model).adj, (*model).trim, (*model).chain,
	(*model).linearize, (*model).clone, (*model).copy, (*model).copyIn, (*model).fresh,
	(*model).free, (*model).scribble,
}

func (d *model) run() {
	for len(d.program) > 0 {
		op := ops[d.next()%len(ops)]
		if len(d.packets) == 0 {
			d.fresh(0, nil)
			continue
		}
		i := d.next() % len(d.packets)
		op(d, i, d.packets[i])
		for i, m := range d.packets {
			expect(d.t, m, d.want[i])
		}
	}
	for len(d.packets) > 0 {
		d.remove(len(d.packets) / 2).Free()
	}
}

// next returns the program's next byte, 0 behind its end.
func (d *model) next() int {
	if len(d.program) == 0 {
		return 0
	}
	b := d.program[0]
	d.program = d.program[1:]
	return int(b)
}

func (d *model) allocator() Allocator { return d.allocs[d.next()%len(d.allocs)] }

func (d *model) bytes(n int) []byte {
	d.fill += 17
	return pattern(n, d.fill)
}

func (d *model) add(m *Mbuf, want []byte) {
	d.packets, d.want = append(d.packets, m), append(d.want, want)
}

func (d *model) remove(i int) *Mbuf {
	m, last := d.packets[i], len(d.packets)-1
	d.packets[i], d.want[i] = d.packets[last], d.want[last]
	d.packets, d.want = d.packets[:last], d.want[:last]
	return m
}

func (d *model) must(what string, got, want bool) {
	d.t.Helper()
	if got != want {
		d.t.Fatalf("%s: success %v, want %v", what, got, want)
	}
}

// Ends are written to only where nobody else can see them.
func (d *model) prepend(i int, m *Mbuf) {
	n, room := d.next()%24, m.Headroom()
	if !m.IsWritable() {
		return
	}
	b := m.Prepend(n)
	d.must("prepend", b != nil, n <= room)
	if b != nil {
		data := d.bytes(n)
		copy(b, data)
		d.want[i] = append(data, d.want[i]...)
	}
}

func (d *model) append(i int, m *Mbuf) {
	n, room := d.next()%50, m.LastSeg().Tailroom()
	if !m.LastSeg().IsWritable() {
		return
	}
	b := m.Append(n)
	d.must("append", b != nil, n <= room)
	if b != nil {
		data := d.bytes(n)
		copy(b, data)
		d.want[i] = append(d.want[i][:len(d.want[i]):len(d.want[i])], data...)
	}
}

func (d *model) adj(i int, m *Mbuf) {
	n, first := d.next()%30, len(m.Bytes())
	ok := m.Adj(n)
	d.must("adj", ok, n <= first)
	if ok {
		d.want[i] = d.want[i][n:]
	}
}

func (d *model) trim(i int, m *Mbuf) {
	n, last := d.next()%30, len(m.LastSeg().Bytes())
	ok := m.Trim(n)
	d.must("trim", ok, n <= last)
	if ok {
		d.want[i] = d.want[i][:len(d.want[i])-n]
	}
}

func (d *model) chain(i int, m *Mbuf) {
	j := d.next() % len(d.packets)
	if i == j {
		return
	}
	tail := d.packets[j]
	segs := m.NbSegs + tail.NbSegs
	d.must("chain", Chain(m, tail) == nil, true)
	if m.NbSegs != segs {
		d.t.Fatalf("chain: %d segments, want %d", m.NbSegs, segs)
	}
	d.want[i] = append(append([]byte(nil), d.want[i]...), d.want[j]...)
	d.remove(j)
}

func (d *model) linearize(i int, m *Mbuf) {
	fits := len(d.want[i])-len(m.Bytes()) <= m.Tailroom() && m.IsWritable()
	err := m.Linearize()
	if m.NbSegs > 1 || err != nil {
		d.must("linearize", err == nil, fits)
	}
}

func (d *model) clone(i int, m *Mbuf) {
	if c := Clone(m, d.allocator()); c != nil {
		d.must("clone is contiguous", c.NbSegs == m.NbSegs, true)
		d.add(c, d.want[i])
	}
}

func (d *model) copy(i int, m *Mbuf) {
	off, n := d.next()%60, d.next()-10
	all := d.want[i]
	c := Copy(m, d.allocator(), off, n)
	if off >= len(all) {
		d.must("copy from behind the end", c != nil, false)
	}
	if c == nil {
		return
	}
	end := len(all)
	if n >= 0 {
		end = min(off+n, end)
	}
	d.must("copy is writable", c.IsWritable(), true)
	d.add(c, all[off:end])
}

func (d *model) copyIn(i int, m *Mbuf) {
	writable := true
	for s := m; s != nil; s = s.Next {
		writable = writable && s.IsWritable()
	}
	data := d.bytes(d.next())
	err := m.CopyIn(data, d.allocator())
	d.must("copy into a shared packet", errors.Is(err, ErrShared), !writable)
	if err == nil {
		d.want[i] = data
	}
}

func (d *model) fresh(int, *Mbuf) {
	if m := allocOne(d.allocator()); m != nil {
		d.add(m, nil)
	}
}

func (d *model) free(i int, _ *Mbuf) {
	bufs := []*Mbuf{nil, d.remove(i)}
	switch n := d.next(); n % 3 {
	case 0:
		FreeBulk(bufs)
	case 1:
		bufs[1].Free()
	default:
		d.allocs[n%len(d.allocs)].FreeBulk(bufs)
	}
}

// scribble writes all over the fields that a reset has to clear.
func (d *model) scribble(_ int, m *Mbuf) {
	m.VlanTCI, m.VlanTCIOuter, m.PacketType, m.TxOffload, m.Port = 1, 2, 3, 4, 5
	m.OlFlags |= 0xff
	m.Hash = [2]uint32{6, 7}
}

// runModel runs a program on two small pools, so that it meets exhaustion.
func runModel(t testing.TB, program []byte, newPool func(Config) *Pool) {
	a := newPool(Config{Count: 24, DataRoom: 32, Headroom: 16})
	b := newPool(Config{Count: 16, DataRoom: 100, Headroom: -1, PrivSize: 8})
	c := a.NewCache(4)
	d := &model{t: t, allocs: []Allocator{a, b, c, foreign{a}}, program: program}
	d.run()
	c.Close()
	closePool(t, a)
	closePool(t, b)
}

func TestModel(t *testing.T) {
	testModel(t, func(cfg Config) *Pool { return newPool(t, cfg) })
}

func testModel(t *testing.T, newPool func(Config) *Pool) {
	for seed := range uint64(nettest.Scale(200)) {
		rng := rand.New(rand.NewPCG(seed, 1))
		program := make([]byte, 2000)
		for i := range program {
			program[i] = byte(rng.Uint32())
		}
		runModel(t, program, newPool)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzChain(f *testing.F) {
	f.Add([]byte("\x09\x00\x08\x00\xff\x00\x06\x00\x01\x04\x00\x01\x0a\x00\x05"))
	f.Add([]byte("a packet is born, grows, is cloned and shared, and dies"))
	f.Fuzz(func(t *testing.T, program []byte) {
		runModel(t, program[:min(len(program), 4000)], func(cfg Config) *Pool { return newPool(t, cfg) })
	})
}
