// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package port

import (
	"runtime"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// sink keeps garbage from being optimised away.
var sink []byte

func (b *bench) gcs() uint64 {
	b.t.Helper()
	var r Runtime
	do(b, OpRuntime, 0, &r)
	return r.GCs
}

// TestCollection: memory is collected by control calls when there is enough to collect, and when the last port is
// closed, and never otherwise.
func TestCollection(t *testing.T) {
	b := newBench(t)
	defer b.TakeRuntime()()
	b.run(0, 1) // the first call may find that much was allocated before
	before := b.gcs()
	for range 100 {
		do(b, OpLink, 0, new(Link))
	}
	for range 64 {
		sink = make([]byte, 1<<20)
	}
	if got := b.gcs(); got != before {
		t.Errorf("%d collections by themselves", got-before)
	}
	do(b, OpLink, 0, new(Link))
	do(b, OpLink, 0, new(Link))
	if got := b.gcs(); got != before+1 {
		t.Errorf("%d collections after 64 MB, want 1", got-before)
	}
	b.probe(1, "")
	b.plain(OpClose, 0)
	if got := b.gcs(); got != before+1 {
		t.Errorf("a collection when one of two ports was closed")
	}
	b.plain(OpClose, 1)
	if got := b.gcs(); got != before+2 {
		t.Errorf("no collection when the last port was closed")
	}
}

// TestBurstsCollectNothing: bursts allocate nothing, so that there is never a collection while packets flow.
func TestBurstsCollectNothing(t *testing.T) {
	b := newBench(t)
	defer b.TakeRuntime()()
	b.run(0, 1)
	bufs := make([]*mbuf.Mbuf, 32)
	pool := b.host.pool(b.pool)
	burst := func() {
		n := pool.AllocBulk(bufs)
		for _, m := range bufs[:n] {
			m.Append(60)
		}
		b.rx(0, 0, bufs[:0])
		mbuf.FreeBulk(bufs[b.tx(0, 0, bufs[:n]):n])
		n = b.rx(0, 0, bufs)
		mbuf.FreeBulk(bufs[:n])
	}
	if n := nettest.Allocs(1000, burst); n != 0 {
		t.Errorf("%v allocations a burst", n)
	}
	before := b.gcs()
	for range nettest.Scale(1_000_000) {
		b.rx(0, 0, bufs[:1])
	}
	if got := b.gcs(); got != before {
		t.Errorf("%d collections while bursts ran", got-before)
	}
}

// TestProcs: there are as many of Go's processors as threads may poll.
func TestProcs(t *testing.T) {
	b := newBench(t)
	defer b.TakeRuntime()()
	for _, c := range []struct {
		queues uint16
		want   uint64
	}{{1, 6}, {8, 20}, {2, 20}, {128, 132}} {
		b.probe(0, "")
		do(b, OpConfigure, 0, &Conf{RxQueues: c.queues, TxQueues: c.queues})
		var r Runtime
		do(b, OpRuntime, 0, &r)
		if r.Procs != c.want || int(r.Procs) != runtime.GOMAXPROCS(0) {
			t.Errorf("%d queues: %d processors, want %d", c.queues, r.Procs, c.want)
		}
		if r.Goroutines == 0 || r.Threads == 0 || r.HeapBytes == 0 {
			t.Errorf("runtime: %+v", r)
		}
		b.plain(OpClose, 0)
	}
}
