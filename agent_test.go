// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// An agent is another process, which does what the test tells it: the test program itself, started once more with agentEnv
// set. Orders come on its standard input, reports go to its standard output.

const agentEnv = "RTAP_TEST_AGENT"

// order is what an agent is to do.
type order struct {
	Op     string
	Port   uint16
	Queues []int
	Ring   string
	N      int
}

// done is what it says then.
type done struct {
	Err    string // "" if it went well
	Kinds  []string
	N      int
	Stats  Stats
	Link   LinkStatus
	Info   Info
	XStats []XStat
	Events []Event
}

// kinds are the errors that an agent can tell by name.
var kinds = map[string]error{"secondary": ErrSecondary, "gone": ErrGone, "primary gone": ErrPrimaryGone, "no primary": ErrNoPrimary, "no port": ErrNoPort,
	"leased": ErrLeased, "denied": ErrLeaseDenied, "stopped": ErrStopped, "closed": ErrClosed, "no ring": ErrNoRing, "taken": mbuf.ErrTaken,
	"in use": mbuf.ErrInUse, "build": ErrBuild}

// agent is the test's end.
type agent struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
}

// startAgent starts a process that can attach to ports of prefix in dir; by is a command that starts it, if there is one.
func startAgent(t testing.TB, dir, prefix, name string, by ...string) *agent {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	by = append(by, exe, "-test.run=^$")
	a := &agent{t: t, cmd: exec.Command(by[0], by[1:]...)}
	a.cmd.Env = append(os.Environ(), agentEnv+"="+name, "RTAP_TEST_DIR="+dir, "RTAP_TEST_PREFIX="+prefix, "GOTRACEBACK=single")
	a.cmd.Stderr = os.Stderr
	a.in, err = a.cmd.StdinPipe()
	must(t, err)
	out, err := a.cmd.StdoutPipe()
	must(t, err)
	a.enc, a.dec = json.NewEncoder(a.in), json.NewDecoder(out)
	must(t, a.cmd.Start())
	t.Cleanup(a.kill)
	return a
}

// kill ends it by SIGKILL, unless it has ended.
func (a *agent) kill() {
	if a.cmd.ProcessState == nil {
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait() // says that it was killed
	}
}

// stop has it stand still, and returns when it does.
func (a *agent) stop() {
	a.t.Helper()
	must(a.t, a.cmd.Process.Signal(syscall.SIGSTOP))
	nettest.Eventually(a.t, wait, "all its threads stand still", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", a.cmd.Process.Pid))
		must(a.t, err)
		return !slices.ContainsFunc(threads, func(path string) bool {
			stat, _ := os.ReadFile(path)
			_, state, _ := strings.Cut(string(stat), ") ")
			return !strings.HasPrefix(state, "T")
		})
	})
}

// quit has it end by itself, which must go well: it looks for leaks.
func (a *agent) quit() {
	a.t.Helper()
	a.in.Close()
	if err := a.cmd.Wait(); err != nil {
		a.t.Errorf("agent: %v", err)
	}
}

// try gives an order and returns the report.
func (a *agent) try(o order) (d done, err error) {
	a.t.Helper()
	timer := time.AfterFunc(nettest.Bound(2*wait), func() { _ = a.cmd.Process.Kill() })
	defer timer.Stop()
	if err := a.enc.Encode(o); err != nil {
		return d, err
	}
	if err := a.dec.Decode(&d); err != nil {
		return d, fmt.Errorf("agent, %s: %w", o.Op, err)
	}
	if d.Err != "" {
		return d, &agentError{d.Err, d.Kinds}
	}
	return d, nil
}

// do is try, which must go well.
func (a *agent) do(o order) done {
	a.t.Helper()
	d, err := a.try(o)
	if err != nil {
		a.t.Fatalf("%s: %v", o.Op, err)
	}
	return d
}

