// SPDX-License-Identifier: BSD-3-Clause

package ipc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
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
}

func newPrimary(t *testing.T) *primary {
	t.Helper()
	fd, err := unix.MemfdCreate("ipc-test", unix.MFD_CLOEXEC)
	must(t, err)
	f := os.NewFile(uintptr(fd), "ipc-test")
	t.Cleanup(func() { f.Close() })
	_, err = f.WriteString("shared")
	must(t, err)
	return &primary{file: f, joins: make(chan *Peer, 10000), left: make(chan *Peer, 10000)}
}

func (h *primary) Join(p *Peer) error { h.joins <- p; return nil }

func (h *primary) Leave(p *Peer) { h.left <- p }

func (h *primary) Request(p *Peer, op string, body json.RawMessage) (any, []int, error) {
	switch op {
	case "echo":
		return body, nil, nil
	case "files":
		var n int
		json.Unmarshal(body, &n)
		fds := make([]int, n)
		for i := range fds {
			fds[i], _ = unix.FcntlInt(h.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		}
		return n, fds, nil
	case "callback":
		var got string
		ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(wait))
		defer cancel()
		err := p.Call(ctx, "echo", "back", &got)
		return got, nil, err
	case "secret":
		return nil, nil, fmt.Errorf("open: %w", os.ErrPermission)
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

func mustDial(t *testing.T, base string) *Client {
	t.Helper()
	c, err := Dial(t.Context(), ClientConfig{Base: base, Prefix: "p", Build: "1", Name: "worker", Request: echo})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

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
	if _, err := c.Call(t.Context(), "nothing", nil, nil); !errors.Is(err, ErrNoOp) {
		t.Error(err)
	}
	must(t, c.Close())
	select {
	case left := <-h.left:
		if left != p {
			t.Error(left)
		}
	default:
		t.Error("Close returned before Leave")
	}
}
