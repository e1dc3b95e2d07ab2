// SPDX-License-Identifier: BSD-3-Clause

// Package course is what benches let forwarders run on: a program, between network namespaces that vanish with
// it, and one TCP stream through it.
package course

import (
	"bytes"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
)

// Child is a rival's command while it runs.
type Child struct {
	cmd    *exec.Cmd
	Output output
	Ended  chan struct{} // closed when it has
	Err    error         // why, then
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

// Start starts a command in ns. It is in a process group of its own, so that
// a Ctrl-C reaches it through stop alone, and it is ended by the kernel should
// this process be killed.
func Start(ns *netns.NS, path string, args []string) (*Child, error) {
	c := &Child{cmd: exec.Command(path, args...), Ended: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = &c.Output, &c.Output
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := ns.Do(c.cmd.Start); err != nil { // a child is in the namespace of the thread that makes it
		return nil, err
	}
	go func() {
		c.Err = c.cmd.Wait()
		close(c.Ended)
	}()
	return c, nil
}

// stopLimit is how long a command may take to end.
const stopLimit = 10 * time.Second

// Stop asks the command to end, and makes it if it does not. It is an error if it
// had ended before, or ends as a failure.
func (c *Child) Stop() error {
	select {
	case <-c.Ended:
		return fmt.Errorf("%s ended by itself: %v", c.cmd.Path, c.Err)
	default:
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-c.Ended:
	case <-time.After(stopLimit):
		c.cmd.Process.Kill()
		<-c.Ended
		return fmt.Errorf("%s did not end within %v of SIGTERM", c.cmd.Path, stopLimit)
	}
	if c.Err != nil {
		return fmt.Errorf("%s: %w", c.cmd.Path, c.Err)
	}
	return nil
}
