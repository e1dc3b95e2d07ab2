// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package port

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// secondary is another process's ports, of the same mempools.
func (b *bench) secondary(id uint16) *bench {
	b.t.Helper()
	s := &bench{New(b.host, 2, 32, "22.11.0"), b.t, b.host, b.ns, b.conn, b.pool}
	if r := s.Probe(id, fmt.Sprint("net_rtap", id), "", true); r != 0 {
		b.t.Fatalf("probe: %d: %s", r, b.host.log())
	}
	b.t.Cleanup(func() {
		if r := s.Remove(id); r != 0 {
			b.t.Errorf("the secondary's port cannot be closed: %d", r)
		}
	})
	return s
}

// handOver has s join port id of b, as the C side does, and returns in how many parts.
func (b *bench) handOver(id uint16, s *bench) (parts int) {
	b.t.Helper()
	for from := uint32(0); ; parts++ {
		part := &Share{From: from}
		do(b, OpShare, id, part)
		if part.NFDs == 0 {
			return parts
		}
		from += part.NFDs
		total := part.Total
		do(s, OpJoin, id, part)
		if from >= total {
			return parts + 1
		}
	}
}

// TestShare: a secondary polls queues of a port that has more than a message takes descriptors of: packets go both ways, and the
// primary counts them; when it stops, the secondary has no mbuf and no packet; when it starts again, all goes on.
func TestShare(t *testing.T) {
	const queues, mine = 16, 13
	b := newBench(t)
	b.probe(3, "")
	s := b.secondary(3)
	b.setUp(3, Conf{RxQueues: queues, TxQueues: queues})
	if n := b.handOver(3, s); n != 0 {
		t.Errorf("a stopped port is handed over in %d parts", n)
	}
	bufs := make([]*mbuf.Mbuf, 8)
	for round := range uint64(3) {
		b.start(3)
		if s.tx(3, mine, bufs[:1]) != 0 || s.rx(3, mine, bufs) != 0 {
			t.Fatal("a secondary has queues that nobody has handed over")
		}
		if n := b.handOver(3, s); n != (queues+1+ShareFDs-1)/ShareFDs {
			t.Errorf("the port was handed over in %d parts", n)
		}
		for range 5 {
			s.roundTrip(3, mine)
		}
		b.roundTrip(3, 2)
		var st Stats
		do(b, OpStats, 3, &st)
		if q := st.Q[mine]; q.IPackets != 5*(round+1) || q.OPackets != q.IPackets || q.IBytes == 0 || st.IPackets != 6*(round+1) || st.OErrors+st.IErrors != 0 {
			t.Errorf("round %d: the primary has counted %+v, of the queue %+v", round, st, q)
		}
		s.plain(OpLeave, 3)
		if n := s.rx(3, mine, bufs); n != 0 {
			t.Errorf("%d packets after the end", n)
		}
		b.plain(OpStop, 3)
		if n := b.host.pool(b.pool).InUseCount(); n != 0 {
			t.Errorf("%d mbufs are in use", n)
		}
	}
}

// TestShareWhilePolled: a secondary that polls all the time is given queues and loses them, over and over, and the
// primary stops and starts: no packet is lost to the mempool.
func TestShareWhilePolled(t *testing.T) {
	b := newBench(t)
	b.run(0, 2)
	s := b.secondary(0)
	pool, f := b.host.pool(b.pool), udp(1)
	var done atomic.Bool
	sent, ended := new(atomic.Uint64), make(chan struct{})
	go func() {
		defer close(ended)
		bufs := make([]*mbuf.Mbuf, 16)
		for !done.Load() {
			n := pool.AllocBulk(bufs[:4])
			for _, m := range bufs[:n] {
				copy(m.Append(len(f)), f)
			}
			k := s.tx(0, 1, bufs[:n])
			sent.Add(uint64(k))
			mbuf.FreeBulk(bufs[k:n])
			mbuf.FreeBulk(bufs[:s.rx(0, 1, bufs)])
			s.Waiting(0, 1)
			runtime.Gosched()
		}
	}()
	for range nettest.Scale(20) {
		b.handOver(0, s)
		before := sent.Load()
		nettest.Eventually(t, wait, "packets to be sent", func() bool { return sent.Load() > before })
		s.plain(OpLeave, 0)
		b.plain(OpStop, 0)
		b.start(0)
	}
	done.Store(true)
	<-ended
	b.plain(OpStop, 0)
	var st Stats
	do(b, OpStats, 0, &st)
	if st.OPackets != sent.Load() || st.OErrors != 0 || pool.InUseCount() != 0 {
		t.Errorf("sent %d packets; counted %+v; %d mbufs are in use", sent.Load(), st, pool.InUseCount())
	}
}

