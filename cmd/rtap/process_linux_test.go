// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
)

// process is a running command.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, err output
}

// output is what a running command has written so far.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// prepare is the command, to be started within the test's bounds.
func prepare(t *testing.T, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(time.Minute))
	t.Cleanup(cancel)
	p := &process{t: t, cmd: exec.CommandContext(ctx, self, args...)}
	if os.Getenv(runtimeDirectory) == "" { // else it is the test's
		p.cmd.Env = append(os.Environ(), runtimeDirectory+"="+newRuntime(t))
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	return p
}

// runtimeDirectory says where telemetry sockets are, see package runtimedir.
const runtimeDirectory = "RUNTIME_DIRECTORY"

// newRuntime is a place for the sockets of some commands. Its path is short, because they have not much room
// for it.
func newRuntime(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "rtap")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start starts the command in ns, or here if that is nil.
func start(t *testing.T, ns *netns.NS, args ...string) *process {
	t.Helper()
	p := prepare(t, args...)
	err := p.startIn(ns)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) startIn(ns *netns.NS) error {
	start := p.cmd.Start
	var err error
	if ns != nil {
		err = ns.Do(start) // a child is in the namespace of the thread that makes it
	} else {
		err = start()
	}
	if err == nil {
		p.t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	}
	return err
}

// wait waits for the end and fails the test unless the exit code is code.
func (p *process) wait(code int) {
	p.t.Helper()
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Fatalf("rtap %q: exit code %d (%v), want %d\nstdout: %s\nstderr: %s", p.cmd.Args[1:], got, err, code, &p.out, &p.err)
	}
}

// end sends a signal and waits.
func (p *process) end(sig syscall.Signal, code int) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
	p.wait(code)
}

// decode reads the one JSON object, of known fields, that the command wrote.
func (p *process) decode(v any) {
	p.t.Helper()
	d := json.NewDecoder(strings.NewReader(p.out.String()))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		p.t.Fatalf("JSON: %v in %s", err, &p.out)
	}
	if _, err := d.Token(); err != io.EOF {
		p.t.Errorf("there is more than one JSON object: %s", &p.out)
	}
}
