// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
)

// child is a rival's command while it runs.
type child struct {
	cmd    *exec.Cmd
	output output
	ended  chan struct{} // closed when it has
	err    error         // why, then
}

// output is what a command has written so far, the end of it.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// maxOutput bounds what is kept of a command's output.
const maxOutput = 64 << 10

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(b)
	if excess := o.buf.Len() - maxOutput; excess > 0 {
		o.buf.Next(excess)
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// startChild starts a command in ns. It is in a process group of its own, so that
// a Ctrl-C reaches it through stop alone, and it is ended by the kernel should
// this process be killed.
func startChild(ns *netns.NS, path string, args []string) (*child, error) {
	c := &child{cmd: exec.Command(path, args...), ended: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = &c.output, &c.output
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := ns.Do(c.cmd.Start); err != nil { // a child is in the namespace of the thread that makes it
		return nil, err
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// stopLimit is how long a command may take to end.
const stopLimit = 10 * time.Second

// stop asks the command to end, and makes it if it does not. It is an error if it
// had ended before, or ends as a failure.
func (c *child) stop() error {
	select {
	case <-c.ended:
		return fmt.Errorf("%s ended by itself: %v", c.cmd.Path, c.err)
	default:
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-c.ended:
	case <-time.After(stopLimit):
		c.cmd.Process.Kill()
		<-c.ended
		return fmt.Errorf("%s did not end within %v of SIGTERM", c.cmd.Path, stopLimit)
	}
	if c.err != nil {
		return fmt.Errorf("%s: %w", c.cmd.Path, c.err)
	}
	return nil
}
