// SPDX-License-Identifier: BSD-3-Clause

package rtnl

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Follow watches the interface of that name in the namespace that nsfd refers to from now on, and returns
// its state. What came before is dropped. The error wraps [ErrNotFound] if there is none, and EPERM if
// namespaces other than the one where the Watcher was made are not for this process: that needs
// CAP_NET_BROADCAST and CAP_NET_ADMIN.
//
// An interface may come by a name, or by an index, while it is being asked for. The caller makes sure that
// it is the one that was meant.
func (w *Watcher) Follow(nsfd int, name string) (Message, error) {
	m, err := w.follow(nsfd, name)
	if err != nil {
		return Message{}, &Error{Op: "watch", Name: name, Err: err}
	}
	return m, nil
}

func (w *Watcher) follow(nsfd int, name string) (Message, error) {
	t, err := w.locate(nsfd)
	if err != nil {
		return Message{}, err
	}
	b, _, err := w.ask(unix.RTM_GETLINK, 0, t.parts(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))...)
	if err != nil {
		return Message{}, err
	}
	l, err := parseLink(b)
	if err != nil {
		return Message{}, err
	}
	t.index = l.Index
	if err := w.watch(t); err != nil {
		return Message{}, err
	}
	// Again, since the notifications begin here.
	b, seq, err := w.ask(unix.RTM_GETLINK, 0, t.parts()...)
	if err != nil {
		return Message{}, err
	}
	if l, err = parseLink(b); err != nil {
		return Message{}, err
	}
	if w.loss.state == asking { // nothing is newer than this
		w.loss.state = whole
	}
	return Message{Link: l, Answer: seq}, nil
}

// watch lets messages about t through.
func (w *Watcher) watch(t target) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.target = t
	return w.control(func(fd int) error { return setFilter(fd, w.port, t.index) })
}

// parts are what RTM_GETLINK takes to find t.
func (t target) parts(more ...nl.NetlinkRequestData) []nl.NetlinkRequestData {
	parts := []nl.NetlinkRequestData{infoOf(t.index)}
	if !t.home {
		parts = append(parts, nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(t.nsid))))
	}
	return append(parts, more...)
}

// locate finds out what home calls the namespace that nsfd refers to, and gives it a number if it has none.
func (w *Watcher) locate(nsfd int) (target, error) {
	ns, err := nsOf(nsfd)
	if err != nil {
		return target{}, err
	}
	defer ns.Close()
	id, err := ns.ID()
	if err != nil {
		return target{}, err
	}
	t := target{home: id == w.home}
	if !t.home && w.all != nil {
		return t, fmt.Errorf("in another namespace: %w", w.all)
	}
	if t.nsid, err = w.nsid(ns.FD()); err != nil || t.home || t.nsid != noNSID {
		return t, err
	}
	attr := nl.NewRtAttr(unix.NETNSA_NSID, nl.Uint32Attr(^uint32(0))) // whichever is free
	_, _, err = w.ask(unix.RTM_NEWNSID, unix.NLM_F_ACK, nl.NewRtGenMsg(), attr, nsAttr(ns.FD()))
	if err != nil && err != unix.EEXIST {
		return t, err
	}
	t.nsid, err = w.nsid(ns.FD())
	return t, err
}

// nsid is the number by which home calls a namespace.
func (w *Watcher) nsid(nsfd int) (int32, error) {
	b, _, err := w.ask(unix.RTM_GETNSID, 0, nl.NewRtGenMsg(), nsAttr(nsfd))
	return nsidAttr(b), err
}

func nsAttr(nsfd int) *nl.RtAttr { return nl.NewRtAttr(unix.NETNSA_FD, nl.Uint32Attr(uint32(nsfd))) }

// nsidAttr reads the NETNSA_NSID of a struct rtgenmsg (uapi linux/net_namespace.h).
func nsidAttr(b []byte) int32 {
	nsid := int32(noNSID)
	if len(b) < 4 {
		return nsid
	}
	_ = eachAttr(b[4:], func(typ uint16, v []byte) error {
		if typ == unix.NETNSA_NSID && len(v) >= 4 {
			nsid = int32(native.Uint32(v))
		}
		return nil
	})
	return nsid
}

// Ask has the interface's state come as one more message, whether it has changed or not, and returns the
// question's number: Message.Answer is that, or a higher one if the kernel dropped the answer. What happened
// before the call comes before it.
func (w *Watcher) Ask() (uint32, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seq, err := w.send(unix.RTM_GETLINK, 0, w.target.parts()...)
	if err != nil {
		return 0, &Error{Op: "watch", Err: err}
	}
	return seq, nil
}

// askAgain bounds how often a question is repeated whose answer was dropped.
const askAgain = 100

// ask returns the payload of the answer, which is valid until the next message is received, and the
// question's number. Messages that came before are dropped.
func (w *Watcher) ask(typ, flags int, parts ...nl.NetlinkRequestData) ([]byte, uint32, error) {
	for range askAgain {
		w.mu.Lock()
		seq, err := w.send(typ, flags, parts...)
		w.mu.Unlock()
		if err != nil {
			return nil, 0, err
		}
		d, err := w.answer(seq)
		switch {
		case err == unix.EAGAIN:
		case err != nil:
			return nil, 0, err
		case d.header.Type == unix.NLMSG_ERROR:
			return nil, seq, errnoOf(d.payload)
		default:
			return d.payload, seq, nil
		}
	}
	return nil, 0, unix.ENOBUFS
}

// answer reads up to the answer to question seq. It is there already, if it was not dropped: else EAGAIN.
func (w *Watcher) answer(seq uint32) (datagram, error) {
	for {
		d, err := w.receive(false)
		switch {
		case err == unix.EAGAIN:
			w.loss.state = whole // everything that was there has been read
			return d, err
		case err == unix.ENOBUFS:
			w.loss.state = draining
		case err != nil:
			return d, err
		case d.header.Pid == w.port && d.header.Seq == seq:
			return d, nil
		}
	}
}

// send sends a question. The caller holds mu.
func (w *Watcher) send(typ, flags int, parts ...nl.NetlinkRequestData) (uint32, error) {
	w.asked++
	req := nl.NewNetlinkRequest(typ, flags)
	req.Seq = w.asked
	for _, p := range parts {
		req.AddData(p)
	}
	b := req.Serialize()
	return w.asked, w.control(func(fd int) error {
		for {
			err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
			if err != unix.EINTR {
				return err
			}
		}
	})
}

// errnoOf reads a struct nlmsgerr: nil for an acknowledgement.
func errnoOf(b []byte) error {
	if len(b) < 4 {
		return errShort
	}
	if code := int32(native.Uint32(b)); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
