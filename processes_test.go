// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/ipc"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
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
		if q := s.pairs[1].rx; q.filled != 0 || len(q.spare) != 0 {
			t.Errorf("the primary keeps %d mbufs for a queue that is leased", q.filled)
		}
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
	var mu sync.Mutex
	var asked []Process
	s := newStage(t, 2, func(c *Config) {
		c.MayLease = func(p Process, queues []int) error {
			mu.Lock()
			asked = append(asked, p)
			mu.Unlock()
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
	mu.Lock()
	who := slices.Clone(asked)
	mu.Unlock()
	if len(who) != 2 || who[0].Name != "one" {
		t.Errorf("asked for %v", who)
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
	a.stop()
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
	a.stop()
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

// TestForwardTogether: the primary and two secondaries forward between two ports at once, each on a queue of its own.
// Every packet arrives, whole and in the order of its flow.
func TestForwardTogether(t *testing.T) {
	s := newStage(t, 3)
	far := s.open(1, 3)
	packets := nettest.Scale(3000)
	must(t, s.SetTxQueueLen(packets+100))
	var ws workers
	defer ws.stop()
	agents := []*agent{s.agent("one"), s.agent("two")}
	for i, a := range agents {
		a.attach(0)
		a.attach(1)
		a.lease(0, i+1)
		a.lease(1, i+1)
		a.do(order{Op: "forward", Port: 0, N: 1, Queues: []int{i + 1}})
		a.do(order{Op: "say", Queues: []int{i + 1}, N: i + 1}) // flows go to the queues of their number
	}
	s.send(0, flow(0, 64))
	rx, tx, bufs := s.RxQueue(0), far.TxQueue(0), s.bufs(32)
	ws.loop(func() {
		n := rx.Burst(bufs)
		mbuf.FreeBulk(bufs[tx.Burst(bufs[:n]):n])
	})
	far.capturer()
	var senders workers
	var sent [3]int
	for i := range sent {
		inj, err := traffic.NewInjector(s.ns, s.index)
		must(t, err)
		defer inj.Close()
		senders.loop(func() {
			if sent[i] < packets {
				f := flow(i, 80)
				binary.BigEndian.PutUint32(f[60:], uint32(sent[i]))
				if inj.Inject(f) == nil {
					sent[i]++
				}
			}
		})
	}
	var next [3]int
	for range 3 * packets {
		f := far.captured(1)[0]
		i := int(binary.BigEndian.Uint16(f[34:])) - 10000
		if i < 0 || i > 2 {
			t.Fatalf("captured % x", f)
		}
		want := flow(i, 80)
		binary.BigEndian.PutUint32(want[60:], uint32(next[i]))
		if !bytes.Equal(f, want) {
			t.Fatalf("flow %d: captured % x, want % x", i, f, want)
		}
		next[i]++
	}
	senders.stop()
	for i := range 3 {
		st, err := s.QueueStats(i)
		must(t, err)
		if st.IPackets != uint64(packets) {
			t.Errorf("queue %d received %d packets of %d", i, st.IPackets, packets)
		}
	}
	if st, err := far.Stats(); err != nil || st.OPackets != uint64(3*packets) {
		t.Errorf("the far port counted %+v, %v", st, err)
	}
	for _, a := range agents {
		a.quit()
	}
	ws.stop()
	s.attached(0)
	s.accounts(0, s.port, far)
}

// TestRings: packets go to another process and come back, in order, and those of several segments, with shared buffers, and
// of other pools.
func TestRings(t *testing.T) {
	s := newStage(t, 2)
	must(t, s.MakeRing("up", 100, nil))
	must(t, s.MakeRing("up-back", 100, s.pool))
	var bad *ConfigError
	if err := s.MakeRing("up", 8, nil); !errors.As(err, &bad) {
		t.Errorf("a second ring of that name: %v", err)
	}
	a := s.agent("one")
	a.attach(0)
	a.do(order{Op: "consume", Ring: "up"})
	a.fails(ErrNoRing, order{Op: "consume", Ring: "down"})
	to, err := s.Producer("up")
	must(t, err)
	from, err := s.Consumer("up-back")
	must(t, err)
	_, err = s.Consumer("up")
	wantIs(t, err, mbuf.ErrTaken)
	if !strings.Contains(err.Error(), fmt.Sprintf("one (process %d)", a.cmd.Process.Pid)) {
		t.Error(err)
	}
	_, err = s.Producer("nothing")
	wantIs(t, err, ErrNoRing)

	shared := s.pool.Alloc()
	shared.Append(100)
	foreign := s.port.pool
	packet := func(i int) *mbuf.Mbuf {
		var m *mbuf.Mbuf
		switch i % 4 {
		case 0:
			m = s.pool.Alloc()
		case 1: // of another pool
			m = foreign.Alloc()
		case 2: // a chain
			m = s.pool.Alloc()
			m.Append(10)
			must(t, mbuf.Chain(m, s.pool.Alloc()))
		case 3: // with a buffer that is shared
			m = s.pool.Alloc()
			m.Append(10)
			must(t, mbuf.Chain(m, mbuf.Clone(shared, s.pool)))
		}
		if m.PktLen == 0 {
			m.Append(10)
		}
		binary.BigEndian.PutUint32(m.Bytes(), uint32(i))
		binary.BigEndian.PutUint32(m.Bytes()[4:], uint32(i))
		return m
	}
	n, back := nettest.Scale(20000), 0
	lens := map[int]uint32{}
	deadline := time.Now().Add(nettest.Bound(6 * wait))
	bufs := s.bufs(32)
	for i := 0; back < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%d packets of %d came back", back, n)
		}
		if i < n && i-back < 300 {
			m := packet(i)
			lens[i] = m.PktLen
			if to.Enqueue([]*mbuf.Mbuf{m}) == 1 {
				i++
			} else {
				m.Free()
			}
		}
		got := from.Dequeue(bufs)
		for _, m := range bufs[:got] {
			b := m.Bytes()
			if k, k1 := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]); k != uint32(back) || k1 != k+1 || m.PktLen != lens[back] || m.Check() != nil {
				t.Fatalf("came back: %d, %d, %d bytes; want %d, one more, %d bytes; %v", k, k1, m.PktLen, back, lens[back], m.Check())
			}
			delete(lens, back)
			back++
		}
		mbuf.FreeBulk(bufs[:got])
	}
	shared.Free()
	a.quit()
	s.attached(0)
	must(t, s.ReleaseRing("up", mbuf.Producing))
	must(t, s.ReleaseRing("up-back", mbuf.Consuming))
	s.accounts(0, s.port)
}

