// SPDX-License-Identifier: BSD-3-Clause

package port

import (
	"fmt"
	"syscall"
	"unsafe"
)

// handler is how an operation is done.
type handler struct {
	name string
	where
	size, each uintptr // bytes of the argument's struct, and of each element behind it, if any may follow
	do         func(e *eth, arg unsafe.Pointer, elems int) (int32, error)
}

// where says where an operation may be done, and how.
type where uint

const (
	inPrimary   where = 1 << iota
	inSecondary       // for the secondary itself; what it asks of the primary is done there
	unlocked          // may be called while another control call waits for something
	closedToo         // of a port that is closed already there is nothing to do
	noPort            // it is about none
)

// opProbe stands for Probe in messages.
const opProbe Op = 0

// with makes the handler of an operation whose argument is a T.
func with[T any](name string, w where, f func(e *eth, arg *T) error) handler {
	return handler{name, w, unsafe.Sizeof(*new(T)), 0, func(e *eth, arg unsafe.Pointer, _ int) (int32, error) {
		return 0, f(e, (*T)(arg))
	}}
}

// without makes the handler of an operation that has no argument.
func without(name string, w where, f func(e *eth) error) handler {
	return handler{name, w, 0, 0, func(e *eth, _ unsafe.Pointer, _ int) (int32, error) { return 0, f(e) }}
}

// list makes the handler of an operation that fills the elements behind XStats, and returns how many there are.
func list[T any](name string, w where, f func(e *eth, out []T) (int, error)) handler {
	size := unsafe.Sizeof(XStats{})
	return handler{name, w, size, unsafe.Sizeof(*new(T)), func(e *eth, arg unsafe.Pointer, elems int) (int32, error) {
		n := min(int((*XStats)(arg).N), elems)
		var out []T
		if n > 0 {
			out = unsafe.Slice((*T)(unsafe.Add(arg, size)), n)
		}
		total, err := f(e, out)
		return int32(total), err
	}}
}

// handlers are the operations, by number.
var handlers = [...]handler{
	opProbe:       {name: "probe"},
	OpConfigure:   with("configure", inPrimary, (*eth).configure),
	OpRxSetup:     with("set up rx queue of", inPrimary, (*eth).setupRx),
	OpTxSetup:     with("set up tx queue of", inPrimary, (*eth).setupTx),
	OpRxRelease:   with("release rx queue of", inPrimary|closedToo, (*eth).releaseRx),
	OpTxRelease:   with("release tx queue of", inPrimary|closedToo, (*eth).releaseTx),
	OpStart:       with("start", inPrimary, (*eth).start),
	OpStop:        without("stop", inPrimary|closedToo, (*eth).stop),
	OpClose:       without("close", inPrimary|inSecondary|closedToo, (*eth).close),
	OpInfo:        with("describe", inPrimary, (*eth).info),
	OpLink:        with("read link of", inPrimary|closedToo, (*eth).readLink),
	OpLinkSet:     with("set link of", inPrimary, (*eth).setLink),
	OpPromisc:     with("set promiscuous mode of", inPrimary, (*eth).setPromiscuous),
	OpAllMulti:    with("set allmulticast of", inPrimary, (*eth).setAllMulticast),
	OpMAC:         with("set MAC of", inPrimary, (*eth).setMAC),
	OpMTU:         with("set MTU of", inPrimary, (*eth).setMTU),
	OpStats:       with("read stats of", inPrimary, (*eth).stats),
	OpStatsReset:  without("reset stats of", inPrimary, (*eth).resetStats),
	OpXStats:      list("read xstats of", inPrimary, (*eth).xstats),
	OpXStatNames:  list("read xstat names of", inPrimary, (*eth).xstatNames),
	OpXStatsReset: without("reset xstats of", inPrimary, (*eth).resetStats),
	OpIntrOn:      with("enable interrupt of", inPrimary|inSecondary|unlocked, (*eth).enableInterrupt),
	OpIntrOff:     with("disable interrupt of", inPrimary|inSecondary|unlocked, (*eth).disableInterrupt),
	OpFWVersion:   with("read version of", inPrimary, (*eth).version),
	OpBurstMode:   with("read burst mode of", inPrimary, (*eth).burstMode),
	OpIsRemoved: {"look for", inPrimary | unlocked, 0, 0, func(e *eth, _ unsafe.Pointer, _ int) (int32, error) {
		return e.isRemoved(), nil
	}},
	OpShare:   with("share queues of", inPrimary, (*eth).share),
	OpJoin:    with("join", inSecondary, (*eth).join),
	OpLeave:   without("leave", inSecondary|closedToo, (*eth).leave),
	OpRuntime: with("describe the runtime", noPort, (*eth).runtime),
}

// Call does what an ethdev callback asks for. arg points to the struct that belongs to op and what follows
// it, len bytes in all. It returns 0, or what op says, or -errno.
func (p *Ports) Call(op Op, port uint16, arg unsafe.Pointer, len uint32) (result int32) {
	defer p.recovered(op, port, &result)
	n, err := p.call(op, port, arg, uintptr(len))
	if err != nil {
		return p.failed(op, port, err)
	}
	return n
}

func (p *Ports) call(op Op, port uint16, arg unsafe.Pointer, len uintptr) (int32, error) {
	h, elems, err := lookUp(op, arg, len)
	if err != nil {
		return 0, err
	}
	if op == OpJoin {
		defer (*Share)(arg).drop()
	}
	e := p.port(port)
	switch {
	case h.where&noPort != 0:
		return h.do(&eth{ports: p}, arg, elems)
	case e != nil:
	case h.where&closedToo != 0:
		return 0, nil
	default:
		return 0, fmt.Errorf("no such port: %w", syscall.ENODEV)
	}
	if h.where&unlocked == 0 {
		defer func() { p.runtime.tidy(op == OpClose && p.isEmpty()) }()
	}
	return e.call(h, arg, elems)
}

// handler is op's; what is none has no function.
func (op Op) handler() *handler {
	if int64(op) < int64(len(handlers)) {
		return &handlers[op]
	}
	return &handlers[0]
}

// lookUp finds the handler of op and how many elements follow the struct at arg, len bytes in all.
func lookUp(op Op, arg unsafe.Pointer, len uintptr) (h *handler, elems int, err error) {
	h = op.handler()
	switch {
	case h.do == nil:
		return nil, 0, fmt.Errorf("no such operation: %w", syscall.ENOTSUP)
	case h.size == 0:
		return h, 0, nil
	case arg == nil || len < h.size || h.each == 0 && len != h.size:
		return nil, 0, fmt.Errorf("argument of %d bytes, want %d: %w", len, h.size, syscall.EINVAL)
	case h.each == 0:
		return h, 0, nil
	}
	return h, int((len - h.size) / h.each), nil
}

// call does it.
func (e *eth) call(h *handler, arg unsafe.Pointer, elems int) (int32, error) {
	who := inPrimary
	if e.secondary {
		who = inSecondary
	}
	if h.where&who == 0 {
		return 0, fmt.Errorf("not in a secondary process: %w", syscall.ENOTSUP)
	}
	if h.where&unlocked == 0 {
		e.mu.Lock()
		defer e.mu.Unlock()
	}
	defer e.places.emptyPens(e.ports.host)
	return h.do(e, arg, elems)
}
