// SPDX-License-Identifier: BSD-3-Clause

package port

import (
	"errors"
	"fmt"
	"runtime/debug"
	"syscall"

	"github.com/rtap-project/rtap"
)

// errnos are the errors that DPDK has a number for. They come before the system call underneath.
var errnos = []struct {
	err   error
	errno syscall.Errno
}{
	{rtap.ErrClosed, syscall.ENODEV},
	{rtap.ErrGone, syscall.EIO},
	{rtap.ErrStarted, syscall.EBUSY},
	{rtap.ErrLeased, syscall.EBUSY},
	{rtap.ErrStopped, syscall.EIO},
	{rtap.ErrReleased, syscall.EINVAL},
	{rtap.ErrNotConfigured, syscall.EINVAL},
	{rtap.ErrQueueNotSetUp, syscall.EINVAL},
	{rtap.ErrSecondary, syscall.ENOTSUP},
	{rtap.ErrPrimary, syscall.ENOTSUP},
	{rtap.ErrPrimaryGone, syscall.ENODEV},
}

// errnoOf is the number that stands for err in DPDK.
func errnoOf(err error) syscall.Errno {
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return e.errno
		}
	}
	var errno syscall.Errno
	var config *rtap.ConfigError
	var offload *rtap.OffloadError
	switch {
	case errors.As(err, &errno) && errno != 0:
		return errno
	case errors.As(err, &config), errors.As(err, &offload):
		return syscall.EINVAL
	}
	return syscall.EIO
}

// failed logs the error of an operation, of which a number is all that DPDK gets to see.
func (p *Ports) failed(op Op, port uint16, err error) int32 {
	p.host.Log(LevelErr, fmt.Sprintf("%s: %v", p.describe(op, port), err))
	return -int32(errnoOf(err))
}

// recovered turns a panic into an error: a control call of ours must not end the application.
func (p *Ports) recovered(op Op, port uint16, result *int32) {
	if r := recover(); r != nil {
		p.host.Log(LevelErr, fmt.Sprintf("%s: panic: %v\n%s", p.describe(op, port), r, debug.Stack()))
		*result = -int32(syscall.EFAULT)
	}
}

// describe says in a log line what was asked for.
func (p *Ports) describe(op Op, port uint16) string {
	what, who := op.handler().name, fmt.Sprintf("port %d", port)
	if what == "" {
		what = fmt.Sprintf("operation %d on", op)
	}
	if e := p.port(port); e != nil {
		who = e.name
	}
	return what + " " + who
}
