// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
)

// output is what a program has written so far.
type output struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{} // closed and replaced when there is more
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return o.buf.Write(b)
}

// since is what was written from position at on, and a channel that is closed when there is more.
func (o *output) since(at int) (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more == nil {
		o.more = make(chan struct{})
	}
	return string(o.buf.Bytes()[at:]), o.more
}

func (o *output) String() string {
	s, _ := o.since(0)
	return s
}

// process is a running DPDK program. prefix tells it and its secondaries from others.
type process struct {
	t       testing.TB
	cmd     *exec.Cmd
	ns      *netns.NS
	runtime string // the directory of its sockets
	in      io.WriteCloser
	out     output // both of its outputs
	done    chan struct{}
	err     error // how it ended, once done is closed
}

// program is how to start one.
type program struct {
	path    string
	ns      *netns.NS
	runtime string   // "": a new one
	eal     []string // options of EAL's
	args    []string // the program's own
	limit   time.Duration
	bare    bool   // none of what every program here gets from start
	preload string // a library to load in front, if any
}

// alone are EAL's options for a program that needs no memory but its own. "-l 0-1" is the whole machine.
func alone(vdevs ...string) []string {
	eal := []string{"-l", "0-1", "--no-huge", "-m", "384", "--no-pci"}
	for _, v := range vdevs {
		eal = append(eal, "--vdev="+v)
	}
	return eal
}

// ealPlugin is how to load the plugin. Drivers in the usual directory are then not loaded.
func ealPlugin() []string {
	if plugin == "" {
		return nil
	}
	return []string{"-d", plugin}
}

// start starts a program, with the plugin. It is killed at the end of the test, if it still runs then.
func start(t testing.TB, p program) *process {
	t.Helper()
	if p.runtime == "" {
		p.runtime = newRuntime(t)
	}
	if p.limit == 0 {
		p.limit = time.Minute
	}
	args := append(append(p.eal, ealPlugin()...), "--")
	if p.bare {
		args = p.eal
	}
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(p.limit))
	r := &process{t: t, ns: p.ns, runtime: p.runtime, done: make(chan struct{})}
	// Else a program's lines arrive when its buffer is full.
	r.cmd = exec.CommandContext(ctx, "stdbuf", append([]string{"-oL", p.path}, append(args, p.args...)...)...)
	r.cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+p.runtime, "LD_PRELOAD="+p.preload)
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.out
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it may have children
	r.cmd.WaitDelay = 5 * time.Second
	var err error
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if p.ns == nil {
		err = r.cmd.Start()
	} else {
		err = p.ns.Do(r.cmd.Start) // a child is in the namespace of the thread that makes it
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		r.err = r.cmd.Wait()
		cancel()
		close(r.done)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
		<-r.done
		if t.Failed() {
			t.Logf("%s\n%s", strings.Join(r.cmd.Args, " "), middle(cacheCount.ReplaceAllString(r.out.String(), "")))
		}
	})
	return r
}

// cacheCount is what dump_mempool says of each of 128 lcores.
var cacheCount = regexp.MustCompile(` *cache_count\[.*\n`)

// middle leaves out what is neither at the beginning nor at the end.
func middle(s string) string {
	if len(s) > 16000 {
		return s[:6000] + "\n...\n" + s[len(s)-10000:]
	}
	return s
}

// newRuntime is a place for sockets. Its path is short, because they have not much room for it.
func newRuntime(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "rtap")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// read waits for a text in what the program writes from position at on.
func (p *process) read(at int, text string, limit time.Duration) {
	p.t.Helper()
	p.await(at, fmt.Sprintf("%q", text), limit, func(s string) bool { return strings.Contains(s, text) })
}

// await waits until what the program has written from position at on is enough.
func (p *process) await(at int, what string, limit time.Duration, enough func(s string) bool) {
	p.t.Helper()
	timeout := time.After(nettest.Bound(limit))
	for {
		s, more := p.out.since(at)
		if enough(s) {
			return
		}
		select {
		case <-more:
		case <-p.done:
			if s, _ := p.out.since(at); enough(s) {
				return
			}
			p.t.Fatalf("%s ended (%v) instead of writing %s", p.cmd.Args[2], p.err, what)
		case <-timeout:
			p.t.Fatalf("%s does not write %s within %v", p.cmd.Args[2], what, limit)
		}
	}
}

// mark is where what the program writes from now on begins.
func (p *process) mark() int { return len(p.out.String()) }

// write gives the program a line.
func (p *process) write(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatalf("%s: %v", line, err)
	}
}

// wait waits for the end and fails the test unless the exit code is code.
func (p *process) wait(code int) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(nettest.Bound(30 * time.Second)):
		p.t.Fatalf("%s does not end", p.cmd.Args[2])
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Fatalf("%s: exit code %d (%v), want %d", p.cmd.Args[2], got, p.err, code)
	}
}

// run runs a program to its end, which must be a success, and returns what it wrote.
func run(t testing.TB, p program) string {
	t.Helper()
	r := start(t, p)
	r.in.Close()
	select {
	case <-r.done:
	case <-time.After(nettest.Bound(5 * time.Minute)):
	}
	r.wait(0)
	return r.out.String()
}

// thread is one of a process, as /proc/PID/task has it.
type thread struct {
	name, cpus      string
	blocked, caught uint64        // signals, by their bits
	cpu             time.Duration // time it ran, as a multiple of 10 ms
}

// threads are those of the program, by the name given; "" for all.
func (p *process) threads(name string) []thread {
	p.t.Helper()
	return threadsOf(p.t, p.cmd.Process.Pid, name)
}

func threadsOf(t testing.TB, pid int, name string) (all []thread) {
	t.Helper()
	dirs, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, d := range dirs {
		status, err1 := os.ReadFile(d + "/status")
		stat, err2 := os.ReadFile(d + "/stat")
		if err1 != nil || err2 != nil {
			continue // it has ended
		}
		th := thread{}
		for line := range strings.Lines(string(status)) {
			key, v, _ := strings.Cut(strings.TrimSpace(line), ":")
			v = strings.TrimSpace(v)
			switch key {
			case "Name":
				th.name = v
			case "Cpus_allowed_list":
				th.cpus = v
			case "SigBlk":
				th.blocked, _ = strconv.ParseUint(v, 16, 64)
			case "SigCgt":
				th.caught, _ = strconv.ParseUint(v, 16, 64)
			}
		}
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		th.cpu = time.Duration(user+system) * 10 * time.Millisecond
		if name == "" || th.name == name {
			all = append(all, th)
		}
	}
	return all
}

// descriptors are the program's, by what they are of.
func (p *process) descriptors() map[string]int {
	found := map[string]int{}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid))
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil {
			what, _, _ := strings.Cut(target, ":[") // sockets and pipes have numbers
			found[what]++
		}
	}
	return found
}
