// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"errors"
	"fmt"
	"strings"
)

// Errors of the control plane, wrapped in an [OpError].
var (
	// ErrClosed: the device was closed.
	ErrClosed = errors.New("device is closed")
	// ErrStarted: the operation is for a stopped device.
	ErrStarted = errors.New("device is started: stop it first")
	// ErrStopped: there is nothing to wait for on a stopped device.
	ErrStopped = errors.New("device is stopped")
	// ErrReleased: the queue was released, or set up anew.
	ErrReleased = errors.New("queue is released")
	// ErrNotConfigured: Configure was not called, or has no such queue.
	ErrNotConfigured = errors.New("device is not configured")
	// ErrQueueNotSetUp: Start found a queue without memory.
	ErrQueueNotSetUp = errors.New("queue is not set up")
	// ErrGone: the interface was deleted (ip link del). Only Close is left.
	ErrGone = errors.New("interface is gone")
	// ErrNoXStat: there is no extended statistic of that name or id.
	ErrNoXStat = errors.New("no such extended statistic")
)

// OpError is the error of a Device operation.
type OpError struct {
	Op        string // what failed: "open", "configure", "set mtu", …
	Interface string // the interface's name as last known
	Queue     int    // the queue it is about, or -1
	Err       error  // the cause; often a syscall.Errno underneath
}

func (e *OpError) Error() string {
	var b strings.Builder
	b.WriteString("rtap: ")
	b.WriteString(e.Op)
	if e.Interface != "" {
		b.WriteString(" " + e.Interface)
	}
	if e.Queue >= 0 {
		fmt.Fprintf(&b, " queue %d", e.Queue)
	}
	b.WriteString(": " + e.Err.Error())
	return b.String()
}

func (e *OpError) Unwrap() error { return e.Err }

// ConfigError says what is wrong with a configuration.
type ConfigError struct {
	Field string // the field's name, such as "Config.MTU"
	Value any
	Want  string // what would be right
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("%s is %v: want %s", e.Field, e.Value, e.Want)
}

// opErr wraps err for op, unless it is nil.
func (d *Device) opErr(op string, queue int, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, Interface: d.name, Queue: queue, Err: err}
}
