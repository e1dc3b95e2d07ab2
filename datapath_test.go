// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/mbuf"
)

// A way of moving packets: an engine, or uring as it works before Linux 6.4.
type way struct {
	name    string
	engine  Engine
	waiting bool
}

var ways = []way{
	{"uring", EngineUring, false},
	{"uring-waiting", EngineUring, true},
	{"syscall", EngineSyscall, false},
}

// eachWay runs f with every way that may be gone here; see eachEngine.
func eachWay(t *testing.T, f func(t *testing.T, w way)) {
	t.Helper()
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			if w.engine == EngineUring {
				nettest.NeedUring(t)
			}
			f(t, w)
		})
	}
}

// open opens a port that goes this way.
func (w way) open(t testing.TB, cfg Config) *port {
	t.Helper()
	cfg.Engine = w.engine
	p := openPort(t, cfg)
	if w.waiting {
		p.withoutNoWait()
	}
	return p
}

// start opens a port and starts it with n queue pairs.
func (w way) start(t testing.TB, cfg Config, n int, rx RxConfig) *port {
	t.Helper()
	p := w.open(t, cfg)
	p.setUp(n, rx)
	return p
}

// withoutNoWait makes queues that are set up from now on read as they must before
// Linux 6.4.
func (p *port) withoutNoWait() {
	p.t.Helper()
	must(p.t, p.withKeep(func(q *tuntap.Queue) error {
		e, _, err := pktio.Select(pktio.UringWaiting, q.FD())
		if err != nil {
			return err
		}
		err = p.engine.Close()
		p.engine = e
		return err
	}))
}

// burst polls Rx queue i until n packets have come and returns them: they are
// the caller's.
func (p *port) burst(i, n int) []*mbuf.Mbuf {
	p.t.Helper()
	q, got := p.RxQueue(i), make([]*mbuf.Mbuf, n)
	have := 0
	nettest.Eventually(p.t, wait, fmt.Sprintf("%d packets on queue %d", n, i), func() bool {
		for {
			k := q.Burst(got[have:])
			have += k
			if k == 0 || have == n {
				return have == n
			}
		}
	})
	return got
}

// checkRx injects frames of these sizes, up to a batch at a time, and fails the
// test unless they come on queue 0 whole, in order, and in mbufs that shape
// finds nothing wrong with.
func (p *port) checkRx(sizes []int, batch int, shape func(m *mbuf.Mbuf) error) {
	p.t.Helper()
	for len(sizes) > 0 {
		n, bytes := 0, 0
		for n < min(batch, len(sizes)) && (n == 0 || bytes+sizes[n] <= injectable) {
			bytes += sizes[n]
			n++
		}
		p.checkRxBatch(sizes[:n], shape)
		sizes = sizes[n:]
	}
}

// injectable is how many bytes of frames may wait in the interface's queue at
// once: the kernel charges the injecting socket more than twice as much.
const injectable = 64 << 10

func (p *port) checkRxBatch(sizes []int, shape func(m *mbuf.Mbuf) error) {
	p.t.Helper()
	for i, size := range sizes {
		p.inject(frame(size, i))
	}
	got := p.burst(0, len(sizes))
	defer mbuf.FreeBulk(got)
	for i, m := range got {
		if err := checkPacket(m, frame(sizes[i], i)); err != nil {
			p.t.Fatalf("packet %d of %d: %v", i, len(sizes), err)
		}
		if err := shape(m); err != nil {
			p.t.Fatalf("packet of %d bytes: %v", sizes[i], err)
		}
	}
}

// checkPacket says how m is not a sound packet with the content want.
func checkPacket(m *mbuf.Mbuf, want []byte) error {
	if err := m.Check(); err != nil {
		return err
	}
	return sameBytes(m.AppendTo(nil), want)
}

func sameBytes(got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Errorf("%d bytes, want %d: they differ from byte %d on: %#02x, want %#02x", len(got), len(want), i, got[i], want[i])
		}
	}
	return fmt.Errorf("%d bytes, want %d", len(got), len(want))
}

// checkTx sends a packet of each size, made by build, a burst at a time, and
// fails the test unless the kernel gets them whole and in order.
func (p *port) checkTx(sizes []int, burst int, build func(frame []byte) *mbuf.Mbuf) {
	p.t.Helper()
	p.capturer()
	for part := range slices.Chunk(sizes, burst) {
		bufs := make([]*mbuf.Mbuf, len(part))
		for i, size := range part {
			bufs[i] = build(frame(size, i))
		}
		if n := p.TxQueue(0).Burst(bufs); n != len(bufs) {
			p.t.Fatalf("Burst took %d packets of %d", n, len(bufs))
		}
		for i, got := range p.captured(len(part)) {
			if err := sameBytes(got, frame(part[i], i)); err != nil {
				p.t.Fatalf("packet %d of %d: %v", i, len(part), err)
			}
		}
	}
}

// edges are the sizes from lo to hi that are within one of a power of two or of
// a multiple of step, less some in between where the machine is slow.
func edges(lo, hi, step int) []int {
	sizes := []int{lo, lo + 1, hi - 1, hi}
	add := func(n int) { sizes = append(sizes, n-1, n, n+1) }
	for n := 1; n <= hi; n *= 2 {
		add(n)
	}
	for k := range min(hi/step, 4) {
		add(step * (k + 1))
	}
	add(hi / step * step)
	slices.Sort(sizes)
	sizes = slices.DeleteFunc(slices.Compact(sizes), func(n int) bool { return n < lo || n > hi })
	return thin(sizes)
}

// thin leaves out all but some of the elements between the first and the last,
// as nettest.Scale says.
func thin(all []int) []int {
	keep := max(nettest.Scale(len(all)), min(len(all), 6))
	var out []int
	for i := range keep {
		out = append(out, all[i*(len(all)-1)/max(keep-1, 1)])
	}
	return out
}

// wantStats waits until the port's counters, of all queues, are want.
func (p *port) wantStats(want Stats) {
	p.t.Helper()
	s, err := p.Stats()
	must(p.t, err)
	if s != want {
		p.t.Fatalf("statistics:\n got %+v\nwant %+v", s, want)
	}
}

// held is how many mbufs the driver holds for Rx queue i, its cache not counted.
func (q *RxQueue) held() int { return q.filled*q.segs + len(q.spare) }

// wantInUse fails the test unless n mbufs of pool are in use.
func wantInUse(t testing.TB, pool *mbuf.Pool, n int) {
	t.Helper()
	if got := pool.InUseCount(); got != n {
		t.Fatalf("%d mbufs of pool %s are in use, want %d", got, pool.Name(), n)
	}
}
