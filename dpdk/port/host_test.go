// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package port

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

func TestMain(m *testing.M) { nettest.Main(m) }

// wait bounds whatever a test waits for.
const wait = 10 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fakeHost is the C side. Its mempools are mbuf.Pools, whose mbufs look the same.
type fakeHost struct {
	t testing.TB

	mu    sync.Mutex
	pools map[uintptr]*mbuf.Pool
	lines []string // of the log, "4 text"
	told  map[uint16]Events
	free  func(bufs []*mbuf.Mbuf)
}

func newHost(t testing.TB) *fakeHost {
	return &fakeHost{t: t, pools: map[uintptr]*mbuf.Pool{}, told: map[uint16]Events{}, free: mbuf.FreeBulk}
}

func (h *fakeHost) pool(id uintptr) *mbuf.Pool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pools[id]
}

func (h *fakeHost) Alloc(pool uintptr, bufs []*mbuf.Mbuf) int { return h.pool(pool).AllocBulk(bufs) }
func (h *fakeHost) Free(bufs []*mbuf.Mbuf)                    { h.free(bufs) }

func (h *fakeHost) Log(level Level, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, fmt.Sprintf("%d %s", level, text))
}

func (h *fakeHost) Event(port uint16, what Events) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told[port] |= what
}

// log is what was logged since the last call.
func (h *fakeHost) log() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := strings.Join(h.lines, "\n")
	h.lines = nil
	return all
}

// heard is what the application was told of a port since the last call.
func (h *fakeHost) heard(port uint16) Events {
	h.mu.Lock()
	defer h.mu.Unlock()
	what := h.told[port]
	h.told[port] = 0
	return what
}

// mempool makes a pool, which must be full at the end of the test.
func (h *fakeHost) mempool(cfg mbuf.Config) uintptr {
	h.t.Helper()
	pool, err := mbuf.NewPool(cfg)
	must(h.t, err)
	h.t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			h.t.Errorf("mbufs were lost: %v", err)
		}
	})
	id := uintptr(unsafe.Pointer(pool))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pools[id] = pool
	return id
}

// bench is an application: ports in a network namespace.
type bench struct {
	*Ports
	t    testing.TB
	host *fakeHost
	ns   *netns.NS
	conn *rtnl.Conn
	pool uintptr // of 2048 mbufs
}

func newBench(t testing.TB) *bench {
	t.Helper()
	ns := nettest.QuietNS(t)
	host := newHost(t)
	pool := host.mempool(mbuf.Config{Name: "mp", Count: 2048})
	b := &bench{New(host, 2, 32, "22.11.0"), t, host, ns, nettest.Conn(t, ns), pool}
	t.Cleanup(func() {
		for i := range b.ports {
			if b.Remove(uint16(i)) != 0 {
				t.Errorf("port %d cannot be closed: %s", i, host.log())
			}
		}
	})
	return b
}

// probe opens port id as net_rtap<id>, in the bench's namespace.
func (b *bench) probe(id uint16, args string) {
	b.t.Helper()
	if args != "" {
		args = "," + args
	}
	args = fmt.Sprintf("iface=tap%d,netns=/proc/self/fd/%d", id, b.ns.FD()) + args
	if r := b.Probe(id, fmt.Sprint("net_rtap", id), args, false); r != 0 {
		b.t.Fatalf("probe: %d: %s", r, b.host.log())
	}
}

// call does an operation whose argument is arg, and returns what it returns.
func call[T any](b *bench, op Op, id uint16, arg *T) int32 {
	return b.Call(op, id, unsafe.Pointer(arg), uint32(unsafe.Sizeof(*arg)))
}

// do is call, and the operation must succeed.
func do[T any](b *bench, op Op, id uint16, arg *T) {
	b.t.Helper()
	if r := call(b, op, id, arg); r != 0 {
		b.t.Fatalf("operation %d: %d: %s", op, r, b.host.log())
	}
}

// plain is do for an operation without an argument.
func (b *bench) plain(op Op, id uint16) {
	b.t.Helper()
	if r := b.Call(op, id, nil, 0); r != 0 {
		b.t.Fatalf("operation %d: %d: %s", op, r, b.host.log())
	}
}

// queueConf is what C makes of a queue set-up with a mempool.
func (b *bench) queueConf(queue int, pool uintptr) *QueueConf {
	p := b.host.pool(pool)
	c := &QueueConf{Queue: uint32(queue), Ring: 256, Pool: uint64(pool),
		DataRoom: uint32(p.DataRoom()), Headroom: uint32(p.Headroom())}
	for i, r := range p.Regions() {
		c.Regions[i] = Region{uint64(r.Base), uint64(r.Size)}
		c.NRegions++
	}
	return c
}

// setUp configures a port as testpmd does: Tx queues first.
func (b *bench) setUp(id uint16, conf Conf) {
	b.t.Helper()
	do(b, OpConfigure, id, &conf)
	for i := range int(conf.TxQueues) {
		do(b, OpTxSetup, id, &QueueConf{Queue: uint32(i), Ring: 512})
	}
	for i := range int(conf.RxQueues) {
		do(b, OpRxSetup, id, b.queueConf(i, b.pool))
	}
}

// start starts a port that is set up.
func (b *bench) start(id uint16) *Started {
	b.t.Helper()
	s := new(Started)
	do(b, OpStart, id, s)
	return s
}

// run opens and starts port id with n queue pairs.
func (b *bench) run(id uint16, n uint16) *Started {
	b.t.Helper()
	b.probe(id, "")
	b.setUp(id, Conf{RxQueues: n, TxQueues: n})
	return b.start(id)
}

// rx receives a burst.
func (b *bench) rx(id, queue uint16, bufs []*mbuf.Mbuf) int {
	return int(b.Rx(id, queue, unsafe.Pointer(unsafe.SliceData(bufs)), uint16(len(bufs))))
}

// tx sends one.
func (b *bench) tx(id, queue uint16, bufs []*mbuf.Mbuf) int {
	return int(b.Tx(id, queue, unsafe.Pointer(unsafe.SliceData(bufs)), uint16(len(bufs))))
}

// injector sends frames through the kernel's side of port id.
func (b *bench) injector(id uint16) *traffic.Injector {
	b.t.Helper()
	l, err := b.conn.LinkByName(fmt.Sprint("tap", id))
	must(b.t, err)
	inj, err := traffic.NewInjector(b.ns, l.Index)
	must(b.t, err)
	b.t.Cleanup(func() { must(b.t, inj.Close()) })
	return inj
}
