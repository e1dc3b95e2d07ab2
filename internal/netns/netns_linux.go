// SPDX-License-Identifier: BSD-3-Clause

package netns

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// NS is one network namespace, held by a descriptor that NS owns until Close. The namespace stays
// alive as long as any such descriptor is open. All methods may be called concurrently.
type NS struct {
	mu sync.RWMutex // guards fd against Close
	fd int          // -1 once closed
}

// current is the namespace of the thread that opens it: /proc/self would be the main thread's.
const current = "/proc/thread-self/ns/net"

// Current returns the namespace the calling thread is in. Outside [NS.Do] that is the namespace the
// process was started in, unless the caller has moved its own locked thread.
func Current() (*NS, error) { return Open(current) }

// Open returns the namespace whose file is at path: /proc/PID/ns/net or a bind mount of one, such as
// the files under /run/netns. Anything that is not a network namespace is refused with EINVAL.
func Open(path string) (*NS, error) {
	fd, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("netns: open %s: %w", path, err)
	}
	ns, err := FromFD(fd)
	if err != nil {
		return nil, fmt.Errorf("netns: open %s: %w", path, err)
	}
	return ns, nil
}

func open(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// FromFD returns the namespace that fd refers to and takes ownership of fd: it is closed by Close,
// and here if fd is not a network namespace, which is an error that wraps EINVAL.
func FromFD(fd int) (*NS, error) {
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE) // ioctl_ns(2), since Linux 4.11
	if err == nil && kind == unix.CLONE_NEWNET {
		unix.CloseOnExec(fd)
		return &NS{fd: fd}, nil
	}
	if fd >= 0 {
		unix.Close(fd)
	}
	return nil, fmt.Errorf("netns: descriptor %d is not a network namespace: %w", fd, unix.EINVAL)
}

// New makes a network namespace with its loopback interface up. It needs CAP_SYS_ADMIN; without it
// the error wraps EPERM. The calling thread stays where it is.
func New() (ns *NS, err error) {
	err = onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return explain("make a namespace", err)
		}
		if ns, err = Current(); err != nil {
			return err
		}
		return loopbackUp()
	})
	if err != nil && ns != nil {
		ns.Close()
	}
	if err != nil {
		return nil, err
	}
	return ns, nil
}

// loopbackUp raises lo in the calling thread's namespace, as netdevice(7) says.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("netns: loopback up: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("netns: loopback up: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("netns: loopback up: %w", err)
	}
	return nil
}

// Do runs f inside the namespace and returns f's error, or the error of going there, in which case f
// has not run. It needs CAP_SYS_ADMIN, unless the process is in that namespace already.
//
// f runs on a goroutine of its own, locked to a thread that is moved into the namespace and back. A
// thread that cannot be moved back is never used again. Only what f does itself happens in the
// namespace: goroutines it starts run outside. Sockets and /dev/net/tun descriptors opened in f stay
// in the namespace afterwards. A panic or runtime.Goexit (t.Fatal) in f continues in the caller. Do
// may be nested.
func (ns *NS) Do(f func() error) error {
	return onOwnThread(func() error {
		if err := ns.enter(); err != nil {
			return err
		}
		return f()
	})
}

// enter moves the calling thread, for good.
func (ns *NS) enter() error {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	if ns.fd < 0 {
		return fmt.Errorf("netns: enter: %w", os.ErrClosed)
	}
	if here(ns.fd) {
		return nil // without the privilege that moving takes
	}
	if err := unix.Setns(ns.fd, unix.CLONE_NEWNET); err != nil {
		return explain("enter", err)
	}
	return nil
}

// here reports whether fd is the namespace that the calling thread is in.
func here(fd int) bool {
	var a, b unix.Stat_t
	return unix.Stat(current, &a) == nil && unix.Fstat(fd, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// FD returns the descriptor, which NS keeps: it is valid until Close, and -1 after it.
func (ns *NS) FD() int {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	return ns.fd
}

// ID identifies the namespace. It fails only after Close.
func (ns *NS) ID() (ID, error) {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	if ns.fd < 0 {
		return ID{}, fmt.Errorf("netns: identify: %w", os.ErrClosed)
	}
	var st unix.Stat_t
	if err := unix.Fstat(ns.fd, &st); err != nil {
		return ID{}, fmt.Errorf("netns: identify: %w", err)
	}
	return ID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}

// Equal reports whether both are the same namespace. A closed NS equals none.
func (ns *NS) Equal(other *NS) bool {
	a, err := ns.ID()
	if err != nil {
		return false
	}
	b, err := other.ID()
	return err == nil && a == b
}

// Close gives the descriptor back. It is safe to call more than once.
func (ns *NS) Close() error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.fd < 0 {
		return nil
	}
	fd := ns.fd
	ns.fd = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("netns: close: %w", err)
	}
	return nil
}

// explain adds to an errno of unshare(2) or setns(2) what would help.
func explain(op string, err error) error {
	if err == unix.EPERM {
		return fmt.Errorf("netns: %s: %w (needs the capability CAP_SYS_ADMIN)", op, err)
	}
	return fmt.Errorf("netns: %s: %w", op, err)
}
