// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

// echoAll has the primary send back what it receives, on all queues that are its own at the time.
func (s *stage) echoAll(ws *workers) {
	for i := range s.queues() {
		rx, tx, bufs := s.RxQueue(i), s.TxQueue(i), s.bufs(32)
		ws.loop(func() {
			n := rx.Burst(bufs)
			sent := tx.Burst(bufs[:n])
			mbuf.FreeBulk(bufs[sent:n])
		})
	}
}

// stream sends flow i, which goes to queue i, a little ahead of what the queue has received.
type stream struct {
	s     *stage
	queue int
	inj   *traffic.Injector
	sent  uint64
	base  QueueStats
}

// stream is that of flow i.
func (s *stage) stream(i int) *stream {
	s.t.Helper()
	inj, err := traffic.NewInjector(s.ns, s.index)
	must(s.t, err)
	s.t.Cleanup(func() { inj.Close() })
	return &stream{s: s, queue: i, inj: inj}
}

// begin counts from now.
func (f *stream) begin() {
	f.s.t.Helper()
	var err error
	f.base, err = f.s.QueueStats(f.queue)
	must(f.s.t, err)
	f.sent = 0
}

// moved are the packets that the queue has received and sent since begin.
func (f *stream) moved() (in, out uint64) {
	now, err := f.s.QueueStats(f.queue)
	if err != nil {
		f.s.t.Error(err)
	}
	return now.IPackets - f.base.IPackets, now.OPackets - f.base.OPackets
}

// send sends n packets, and no more than the kernel's queue has room for.
func (f *stream) send(n int) {
	frame := flow(f.queue, 64)
	if in, _ := f.moved(); f.sent-in > DefaultTxQueueLen/2 {
		return
	}
	for range n {
		if err := f.inj.Inject(frame); err != nil {
			f.s.t.Errorf("flow %d: %v", f.queue, err)
			return
		}
		f.sent++
	}
}

