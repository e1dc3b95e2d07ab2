// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package port

import (
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// rteMbuf is struct rte_mbuf of 22.11 to 26.03, written down once more so that nothing here rests on package mbuf.
type rteMbuf struct {
	bufAddr                       unsafe.Pointer
	bufIOVA                       uint64
	dataOff, refcnt, nbSegs, port uint16
	olFlags                       uint64
	packetType, pktLen            uint32
	dataLen, vlanTCI              uint16
	hash                          [2]uint32
	vlanTCIOuter, bufLen          uint16
	pool                          uintptr
	next                          *rteMbuf
	txOffload                     uint64
	shinfo                        uintptr
	privSize, timesync            uint16
	dynfield1                     [9]uint32
}

// RTE_MBUF_F_EXTERNAL and RTE_MBUF_F_INDIRECT.
const rteExternal, rteIndirect = 1 << 61, 1 << 62

func asMbufs(bufs []*rteMbuf) []*mbuf.Mbuf {
	return unsafe.Slice((**mbuf.Mbuf)(unsafe.Pointer(unsafe.SliceData(bufs))), len(bufs))
}

func asRTE(bufs []*mbuf.Mbuf) []*rteMbuf {
	return unsafe.Slice((**rteMbuf)(unsafe.Pointer(unsafe.SliceData(bufs))), len(bufs))
}

// mempool is what rte_pktmbuf_pool_create makes: objects with a header in front, of which rtap knows nothing. What an mbuf's
// pool points to may not be read: it is not what package mbuf would take it for.
type mempool struct {
	mem, id        []byte
	size, priv     int
	head, dataRoom int
	all, free      []*rteMbuf
}

const objHeader = 64 // struct rte_mempool_objhdr, padded

func newMempool(t testing.TB, n, priv, head, dataRoom int) *mempool {
	t.Helper()
	p := &mempool{size: objHeader + 128 + priv + head + dataRoom, priv: priv, head: head, dataRoom: dataRoom}
	p.size = (p.size + 63) &^ 63
	var err error
	p.mem, err = syscall.Mmap(-1, 0, n*p.size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	must(t, err)
	p.id, err = syscall.Mmap(-1, 0, 4096, syscall.PROT_NONE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	must(t, err)
	fillNoise(p.mem)
	for i := range n {
		m := (*rteMbuf)(unsafe.Pointer(&p.mem[i*p.size+objHeader]))
		p.init(m)
		p.all, p.free = append(p.all, m), append(p.free, m)
	}
	t.Cleanup(func() {
		if len(p.free) != n {
			t.Errorf("%d of %d mbufs are in the mempool", len(p.free), n)
		}
		must(t, syscall.Munmap(p.mem))
		must(t, syscall.Munmap(p.id))
	})
	return p
}

// fillNoise makes a header of zeros, as plain packets have, show where it was written.
func fillNoise(b []byte) {
	for i := range b {
		b[i] = 0x5a
	}
}

func (p *mempool) addr() uintptr { return uintptr(unsafe.Pointer(&p.id[:1:1][0])) }

// init is rte_pktmbuf_init.
func (p *mempool) init(m *rteMbuf) {
	*m = rteMbuf{bufAddr: unsafe.Add(unsafe.Pointer(m), 128+p.priv), bufLen: uint16(p.head + p.dataRoom), pool: p.addr(),
		refcnt: 1, nbSegs: 1, privSize: uint16(p.priv), port: 0xffff, dataOff: uint16(p.head)}
}

// reset is rte_pktmbuf_reset of what rte_mbuf_raw_alloc gives. Fields that it leaves alone are full of what was there.
func (p *mempool) reset(m *rteMbuf) {
	m.pktLen, m.txOffload, m.vlanTCI, m.vlanTCIOuter, m.port = 0, 0, 0, 0, 0xffff
	m.olFlags &= rteExternal
	m.packetType, m.dataOff, m.dataLen = 0, uint16(p.head), 0
	m.hash, m.timesync, m.dynfield1 = [2]uint32{0xdeadbeef, 0xdeadbeef}, 0xbeef, [9]uint32{0xdeadbeef}
}

// rteHost is the C side with mempools that look as DPDK's do. It does as rte_pktmbuf_alloc_bulk and free_bulk do, and counts how often
// it is called.
type rteHost struct {
	*fakeHost
	mu            sync.Mutex
	mempools      []*mempool
	allocs, frees int
	externals     int // external buffers that were given up
}

func (h *rteHost) find(id uintptr) *mempool {
	for _, p := range h.mempools {
		if p.addr() == id {
			return p
		}
	}
	panic("no such mempool")
}

func (h *rteHost) Alloc(pool uintptr, bufs []*mbuf.Mbuf) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.allocs++
	return h.find(pool).take(asRTE(bufs))
}

func (p *mempool) take(bufs []*rteMbuf) int {
	n := min(len(bufs), len(p.free))
	left := len(p.free) - n
	copy(bufs, p.free[left:])
	p.free = p.free[:left]
	for _, m := range bufs[:n] {
		if m.refcnt != 1 || m.next != nil || m.nbSegs != 1 {
			panic("an mbuf was freed that is part of a packet")
		}
		p.reset(m)
	}
	return n
}

func (h *rteHost) Free(bufs []*mbuf.Mbuf) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.frees++
	for _, m := range asRTE(bufs) {
		for m != nil {
			next := m.next
			h.freeSeg(m)
			m = next
		}
	}
}

// freeSeg is rte_pktmbuf_free_seg: one reference less, and what the last one takes along.
func (h *rteHost) freeSeg(m *rteMbuf) {
	if m.refcnt--; m.refcnt > 0 {
		return
	}
	p := h.find(m.pool)
	switch {
	case m.olFlags&rteIndirect != 0:
		direct := (*rteMbuf)(unsafe.Add(m.bufAddr, -128-int(m.privSize)))
		p.init(m)
		h.freeSeg(direct)
	case m.olFlags&rteExternal != 0:
		h.externals++
		p.init(m)
	}
	m.refcnt, m.next, m.nbSegs = 1, nil, 1
	p.free = append(p.free, m)
}

// get takes mbufs from a mempool as an application does.
func (h *rteHost) get(p *mempool, n int) []*rteMbuf {
	h.mu.Lock()
	defer h.mu.Unlock()
	bufs := make([]*rteMbuf, n)
	if p.take(bufs) != n {
		panic("the mempool is empty")
	}
	for _, m := range bufs {
		fillNoise(m.buffer())
	}
	return bufs
}

// put gives one back.
func (h *rteHost) put(bufs ...*rteMbuf) {
	h.Free(asMbufs(bufs))
	h.frees--
}

func (m *rteMbuf) data() []byte {
	return unsafe.Slice((*byte)(unsafe.Add(m.bufAddr, m.dataOff)), m.dataLen)
}

// buffer is all of it.
func (m *rteMbuf) buffer() []byte { return unsafe.Slice((*byte)(m.bufAddr), m.bufLen) }

// append is rte_pktmbuf_append to a packet of one segment.
func (m *rteMbuf) append(b []byte) {
	m.dataLen += uint16(len(b))
	m.pktLen += uint32(len(b))
	copy(m.data()[int(m.dataLen)-len(b):], b)
}

// chain makes a packet of segments.
func chain(segs ...*rteMbuf) *rteMbuf {
	first := segs[0]
	for i, s := range segs[1:] {
		segs[i].next = s
		first.pktLen += uint32(s.dataLen)
	}
	first.nbSegs = uint16(len(segs))
	return first
}

// rteBench is an application with such mempools; engine is rtap's.
func rteBench(t testing.TB, engine string, dataRoom, count int) (*bench, *rteHost, *mempool) {
	t.Helper()
	if engine == "uring" {
		nettest.NeedUring(t)
	}
	ns := nettest.QuietNS(t)
	h := &rteHost{fakeHost: newHost(t)}
	p := newMempool(t, count, 0, 128, dataRoom)
	h.mempools = append(h.mempools, p)
	b := &bench{Ports: New(h, 2, 32, "22.11.0"), t: t, host: h.fakeHost, ns: ns, conn: nettest.Conn(t, ns)}
	t.Cleanup(func() {
		if b.Remove(0) != 0 {
			t.Errorf("the port cannot be closed: %s", b.host.log())
		}
	})
	b.probe(0, "engine="+engine)
	do(b, OpConfigure, 0, &Conf{RxQueues: 1, TxQueues: 1})
	do(b, OpTxSetup, 0, &QueueConf{Ring: 256})
	do(b, OpRxSetup, 0, &QueueConf{Ring: 256, Pool: uint64(p.addr()), DataRoom: uint32(dataRoom), Headroom: 128, NRegions: 1,
		Regions: [MaxRegions]Region{{uint64(uintptr(unsafe.Pointer(&p.mem[0]))), uint64(len(p.mem))}}})
	b.start(0)
	return b, h, p
}

// eachEngine runs f with both engines.
func eachEngine(t *testing.T, f func(t *testing.T, engine string)) {
	t.Helper()
	for _, e := range []string{"uring", "syscall"} {
		t.Run(e, func(t *testing.T) { f(t, e) })
	}
}
