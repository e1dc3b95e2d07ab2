// SPDX-License-Identifier: BSD-3-Clause

package ipc

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
)

// baseEnv is where the processes of a test meet.
const baseEnv = "RTAP_IPC_TEST_BASE"

// roles are what a process of the test binary does. It ends with its standard input, so that none outlives the test.
var roles = map[string]func(base string, say func(any), lines <-chan string){
	"client":  playClient,
	"caller":  playCaller,
	"primary": playPrimary,
}

func play(role string) {
	lines := make(chan string)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			lines <- in.Text()
		}
		os.Exit(0)
	}()
	roles[role](os.Getenv(baseEnv), func(v any) { fmt.Println(v) }, lines)
	select {}
}

func dialAs(base string) (*Client, error) {
	return Dial(context.Background(), ClientConfig{Base: base, Prefix: "p", Build: "1", Name: "worker", Request: echo})
}

// playClient joins, takes a descriptor, and does what it is told.
func playClient(base string, say func(any), lines <-chan string) {
	c, err := dialAs(base)
	if err == nil {
		_, err = c.Call(context.Background(), "files", 1, nil)
	}
	if err != nil {
		say(err)
		return
	}
	say(fmt.Sprint("joined ", c.ID()))
	for line := range lines {
		switch line {
		case "hang up":
			c.link.close()
			say("hung up")
		case "goodbye":
			say(fmt.Sprint("goodbye ", c.Close()))
		case "block":
			say("blocks")
			c.Call(context.Background(), "block", nil, nil)
		case "watch":
			<-c.Done()
			_, err := c.Call(context.Background(), "echo", nil, nil)
			say(fmt.Sprintf("done: %v; %v", c.Err(), err))
		}
	}
}

// playCaller calls as fast as it can until it is killed.
func playCaller(base string, say func(any), _ <-chan string) {
	for {
		c, err := dialAs(base)
		for i := 0; err == nil; i++ {
			var fds []int
			if fds, err = c.Call(context.Background(), []string{"files", "echo", "callback"}[i%3], 2, nil); err == nil {
				CloseAll(fds)
			}
		}
		say(err)
	}
}

// playPrimary says who joins and leaves.
func playPrimary(base string, say func(any), _ <-chan string) {
	h := &primary{file: os.Stderr, joins: make(chan *Peer, 10000), left: make(chan *Peer, 10000)}
	if _, err := Listen(ServerConfig{Base: base, Prefix: "p", Build: "1", Handler: h}); err != nil {
		say(err)
		return
	}
	say("listening")
	for {
		select {
		case p := <-h.joins:
			say(fmt.Sprint("joined ", p.ID()))
		case p := <-h.left:
			say(fmt.Sprintf("left %d, %v", p.ID(), p.Left()))
		}
	}
}

// actor is a process that plays a role.
type actor struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	read  chan struct{} // closed when there are no more
	once  sync.Once
}

func start(t *testing.T, role, base string, attr *syscall.SysProcAttr) *actor {
	t.Helper()
	// Not os.Executable: the directory that go test builds in is closed to other users, this link is not.
	a := &actor{t: t, cmd: exec.Command("/proc/self/exe"), lines: make(chan string, 1000), read: make(chan struct{})}
	a.cmd.Env = append(os.Environ(), roleEnv+"="+role, baseEnv+"="+base)
	a.cmd.SysProcAttr, a.cmd.Dir, a.cmd.Stderr = attr, "/", os.Stderr
	out, err := a.cmd.StdoutPipe()
	must(t, err)
	a.in, err = a.cmd.StdinPipe()
	must(t, err)
	must(t, a.cmd.Start())
	go func() {
		defer close(a.read)
		for in := bufio.NewScanner(out); in.Scan(); {
			select {
			case a.lines <- in.Text():
			default: // who says so much is not listened to
			}
		}
	}()
	t.Cleanup(a.end)
	return a
}

// kill is SIGKILL. Nobody waits for the process yet.
func (a *actor) kill() { a.cmd.Process.Kill() }

// end is kill, and nothing is left of the process.
func (a *actor) end() {
	a.once.Do(func() {
		a.kill()
		<-a.read
		a.cmd.Wait()
	})
}

func (a *actor) tell(line string) {
	a.t.Helper()
	_, err := fmt.Fprintln(a.in, line)
	must(a.t, err)
}

// hear waits until the process has said something that begins so.
func (a *actor) hear(want string) string {
	a.t.Helper()
	line := await(a.t, a.lines, "the process says "+want)
	if !strings.HasPrefix(line, want) {
		a.t.Fatalf("the process says %q, not %q", line, want)
	}
	return line
}

// await is what comes out of ch.
func await[T any](t *testing.T, ch <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(nettest.Bound(wait)):
		t.Fatalf("waited %v in vain: %s", nettest.Bound(wait), what)
	}
	return v
}
