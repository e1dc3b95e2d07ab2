// SPDX-License-Identifier: BSD-3-Clause

package tuntap

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	device = "/dev/net/tun"
	flags  = unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE
)

// Attach opens /dev/net/tun and attaches the descriptor to the TAP or TUN interface name in the calling
// thread's namespace, as one more queue of it; without [Options.IfIndex] it creates the interface if
// there is none. A name may hold one %d, which the kernel replaces by the first free number; the
// empty name is "tap%d". What became of it is [Queue.Name].
//
// The interface has no packet information (IFF_NO_PI), a 10-byte little-endian virtio_net_hdr before
// every frame or packet (IFF_VNET_HDR), several queues (IFF_MULTI_QUEUE) and no offloads.
//
// The error is an [*Error] whose chain holds the errno: ENOENT, ENODEV or ENXIO (no tun driver), EACCES
// or EPERM (CAP_NET_ADMIN), ENAMETOOLONG, EINVAL (bad name, or [ErrForeign]), EBUSY, E2BIG.
func Attach(name string, o Options) (*Queue, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	fd, err := openDevice()
	if err != nil {
		return nil, err
	}
	q := &Queue{fd: fd}
	if err := q.attach(name, o); err != nil {
		q.Close()
		return nil, err
	}
	return q, nil
}

func (q *Queue) attach(name string, o Options) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return fail("attach", name, err)
	}
	want := uint16(flags | unix.IFF_TAP)
	if o.TUN {
		want = flags | unix.IFF_TUN
	}
	if o.Exclusive {
		want |= unix.IFF_TUN_EXCL
	}
	ifr.SetUint16(want)
	if o.IfIndex != 0 {
		// The index that a new interface would get. It is taken, so none can be made.
		if err := unix.IoctlSetPointerInt(q.fd, unix.TUNSETIFINDEX, o.IfIndex); err != nil {
			return fail("attach", name, err)
		}
	}
	if err := unix.IoctlIfreq(q.fd, unix.TUNSETIFF, ifr); err != nil {
		return attachError(name, o, err)
	}
	if o.IfIndex != 0 {
		return q.verify(name, o.IfIndex)
	}
	return q.prepare()
}

// verify refuses another TAP that has got the name meanwhile.
func (q *Queue) verify(name string, index int) error {
	got, err := q.IfIndex()
	if err != nil {
		return err
	}
	if got != index {
		return &Error{Op: "attach", Name: name, Err: unix.EBUSY,
			Hint: fmt.Sprintf("the name now belongs to the interface with index %d, not %d", got, index)}
	}
	return nil
}

// prepare sets what belongs to the interface. A persistent one may come with somebody else's ideas.
func (q *Queue) prepare() error {
	if err := q.SetVnetHdrSize(VnetHdrSize); err != nil {
		return err
	}
	if err := q.setInt("set byte order", unix.TUNSETVNETLE, 1); err != nil {
		return err
	}
	// The default, for an interface that has another: with a send buffer that can fill a write may wait,
	// and the kernel's fast path is off (tun_can_build_skb in drivers/net/tun.c).
	if err := q.setInt("set send buffer", unix.TUNSETSNDBUF, math.MaxInt32); err != nil {
		return err
	}
	return q.SetOffload(0)
}

// checkName refuses what the kernel would refuse with a bare EINVAL: dev_valid_name in
// net/core/dev.c.
func checkName(name string) error {
	bad := func(errno error, hint string) error {
		return &Error{Op: "attach", Name: strconv.Quote(name), Err: errno, Hint: hint}
	}
	switch {
	case len(name) > NameMax:
		return bad(unix.ENAMETOOLONG, fmt.Sprintf("%d bytes; an interface name has at most %d", len(name), NameMax))
	case name == "." || name == "..":
		return bad(unix.EINVAL, "not an interface name")
	case strings.ContainsFunc(name, notInName):
		return bad(unix.EINVAL, "an interface name has no slash, colon, space or zero byte")
	case strings.Count(name, "%") > 1 || strings.Contains(name, "%") && !strings.Contains(name, "%d"):
		return bad(unix.EINVAL, "a pattern has one %d and no other %")
	}
	return nil
}