// TestAttachRounds: attaching, leasing and detaching leave nothing behind, in neither process.
func TestAttachRounds(t *testing.T) {
	s := newStage(t, 2)
	must(t, s.MakeRing("r", 8, nil))
	a := s.agent("one")
	a.do(order{Op: "rounds", Queues: []int{1}, Ring: "r", N: 10}) // whatever is made once
	before := nettest.Leaks()
	a.do(order{Op: "rounds", Queues: []int{1}, Ring: "r", N: nettest.Scale(nettest.Scale(1000))})
	s.attached(0)
	before.Check(t)
	a.quit()
	s.exchange()
	s.accounts(0, s.port)
}

// TestAttachRefused: who may not, or cannot, is told why.
func TestAttachRefused(t *testing.T) {
	s := newStage(t, 1)
	_, err := AttachWith(AttachConfig{FilePrefix: "nobody", RuntimeDir: s.dir})
	wantIs(t, err, ErrNoPrimary)
	_, err = AttachWith(AttachConfig{FilePrefix: stagePrefix, RuntimeDir: s.dir, Port: 3})
	wantIs(t, err, ErrNoPort)
	if !strings.Contains(err.Error(), "has 0") {
		t.Error(err)
	}
	_, err = AttachWith(AttachConfig{FilePrefix: stagePrefix, RuntimeDir: s.dir, Engine: "steam"})
	if err == nil || !strings.Contains(err.Error(), "steam") {
		t.Error(err)
	}
	a := s.agent("of another build")
	_, err = a.try(order{Op: "build"})
	wantIs(t, err, ErrBuild)
	for _, word := range []string{Version, "0.0.0-other"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%v does not say %s", err, word)
		}
	}
	_, err = Open(Config{FilePrefix: stagePrefix, RuntimeDir: s.dir})
	if err == nil || !strings.Contains(err.Error(), "Config.Port") {
		t.Errorf("a second port 0: %v", err)
	}
	if text := a.errorOf(order{Op: "open", Port: 9, Queues: []int{1}, Ring: nsPath(s.ns)}); !strings.Contains(text, "in use") {
		t.Errorf("a second primary: %s", text)
	}
	a.quit()
}

