// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/vnethdr"
)

// hdrLen is the virtio-net header's length without tunnel offloads.
const hdrLen = vnethdr.Size

// fakeEngine is a kernel that costs nothing and does as it is told. It moves no
// bytes.
type fakeEngine struct {
	rx, tx *pktio.Counts // of the latest reader and writer, for read and write to add to
	read   func(descs []pktio.Desc, done []pktio.Completion) int
	write  func(descs []pktio.Desc, failed []pktio.Completion) (taken, refused int)
}

func (*fakeEngine) Name() string  { return "fake" }
func (*fakeEngine) Notes() string { return "" }
func (*fakeEngine) Close() error  { return nil }

func (e *fakeEngine) NewReader(_, _ int, _ []pktio.Region, c *pktio.Counts) (pktio.Reader, error) {
	e.rx = c
	return fakeReader{e}, nil
}

func (e *fakeEngine) NewWriter(_, _ int, _ []pktio.Region, c *pktio.Counts) (pktio.Writer, error) {
	e.tx = c
	return fakeWriter{e}, nil
}

type fakeReader struct{ *fakeEngine }

func (r fakeReader) Read(descs []pktio.Desc, done []pktio.Completion) int { return r.read(descs, done) }

type fakeWriter struct{ *fakeEngine }

func (w fakeWriter) Write(descs []pktio.Desc, failed []pktio.Completion) (taken, refused int) {
	return w.write(descs, failed)
}

// fakeRx and fakeTx are queues over a fake engine, open for bursts.
func fakeRx(t testing.TB, e *fakeEngine, cfg RxConfig, mtu int) *RxQueue {
	t.Helper()
	d := &Device{engine: e, counters: []*counters{newCounters(&pairCounters{})}}
	q, err := d.newRxQueue(0, -1, cfg)
	must(t, err)
	must(t, q.fit(rxShape{mtu: mtu, hdrLen: hdrLen}))
	q.gate.open()
	t.Cleanup(func() { must(t, q.close()) })
	return q
}

func fakeTx(t testing.TB, e *fakeEngine, cfg TxConfig) *TxQueue {
	t.Helper()
	d := &Device{engine: e, counters: []*counters{newCounters(&pairCounters{})}}
	q, err := d.newTxQueue(0, -1, cfg)
	must(t, err)
	q.gate.open()
	t.Cleanup(func() { must(t, q.close()) })
	return q
}

// counted is what a queue has counted.
func (q *RxQueue) counted() QueueStats {
	c := pairCounts{rx: q.stats.load()}
	return c.stats()
}

func (q *TxQueue) counted() QueueStats {
	c := pairCounts{tx: q.stats.load()}
	return c.stats()
}

// TestRxWindow: whatever the engine answers, in whatever order, no mbuf is lost
// or given twice, packets have the right shape, and each slot's description
// points to the mbufs that the slot has.
func TestRxWindow(t *testing.T) {
	for _, c := range []struct{ room, headroom, mtu, ring, count int }{
		{2048, 128, 1500, 64, 1000},
		{2048, 128, 1500, 64, 70}, // runs short
		{129, 5, 1500, 16, 1000},
		{1000, -1, 9000, 32, 250},
		{65407, 128, MaxMTU, 8, 30},
		{1000, 10, 1500, 1, 10},
	} {
		r := rand.New(rand.NewPCG(uint64(c.room), uint64(c.count)))
		pool := newPool(t, mbuf.Config{Name: "window", Count: c.count, DataRoom: c.room, Headroom: c.headroom})
		var q *RxQueue
		var lengths []int // of the packets that a burst must return, in order
		bad := 0
		e := &fakeEngine{}
		e.read = func(descs []pktio.Desc, done []pktio.Completion) int {
			checkDescs(t, q, descs)
			lengths = lengths[:0]
			order := r.Perm(len(descs))[:r.IntN(len(descs)+1)]
			for n, i := range order {
				res := hdrLen + 1 + int32(r.IntN(c.mtu+ethernet.overhead()))
				switch r.IntN(8) {
				case 0:
					res = []int32{q.capacity, hdrLen, 0, -int32(syscall.EINVAL)}[r.IntN(4)]
					bad++
				case 1:
					res = hdrLen + int32(c.mtu+ethernet.overhead()) // the longest
					fallthrough
				default:
					lengths = append(lengths, int(res)-hdrLen)
				}
				done[n] = pktio.Completion{Index: uint32(i), Res: res}
			}
			return len(order)
		}
		q = fakeRx(t, e, RxConfig{Ring: c.ring, Memory: pool}, c.mtu)
		checkWindow(t, q, pool, r, &lengths)
		if got := q.counted().IErrors; got != uint64(bad) || bad == 0 {
			t.Errorf("%+v: %d packets are counted in ierrors, want %d", c, got, bad)
		}
	}
}

func checkDescs(t *testing.T, q *RxQueue, descs []pktio.Desc) {
	t.Helper()
	seen := map[*mbuf.Mbuf]bool{}
	for i, d := range descs {
		base := d.Addr
		if d.NIov != 0 {
			base = q.vec.Iov[i*q.segs].Base
		}
		for s, m := range q.slot(i) {
			if m == nil || seen[m] {
				t.Fatalf("slot %d: mbuf %d is nil or in the window twice", i, s)
			}
			seen[m] = true
			if s > 0 {
				base = q.vec.Iov[i*q.segs+s].Base
			} else {
				base += uintptr(q.front)
			}
			if base != m.DataAddr() {
				t.Fatalf("slot %d is described as having other mbufs than it has", i)
			}
		}
	}
}

