// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// stage is a primary: this process, with a port of some queues, and where others find it.
type stage struct {
	*port
	t    testing.TB
	dir  string
	pool *mbuf.Pool // that the queues receive into
}

const stagePrefix = "t"

// newStage opens port 0 with n queue pairs.
func newStage(t testing.TB, n int, edit ...func(*Config)) *stage {
	t.Helper()
	nettest.NeedTun(t)
	dir, err := os.MkdirTemp("/tmp", "rtap")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &stage{t: t, dir: dir, pool: newPool(t, mbuf.Config{Name: "stage", Count: 4096, DataRoom: 2048})}
	s.port = s.open(0, n, edit...)
	return s
}

// open opens one more port on the same pool.
func (s *stage) open(number uint16, n int, edit ...func(*Config)) *port {
	s.t.Helper()
	cfg := Config{FilePrefix: stagePrefix, RuntimeDir: s.dir, Port: number, Queues: n, Memory: s.pool, RxRing: 64, TxRing: 64}
	for _, f := range edit {
		f(&cfg)
	}
	return startPort(s.t, cfg)
}

func (s *stage) agent(name string) *agent { return startAgent(s.t, s.dir, stagePrefix, name) }

// attached waits until so many processes are.
func (s *stage) attached(n int) {
	s.t.Helper()
	nettest.Eventually(s.t, wait, fmt.Sprintf("%d processes are attached", n), func() bool { return len(s.Processes()) == n })
}

// inWindow is how many mbufs the port's own queues and their caches hold.
func (p *port) inWindow() (n int) {
	for _, pair := range p.pairs {
		n += pair.rx.filled*pair.rx.segs + len(pair.rx.spare)
	}
	return n
}

// accounts fails the test unless all mbufs of the pool are free, but for those of the windows of these ports, whose queues
// rest, and kept more.
func (s *stage) accounts(kept int, ports ...*port) {
	s.t.Helper()
	for _, p := range ports {
		kept += p.inWindow()
	}
	if n := s.pool.InUseCount(); n != kept {
		s.t.Fatalf("%d mbufs are in use, want %d", n, kept)
	}
}

// lookAlike fails the test unless two things are the same.
func lookAlike(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is\n%+v, want\n%+v", what, got, want)
	}
}

// TestLook: a secondary without a lease sees what the primary sees.
func TestLook(t *testing.T) {
	s := newStage(t, 40) // more queues than fit a message
	s.exchange()
	a := s.agent("viewer")
	got := a.attach(0)
	s.attached(1)
	lookAlike(t, "info", got.Info, s.Info())
	if p := s.Processes()[0]; p.Name != "viewer" || p.PID != a.cmd.Process.Pid || p.ID != 1 {
		t.Errorf("attached: %+v", p)
	}
	lookAlike(t, "stats", a.do(order{Op: "stats"}).Stats, s.stats())
	want, err := s.XStats()
	must(t, err)
	lookAlike(t, "xstats", a.do(order{Op: "xstats"}).XStats, want)
	link, err := s.Link()
	must(t, err)
	lookAlike(t, "link", a.do(order{Op: "link"}).Link, link)

	for i := range primaryOnly {
		a.fails(ErrSecondary, order{Op: "control", N: i})
	}
	lookAlike(t, "link after what is refused", a.do(order{Op: "link"}).Link, link)

	a.do(order{Op: "reset"})
	if st := s.stats(); st.IPackets != 0 {
		t.Errorf("after the reset: %+v", st)
	}
	must(t, s.SetMTU(1400))
	nettest.Eventually(t, wait, "the secondary hears of the MTU", func() bool {
		e := a.do(order{Op: "events"}).Events
		return len(e) > 0 && e[len(e)-1].Changed == ChangeMTU && e[len(e)-1].After.MTU == 1400
	})
	a.quit()
	s.attached(0)
}