// TestHostileRequests: whatever a process asks that has got in, it gets an answer, and the port goes on.
func TestHostileRequests(t *testing.T) {
	s := newStage(t, 2)
	must(t, s.MakeRing("r", 8, nil))
	c, err := ipc.Dial(t.Context(), ipc.ClientConfig{Base: s.dir, Prefix: stagePrefix, Build: build(), Name: "evil"})
	must(t, err)
	before := nettest.Leaks()
	for op := range requests {
		for _, body := range []string{`null`, `{}`, `[]`, `"x"`, `{"port":99999}`, `{"port":-1}`, `{"port":5}`,
			`{"queues":[-1]}`, `{"queues":[0,0,0]}`, `{"queues":[1000000000000]}`, `{"queues":[2147483647,1]}`, `{"pool":-1}`, `{"pool":1000}`,
			`{"ring":"r","end":7}`, `{"ring":"r","end":-1}`, `{"ring":"none"}`, `{"ring":"r","end":1}`, `{"leases":[0,1,18446744073709551615]}`} {
			fds, err := c.Call(t.Context(), op, json.RawMessage(body), nil)
			ipc.CloseAll(fds)
			if errors.Is(err, ipc.ErrPrimaryGone) {
				t.Fatalf("%s %s: %v", op, body, err)
			}
		}
	}
	if _, err := c.Call(t.Context(), "explode", nil, nil); err == nil {
		t.Error("an unknown request was answered")
	}
	must(t, c.Close())
	s.attached(0)
	before.Check(t)
	lookAlike(t, "leases", len(s.Leases()), 0)
	s.exchange()
}

// TestCloseAttached: the primary closes its port while others use it.
func TestCloseAttached(t *testing.T) {
	s := newStage(t, 2)
	must(t, s.MakeRing("in", 8, nil))
	must(t, s.MakeRing("in-back", 8, nil))
	a := s.agent("one")
	a.do(order{Op: "all", Queues: []int{1}, Ring: "in", N: 0})
	must(t, s.Close())
	a.fails(ErrPrimaryGone, order{Op: "stats"})
	a.fails(ErrPrimaryGone, order{Op: "err"})
	a.do(order{Op: "rest"})
	a.do(order{Op: "detach"})
	a.quit()
}

// TestWaitLeased: a secondary sleeps until packets come to a queue that it has leased; losing the queue wakes it.
func TestWaitLeased(t *testing.T) {
	s := newStage(t, 2)
	a := s.agent("one")
	a.attach(0)
	a.lease(0, 1)
	a.do(order{Op: "say", Queues: []int{1}, N: 1})
	type result struct {
		done
		err error
	}
	wait1 := func() chan result {
		c := make(chan result, 1)
		go func() {
			d, err := a.try(order{Op: "wait", Queues: []int{1}})
			c <- result{d, err}
		}()
		return c
	}
	for range 20 {
		woken := wait1()
		s.inject(flow(1, 64))
		if r := <-woken; r.err != nil || r.N != 1 {
			t.Fatalf("woken with %d packets, %v", r.N, r.err)
		}
	}
	woken := wait1()
	must(t, s.Revoke(t.Context()))
	if r := <-woken; r.err == nil && r.N != 0 || r.err != nil && !strings.Contains(r.err.Error(), ErrReleased.Error()) {
		t.Errorf("woken with %d packets, %v", r.N, r.err)
	}
	a.quit()
}

// TestLeaseOffloads: a queue that is leased has the port's offloads, and so its header's length.
func TestLeaseOffloads(t *testing.T) {
	s := newStage(t, 2)
	must(t, s.Stop())
	offloads := PortConfig{RxQueues: 2, TxQueues: 2, RxOffloads: RxOffloadChecksum | RxOffloadTCPLRO,
		TxOffloads: s.Info().TxOffloads & (TxOffloadTCPTSO | TxOffloadTCPCksum | TxOffloadVXLANTnlTSO)}
	must(t, s.Configure(offloads))
	must(t, s.Device.Start())
	s.capturer()
	a := s.agent("one")
	a.attach(0)
	a.lease(0, 1)
	a.do(order{Op: "say", Queues: []int{1}, N: 1})
	s.captured(1)
	a.echo(0, 1)
	for i := range 10 {
		f := flow(1, 100+i)
		s.inject(f)
		if got := s.captured(1)[0]; !bytes.Equal(got, f) {
			t.Fatalf("sent back % x, want % x", got, f)
		}
	}
	info := a.do(order{Op: "info"}).Info
	if info.EnabledRxOffloads != offloads.RxOffloads || info.EnabledTxOffloads != offloads.TxOffloads || info.Engine == "" {
		t.Errorf("%+v", info)
	}
	a.quit()
}

// TestMend: what a process leaves behind that was killed while it published its counters does not keep others from
// reading them.
func TestMend(t *testing.T) {
	s := newStage(t, 2)
	a := s.agent("one")
	a.attach(0)
	a.lease(0, 1)
	s.area.pairs[1].rx.turns.Add(1)
	s.area.pairs[1].tx.turns.Add(1)
	a.kill()
	s.attached(0)
	for _, x := range []*tally{&s.area.pairs[1].rx.tally, &s.area.pairs[1].tx.tally} {
		if n := x.turns.Load(); n%2 != 0 {
			t.Errorf("%d turns", n)
		}
	}
	s.exchange()
}