// arrived waits until all packets have come and gone.
func (f *stream) arrived() {
	f.s.t.Helper()
	var in, out uint64
	deadline := time.Now().Add(nettest.Bound(wait))
	for {
		if in, out = f.moved(); in == f.sent && out == f.sent {
			return
		}
		if time.Now().After(deadline) {
			f.s.t.Fatalf("flow %d: %d packets sent, %d received, %d sent back (imissed %d)", f.queue, f.sent, in, out, f.s.stats().IMissed)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// TestKilled: a secondary is killed at random moments under full traffic, again and again. The primary takes back its queue
// and every mbuf that it had; no packet is lost on the others' queues.
func TestKilled(t *testing.T) {
	nettest.NeedFast(t)
	s := newStage(t, 3)
	must(t, s.MakeRing("in", 64, nil))
	must(t, s.MakeRing("in-back", 64, nil))
	to, err := s.Producer("in")
	must(t, err)
	from, err := s.Consumer("in-back")
	must(t, err)
	must(t, traffic.Steer(s.pairs[0].tap.FD(), 10000)) // flow's ports

	survivor := s.agent("survivor")
	survivor.attach(0)
	survivor.lease(0, 1)
	survivor.echo(0, 1)
	s.attached(1)
	survivorID := s.Processes()[0].ID

	streams := []*stream{s.stream(0), s.stream(1)}
	noise := s.stream(2)
	rounds := nettest.Scale(500)
	if testing.Short() {
		rounds = 20
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	total := 0
	for round := range rounds {
		for _, f := range streams {
			f.begin()
		}
		noise.begin()
		victim := s.agent("victim")
		victim.do(order{Op: "all", Queues: []int{2}, Ring: "in", N: rnd.IntN(200)})
		var traffic, sending workers
		s.echoAll(&traffic)
		for _, f := range streams {
			sending.loop(func() { f.send(32) })
		}
		sending.loop(func() { // to the victim's queue, as much as it takes, and more
			for range 32 {
				noise.inj.Inject(flow(2, 64))
			}
		})
		sending.loop(func() { exchangeRing(s.pool, to, from) })
		time.Sleep(time.Duration(rnd.IntN(8000)) * time.Microsecond)
		victim.kill()
		s.attached(1)
		sending.stop()
		for _, f := range streams {
			f.arrived()
			total += int(f.sent)
		}
		traffic.stop()
		emptyRing(s, from)
		// What the ring "in" still has is the primary's to take back.
		if err := s.takeBack("in"); err != nil {
			t.Fatal(err)
		}
		s.settled(func() error {
			inUse, others := s.pool.InUseCount()-s.inWindow(), s.pool.Held(survivorID)
			if inUse != others {
				return fmt.Errorf("round %d: %d mbufs are in use, of which the survivor holds %d", round, inUse, others)
			}
			return nil
		})
	}
	t.Logf("%d packets on the others' queues in %d rounds", total, rounds)
	survivor.quit()
	s.attached(0)
	s.ReleaseRing("in", mbuf.Producing)
	s.ReleaseRing("in-back", mbuf.Consuming)
	s.accounts(0, s.port)
	s.whole()
}

// exchangeRing keeps packets going round by way of another process.
func exchangeRing(pool *mbuf.Pool, to *mbuf.Producer, from *mbuf.Consumer) {
	var bufs [8]*mbuf.Mbuf
	n := pool.AllocBulk(bufs[:])
	for _, m := range bufs[:n] {
		binary.BigEndian.PutUint64(m.Append(8), 7)
	}
	mbuf.FreeBulk(bufs[to.Enqueue(bufs[:n]):n])
	mbuf.FreeBulk(bufs[:from.Dequeue(bufs[:])])
	runtime.Gosched()
}

// emptyRing frees what has come back.
func emptyRing(s *stage, from *mbuf.Consumer) {
	bufs := s.bufs(64)
	for n := from.Dequeue(bufs); n > 0; n = from.Dequeue(bufs) {
		mbuf.FreeBulk(bufs[:n])
	}
}

// takeBack frees what nobody has taken out of a ring.
func (s *stage) takeBack(name string) error {
	in, err := s.Consumer(name)
	if err != nil {
		return err
	}
	emptyRing(s, in)
	return s.ReleaseRing(name, mbuf.Consuming)
}

// settled waits until nobody's burst is under way and f is content.
func (s *stage) settled(f func() error) {
	s.t.Helper()
	var err error
	for deadline := time.Now().Add(nettest.Bound(wait)); ; time.Sleep(100 * time.Microsecond) {
		if err = f(); err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal(err)
		}
	}
}

// whole fails the test unless the pool gives each of its mbufs once.
func (s *stage) whole() {
	s.t.Helper()
	for i := range s.pairs {
		s.pairs[i].rx.gate.shut()
		s.pairs[i].rx.rest()
	}
	bufs := s.bufs(s.pool.Count() + 1)
	n := s.pool.AllocBulk(bufs)
	seen := map[*mbuf.Mbuf]bool{}
	for _, m := range bufs[:n] {
		seen[m] = true
	}
	mbuf.FreeBulk(bufs[:n])
	if n != s.pool.Count() || len(seen) != n {
		s.t.Errorf("the pool gave %d mbufs, %d of them different, of %d", n, len(seen), s.pool.Count())
	}
}

// TestPrimaryKilled: secondaries get a clean error and zero packets, and a new primary starts at once, under the same prefix and
// with the same interface.
func TestPrimaryKilled(t *testing.T) {
	s := newStage(t, 1) // for its namespace
	dir := s.dir
	const prefix = "other"
	path := fmt.Sprintf("/proc/%d/fd/%d", syscall.Getpid(), s.ns.FD())
	open := func() *agent {
		a := startAgent(t, dir, prefix, "primary")
		a.do(order{Op: "open", Queues: []int{3}, Ring: path})
		return a
	}
	primary := open()
	other := startAgent(t, dir, prefix, "other")
	other.attach(0)
	for round := range 5 {
		d, err := AttachWith(AttachConfig{FilePrefix: prefix, RuntimeDir: dir, Name: "here"})
		must(t, err)
		must(t, d.Lease(0))
		other.lease(0, 1)
		other.echo(0, 1)
		rx, tx := d.RxQueue(0), d.TxQueue(0)
		ended := make(chan error, 1)
		go func() { ended <- rx.Wait(t.Context()) }()
		events := d.Events()
		primary.kill()
		nettest.Eventually(t, wait, "the secondary notices", func() bool { return errors.Is(d.Err(), ErrPrimaryGone) })
		if err := <-ended; err != nil && !errors.Is(err, ErrPrimaryGone) && !errors.Is(err, ErrReleased) {
			t.Errorf("a wait ended with: %v", err)
		}
		for range events.C { // which is closed
		}
		bufs := make([]*mbuf.Mbuf, 4)
		if n := rx.Burst(bufs) + tx.Burst(bufs); n != 0 {
			t.Errorf("moved %d packets without a primary", n)
		}
		_, err = d.Stats()
		wantIs(t, err, ErrPrimaryGone)
		wantIs(t, d.Lease(2), ErrPrimaryGone)
		wantIs(t, d.Return(), ErrPrimaryGone)
		other.fails(ErrPrimaryGone, order{Op: "stats"})
		if round%2 == 0 {
			must(t, d.Close())
		}
		primary = open() // of the same name, while the others are attached still
		if round%2 != 0 {
			must(t, d.Close())
		}
		other.do(order{Op: "rest"})
		other.do(order{Op: "detach"})
		other.attach(0)
	}
	other.quit()
	primary.quit()
	_, err := AttachWith(AttachConfig{FilePrefix: prefix, RuntimeDir: dir})
	wantIs(t, err, ErrNoPrimary)
	if !strings.Contains(err.Error(), prefix) {
		t.Error(err)
	}
}
