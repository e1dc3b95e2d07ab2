// SPDX-License-Identifier: BSD-3-Clause

package ipc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/runtimedir"
	"golang.org/x/sys/unix"
)

// idle reports whether the server has nobody.
func (s *Server) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.peers {
		if p != nil {
			return false
		}
	}
	return len(s.joining) == 0
}

// wantNobody fails unless everybody has left who has joined, once.
func (h *primary) wantNobody(t *testing.T, s *Server) {
	t.Helper()
	nettest.Eventually(t, wait, "everybody has left", s.idle)
	leaves := map[*Peer]int{}
	for len(h.left) > 0 {
		leaves[<-h.left]++
	}
	for len(h.joins) > 0 {
		p := <-h.joins
		if leaves[p] != 1 {
			t.Errorf("peer %d has left %d times", p.ID(), leaves[p])
		}
		delete(leaves, p)
	}
	for p, n := range leaves {
		t.Errorf("peer %d, which has not joined, has left %d times", p.ID(), n)
	}
}

// wantService fails unless a polite client is served.
func wantService(t *testing.T, base string) {
	t.Helper()
	c := mustDial(t, base)
	for _, op := range []string{"echo", "callback"} {
		var got string
		if _, err := c.Call(t.Context(), op, "back", &got); err != nil || got != "back" {
			t.Errorf("%s: %q, %v", op, got, err)
		}
	}
	must(t, c.Close())
}

// TestKilled: a secondary that is killed, whatever it does at the moment, has left, once, and others can have its
// number.
func TestKilled(t *testing.T) {
	base, h := newBase(t), newPrimary(t)
	s := mustListen(t, ServerConfig{Base: base, Handler: h}, defaultLimits)
	before := nettest.Leaks()
	for range nettest.Scale(25) {
		var wg sync.WaitGroup
		for range 3 {
			a := start(t, "caller", base, nil)
			wg.Go(func() {
				time.Sleep(rand.N(40 * time.Millisecond)) // the moment is what is tried
				a.end()
			})
		}
		wg.Wait()
	}
	t.Logf("%d have joined", len(h.joins))
	if len(h.joins) == 0 {
		a := start(t, "client", base, nil) // on a machine so slow that none came that far
		a.hear("joined")
		a.end()
	}
	h.wantNobody(t, s)
	wantService(t, base)
	if p := <-h.joins; p.ID() != 1 {
		t.Errorf("the next one is number %d", p.ID())
	}
	before.Check(t)
}

// TestDeath: the primary knows at once, from the process and not from its connection.
func TestDeath(t *testing.T) {
	base, h := newBase(t), newPrimary(t)
	mustListen(t, ServerConfig{Base: base, Handler: h}, defaultLimits)
	for _, hangUp := range []bool{false, true} {
		a := start(t, "client", base, nil)
		a.hear("joined 1")
		p := <-h.joins
		if p.PID() != a.cmd.Process.Pid || p.String() != fmt.Sprintf("worker (process %d)", a.cmd.Process.Pid) {
			t.Errorf("%v, process %d", p, a.cmd.Process.Pid)
		}
		if hangUp {
			a.tell("hang up")
			a.hear("hung up")
			<-p.link.done
			if err := p.Call(t.Context(), "echo", 1, nil); !errors.Is(err, ErrPeerGone) {
				t.Errorf("call: %v", err)
			}
			other := mustDial(t, base) // the number is not free
			if other.ID() != 2 {
				t.Errorf("the next one is number %d", other.ID())
			}
			must(t, other.Close())
			if left := <-h.left; left != <-h.joins || !left.Left() {
				t.Errorf("%v has left", left)
			}
			if len(h.left) > 0 {
				t.Error("a process that lives has left")
			}
		}
		a.kill() // it becomes a zombie
		if left := await(t, h.left, "the peer leaves"); left != p || !left.Left() {
			t.Errorf("%v has left", left)
		}
	}
}

// TestKilledWhileAsking: a peer has left when its process has ended and its last request is done.
func TestKilledWhileAsking(t *testing.T) {
	base, h := newBase(t), newPrimary(t)
	mustListen(t, ServerConfig{Base: base, Handler: h}, defaultLimits)
	a := start(t, "client", base, nil)
	a.hear("joined 1")
	p := <-h.joins
	a.tell("block")
	await(t, h.enter, "the request is handled")
	a.end()
	if err := p.Call(t.Context(), "echo", 1, nil); !errors.Is(err, ErrPeerGone) { // nobody who calls it waits
		t.Errorf("call: %v", err)
	}
	for range 3 { // others are served, and it stays
		wantService(t, base)
		if left := await(t, h.left, "the polite client leaves"); left == p {
			t.Error("it has left before its request was done")
		}
	}
	close(h.leave)
	if left := await(t, h.left, "the peer leaves"); left != p || !left.Left() {
		t.Errorf("%v has left", left)
	}
}

