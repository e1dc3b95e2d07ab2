// SPDX-License-Identifier: BSD-3-Clause

package nettest

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"testing"
	"time"
)

// settle is how long what is being given back asynchronously may take: goroutines on their way out,
// rings that the kernel tears down in a work queue.
var settle = 5 * time.Second

// Main runs a package's tests and then fails, naming each, if they left descriptors, goroutines,
// mappings of rings and pools, or interfaces behind. Use it as
//
//	func TestMain(m *testing.M) { nettest.Main(m) }
func Main(m *testing.M) {
	before := Leaks()
	code := m.Run()
	if code == 0 && !fuzzing() {
		for _, leak := range before.Since() {
			fmt.Fprintln(os.Stderr, "leaked:", leak)
			code = 1
		}
	}
	os.Exit(code)
}

// fuzzing reports whether this process fuzzes: it then has pipes to, and goroutines for, its workers.
func fuzzing() bool {
	f := flag.Lookup("test.fuzz")
	return f != nil && f.Value.String() != ""
}

// Snapshot is what the process held at one moment.
type Snapshot struct {
	goroutines map[string]string // id → stack
	held       map[string]int    // description of a descriptor, mapping or interface → how many
}

// Leaks takes a snapshot, to be compared with later by [Snapshot.Since] or [Snapshot.Check].
func Leaks() *Snapshot {
	startPoller()
	return take()
}

// startPoller makes the runtime open what it keeps for polling, so that it does not count as leaked.
func startPoller() {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	r.Close()
	w.Close()
}

func take() *Snapshot {
	return &Snapshot{goroutines: goroutines(), held: held()}
}

// Since names what the process holds now and did not then, after waiting a while for it to go. It does
// not tell new from old where there are several of a kind; it is not for tests that run in parallel.
func (s *Snapshot) Since() []string {
	var leaks []string
	poll(Bound(settle), func() bool {
		leaks = s.diff(take())
		return len(leaks) == 0
	})
	return leaks
}

// Check fails the test, naming each leak, if the process holds more now than then.
func (s *Snapshot) Check(t testing.TB) {
	t.Helper()
	for _, leak := range s.Since() {
		t.Errorf("leaked: %s", leak)
	}
}

func (s *Snapshot) diff(now *Snapshot) []string {
	var leaks []string
	for what, n := range now.held {
		if more := n - s.held[what]; more > 0 {
			leaks = append(leaks, times(what, more))
		}
	}
	for id, stack := range now.goroutines {
		if _, old := s.goroutines[id]; !old {
			leaks = append(leaks, stack)
		}
	}
	sort.Strings(leaks)
	return leaks
}

func times(what string, n int) string {
	if n == 1 {
		return what
	}
	return fmt.Sprintf("%d × %s", n, what)
}

// goroutines returns the stack of every goroutine, by its id, but the caller's own and those that stay
// by design.
func goroutines() map[string]string {
	buf := make([]byte, 1<<16)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	found := make(map[string]string)
	for i, stack := range strings.Split(string(buf), "\n\n") {
		id, _, ok := strings.Cut(strings.TrimPrefix(stack, "goroutine "), " ")
		if i > 0 && ok && !stays(stack) { // the caller's own stack is first
			found[id] = strings.TrimSpace(stack)
		}
	}
	return found
}

// stays reports whether a goroutine belongs to the standard library and never ends once started.
func stays(stack string) bool {
	for _, f := range []string{"os/signal.loop(", "os/signal.signal_recv(", "testing.(*T).Run(", "testing.(*M).", "testing.runFuzz"} {
		if strings.Contains(stack, "\n"+f) || strings.Contains(stack, "created by "+strings.TrimSuffix(f, "(")) {
			return true
		}
	}
	return false
}
