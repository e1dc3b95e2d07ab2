// SPDX-License-Identifier: BSD-3-Clause

package ipc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/rtap-project/rtap/internal/runtimedir"
	"golang.org/x/sys/unix"
)

// process is a descriptor of the process at the other end of a connection, in Go's poller.
type process struct {
	pid  int
	file *os.File
}

// processOf opens the process that connected.
func processOf(conn *net.UnixConn) (*process, error) {
	pid, err := runtimedir.PeerPID(conn)
	if err != nil {
		return nil, err
	}
	if pid == 0 {
		return nil, errors.New("the process is in another PID namespace: from here, nobody could tell when it ends")
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if ctlErr := raw.Control(func(sock uintptr) { fd, err = openProcess(int(sock), pid) }); ctlErr != nil {
		return nil, ctlErr
	}
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	p := &process{pid: pid, file: os.NewFile(uintptr(fd), "pidfd")}
	if err := p.file.SetReadDeadline(time.Time{}); err != nil { // it is not in Go's poller
		p.close()
		return nil, fmt.Errorf("process %d: wait for its end: %w", pid, err)
	}
	return p, nil
}

// openProcess asks the socket, or before Linux 6.5 for the number.
func openProcess(sock, pid int) (int, error) {
	fd, err := unix.GetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		return openNumber(sock, pid)
	}
	return fd, unix.SetNonblock(fd, true) // which Go's poller wants; it fails for no descriptor that is open
}

// openNumber opens the process of that number, and looks whether the connection is still open: then the process has
// not ended, and the number was not given to another one.
func openNumber(sock, pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return -1, err
	}
	if ready(sock, unix.POLLRDHUP) {
		unix.Close(fd)
		return -1, errHungUp
	}
	return fd, nil
}

// ready reports whether one of events has come.
func ready(fd int, events int16) bool {
	n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 0)
	return n > 0 // EINTR means that none had
}

// wait returns true when the process has ended, and false after release.
func (p *process) wait() bool {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Read(func(fd uintptr) bool { return ready(int(fd), unix.POLLIN) }) == nil
}

// release ends wait.
func (p *process) release() { p.file.SetReadDeadline(time.Unix(1, 0)) }

func (p *process) close() { p.file.Close() }