// roundTrip sends a packet on a queue, and receives one there: the kernel answers a flow where it came from.
func (b *bench) roundTrip(id, queue uint16) {
	b.t.Helper()
	pool := b.host.pool(b.pool)
	f := udp(queue)
	m := pool.Alloc()
	copy(m.Append(len(f)), f)
	if b.tx(id, queue, []*mbuf.Mbuf{m}) != 1 {
		b.t.Fatalf("queue %d takes no packet", queue)
	}
	must(b.t, b.injector(id).Inject(f))
	bufs := make([]*mbuf.Mbuf, 8)
	nettest.Eventually(b.t, wait, "a packet", func() bool { return b.rx(id, queue, bufs) == 1 })
	if got := bufs[0]; !bytes.Equal(got.Bytes(), f) || got.Port != id {
		b.t.Errorf("queue %d received of port %d % x", queue, got.Port, got.Bytes())
	}
	bufs[0].Free()
}

// udp is a packet of flow n.
func udp(n uint16) []byte {
	f := make([]byte, 60)
	copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
		0x40, byte(n), 0, 9, 0, 26})
	return f
}

// TestShareParts: parts that do not belong together make nothing, and what was sent is closed.
func TestShareParts(t *testing.T) {
	b := newBench(t)
	s := b.secondary(1)
	b.run(1, 10)
	part := func(from uint32) *Share {
		p := &Share{From: from}
		do(b, OpShare, 1, p)
		return p
	}
	before := nettest.Leaks()
	do(s, OpJoin, 1, part(0))
	wantErrno(t, s, part(0), 0) // begins anew
	wantErrno(t, s, part(1), syscall.EAGAIN)
	wantErrno(t, s, part(8), syscall.EAGAIN) // the first ones are closed
	do(s, OpJoin, 1, part(0))
	b.plain(OpStop, 1)
	b.start(1)
	wantErrno(t, s, part(8), syscall.EAGAIN)
	do(s, OpJoin, 1, part(0))
	bad := part(8)
	bad.JSON[0] = 'x'
	wantErrno(t, s, bad, syscall.EAGAIN)
	s.plain(OpLeave, 1)
	if r := s.Call(OpJoin, 2, unsafe.Pointer(part(0)), uint32(unsafe.Sizeof(Share{}))); r != -int32(syscall.ENODEV) {
		t.Errorf("joined a port that is not there: %d", r)
	}
	if r := call(b, OpJoin, 1, part(0)); r != -int32(syscall.ENOTSUP) {
		t.Errorf("the primary joined itself: %d", r)
	}
	last := part(100)
	if last.NFDs != 0 || last.Total != 11 {
		t.Errorf("beyond the end there is %d of %d", last.NFDs, last.Total)
	}
	before.Check(t)
	if n := b.handOver(1, s); n != 2 {
		t.Errorf("handed over in %d parts", n)
	}
	s.roundTrip(1, 9)
	b.host.log()
}

func wantErrno(t *testing.T, s *bench, p *Share, want syscall.Errno) {
	t.Helper()
	if r := call(s, OpJoin, 1, p); r != -int32(want) {
		t.Errorf("part from %d of %d: %d, want %v", p.From, p.Total, r, want)
	}
}

// TestShareLargest: an offer of as many queues and mempools as there may be fits a message; of too many regions the largest
// are told.
func TestShareLargest(t *testing.T) {
	b := newBench(t)
	b.probe(0, "")
	conf := Conf{RxQueues: MaxQueues, TxQueues: MaxQueues}
	do(b, OpConfigure, 0, &conf)
	for i := range MaxQueues {
		do(b, OpTxSetup, 0, &QueueConf{Queue: uint32(i), Ring: 1024})
		pool := b.host.mempool(mbuf.Config{Name: fmt.Sprint("mp", i), Count: 4})
		c := b.queueConf(i, pool)
		c.Ring = 1024
		do(b, OpRxSetup, 0, c)
	}
	b.start(0)
	p := new(Share)
	do(b, OpShare, 0, p)
	if p.Len == 0 || p.Total != MaxQueues+1 {
		t.Errorf("%d bytes of %d descriptors", p.Len, p.Total)
	}
	p.drop()
	if n := len(b.registered(0)); n == 0 || n > maxRegions {
		t.Errorf("%d regions are registered", n)
	}
	var many []mbuf.Region
	for i := range 100 {
		many = append(many, mbuf.Region{Base: uintptr(i) << 20, Size: uintptr(1+i%2) << 12})
	}
	got := largest(many, 50)
	if len(got) != 50 || slices.ContainsFunc(got, func(r mbuf.Region) bool { return r.Size != 2<<12 }) {
		t.Errorf("of regions, %d: %v", len(got), got)
	}
	if got := largest(many, 60); len(got) != 60 {
		t.Errorf("of 60 regions %d are told", len(got))
	}
}