func (a *agent) attach(port uint16) done { a.t.Helper(); return a.do(order{Op: "attach", Port: port}) }
func (a *agent) lease(port uint16, q ...int) {
	a.t.Helper()
	a.do(order{Op: "lease", Port: port, Queues: q})
}
func (a *agent) echo(port uint16, q ...int) {
	a.t.Helper()
	a.do(order{Op: "echo", Port: port, Queues: q})
}
func (a *agent) restore(port uint16, q ...int) {
	a.t.Helper()
	a.do(order{Op: "return", Port: port, Queues: q})
}
func (a *agent) fails(target error, o order) {
	a.t.Helper()
	_, err := a.try(o)
	wantIs(a.t, err, target)
}
func (a *agent) errorOf(o order) (errorText string) {
	a.t.Helper()
	_, err := a.try(o)
	if err == nil {
		a.t.Fatalf("%s went well", o.Op)
	}
	return err.Error()
}

// agentError is an error of another process.
type agentError struct {
	text  string
	kinds []string
}

func (e *agentError) Error() string { return e.text }

func (e *agentError) Is(target error) bool {
	for _, k := range e.kinds {
		if kinds[k] == target {
			return true
		}
	}
	return false
}

// From here on it is the other process.

func init() {
	otherProcess = func() (int, bool) {
		if os.Getenv(agentEnv) == "" {
			return 0, false
		}
		return agentMain(), true
	}
}

type agentState struct {
	dir, prefix, name string
	ports             map[uint16]*Device
	loops             *workers
	echoed            atomic.Int64
	kept              []*mbuf.Mbuf
	mu                sync.Mutex
	events            []Event
}

// agentMain obeys until its input ends.
func agentMain() int {
	s := &agentState{dir: os.Getenv("RTAP_TEST_DIR"), prefix: os.Getenv("RTAP_TEST_PREFIX"), name: os.Getenv(agentEnv), ports: map[uint16]*Device{}, loops: &workers{}}
	before := nettest.Leaks()
	dec, enc := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		if err := dec.Decode(&o); err != nil {
			break
		}
		d, err := s.obey(o)
		if err != nil {
			d.Err = err.Error()
			for k, e := range kinds {
				if errors.Is(err, e) {
					d.Kinds = append(d.Kinds, k)
				}
			}
		}
		if enc.Encode(d) != nil {
			return 1
		}
	}
	s.loops.stop()
	mbuf.FreeBulk(s.kept)
	code := 0
	for _, d := range s.ports {
		if err := d.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			code = 1
		}
	}
	for _, leak := range before.Since() {
		fmt.Fprintln(os.Stderr, "agent leaked:", leak)
		code = 1
	}
	return code
}

