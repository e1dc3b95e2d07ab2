// SPDX-License-Identifier: BSD-3-Clause

package metrics

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
)

// browser is a headless Chromium with one page, driven over a pair of pipes by the DevTools protocol: JSON objects,
// each ended by a NUL (--remote-debugging-pipe).
type browser struct {
	t       *testing.T
	out     *os.File // commands
	session string   // of the page

	mu       sync.Mutex
	lastID   int
	answers  map[int]chan answer
	problems []string        // what the console said was wrong
	requests map[string]bool // URLs
}

type answer struct {
	ID        int
	SessionID string
	Method    string
	Params    json.RawMessage
	Result    json.RawMessage
	Error     *struct{ Message string }
}

// openBrowser starts Chromium in a namespace, from which it reaches nothing but what is served there. It and all its
// files are gone at the end of the test.
func openBrowser(t *testing.T, ns *netns.NS) *browser {
	t.Helper()
	path := nettest.NeedProgram(t, "chromium")
	home := t.TempDir()
	toR, toW, err := os.Pipe()
	must(t, err)
	fromR, fromW, err := os.Pipe()
	must(t, err)
	cmd := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
		"--disable-breakpad", "--disable-crash-reporter", "--disable-dev-shm-usage", "--disable-extensions", "--hide-scrollbars",
		"--force-color-profile=srgb", "--remote-debugging-pipe", "--user-data-dir="+filepath.Join(home, "profile"), "about:blank")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home, "LANG=C.UTF-8", "TZ=UTC",
		"DBUS_SESSION_BUS_ADDRESS=disabled:", "DBUS_SYSTEM_BUS_ADDRESS=disabled:")
	cmd.ExtraFiles = []*os.File{toR, fromW} // 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = nettest.Bound(10 * time.Second)
	err = ns.Do(cmd.Start)
	toR.Close()
	fromW.Close()
	must(t, err)
	b := &browser{t: t, out: toW, answers: map[int]chan answer{}, requests: map[string]bool{}}
	read := make(chan struct{})
	go func() { defer close(read); b.read(fromR) }()
	t.Cleanup(func() {
		b.send("", "Browser.close", nil)
		gone := make(chan struct{})
		go func() { defer close(gone); cmd.Wait() }()
		select {
		case <-gone:
		case <-time.After(nettest.Bound(10 * time.Second)):
			t.Errorf("chromium does not end by itself; it said:\n%s", &stderr)
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the group is its own
		<-gone
		toW.Close()
		<-read
		fromR.Close()
		nettest.Eventually(t, 10*time.Second, "chromium's processes end", func() bool { return len(processesWith(home)) == 0 })
	})
	b.newPage()
	return b
}

// processesWith finds processes by a word of their command line.
func processesWith(word string) (pids []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if line, _ := os.ReadFile(f); strings.Contains(string(line), word) {
			pids = append(pids, f)
		}
	}
	return pids
}

func (b *browser) read(from *os.File) {
	r := bufio.NewReaderSize(from, 1<<20)
	for {
		msg, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var a answer
		if err := json.Unmarshal(msg[:len(msg)-1], &a); err != nil {
			b.t.Errorf("chromium says %q: %v", msg, err)
			continue
		}
		b.mu.Lock()
		if to := b.answers[a.ID]; a.Method == "" && to != nil {
			to <- a // buffered
			delete(b.answers, a.ID)
		}
		b.note(a)
		b.mu.Unlock()
	}
}

// note keeps what the test is to know of events.
func (b *browser) note(a answer) {
	var p struct {
		Type             string
		Request          struct{ URL string }
		Entry            struct{ Level, Text, URL string }
		ExceptionDetails json.RawMessage
	}
	if a.Method == "" || json.Unmarshal(a.Params, &p) != nil {
		return
	}
	switch a.Method {
	case "Network.requestWillBeSent":
		b.requests[p.Request.URL] = true
	case "Runtime.exceptionThrown":
		b.problems = append(b.problems, string(p.ExceptionDetails))
	case "Runtime.consoleAPICalled":
		b.problems = append(b.problems, string(a.Params))
	case "Log.entryAdded":
		b.problems = append(b.problems, p.Entry.Level+": "+p.Entry.Text+" "+p.Entry.URL)
	}
}