func notInName(r rune) bool {
	return r == '/' || r == ':' || r == 0 || r == ' ' || r >= '\t' && r <= '\r'
}

func openDevice() (int, error) {
	for {
		fd, err := unix.Open(device, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR:
			continue
		}
		return -1, &Error{Op: "open", Name: device, Err: err, Hint: openHint(err)}
	}
}

func openHint(err error) string {
	switch err {
	case unix.ENOENT:
		return "the device node is missing: modprobe tun, or mkdir -p /dev/net && mknod /dev/net/tun c 10 200; " +
			"in a container, pass it in with --device /dev/net/tun"
	case unix.ENODEV, unix.ENXIO:
		return "the kernel has no tun driver: modprobe tun"
	case unix.EACCES, unix.EPERM:
		return "the device's permissions or the container's device rules forbid it"
	case unix.EMFILE, unix.ENFILE:
		return "too many open descriptors: raise ulimit -n"
	}
	return ""
}

// attachError says what an errno of TUNSETIFF means.
func attachError(name string, o Options, errno error) error {
	e := &Error{Op: "attach", Name: name, Err: errno}
	switch errno {
	case unix.EPERM:
		e.Hint = "needs the capability CAP_NET_ADMIN in the namespace, or to be the interface's owner"
	case unix.EINVAL:
		if what := inspect(name, o.TUN); what != "" {
			e.Err = &foreignError{want: kind(o.TUN), what: what, errno: errno}
			e.Hint = "choose another name, or delete it: ip link del " + name
		}
	case unix.EBUSY:
		switch {
		case o.IfIndex != 0:
			e.Hint = fmt.Sprintf("the interface with index %d no longer has that name", o.IfIndex)
		case o.Exclusive:
			e.Hint = "an interface of that name exists"
		default:
			e.Hint = "another program uses it"
		}
	case unix.E2BIG:
		e.Hint = fmt.Sprintf("an interface has at most %d queues", QueuesMax)
	}
	return e
}

// foreignError is ErrForeign with what the interface is instead.
type foreignError struct {
	want  string
	what  string
	errno error
}

func (e *foreignError) Error() string {
	return fmt.Sprintf("%v a multi-queue %s: it is %s", ErrForeign, e.want, e.what)
}

func (e *foreignError) Unwrap() []error { return []error{ErrForeign, e.errno} }

func kind(tun bool) string {
	if tun {
		return "TUN"
	}
	return "TAP"
}

// inspect says what the interface name in this namespace is, which is no multi-queue TUN or TAP as
// wanted, or "" if there is none.
func inspect(name string, tun bool) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	if _, err := ifIndex(fd, name); err != nil {
		return ""
	}
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, name)
	if err != nil {
		return "of another kind"
	}
	driver, bus := unix.ByteSliceToString(info.Driver[:]), unix.ByteSliceToString(info.Bus_info[:])
	switch {
	case driver != "tun":
		return "a " + driver + " interface"
	case strings.EqualFold(bus, kind(tun)):
		return "a " + kind(tun) + " with a single queue"
	case tun:
		return "a TAP, with Ethernet headers"
	}
	return "a TUN, without Ethernet headers"
}

// ifIndex asks for an interface's index by name, in the namespace of the socket fd.
func ifIndex(fd int, name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, err
	}
	return int(ifr.Uint32()), nil
}

// fail is an Error with the hints that hold for every request on a queue.
func fail(op, name string, err error) error {
	e := &Error{Op: op, Name: name, Err: err}
	switch err {
	case syscall.EBADFD:
		e.Hint = "the interface was deleted"
	case syscall.EPERM:
		e.Hint = "needs the capability CAP_NET_ADMIN"
	}
	return e
}