// TestOpenNumber: where the kernel does not tell the process of a socket, its number does, and who has closed the
// connection may have ended and be another one.
func TestOpenNumber(t *testing.T) {
	a := start(t, "client", newBase(t), nil) // it finds nobody, and stays
	a.hear("ipc: ")
	sock, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(sock[0])
	fd, err := openNumber(sock[0], a.cmd.Process.Pid)
	must(t, err)
	p := &process{pid: a.cmd.Process.Pid, file: os.NewFile(uintptr(fd), "pidfd")}
	defer p.close()
	ended := make(chan bool)
	go func() { ended <- p.wait() }()
	p.release()
	if await(t, ended, "wait returns") {
		t.Error("a process that lives has ended")
	}
	must(t, p.file.SetReadDeadline(time.Time{}))
	go func() { ended <- p.wait() }()
	a.kill()
	if !await(t, ended, "wait returns") {
		t.Error("a process that was killed has not ended")
	}
	must(t, unix.Close(sock[1]))
	if fd, err := openNumber(sock[0], os.Getpid()); err == nil || fd >= 0 {
		t.Errorf("descriptor %d, %v", fd, err)
	}
	if fd, err := openNumber(sock[0], 1<<22+1); !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EINVAL) {
		t.Errorf("a number that nobody has: descriptor %d, %v", fd, err)
	}
}

// TestStopped: a process that is stopped has not left.
func TestStopped(t *testing.T) {
	base, h := newBase(t), newPrimary(t)
	mustListen(t, ServerConfig{Base: base, Handler: h}, defaultLimits)
	a := start(t, "client", base, nil)
	a.hear("joined 1")
	p := <-h.joins
	must(t, a.cmd.Process.Signal(syscall.SIGSTOP))
	wantService(t, base)
	if left := <-h.left; left == p {
		t.Error("it has left")
	}
	must(t, a.cmd.Process.Signal(syscall.SIGCONT))
	must(t, p.Call(t.Context(), "echo", 1, nil))
	a.tell("goodbye")
	a.hear("goodbye <nil>")
	if left := await(t, h.left, "the peer leaves"); left != p || !left.Left() {
		t.Errorf("%v has left", left)
	}
}

// TestPrimaryKilled: secondaries know at once, and can join the next primary of that prefix.
func TestPrimaryKilled(t *testing.T) {
	base := newBase(t)
	for range 2 {
		prim := start(t, "primary", base, nil)
		prim.hear("listening")
		a := start(t, "client", base, nil)
		a.hear("joined 1")
		c := mustDial(t, base)
		if c.PrimaryPID() != prim.cmd.Process.Pid {
			t.Errorf("primary %d, want %d", c.PrimaryPID(), prim.cmd.Process.Pid)
		}
		a.tell("watch")
		if c.Err() != nil {
			t.Error(c.Err())
		}
		prim.kill()
		await(t, c.Done(), "the primary is gone")
		if _, err := c.Call(t.Context(), "echo", nil, nil); !errors.Is(err, ErrPrimaryGone) || !errors.Is(c.Err(), ErrPrimaryGone) {
			t.Errorf("call: %v; %v", err, c.Err())
		}
		if line := a.hear("done: "); strings.Count(line, ErrPrimaryGone.Error()) != 2 {
			t.Error(line)
		}
		must(t, c.Close())
		prim.end()
		if _, err := dialAs(base); !errors.Is(err, ErrNoPrimary) {
			t.Errorf("dial: %v", err)
		}
		if _, err := os.Lstat(base + "/dpdk/p/rtap_socket"); err != nil {
			t.Errorf("there is nothing to be replaced: %v", err)
		}
	}
}

// TestOtherNamespace: a process whose end cannot be seen is refused, and one that can be seen is not.
func TestOtherNamespace(t *testing.T) {
	nettest.NeedRoot(t)
	inside := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	base := newBase(t)
	prim := start(t, "primary", base, inside)
	prim.hear("listening")
	if _, err := dialAs(base); err == nil || !strings.Contains(err.Error(), "PID namespace") {
		t.Errorf("dial: %v", err)
	}
	base, h := newBase(t), newPrimary(t)
	mustListen(t, ServerConfig{Base: base, Handler: h}, defaultLimits)
	a := start(t, "client", base, inside)
	a.hear("joined 1")
	p := <-h.joins
	if p.PID() != a.cmd.Process.Pid {
		t.Errorf("%v, process %d", p, a.cmd.Process.Pid)
	}
	a.kill()
	if left := await(t, h.left, "the peer leaves"); left != p {
		t.Errorf("%v has left", left)
	}
}

// TestOtherUser: a primary lets nobody in but its own user and root, and a secondary trusts no other either, even
// where the file modes would let them.
func TestOtherUser(t *testing.T) {
	nettest.NeedRoot(t)
	as := func(id uint32) *syscall.SysProcAttr {
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	}
	open := func(base string) {
		for _, dir := range []string{"", "/dpdk", "/dpdk/p"} {
			must(t, os.Chmod(base+dir, 0o755))
		}
		must(t, os.Chmod(runtimedir.Socket(base, "p", SocketName), 0o666))
	}
	base := newBase(t)
	must(t, os.Chown(base, 65534, 65534))
	prim := start(t, "primary", base, as(65534))
	prim.hear("listening")
	open(base)
	same := start(t, "client", base, as(65534))
	same.hear("joined 1")
	prim.hear("joined 1")
	root := start(t, "client", base, nil)
	root.hear("joined 2")
	prim.hear("joined 2")
	other := start(t, "client", base, as(65533))
	line := other.hear("ipc: the primary of file prefix p")
	if !strings.Contains(line, "is of user 65534: neither of user 65533 nor of root") {
		t.Error(line)
	}

	base = newBase(t)
	prim = start(t, "primary", base, nil)
	prim.hear("listening")
	open(base)
	other = start(t, "client", base, as(65533))
	other.hear("ipc: file prefix p: " + ErrPrimaryGone.Error())
	root = start(t, "client", base, nil)
	root.hear("joined 1")
	prim.hear("joined 1") // and nobody before
}