func checkWindow(t *testing.T, q *RxQueue, pool *mbuf.Pool, r *rand.Rand, lengths *[]int) {
	t.Helper()
	var ours []*mbuf.Mbuf // packets not freed yet
	segs := 0             // that they have
	for range nettest.Scale(2000) {
		bufs := make([]*mbuf.Mbuf, r.IntN(2*q.depth)+1)
		*lengths = nil
		n := q.Burst(bufs)
		if n != len(*lengths) {
			t.Fatalf("Burst returned %d packets, want %d", n, len(*lengths))
		}
		for i, m := range bufs[:n] {
			if err := m.Check(); err != nil || int(m.PktLen) != (*lengths)[i] {
				t.Fatalf("packet of %d bytes, want %d: %v", m.PktLen, (*lengths)[i], err)
			}
			ours, segs = append(ours, m), segs+int(m.NbSegs)
		}
		wantInUse(t, pool, segs+q.held())
		if r.IntN(3) == 0 {
			mbuf.FreeBulk(ours)
			ours, segs = ours[:0], 0
		}
	}
	mbuf.FreeBulk(ours)
	if q.counted().IPackets == 0 {
		t.Fatal("no packets were received")
	}
}

// TestTxPartial: when the engine takes fewer than it was given, Burst says so,
// frees exactly those and leaves the rest as they were.
func TestTxPartial(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "partial", Count: 200})
	r := rand.New(rand.NewPCG(3, 4))
	written, refused, short := 0, 0, false
	e := &fakeEngine{write: func(descs []pktio.Desc, failed []pktio.Completion) (int, int) {
		if short {
			t.Fatal("Burst went on after the engine took fewer packets than it was given")
		}
		taken, bad := r.IntN(len(descs)+1), 0
		short = taken < len(descs)
		for i := range taken {
			if r.IntN(4) == 0 {
				failed[bad] = pktio.Completion{Index: uint32(i), Res: -int32(syscall.EINVAL)}
				bad++
			}
		}
		written, refused = written+taken-bad, refused+bad
		return taken, bad
	}}
	q := fakeTx(t, e, TxConfig{Ring: 16})
	total := 0
	for range nettest.Scale(1000) {
		bufs := make([]*mbuf.Mbuf, 1+r.IntN(100))
		pool.AllocBulk(bufs)
		for i, m := range bufs {
			m.Append(60)
			m.Hash[0] = uint32(i)
		}
		short = false
		n := q.Burst(bufs)
		wantInUse(t, pool, len(bufs)-n)
		for i, m := range bufs[n:] {
			if int(m.Hash[0]) != n+i || m.PktLen != 60 || m.DataOff != mbuf.DefaultHeadroom || m.RefCount() != 1 {
				t.Fatalf("packet %d, which Burst did not take, was changed", n+i)
			}
		}
		mbuf.FreeBulk(bufs[n:])
		total += n
	}
	want := QueueStats{OPackets: uint64(written), OBytes: uint64(60 * written), OErrors: uint64(refused)}
	if got := q.counted(); total != written+refused || got != want {
		t.Fatalf("took %d; counted %+v, want %+v", total, got, want)
	}
}

// TestGoneEndsBursts: once the engine has said that the interface is gone, which
// is no error of a packet received, bursts do nothing.
func TestGoneEndsBursts(t *testing.T) {
	calls := 0
	e := &fakeEngine{
		read: func(descs []pktio.Desc, done []pktio.Completion) int {
			calls++
			done[0] = pktio.Completion{Res: -int32(tuntap.Gone)}
			return 1
		},
		write: func(descs []pktio.Desc, failed []pktio.Completion) (int, int) {
			calls++
			for i := range descs {
				failed[i] = pktio.Completion{Index: uint32(i), Res: -int32(tuntap.Gone)}
			}
			return len(descs), len(descs)
		},
	}
	pool := newPool(t, mbuf.Config{Name: "gone", Count: 64})
	rx, tx := fakeRx(t, e, RxConfig{Ring: 8, Memory: pool}, DefaultMTU), fakeTx(t, e, TxConfig{Ring: 2})
	for range 3 {
		if n := rx.Burst(make([]*mbuf.Mbuf, 8)); n != 0 {
			t.Fatalf("received %d packets", n)
		}
	}
	if rx.dev.Err() != ErrGone || rx.counted() != (QueueStats{}) || calls != 1 {
		t.Fatalf("after a read: error %v, %+v, %d reads", rx.dev.Err(), rx.counted(), calls)
	}
	bufs := make([]*mbuf.Mbuf, 4)
	pool.AllocBulk(bufs)
	if n := tx.Burst(bufs); n != 2 {
		t.Fatalf("took %d packets, want those of the ring, 2", n)
	}
	if n := tx.Burst(bufs[2:]); n != 0 || tx.dev.Err() != ErrGone || calls != 2 {
		t.Fatalf("after a write: took %d packets, error %v, %d calls", n, tx.dev.Err(), calls)
	}
	mbuf.FreeBulk(bufs[2:])
	wantInUse(t, pool, rx.held())
}