// obey does one thing.
func (s *agentState) obey(o order) (d done, err error) {
	dev := s.ports[o.Port]
	if dev == nil && !slices.Contains([]string{"attach", "open", "all", "rounds", "build"}, o.Op) {
		return d, fmt.Errorf("not attached to port %d", o.Port)
	}
	switch o.Op {
	case "attach":
		dev, err = AttachWith(AttachConfig{FilePrefix: s.prefix, RuntimeDir: s.dir, Port: o.Port, Name: s.name})
		if err != nil {
			return d, err
		}
		s.ports[o.Port] = dev
		d.N = effective()
		dev.OnEvent(func(e Event) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, e)
		})
		d.Info = dev.Info()
	case "open": // is the primary itself: as many queues, in that namespace
		dev, err = Start(Config{FilePrefix: s.prefix, RuntimeDir: s.dir, Port: o.Port, Name: "killme", NetNS: o.Ring, Queues: o.Queues[0]})
		if err != nil {
			return d, err
		}
		s.ports[o.Port] = dev
	case "all": // what a worker does: on one queue, with N mbufs kept, and a ring
		for _, op := range []string{"attach", "lease", "consume", "keep", "echo"} {
			o.Op = op
			if _, err := s.obey(o); err != nil {
				return d, err
			}
		}
	case "rounds": // attaches, leases and detaches
		for range o.N {
			if err := s.round(o); err != nil {
				return d, err
			}
		}
	case "build": // pretends to be another one
		version = "0.0.0-other"
		o.Op = "attach"
		return s.obey(o)
	case "detach":
		if err = dev.Close(); err == nil {
			delete(s.ports, o.Port)
		}
	case "lease":
		err = dev.Lease(o.Queues...)
	case "return":
		err = dev.Return(o.Queues...)
	case "echo":
		for _, q := range o.Queues {
			s.echo(dev.RxQueue(q), dev.TxQueue(q))
		}
	case "forward": // to port N
		for _, q := range o.Queues {
			s.echo(dev.RxQueue(q), s.ports[uint16(o.N)].TxQueue(q))
			s.echo(s.ports[uint16(o.N)].RxQueue(q), dev.TxQueue(q))
		}
	case "rest": // ends all loops
		s.loops.stop()
		s.loops = &workers{}
		d.N = int(s.echoed.Load())
	case "keep": // takes mbufs of the pool and keeps them
		pool := dev.pairs[o.Queues[0]].rx.memory.(*mbuf.Pool)
		bufs := make([]*mbuf.Mbuf, o.N)
		s.kept = append(s.kept, bufs[:pool.AllocBulk(bufs)]...)
		d.N = len(s.kept)
	case "drop":
		mbuf.FreeBulk(s.kept)
		s.kept = nil
	case "time": // what Ring says, N times: in nanoseconds
		var took time.Duration
		q := o.Queues[0]
		took, err = timing(o.Ring, dev.RxQueue(q), dev.TxQueue(q), dev.pairs[q].rx.memory.(*mbuf.Pool), o.N)
		d.N = int(took)
	case "wait":
		ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(wait))
		defer cancel()
		q, bufs := dev.RxQueue(o.Queues[0]), make([]*mbuf.Mbuf, 8)
		if q == nil { // revoked already
			return d, ErrReleased
		}
		for d.N == 0 && err == nil { // it may wake up for nothing
			if err = q.Wait(ctx); err == nil {
				d.N = q.Burst(bufs)
				mbuf.FreeBulk(bufs[:d.N])
			}
		}
	case "pools":
		d.N = len(dev.Pools())
	case "err":
		err = dev.Err()
	case "polls": // bursts on a queue that it has, or had
		bufs := make([]*mbuf.Mbuf, 8)
		rx, tx := dev.RxQueue(o.Queues[0]), dev.TxQueue(o.Queues[0])
		if rx != nil {
			d.N = rx.Burst(bufs) + tx.Burst(bufs)
		}
	case "say": // sends frames of flow N
		err = s.say(dev, o)
	case "consume":
		err = s.consume(dev, o.Ring)
	case "produce":
		err = s.produce(dev, o)
	case "release":
		err = errors.Join(dev.ReleaseRing(o.Ring, mbuf.End(o.N)))
	case "stats":
		d.Stats, err = dev.Stats()
	case "xstats":
		d.XStats, err = dev.XStats()
	case "link":
		d.Link, err = dev.Link()
	case "info":
		d.Info = dev.Info()
	case "reset":
		err = dev.ResetStats()
	case "events":
		s.mu.Lock()
		d.Events = s.events
		s.mu.Unlock()
	case "control":
		err = s.control(dev, o.N)
	default:
		err = fmt.Errorf("what is %q", o.Op)
	}
	return d, err
}

// echo sends back what it receives.
func (s *agentState) echo(rx *RxQueue, tx *TxQueue) {
	bufs := make([]*mbuf.Mbuf, 32)
	s.loops.loop(func() {
		n := rx.Burst(bufs)
		sent := tx.Burst(bufs[:n])
		mbuf.FreeBulk(bufs[sent:n])
		s.echoed.Add(int64(sent))
		if n == 0 {
			runtime.Gosched()
		}
	})
}

