// SPDX-License-Identifier: BSD-3-Clause

package rtnl

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/rtap-project/rtap/internal/netns"
	"golang.org/x/sys/unix"
)

// Watcher hears what happens to one interface, in the order in which it happens. It has one socket, in the
// namespace where it was made, whose filter lets nothing else through.
//
// Questions go out on the same socket. The kernel answers before it returns from the system call, and under
// the lock under which it sends notifications, so that what is read is a single sequence of states, each
// complete: nothing that is older ever comes after something newer.
//
// An interface that was moved to another namespace is heard of from here (NETLINK_LISTEN_ALL_NSID, since
// Linux 4.2): a socket there would keep a namespace alive that everybody else has given up, and the
// interface with it.
//
// Next and Follow are for one goroutine. Ask and Close may be called by others meanwhile.
type Watcher struct {
	file *os.File // for Go's poller: a reader that waits holds no thread, and Close wakes it
	raw  syscall.RawConn
	port uint32   // the socket's address
	home netns.ID // the namespace that the socket is in
	all  error    // why nothing is heard of other namespaces, or nil

	closed atomic.Bool

	mu     sync.Mutex // what follows, and the order of questions
	asked  uint32     // the number of the last question
	target target

	// For the goroutine that reads.
	buf, oob []byte
	loss     loss
}

// target is the interface that is watched.
type target struct {
	index int
	nsid  int32 // what home calls the namespace that it is in, or noNSID
	home  bool  // which is home itself
}

const noNSID = unix.NETNSA_NSID_NOT_ASSIGNED

// loss is what is known of messages that the kernel dropped.
type loss struct {
	state   lossState
	settled uint32 // the question whose answer makes good for it
}

type lossState int

const (
	whole    lossState = iota
	draining           // dropped, and will drop more until everything that waits is read
	asking             // the state has been asked for
)

// receiveBuffer is how many bytes of messages wait at most, some of 4 KB for each change. What is not used
// costs nothing.
const receiveBuffer = 16 << 20

// messageMax is the longest message in bytes: what a network card with hundreds of virtual functions has to
// say does not fit, but that of a TAP, about 1.5 KB, does.
const messageMax = 32 << 10

// Watch returns a Watcher in the namespace that nsfd refers to, or in the calling thread's if nsfd is -1. It
// hears nothing until [Watcher.Follow]. The caller keeps nsfd. Another namespace needs CAP_SYS_ADMIN.
func Watch(nsfd int) (*Watcher, error) {
	var w *Watcher
	err := inNS(nsfd, func(ns *netns.NS) error {
		id, err := ns.ID()
		if err != nil {
			return err
		}
		w = &Watcher{home: id, target: target{nsid: noNSID}, buf: make([]byte, messageMax), oob: make([]byte, 128)}
		return w.open()
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Watcher) open() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return &Error{Op: "watch", Err: err}
	}
	if err := w.join(fd); err != nil {
		unix.Close(fd)
		return &Error{Op: "watch", Err: err}
	}
	w.file = os.NewFile(uintptr(fd), "rtnetlink")
	if w.raw, err = w.file.SyscallConn(); err != nil {
		w.file.Close()
		return &Error{Op: "watch", Err: err}
	}
	return nil
}

// join makes fd hear of links, once its filter lets nothing through.
func (w *Watcher) join(fd int) error {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	if a, ok := addr.(*unix.SockaddrNetlink); ok {
		w.port = a.Pid
	}
	if err := setFilter(fd, w.port, 0); err != nil {
		return err
	}
	if err := setBuffer(fd, receiveBuffer); err != nil {
		return err
	}
	// Needs CAP_NET_BROADCAST. Who does without it does without following moves.
	w.all = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1)
	for _, group := range []int{unix.RTNLGRP_LINK, unix.RTNLGRP_NSID} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return err
		}
	}
	return nil
}

// setBuffer sets how many bytes wait in the socket at most: beyond net.core.rmem_max with CAP_NET_ADMIN.
func setBuffer(fd, bytes int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) == nil {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
}

// SetBuffer sets how many bytes of messages wait at most. It is for tests.
func (w *Watcher) SetBuffer(bytes int) error {
	return w.control(func(fd int) error { return setBuffer(fd, bytes) })
}

// setFilter lets through what is for us alone, namespaces going away, and what happens to interfaces of that
// index, as interfaces, not as ports of a bridge (AF_BRIDGE).
func setFilter(fd int, port uint32, index int) error {
	// A filter loads numbers in network byte order; a message has them in the machine's.
	word := func(v uint32) uint32 { return binary.BigEndian.Uint32(native.AppendUint32(nil, v)) }
	half := func(v uint16) uint32 { return uint32(binary.BigEndian.Uint16(native.AppendUint16(nil, v))) }
	load := func(size uint16, off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_ABS | size, K: off}
	}
	jump := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	// struct nlmsghdr, then struct ifinfomsg.
	const typeAt, portAt, familyAt, indexAt = 4, 12, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr + 4
	program := []unix.SockFilter{
		load(unix.BPF_W, portAt),
		jump(word(port), 8, 0),
		load(unix.BPF_H, typeAt),
		jump(half(unix.RTM_DELNSID), 6, 0),
		jump(half(unix.RTM_NEWLINK), 1, 0),
		jump(half(unix.RTM_DELLINK), 0, 5),
		load(unix.BPF_B, familyAt),
		jump(unix.AF_UNSPEC, 0, 3),
		load(unix.BPF_W, indexAt),
		jump(word(uint32(index)), 0, 1),
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// control runs f on the socket, which stays open meanwhile.
func (w *Watcher) control(f func(fd int) error) error {
	var err error
	if e := w.raw.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return w.closedOr(e)
	}
	return err
}

