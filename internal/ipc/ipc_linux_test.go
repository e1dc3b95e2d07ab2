// SPDX-License-Identifier: BSD-3-Clause

package ipc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/runtimedir"
	"golang.org/x/sys/unix"
)

const wait = 10 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newBase is a directory with a short path, for the prefixes of one test.
func newBase(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "rtap")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// primary is a handler that answers a few requests.
type primary struct {
	file  *os.File
	joins chan *Peer
	left  chan *Peer
	enter chan *Peer    // who asks to block
	leave chan struct{} // ends that
}

func newPrimary(t *testing.T) *primary {
	t.Helper()
	fd, err := unix.MemfdCreate("ipc-test", unix.MFD_CLOEXEC)
	must(t, err)
	f := os.NewFile(uintptr(fd), "ipc-test")
	t.Cleanup(func() { f.Close() })
	_, err = f.WriteString("shared")
	must(t, err)
	return &primary{file: f, joins: make(chan *Peer, 10000), left: make(chan *Peer, 10000), enter: make(chan *Peer, 100),
		leave: make(chan struct{})}
}

// dup is a descriptor to give away.
func (h *primary) dup() int {
	fd, err := unix.FcntlInt(h.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	return fd
}

func (h *primary) Join(p *Peer) error {
	if p.Name() == "unwanted" {
		return fmt.Errorf("not you: %w", errRegistered)
	}
	h.joins <- p
	return nil
}

func (h *primary) Leave(p *Peer) {
	p.server.mu.Lock()
	defer p.server.mu.Unlock()
	if p.server.peers[p.id] != p {
		panic("the number of a peer is free before it has left")
	}
	h.left <- p
}

func (h *primary) Request(p *Peer, op string, body json.RawMessage) (any, []int, error) {
	switch op {
	case "echo":
		return body, nil, nil
	case "files":
		var n int
		json.Unmarshal(body, &n)
		fds := make([]int, n)
		for i := range fds {
			fds[i] = h.dup()
		}
		return n, fds, nil
	case "callback":
		var got string
		ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(wait))
		defer cancel()
		err := p.Call(ctx, "echo", "back", &got)
		return got, nil, err
	case "block":
		h.enter <- p
		<-h.leave
		return nil, nil, nil
	case "full":
		return nil, nil, fmt.Errorf("no queue is free: %w", errRegistered)
	case "silent":
		return "no", nil, errors.New("")
	case "denied":
		return nil, []int{h.dup()}, errors.New("denied")
	case "grow":
		return string(body) + "0123456789", nil, nil
	case "stale":
		return nil, []int{1 << 20}, nil
	}
	return nil, nil, ErrNoOp
}