func (s *agentState) round(o order) error {
	dev, err := AttachWith(AttachConfig{FilePrefix: s.prefix, RuntimeDir: s.dir, Port: o.Port})
	if err != nil {
		return err
	}
	_, ringErr := dev.Producer(o.Ring)
	return errors.Join(dev.Lease(o.Queues...), ringErr, dev.Close())
}

func (s *agentState) say(dev *Device, o order) error {
	pool := dev.pairs[o.Queues[0]].rx.memory.(*mbuf.Pool)
	m := pool.Alloc()
	if m == nil {
		return mbuf.ErrExhausted
	}
	f := flow(o.N, 64)
	copy(m.Append(len(f)), f)
	if dev.TxQueue(o.Queues[0]).Burst([]*mbuf.Mbuf{m}) != 1 {
		m.Free()
		return errors.New("not sent")
	}
	return nil
}

// consume sends what comes out of a ring out of queue 0, which it has leased, or, to the ring of that name with "-back",
// what it has found in it.
func (s *agentState) consume(dev *Device, name string) error {
	in, err := dev.Consumer(name)
	if err != nil {
		return err
	}
	out, err := dev.Producer(name + "-back")
	if err != nil {
		return err
	}
	bufs := make([]*mbuf.Mbuf, 32)
	s.loops.loop(func() {
		n := in.Dequeue(bufs)
		for _, m := range bufs[:n] {
			b := m.Bytes()
			binary.BigEndian.PutUint32(b[4:], binary.BigEndian.Uint32(b)+1)
		}
		for k := 0; k < n; {
			taken := out.Enqueue(bufs[k:n])
			if k += taken; taken == 0 {
				if s.loops.over.Load() {
					mbuf.FreeBulk(bufs[k:n])
					return
				}
				runtime.Gosched()
			}
		}
		if n == 0 {
			runtime.Gosched()
		}
	})
	return nil
}

// produce puts N numbered packets of queue 0's pool into a ring.
func (s *agentState) produce(dev *Device, o order) error {
	out, err := dev.Producer(o.Ring)
	if err != nil {
		return err
	}
	pool := dev.pairs[o.Queues[0]].rx.memory.(*mbuf.Pool)
	for i := 0; i < o.N; {
		m := pool.Alloc()
		if m == nil {
			runtime.Gosched()
			continue
		}
		binary.BigEndian.PutUint32(m.Append(8), uint32(i))
		for out.Enqueue([]*mbuf.Mbuf{m}) == 0 {
			runtime.Gosched()
		}
		i++
	}
	return nil
}

// primaryOnly are the calls that only the primary may make.
var primaryOnly = []func(d *Device) error{
	func(d *Device) error { return d.Configure(PortConfig{RxQueues: 1, TxQueues: 1}) },
	func(d *Device) error { return d.SetupRxQueue(0, RxConfig{}) },
	func(d *Device) error { return d.SetupTxQueue(0, TxConfig{}) },
	func(d *Device) error { return d.ReleaseRxQueue(0) },
	func(d *Device) error { return d.ReleaseTxQueue(0) },
	(*Device).Start, (*Device).Stop, (*Device).SetLinkUp, (*Device).SetLinkDown,
	func(d *Device) error { return d.SetMTU(1400) },
	func(d *Device) error { return d.SetMAC([]byte{2, 0, 0, 0, 0, 1}) },
	func(d *Device) error { return d.SetTxQueueLen(10) },
	func(d *Device) error { return d.SetPromiscuous(true) },
	func(d *Device) error { return d.SetAllMulticast(true) },
	func(d *Device) error { return d.SetCarrier(false) },
	func(d *Device) error { return d.Revoke(context.Background()) },
	func(d *Device) error { return d.MakeRing("x", 8, nil) },
}

func (s *agentState) control(dev *Device, i int) error { return primaryOnly[i](dev) }

// effective are the capabilities that this process has, a bit each.
func effective() int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return -1
	}
	var caps int
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "CapEff:\t%x", &caps); n == 1 {
			return caps
		}
	}
	return -1
}
