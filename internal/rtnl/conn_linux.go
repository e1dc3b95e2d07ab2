// SPDX-License-Identifier: BSD-3-Clause

package rtnl

import (
	"errors"
	"os"
	"sync"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/vishvananda/netlink/nl"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// replyTimeoutSec bounds one answer of the kernel. It waits for the rtnl lock, which a busy machine may
// hold for seconds (another namespace with many interfaces going away).
const replyTimeoutSec = 60

// Conn is a connection to the rtnetlink of one network namespace. It keeps the namespace alive. Its
// methods may be called concurrently: requests take turns.
type Conn struct {
	mu   sync.RWMutex // guards sock against Close
	sock *nl.SocketHandle
}

// Dial connects to the rtnetlink of the namespace that nsfd refers to, or of the calling thread's
// namespace if nsfd is -1. The caller keeps nsfd. Another namespace needs CAP_SYS_ADMIN.
func Dial(nsfd int) (*Conn, error) {
	var c *Conn
	err := inNS(nsfd, func(*netns.NS) (err error) {
		c, err = dial()
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// inNS runs f in the namespace that nsfd refers to, or where the caller is if nsfd is -1. f does not keep ns.
func inNS(nsfd int, f func(ns *netns.NS) error) error {
	ns, err := nsOf(nsfd)
	if err != nil {
		return &Error{Op: "connect", Err: err}
	}
	defer ns.Close()
	if nsfd < 0 {
		return f(ns)
	}
	return ns.Do(func() error { return f(ns) })
}

// nsOf is the namespace that nsfd refers to, with a descriptor of its own.
func nsOf(nsfd int) (*netns.NS, error) {
	if nsfd < 0 {
		return netns.Current()
	}
	dup, err := unix.FcntlInt(uintptr(nsfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return netns.FromFD(dup)
}

func dial() (*Conn, error) {
	s, err := nl.GetNetlinkSocketAt(vns.None(), vns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, &Error{Op: "connect", Err: err}
	}
	timeout := unix.Timeval{Sec: replyTimeoutSec}
	s.SetSendTimeout(&timeout)
	s.SetReceiveTimeout(&timeout)
	// Explanations are welcome, not needed, and what is not asked for in a dump costs no time.
	_ = s.SetExtAck(true)
	_ = unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return &Conn{sock: &nl.SocketHandle{Socket: s}}, nil
}

// Close ends the connection. It is safe to call more than once; a request under way ends first.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sock != nil {
		c.sock.Close()
		c.sock = nil
	}
	return nil
}

// request sends one message and returns the payloads of the answer.
func (c *Conn) request(typ, flags int, parts ...nl.NetlinkRequestData) ([][]byte, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.sock == nil {
		return nil, os.ErrClosed
	}
	req := nl.NewNetlinkRequest(typ, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: c.sock}
	for _, p := range parts {
		req.AddData(p)
	}
	msgs, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.EAGAIN) {
		err = os.ErrDeadlineExceeded // what package nl calls EAGAIN is that nobody answered in time
	}
	return msgs, err
}