func (b *browser) send(session, method string, params any) chan answer {
	b.mu.Lock()
	b.lastID++
	id, to := b.lastID, make(chan answer, 1)
	b.answers[id] = to
	b.mu.Unlock()
	msg := map[string]any{"id": id, "method": method}
	if params != nil {
		msg["params"] = params
	}
	if session != "" {
		msg["sessionId"] = session
	}
	body, err := json.Marshal(msg)
	if err == nil {
		_, err = b.out.Write(append(body, 0))
	}
	if err != nil {
		b.t.Errorf("chromium: %s: %v", method, err)
	}
	return to
}

// call does one command and decodes its result.
func (b *browser) call(session, method string, params, result any) {
	b.t.Helper()
	select {
	case a := <-b.send(session, method, params):
		if a.Error != nil {
			b.t.Fatalf("chromium: %s: %s", method, a.Error.Message)
		}
		if result != nil {
			must(b.t, json.Unmarshal(a.Result, result))
		}
	case <-time.After(nettest.Bound(30 * time.Second)):
		b.t.Fatalf("chromium does not answer %s", method)
	}
}

func (b *browser) newPage() {
	b.t.Helper()
	var target struct{ TargetID string }
	b.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var s struct{ SessionID string }
	b.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &s)
	b.session = s.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.page(domain+".enable", nil, nil)
	}
}

func (b *browser) page(method string, params, result any) {
	b.t.Helper()
	b.call(b.session, method, params, result)
}

func (b *browser) open(url string) {
	b.t.Helper()
	b.page("Page.navigate", map[string]any{"url": url}, nil)
	b.until("the page is loaded", fmt.Sprintf("location.href === %q && document.readyState === 'complete'", url))
}

// look sets the size of the window and the user's choice of colours.
func (b *browser) look(width, height int, scheme string) {
	b.t.Helper()
	b.page("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height,
		"deviceScaleFactor": 1, "mobile": width < 600}, nil)
	b.page("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// eval evaluates an expression in the page, awaiting a promise.
func (b *browser) eval(expression string, result any) {
	b.t.Helper()
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	b.page("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}, &r)
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, r.ExceptionDetails)
	}
	if result != nil {
		must(b.t, json.Unmarshal(r.Result.Value, result))
	}
}

// until waits for an expression to be true.
func (b *browser) until(what, expression string) {
	b.t.Helper()
	nettest.Eventually(b.t, 20*time.Second, what, func() bool {
		var ok bool
		b.eval("!!("+expression+")", &ok)
		return ok
	})
}

// frame waits until what was changed has been drawn.
func (b *browser) frame() {
	b.t.Helper()
	b.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))", nil)
}

// shot writes a picture of the window, or of the whole page, to the directory of artifacts.
func (b *browser) shot(dir, name string, whole bool) {
	b.t.Helper()
	b.frame()
	var r struct{ Data string }
	b.page("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": whole}, &r)
	png, err := base64.StdEncoding.DecodeString(r.Data)
	must(b.t, err)
	if !bytes.HasPrefix(png, []byte("\x89PNG")) {
		b.t.Errorf("%s is no picture", name)
	}
	must(b.t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}

// seen is what the page did so far, and forgets it.
func (b *browser) seen() (problems, urls []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for u := range b.requests {
		urls = append(urls, u)
	}
	problems, b.problems, b.requests = b.problems, nil, map[string]bool{}
	return problems, urls
}

func (b *browser) check(base string) {
	b.t.Helper()
	problems, urls := b.seen()
	for _, p := range problems {
		b.t.Errorf("the console says %s", p)
	}
	for _, u := range urls {
		if !strings.HasPrefix(u, base) && !strings.HasPrefix(u, "data:") && u != "about:blank" {
			b.t.Errorf("the page asks for %s", u)
		}
	}
	if len(urls) == 0 {
		b.t.Error("no request was seen")
	}
}

// artifacts is where pictures go: RTAP_ARTIFACTS, or a directory that goes with the test.
func artifacts(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("RTAP_ARTIFACTS")
	if dir == "" {
		return t.TempDir()
	}
	must(t, os.MkdirAll(dir, 0o755))
	return dir
}
