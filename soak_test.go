// SPDX-License-Identifier: BSD-3-Clause

//go:build linux && soak

package rtap

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// The soak tests run for soakTime each, or until soakPackets.
const (
	soakTime    = 3 * time.Minute
	soakPackets = 100_000_000
	// stallTime is how long no packet at all may move: many times what another
	// process's use of the machine can explain.
	stallTime = 5 * time.Second
)

// TestSoakTx sends 100 million packets, or for 3 minutes, of all kinds, over two
// queues, with the fastest engine. It never stalls, and every mbuf comes back.
func TestSoakTx(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "soak", Count: 4096, DataRoom: 512})
	p := startSoak(t, pool)
	const queues = 2
	var sent [queues]atomic.Int64
	total := func() (n int64) {
		for i := range sent {
			n += sent[i].Load()
		}
		return n
	}
	var ws workers
	defer ws.stop()
	for i := range queues {
		ws.loop(soakSender(t, p.TxQueue(i), pool, &sent[i]))
	}
	watchSoak(t, total, nil)
	ws.stop()
	s, err := p.Stats()
	must(t, err)
	if s.OPackets != uint64(total()) || s.OErrors != 0 {
		t.Errorf("took %d packets: %+v", total(), s)
	}
	t.Logf("%d packets", total())
	wantInUse(t, pool, p.RxQueue(0).held()+p.RxQueue(1).held())
	must(t, p.Close())
	wantInUse(t, pool, 0)
}

func startSoak(t *testing.T, pool *mbuf.Pool) *port {
	t.Helper()
	p := openPort(t, Config{})
	p.setUp(2, RxConfig{Memory: pool})
	t.Log(p.Info().EngineReason)
	return p
}

// soakSender gives a function that sends one burst: mostly small packets, some
// chains, some clones.
func soakSender(t *testing.T, q *TxQueue, pool *mbuf.Pool, sent *atomic.Int64) func() {
	bufs, round, f := make([]*mbuf.Mbuf, 64), 0, frame(64, 0)
	return func() {
		round++
		bufs := bufs[:1+round%len(bufs)]
		n := pool.AllocBulk(bufs)
		for i, m := range bufs[:n] {
			copy(m.Append(len(f)), f)
			switch {
			case round%16 == 1:
				bufs[i] = cloneOf(m, pool)
			case round%16 == 2:
				addSegment(m, pool)
			}
		}
		k := q.Burst(bufs[:n])
		if k != n {
			t.Errorf("sent %d packets of %d", k, n)
			mbuf.FreeBulk(bufs[k:n])
		}
		sent.Add(int64(k))
	}
}

// cloneOf is a clone of m instead of m, or m if the pool has no mbuf for it.
func cloneOf(m *mbuf.Mbuf, pool *mbuf.Pool) *mbuf.Mbuf {
	c := mbuf.Clone(m, pool)
	if c == nil {
		return m
	}
	m.Free()
	return c
}

func addSegment(m *mbuf.Mbuf, pool *mbuf.Pool) {
	if s := pool.Alloc(); s != nil {
		s.Append(100)
		_ = mbuf.Chain(m, s) // two segments are not too many
	}
}

// watchSoak returns when the time is over or enough packets have moved, and
// fails the test when none has for stallTime. It does churn, if any, meanwhile.
func watchSoak(t *testing.T, packets func() int64, churn func(i int)) {
	t.Helper()
	last, moved := packets(), time.Now()
	for i, end := 0, time.Now().Add(soakTime); time.Now().Before(end); i++ {
		if churn != nil {
			churn(i)
		}
		time.Sleep(10 * time.Millisecond)
		now := packets()
		switch {
		case now >= soakPackets:
			return
		case now != last:
			last, moved = now, time.Now()
		case time.Since(moved) > nettest.Bound(stallTime):
			t.Fatalf("nothing moved for %v after %d packets", time.Since(moved), now)
		}
	}
}

// TestSoakForward sends back what comes, on two queues, for 3 minutes, while the
// port is stopped and started, its MTU changed and the interface renamed.
func TestSoakForward(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "soak", Count: 4096, DataRoom: 512})
	p := startSoak(t, pool)
	var ws workers
	defer ws.stop()
	for i := range 2 {
		rx, tx := p.RxQueue(i), p.TxQueue(i)
		ws.loop(func() { echo(rx, tx, 64) })
	}
	ws.noise(p)
	total := func() int64 {
		s, err := p.Stats()
		must(t, err)
		return int64(s.OPackets)
	}
	names := []string{"soak0", "soak1"}
	watchSoak(t, total, func(i int) {
		switch i % 8 {
		case 1:
			must(t, p.Stop())
			must(t, p.Device.Start())
		case 3:
			must(t, p.SetMTU([]int{1500, 9000, 68}[i/8%3]))
		case 5:
			if err := p.conn.SetName(p.index, names[i/8%2]); !errors.Is(err, syscall.EBUSY) { // up, before Linux 6.2
				must(t, err)
			}
		case 7:
			must(t, p.SetLinkDown())
			must(t, p.SetLinkUp())
		}
	})
	ws.stop()
	s, err := p.Stats()
	must(t, err)
	t.Logf("%+v", s)
	must(t, p.SetMTU(DefaultMTU))
	p.poll()
	p.exchange()
	wantInUse(t, pool, p.RxQueue(0).held()+p.RxQueue(1).held())
	must(t, p.Close())
	wantInUse(t, pool, 0)
}
