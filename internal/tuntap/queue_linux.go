// SPDX-License-Identifier: BSD-3-Clause

package tuntap

import (
	"runtime"

	"github.com/rtap-project/rtap/internal/netns"
	"golang.org/x/sys/unix"
)

// Queue is one descriptor of /dev/net/tun attached to a TAP interface. It owns the descriptor until
// Close. The methods take no locks: they may be called concurrently with traffic on the descriptor
// and with each other, but not with Close.
type Queue struct {
	fd int // -1 once closed
}

// FromFD makes a Queue of a descriptor that another process has attached and sent. The Queue owns it.
func FromFD(fd int) *Queue { return &Queue{fd: fd} }

// FD returns the descriptor, for reads, writes and polls. The Queue keeps it: do not close it. It is -1
// after Close.
func (q *Queue) FD() int { return q.fd }

// Close gives the descriptor back. The last one, disabled ones included, takes an interface along that
// is not persistent; Close returns when it is gone, unless something else, such as a request pending
// on an io_uring, still refers to the descriptor. It is safe to call more than once.
func (q *Queue) Close() error {
	if q.fd < 0 {
		return nil
	}
	fd := q.fd
	q.fd = -1
	// close(2): the descriptor is gone even after EINTR on Linux, so there is nothing to repeat.
	if err := unix.Close(fd); err != nil && err != unix.EINTR {
		return fail("close", "", err)
	}
	return nil
}

// Name returns the interface's present name, however often it was renamed or moved. EBADFD if it
// was deleted.
func (q *Queue) Name() (string, error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return "", fail("get name", "", err)
	}
	if err := unix.IoctlIfreq(q.fd, unix.TUNGETIFF, ifr); err != nil {
		return "", fail("get name", "", err)
	}
	return ifr.Name(), nil
}

// NetNS returns a descriptor of the namespace the interface is in now, wherever it was moved
// (TUNGETDEVNETNS, since Linux 5.7). The caller owns and closes it; netns.FromFD takes it. EBADFD if the
// interface was deleted, EPERM without CAP_NET_ADMIN there.
func (q *Queue) NetNS() (int, error) {
	fd, err := unix.IoctlRetInt(q.fd, unix.TUNGETDEVNETNS)
	if err != nil {
		return -1, fail("get namespace", "", err)
	}
	return fd, nil // the kernel opens it close-on-exec: open_related_ns in fs/nsfs.c
}

// IfIndex returns the interface's index in the namespace it is in now. A move to another namespace
// gives the interface a new index if the old one is taken there. The errors are NetNS's; it also needs
// CAP_SYS_ADMIN, to look there.
func (q *Queue) IfIndex() (index int, err error) {
	fd, err := q.NetNS()
	if err != nil {
		return 0, err
	}
	ns, err := netns.FromFD(fd)
	if err != nil {
		return 0, fail("get index", "", err)
	}
	defer ns.Close()
	err = ns.Do(func() error {
		index, err = q.indexHere()
		return err
	})
	return index, err
}

// indexHere asks in the calling thread's namespace. Between asking for the name and for its index the
// interface may be renamed, so the name must be the same before and after.
func (q *Queue) indexHere() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fail("get index", "", err)
	}
	defer unix.Close(fd)
	var last error = unix.EAGAIN
	for range 16 {
		before, err := q.Name()
		if err != nil {
			return 0, err
		}
		index, err := ifIndex(fd, before)
		if err != nil {
			last = err
			runtime.Gosched()
			continue
		}
		after, err := q.Name()
		if err != nil {
			return 0, err
		}
		if before == after {
			return index, nil
		}
	}
	return 0, fail("get index", "", last)
}

// Disable detaches the queue from the interface's traffic (TUNSETQUEUE with IFF_DETACH_QUEUE). What it
// had queued is lost, and the kernel renumbers the last queue into its place. The descriptor keeps the
// interface alive. EINVAL if it is disabled already.
func (q *Queue) Disable() error { return q.setQueue("disable", unix.IFF_DETACH_QUEUE) }

// Enable undoes Disable. EINVAL if the queue was not disabled or its interface was deleted meanwhile,
// E2BIG with [QueuesMax] queues.
func (q *Queue) Enable() error { return q.setQueue("enable", unix.IFF_ATTACH_QUEUE) }

func (q *Queue) setQueue(op string, flag uint16) error {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return fail(op, "", err)
	}
	ifr.SetUint16(flag)
	if err := unix.IoctlIfreq(q.fd, unix.TUNSETQUEUE, ifr); err != nil {
		return fail(op, "", err)
	}
	return nil
}

// SetPersist says whether the interface outlives its last descriptor.
func (q *Queue) SetPersist(on bool) error {
	return q.setValue("set persist", unix.TUNSETPERSIST, boolInt(on))
}

// SetCarrier plugs the interface's cable in or out (TUNSETCARRIER, since Linux 5.0). It cannot be
// plugged in, EPERM, while no queue is enabled.
func (q *Queue) SetCarrier(on bool) error {
	err := q.setInt("set carrier", unix.TUNSETCARRIER, boolInt(on))
	if e, ok := err.(*Error); ok && e.Err == unix.EPERM {
		e.Hint = "there is no carrier while no queue is enabled"
	}
	return err
}

// SetOffload says which frames the program takes from the kernel: the Offload constants, for all
// queues of the interface. EINVAL for a combination that this kernel does not have; the offloads then
// stay as they were.
func (q *Queue) SetOffload(offloads uint32) error {
	return q.setValue("set offload", unix.TUNSETOFFLOAD, int(offloads))
}

// SetVnetHdrSize sets the size in bytes of the virtio header before every frame, at least
// [VnetHdrSize], for all queues of the interface. EINVAL below that.
func (q *Queue) SetVnetHdrSize(size int) error {
	return q.setInt("set header size", unix.TUNSETVNETHDRSZ, size)
}

// Features returns the IFF_* flags that this kernel's TUNSETIFF knows (TUNGETFEATURES).
func (q *Queue) Features() (uint32, error) {
	v, err := unix.IoctlGetUint32(q.fd, unix.TUNGETFEATURES)
	if err != nil {
		return 0, fail("get features", "", err)
	}
	return v, nil
}

// setInt makes a request whose argument points to an int.
func (q *Queue) setInt(op string, req uint, v int) error {
	if err := unix.IoctlSetPointerInt(q.fd, req, v); err != nil {
		return fail(op, "", err)
	}
	return nil
}

// setValue makes a request whose argument is the value.
func (q *Queue) setValue(op string, req uint, v int) error {
	if err := unix.IoctlSetInt(q.fd, req, v); err != nil {
		return fail(op, "", err)
	}
	return nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