func mustListen(t *testing.T, cfg ServerConfig, l limits) *Server {
	t.Helper()
	cfg.Prefix, cfg.Build = "p", "1"
	s, err := listen(cfg, l)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func echo(op string, body json.RawMessage) (any, error) {
	if op == "echo" {
		return body, nil
	}
	return nil, ErrNoOp
}

// mustDial joins, until the test ends at the latest.
func mustDial(t *testing.T, base string) *Client {
	t.Helper()
	c, err := dialAs(base)
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

var errRegistered = errors.New("registered by a test")

func init() { Register("test", errRegistered) }

func TestCalls(t *testing.T) {
	base, h := newBase(t), newPrimary(t)
	mustListen(t, ServerConfig{Base: base, Handler: h}, defaultLimits)
	c := mustDial(t, base)
	p := <-h.joins
	if p.ID() != 1 || c.ID() != 1 || p.PID() != os.Getpid() || c.PrimaryPID() != os.Getpid() || p.Name() != "worker" {
		t.Errorf("%v, %d, %d", p, c.ID(), c.PrimaryPID())
	}
	var got string
	for _, op := range []string{"echo", "callback"} {
		if _, err := c.Call(t.Context(), op, "back", &got); err != nil || got != "back" {
			t.Errorf("%s: %q, %v", op, got, err)
		}
	}
	if err := p.Call(t.Context(), "echo", "forth", &got); err != nil || got != "forth" {
		t.Errorf("%q, %v", got, err)
	}
	for _, n := range []int{1, maxFDs} {
		fds, err := c.Call(t.Context(), "files", n, nil)
		if err != nil || len(fds) != n {
			t.Fatalf("%d descriptors of %d, %v", len(fds), n, err)
		}
		for _, fd := range fds {
			b := make([]byte, 10)
			if k, err := unix.Pread(fd, b, 0); string(b[:max(k, 0)]) != "shared" {
				t.Errorf("%q, %v", b, err)
			}
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("not close-on-exec, %v", err)
			}
		}
		CloseAll(fds)
	}
	must(t, c.Close())
	select {
	case left := <-h.left:
		if left != p || !left.Left() {
			t.Error(left)
		}
	default:
		t.Error("Close returned before Leave")
	}
	if _, err := c.Call(t.Context(), "echo", nil, nil); !errors.Is(err, net.ErrClosed) || !errors.Is(c.Err(), net.ErrClosed) {
		t.Errorf("after Close: %v; %v", err, c.Err())
	}
	if err := p.Call(t.Context(), "echo", nil, nil); !errors.Is(err, ErrPeerGone) || !strings.Contains(err.Error(), p.String()) {
		t.Errorf("after Leave: %v", err)
	}
	must(t, c.Close())
}

// wantError fails unless err is target and says all of words.
func wantError(t *testing.T, err, target error, words ...string) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("error is %v, want %v", err, target)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

// TestErrors: errors cross the socket, with what they are.
func TestErrors(t *testing.T) {
	base, h := newBase(t), newPrimary(t)
	mustListen(t, ServerConfig{Base: base, Handler: h}, defaultLimits)
	c := mustDial(t, base)
	p := <-h.joins
	ask := func(op string, body any) error { _, err := c.Call(t.Context(), op, body, new(int)); return err }
	wantError(t, ask("nothing", nil), ErrNoOp, "nothing: ")
	wantError(t, p.Call(t.Context(), "nothing", nil, nil), ErrNoOp, "nothing: ", "worker (process ")
	wantError(t, ask("full", nil), errRegistered, "full: no queue is free: registered by a test")
	var remote *RemoteError
	want := RemoteError{"test", "no queue is free: registered by a test"}
	if err := ask("full", nil); !errors.As(err, &remote) || *remote != want {
		t.Errorf("%#v", err)
	}
	err := ask("silent", nil)
	if !errors.As(err, &remote) || remote.Code != "" || remote.Text == "" || errors.Unwrap(remote) != nil {
		t.Errorf("%#v", err)
	}
	for _, body := range []any{"text", make(chan int), strings.Repeat("a", maxMessage)} {
		if err := ask("echo", body); err == nil || errors.Is(err, ErrPrimaryGone) {
			t.Errorf("error is %v", err)
		}
	}
	must(t, ask("echo", 7))
}

// TestRefusals: who cannot join is told why.
func TestRefusals(t *testing.T) {
	base, h := newBase(t), newPrimary(t)
	cfg := ClientConfig{Base: base, Prefix: "p", Build: "1", Name: "worker"}
	try := func() error { _, err := Dial(t.Context(), cfg); return err }
	wantError(t, try(), ErrNoPrimary, "file prefix p", base+"/dpdk/p/rtap_socket", "no other")
	s := mustListen(t, ServerConfig{Base: base, Handler: h}, defaultLimits)
	_, err := Dial(t.Context(), ClientConfig{Base: base, Prefix: "q"})
	wantError(t, err, ErrNoPrimary, "file prefix q", "primaries with p")
	cfg.Build = "2 of today"
	wantError(t, try(), ErrBuild, "this program is rtap 2 of today, the primary of prefix p is rtap 1: run the same build")
	cfg.Build = "1"
	cfg.Name = "unwanted"
	wantError(t, try(), errRegistered, "not you")
	cfg.Name = ""

	before := nettest.Leaks()
	var all []*Client
	for i := range MaxPeers {
		c := mustDial(t, base)
		if c.ID() != i+1 {
			t.Errorf("number %d, want %d", c.ID(), i+1)
		}
		all = append(all, c)
	}
	wantError(t, try(), ErrFull, "31")
	must(t, all[6].Close())
	c := mustDial(t, base)
	if c.ID() != 7 {
		t.Errorf("number %d, want 7", c.ID())
	}
	for _, c := range append(all, c) {
		must(t, c.Close())
	}
	h.wantNobody(t, s)
	before.Check(t)

	_, err = Listen(ServerConfig{Base: base, Prefix: "p", Handler: h})
	wantError(t, err, runtimedir.ErrInUse, fmt.Sprint(os.Getpid()))
	if _, err := Listen(ServerConfig{Base: base, Prefix: "q"}); err == nil {
		t.Error("no handler is needed")
	}
	if _, err := Listen(ServerConfig{Base: base, Prefix: "q", Handler: h, Build: strings.Repeat("1", 257)}); err == nil {
		t.Error("a long build is taken")
	}
}

// TestRounds: joining and leaving leaves nothing behind.
func TestRounds(t *testing.T) {
	base, h := newBase(t), newPrimary(t)
	s := mustListen(t, ServerConfig{Base: base, Handler: h}, defaultLimits)
	before := nettest.Leaks()
	for range nettest.Scale(1000) {
		c := mustDial(t, base)
		fds, err := c.Call(t.Context(), "files", 3, nil)
		must(t, err)
		CloseAll(fds)
		must(t, c.Close())
		if p := <-h.left; p.ID() != 1 || !p.Left() {
			t.Fatalf("peer %d leaves", p.ID())
		}
		<-h.joins
	}
	h.wantNobody(t, s)
	before.Check(t)
}

// TestConcurrent: many call each other.
func TestConcurrent(t *testing.T) {
	base, h := newBase(t), newPrimary(t)
	mustListen(t, ServerConfig{Base: base, Handler: h}, defaultLimits)
	var wg sync.WaitGroup
	for range 5 {
		c := mustDial(t, base)
		p := <-h.joins
		for i := range 3 * inFlight { // more than there are places for
			wg.Go(func() {
				for j := range nettest.Scale(20) {
					want, got := fmt.Sprint(i, j), ""
					if _, err := c.Call(t.Context(), "echo", want, &got); err != nil || got != want {
						t.Errorf("%q, %v, want %q", got, err, want)
					}
					if _, err := c.Call(t.Context(), "callback", nil, &got); err != nil || got != "back" {
						t.Errorf("%q, %v", got, err)
					}
					if err := p.Call(t.Context(), "echo", want, &got); err != nil || got != want {
						t.Errorf("%q, %v, want %q", got, err, want)
					}
				}
			})
		}
	}
	wg.Wait()
}

// TestBlocked: while a request of one peer takes its time, others are served, its own next ones wait, and calls last no
// longer than their context. The peer has not left before the request is done.
func TestBlocked(t *testing.T) {
	base, h := newBase(t), newPrimary(t)
	mustListen(t, ServerConfig{Base: base, Handler: h}, defaultLimits)
	c := mustDial(t, base)
	p := <-h.joins
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range inFlight + 5 { // some without a place
		wg.Go(func() {
			if _, err := c.Call(ctx, "block", nil, nil); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	if who := await(t, h.enter, "a request is handled"); who != p {
		t.Errorf("%v", who)
	}
	wantService(t, base)
	<-h.joins
	<-h.left
	must(t, p.Call(t.Context(), "echo", 1, nil)) // the other way as well
	cancel()
	wg.Wait()
	if len(h.enter) > 0 {
		t.Error("two requests of a peer at a time")
	}
	closed := make(chan error)
	go func() { closed <- c.Close() }()
	select {
	case h.leave <- struct{}{}:
	case <-closed:
		t.Fatal("Close does not wait")
	case <-h.left:
		t.Fatal("it has left before its request was done")
	}
	close(h.leave)
	must(t, await(t, closed, "Close returns"))
	if left := <-h.left; left != p {
		t.Errorf("%v", left)
	}
}

// TestServerClose: all peers leave, those that were given something while they live.
func TestServerClose(t *testing.T) {
	base, h := newBase(t), newPrimary(t)
	before := nettest.Leaks()
	s, err := Listen(ServerConfig{Base: base, Prefix: "p", Build: "1", Handler: h})
	must(t, err)
	a := start(t, "client", base, nil)
	a.hear("joined 1")
	c := mustDial(t, base)
	<-h.joins
	mine := <-h.joins
	half := knock(t, base)
	must(t, s.Close())
	for range 2 {
		if p := <-h.left; p.Left() != (p == mine) {
			t.Errorf("%v has left: %v", p, p.Left())
		}
	}
	await(t, c.Done(), "the end is noticed")
	if _, err := c.Call(t.Context(), "echo", nil, nil); !errors.Is(err, ErrPrimaryGone) {
		t.Errorf("call: %v", err)
	}
	if half.ended() != "" {
		t.Error("a closed server answers")
	}
	must(t, c.Close())
	must(t, s.Close())
	if len(h.left) != 0 {
		t.Error("Leave is called twice")
	}
	if _, err := os.Lstat(base + "/dpdk/p"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is there: %v", err)
	}
	a.end()
	before.Check(t)
}

// TestServerCloseWhileBusy: Close ends peers whatever they do.
func TestServerCloseWhileBusy(t *testing.T) {
	before := nettest.Leaks()
	for range nettest.Scale(10) {
		base, h := newBase(t), newPrimary(t)
		s, err := Listen(ServerConfig{Base: base, Prefix: "p", Build: "1", Handler: h})
		must(t, err)
		var wg sync.WaitGroup
		var calls atomic.Int32
		var done atomic.Bool
		for range 25 { // more than can join at a moment
			wg.Go(func() {
				for !done.Load() {
					c, err := dialAs(base)
					for err == nil {
						_, err = c.Call(t.Context(), "callback", nil, nil)
						calls.Add(1)
					}
					if c != nil {
						must(t, c.Close())
					}
				}
			})
		}
		nettest.Eventually(t, wait, "peers are served", func() bool { return calls.Load() > 50 })
		must(t, s.Close())
		done.Store(true)
		wg.Wait()
		h.wantNobody(t, s)
		h.file.Close()
	}
	before.Check(t)
}