// TestLease: a queue is polled by one process at a time, and goes back and forth.
func TestLease(t *testing.T) {
	s := newStage(t, 2)
	s.capturer()
	a, b := s.agent("one"), s.agent("two")
	a.attach(0)
	b.attach(0)
	for round := range 3 {
		a.lease(0, 1)
		lookAlike(t, "leases", s.Leases(), []Lease{{Process{s.Processes()[0].ID, a.cmd.Process.Pid, "one"}, 1}})
		text := b.errorOf(order{Op: "lease", Queues: []int{0, 1}})
		if !strings.Contains(text, fmt.Sprintf("queue 1 by one (process %d)", a.cmd.Process.Pid)) {
			t.Errorf("two is told: %s", text)
		}
		b.fails(ErrLeased, order{Op: "lease", Queues: []int{0, 1}})
		a.echo(0, 1)
		a.do(order{Op: "say", Queues: []int{1}, N: 1}) // flow 1 comes to queue 1 from now on
		s.captured(1)
		for i := range 50 {
			f := flow(1, 100+i)
			s.inject(f)
			if got := s.captured(1)[0]; !bytes.Equal(got, f) {
				t.Fatalf("round %d: sent back % x, want % x", round, got, f)
			}
		}
		if n := s.RxQueue(1).Burst(s.bufs(4)) + s.TxQueue(1).Burst(s.bufs(4)); n != 0 {
			t.Fatalf("the primary moved %d packets on a queue that is leased", n)
		}
		a.do(order{Op: "rest"})
		// What comes now waits for the primary.
		s.inject(flow(1, 200))
		a.restore(0, 1)
		if got := s.receive(1)[0]; got.queue != 1 || !bytes.Equal(got.frame, flow(1, 200)) {
			t.Fatalf("queue %d: % x", got.queue, got.frame)
		}
		if n := a.do(order{Op: "polls", Queues: []int{1}}).N; n != 0 {
			t.Errorf("a queue that was returned moved %d packets", n)
		}
		s.exchange()
		lookAlike(t, "leases", len(s.Leases()), 0)
	}
	// 3 rounds of: said, 50 echoed; exchange of 2.
	if st, want := s.stats(), uint64(3*(50+1+2)); st.IPackets != want || st.OPackets != want {
		t.Errorf("counted %+v, want %d each way", st, want)
	}
	for _, queues := range [][]int{nil, {2}, {-1}, {0, 0}} {
		if text := a.errorOf(order{Op: "lease", Queues: queues}); !strings.Contains(text, "want") {
			t.Errorf("lease of %v: %s", queues, text)
		}
	}
	a.quit()
	b.quit()
	s.attached(0)
	s.accounts(0, s.port)
}

// TestLeaseRefused: by a port that is stopped, by the primary's program, of memory that cannot be shared.
func TestLeaseRefused(t *testing.T) {
	var asked []Process
	s := newStage(t, 2, func(c *Config) {
		c.MayLease = func(p Process, queues []int) error {
			asked = append(asked, p)
			if slices.Contains(queues, 0) {
				return errors.New("queue 0 is mine")
			}
			return nil
		}
	})
	a := s.agent("one")
	a.attach(0)
	a.fails(ErrLeaseDenied, order{Op: "lease", Queues: []int{0}})
	if text := a.errorOf(order{Op: "lease", Queues: []int{1, 0}}); !strings.Contains(text, "queue 0 is mine") {
		t.Error(text)
	}
	if len(asked) != 2 || asked[0].Name != "one" {
		t.Errorf("asked for %v", asked)
	}
	a.fails(ErrNoPort, order{Op: "attach", Port: 7})
	must(t, s.Stop())
	a.fails(ErrStopped, order{Op: "lease", Queues: []int{1}})
	own := &countedMemory{Pool: s.pool}
	must(t, s.SetupRxQueue(1, RxConfig{Memory: own}))
	must(t, s.Device.Start())
	if text := a.errorOf(order{Op: "lease", Queues: []int{1}}); !strings.Contains(text, "mbuf.Pool") {
		t.Error(text)
	}
	a.quit()
}

// countedMemory is memory that is neither a pool nor a cache.
type countedMemory struct{ *mbuf.Pool }

