// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rtap-project/rtap/internal/ipc"
	"github.com/rtap-project/rtap/mbuf"
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
	// ErrSecondary: only the primary can; this process is attached to its port.
	ErrSecondary = errors.New("this process is a secondary: only the primary can")
	// ErrPrimary: only a secondary can; this process opened the port itself.
	ErrPrimary = errors.New("this process is the port's primary: only a secondary can")
	// ErrPrimaryGone: the process that had opened the port has closed it or ended. Only Close is left.
	ErrPrimaryGone = ipc.ErrPrimaryGone
	// ErrNoPrimary: no process has published ports under that file prefix.
	ErrNoPrimary = ipc.ErrNoPrimary
	// ErrBuild: the primary is another build of rtap.
	ErrBuild = ipc.ErrBuild
	// ErrNoPort: the primary has no such port.
	ErrNoPort = errors.New("no such port")
	// ErrLeased: another process has leased a queue.
	ErrLeased = errors.New("leased by another process")
	// ErrRevoked: the primary took the queue back.
	ErrRevoked = errors.New("the primary took it back")
	// ErrLeaseDenied: the primary's Config.MayLease says no.
	ErrLeaseDenied = errors.New("the primary does not lease it")
	// ErrNoRing: the port has no ring of that name.
	ErrNoRing = errors.New("no such ring")
	// ErrNoLayer2: the port is a TUN, and what was asked for is Ethernet's. It wraps errors.ErrUnsupported.
	ErrNoLayer2 = fmt.Errorf("%w: a TUN has IP packets, without Ethernet header and MAC address", errors.ErrUnsupported)
	// ErrNoXStat: there is no extended statistic of that name or id.
	ErrNoXStat = errors.New("no such extended statistic")
)

// Errors that a primary's answer carries to the secondary.
func init() {
	for code, err := range map[string]error{
		"closed": ErrClosed, "started": ErrStarted, "stopped": ErrStopped, "released": ErrReleased, "not configured": ErrNotConfigured,
		"gone": ErrGone, "no port": ErrNoPort, "leased": ErrLeased, "lease denied": ErrLeaseDenied, "no ring": ErrNoRing,
		"taken": mbuf.ErrTaken,
	} {
		ipc.Register(code, err)
	}
}

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

// failed is opErr for what does not hold Device.mu.
func (d *Device) failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, Interface: d.Name(), Queue: -1, Err: err}
}
