// SPDX-License-Identifier: BSD-3-Clause

package netns

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// outcome is how a function ended: by returning, by a panic or by runtime.Goexit.
type outcome struct {
	err      error
	returned bool
	panicked any // with the stack, because the caller's stack is another one
}

// onOwnThread runs f on a goroutine locked to its thread, and afterwards puts the thread back into
// the namespace it came from. If that fails the goroutine ends without unlocking, and the runtime
// destroys the thread with it (runtime.LockOSThread), so that no other goroutine finds itself in a
// namespace it did not ask for.
func onOwnThread(f func() error) error {
	done := make(chan outcome, 1)
	go func() {
		runtime.LockOSThread()
		home, err := open(current)
		if err != nil {
			runtime.UnlockOSThread()
			done <- outcome{err: fmt.Errorf("netns: open %s: %w", current, err), returned: true}
			return
		}
		var out outcome
		defer func() {
			if !out.returned {
				out.panicked = panicText(recover())
			}
			if here(home) || unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			unix.Close(home)
			done <- out
		}()
		out.err = f()
		out.returned = true
	}()
	return (<-done).resume()
}

// panicText keeps the stack of a panic that is about to change goroutines.
func panicText(p any) any {
	if p == nil {
		return nil // runtime.Goexit
	}
	stack := make([]byte, 8192)
	stack = stack[:runtime.Stack(stack, false)]
	return fmt.Sprintf("%v\n\n%s", p, stack)
}

// resume lets what ended f happen to the caller.
func (o outcome) resume() error {
	switch {
	case o.returned:
		return o.err
	case o.panicked != nil:
		panic(o.panicked)
	}
	runtime.Goexit()
	return nil
}