// TestReconfigureLeased: what needs a stopped port is refused while queues are leased, with the holder's name; Revoke takes
// them back.
func TestReconfigureLeased(t *testing.T) {
	s := newStage(t, 3)
	a, b := s.agent("one"), s.agent("two")
	a.attach(0)
	b.attach(0)
	a.lease(0, 1)
	b.lease(0, 2)
	a.echo(0, 1)
	err := s.Stop()
	wantIs(t, err, ErrLeased)
	for _, who := range []string{fmt.Sprintf("queue 1 by one (process %d)", a.cmd.Process.Pid), fmt.Sprintf("queue 2 by two (process %d)", b.cmd.Process.Pid)} {
		if !strings.Contains(err.Error(), who) {
			t.Errorf("%v does not say %s", err, who)
		}
	}
	must(t, s.Revoke(t.Context(), 1))
	lookAlike(t, "leases", len(s.Leases()), 1)
	if n := a.do(order{Op: "polls", Queues: []int{1}}).N; n != 0 {
		t.Errorf("moved %d packets on a queue that was revoked", n)
	}
	must(t, s.Revoke(t.Context()))
	must(t, s.Stop())
	must(t, s.Configure(PortConfig{RxQueues: 2, TxQueues: 2}))
	must(t, s.Device.Start())
	s.exchange()
	a.errorOf(order{Op: "lease", Queues: []int{2}}) // it is no more
	b.lease(0, 1)
	a.quit()
	b.quit()
	s.attached(0)
	s.exchange()
	s.accounts(0, s.port)
}

// TestRevokeStopped: a process that does not run cannot give its queue back. It is named, in bounded time; when it goes on
// it does, and when it ends the queue comes back by itself.
func TestRevokeStopped(t *testing.T) {
	s := newStage(t, 2)
	a := s.agent("one")
	a.attach(0)
	a.lease(0, 1)
	must(t, a.cmd.Process.Signal(syscall.SIGSTOP))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := s.Revoke(ctx)
	wantIs(t, err, ErrLeased)
	wantIs(t, err, context.DeadlineExceeded)
	if !strings.Contains(err.Error(), fmt.Sprintf("one (process %d)", a.cmd.Process.Pid)) {
		t.Error(err)
	}
	if _, err := s.Stats(); err != nil { // others are not held up
		t.Error(err)
	}
	must(t, a.cmd.Process.Signal(syscall.SIGCONT))
	nettest.Eventually(t, wait, "it gives the queue back", func() bool { return s.Revoke(t.Context()) == nil })
	s.exchange()
	a.lease(0, 1)
	must(t, a.cmd.Process.Signal(syscall.SIGSTOP))
	a.kill()
	s.attached(0)
	s.exchange()
	s.accounts(0, s.port)
}

// TestMTUWhileLeased: longer frames arrive in a queue that is leased, whoever raised the MTU.
func TestMTUWhileLeased(t *testing.T) {
	s := newStage(t, 2)
	s.capturer()
	a := s.agent("one")
	a.attach(0)
	a.lease(0, 1)
	a.echo(0, 1)
	a.do(order{Op: "say", Queues: []int{1}, N: 1})
	s.captured(1)
	for _, raise := range []func() error{
		func() error { return s.SetMTU(4000) },
		func() error { return s.conn.SetMTU(s.index, 9000) },
	} {
		must(t, raise())
		size := s.kernel().MTU + 14
		nettest.Eventually(t, wait, "the slots are large enough", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return !s.tooSmall(s.kernel().MTU)
		})
		nettest.Eventually(t, wait, "the other's slots are large enough", func() bool {
			before := s.stats()
			s.inject(flow(1, size))
			var now Stats
			nettest.Eventually(t, wait, "the frame is read", func() bool {
				now = s.stats()
				return now.OPackets > before.OPackets || now.IErrors > before.IErrors
			})
			return now.OPackets > before.OPackets
		})
		if got := s.captured(1)[0]; len(got) != size {
			t.Errorf("%d bytes came back of %d", len(got), size)
		}
	}
	a.quit()
}