// closedOr is os.ErrClosed for what package os says of a closed file here, which is not that.
func (w *Watcher) closedOr(err error) error {
	if w.closed.Load() {
		return os.ErrClosed
	}
	return err
}

// Close ends the Watcher; a Next that waits returns [os.ErrClosed]. It is safe to call more than once.
func (w *Watcher) Close() error {
	if w.closed.Swap(true) {
		return nil
	}
	if err := w.file.Close(); err != nil {
		return &Error{Op: "watch", Err: err}
	}
	return nil
}

// Next waits for the next message. [os.ErrClosed] ends it. When the kernel has dropped messages, because
// they were not read for too long, it asks for the interface's state by itself; the messages about then are
// marked.
func (w *Watcher) Next() (Message, error) {
	for {
		d, err := w.receive(w.loss.state != draining)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			w.loss.state = draining
		case errors.Is(err, unix.EAGAIN): // all that came before the loss has been read
			if w.loss.settled, err = w.Ask(); err != nil {
				return Message{}, err
			}
			w.loss.state = asking
		case err != nil:
			return Message{}, &Error{Op: "watch", Err: err}
		default:
			if m, ok := w.message(d); ok {
				return m, nil
			}
		}
	}
}

// datagram is one message as it came.
type datagram struct {
	header  unix.NlMsghdr
	payload []byte // valid until the next is received
	nsid    int32  // the namespace it is about, unless that is home
}

// receive reads one message of the kernel's. EAGAIN if there is none and wait is false, ENOBUFS if some were
// dropped: once, in front of those that came before.
func (w *Watcher) receive(wait bool) (datagram, error) {
	var n, oobn int
	var from unix.Sockaddr
	var err error
	e := w.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, from, err = unix.Recvmsg(int(fd), w.buf, w.oob, unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return err != unix.EAGAIN || !wait
			}
		}
	})
	if e != nil {
		return datagram{}, w.closedOr(e)
	}
	if err != nil {
		return datagram{}, err
	}
	if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 || n < unix.SizeofNlMsghdr {
		return datagram{header: unix.NlMsghdr{Type: unix.NLMSG_NOOP}}, nil
	}
	b := w.buf[:n]
	h := unix.NlMsghdr{Type: native.Uint16(b[4:]), Seq: native.Uint32(b[8:]), Pid: native.Uint32(b[12:])}
	return datagram{h, b[unix.SizeofNlMsghdr:], nsidOf(w.oob[:oobn])}, nil
}

// nsidOf reads the control message of NETLINK_LISTEN_ALL_NSID.
func nsidOf(oob []byte) int32 {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return noNSID
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_NETLINK && m.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(m.Data) >= 4 {
			return int32(native.Uint32(m.Data))
		}
	}
	return noNSID
}

// message is what d says of the interface that is watched, if anything.
func (w *Watcher) message(d datagram) (Message, bool) {
	w.mu.Lock()
	t := w.target
	w.mu.Unlock()
	m := Message{Resync: w.loss.state != whole}
	if d.header.Pid == w.port {
		m.Answer = d.header.Seq
	}
	if m.Answer != 0 && w.loss.state == asking && m.Answer >= w.loss.settled {
		w.loss.state = whole
	}
	switch d.header.Type {
	case unix.NLMSG_ERROR: // no such interface, or no such namespace
		m.Gone = m.Answer != 0 && errnoOf(d.payload) != nil
		return m, m.Gone
	case unix.RTM_DELNSID:
		m.Gone = !t.home && nsidAttr(d.payload) == t.nsid
		return m, m.Gone
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, ok := t.link(d.payload)
		if ok = ok && (m.Answer != 0 || t.hears(d.nsid)); !ok {
			return m, false
		}
		if m.Gone = d.header.Type == unix.RTM_DELLINK; !m.Gone {
			m.Link = l
		}
		return m, true
	}
	return m, false
}

// link reads a struct ifinfomsg, if it is t's. Some messages of other kinds of interfaces are no states: they have
// no name (wireless_nlevent_process).
func (t target) link(b []byte) (Link, bool) {
	if len(b) == 0 || b[0] != unix.AF_UNSPEC {
		return Link{}, false
	}
	l, err := parseLink(b)
	return l, err == nil && l.Index == t.index && l.Name != ""
}

// hears reports whether a message about that namespace is about the interface's. Home may have a number too.
func (t target) hears(nsid int32) bool { return nsid == t.nsid || t.home && nsid == noNSID }