// TestRevokedEarly: a queue that is revoked before the secondary has got it is not polled.
func TestRevokedEarly(t *testing.T) {
	s := newStage(t, 1)
	primary := startAgent(t, s.dir, "p", "primary")
	primary.do(order{Op: "open", Queues: []int{2}, Ring: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.ns.FD())})
	d, err := AttachWith(AttachConfig{FilePrefix: "p", RuntimeDir: s.dir})
	must(t, err)
	must(t, d.revoked([]uint64{2})) // of two leases that are yet to come
	wantIs(t, d.Lease(0, 1), ErrRevoked)
	if d.RxQueue(0) != nil || d.RxQueue(1) != nil {
		t.Error("it has queues")
	}
	must(t, d.Lease(0, 1)) // both have been given back
	must(t, d.Close())
	primary.quit()
}

// TestInfoWhileLeasing: what a secondary knows of the port may be read while it learns it again.
func TestInfoWhileLeasing(t *testing.T) {
	s := newStage(t, 1)
	primary := startAgent(t, s.dir, "p", "primary")
	primary.do(order{Op: "open", Queues: []int{2}, Ring: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.ns.FD())})
	d, err := AttachWith(AttachConfig{FilePrefix: "p", RuntimeDir: s.dir})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if i := d.Info(); i.Mode != ModeTAP {
					t.Errorf("%+v", i)
				}
			}
		})
	}
	for range nettest.Scale(10) {
		must(t, d.Lease(0, 1))
		must(t, d.Return())
	}
	cancel()
	wg.Wait()
	must(t, d.Close())
	primary.quit()
}

// TestRevokeDying: a queue whose holder is killed in the same moment comes back all the same.
func TestRevokeDying(t *testing.T) {
	s := newStage(t, 2)
	for range nettest.Scale(20) {
		a := s.agent("one")
		a.attach(0)
		a.lease(0, 1)
		must(t, a.cmd.Process.Kill())
		must(t, s.Revoke(t.Context()))
		lookAlike(t, "leases", len(s.Leases()), 0)
		s.attached(0)
		_ = a.cmd.Wait() // says that it was killed
	}
	s.exchange()
}

// TestNoCapabilities: a secondary needs none, nor the interface's network namespace.
func TestNoCapabilities(t *testing.T) {
	nettest.NeedProgram(t, "setpriv")
	s := newStage(t, 2)
	s.capturer()
	a := startAgent(t, s.dir, stagePrefix, "one", "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
	if n := a.attach(0).N; n != 0 {
		t.Fatalf("it has capabilities: %#x", n)
	}
	a.lease(0, 1)
	a.do(order{Op: "say", Queues: []int{1}, N: 1})
	s.captured(1)
	a.echo(0, 1)
	for i := range 100 {
		f := flow(1, 100+i)
		s.inject(f)
		if got := s.captured(1)[0]; !bytes.Equal(got, f) {
			t.Fatalf("sent back % x, want % x", got, f)
		}
	}
	t.Log(a.do(order{Op: "info"}).Info.EngineReason)
	a.quit()
}

// TestNewPool: when the primary's queues get another pool, so do those who lease them, and the old one does not stay.
func TestNewPool(t *testing.T) {
	s := newStage(t, 2, func(c *Config) { c.Memory = nil })
	s.capturer()
	a := s.agent("one")
	a.attach(0)
	for round := range 6 {
		a.lease(0, 1)
		// The primary closes its last one with the next Configure.
		if n, open := a.do(order{Op: "pools"}).N, len(s.group.openPools()); n > open || n > 2 {
			t.Errorf("round %d: %d pools are mapped, the primary has %d", round, n, open)
		}
		a.do(order{Op: "say", Queues: []int{1}, N: 1})
		s.captured(1)
		a.echo(0, 1)
		s.inject(flow(1, 100))
		s.captured(1)
		a.do(order{Op: "rest"})
		a.do(order{Op: "keep", Queues: []int{1}, N: 5})
		if n := s.Pools()[0].Held(s.Processes()[0].ID); n < 5 {
			t.Errorf("round %d: the secondary took its mbufs elsewhere, it holds %d", round, n)
		}
		a.do(order{Op: "drop"})
		a.restore(0, 1)
		must(t, s.Stop())
		n := 2 + round%2
		must(t, s.Configure(PortConfig{RxQueues: n, TxQueues: n}))
		for i := range n {
			must(t, s.SetupRxQueue(i, RxConfig{}))
		}
		for i := range n { // with the new memory alone
			must(t, s.SetupTxQueue(i, TxConfig{}))
		}
		must(t, s.Device.Start())
	}
	a.quit()
}
