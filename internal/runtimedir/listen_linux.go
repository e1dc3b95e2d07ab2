// SPDX-License-Identifier: BSD-3-Clause

package runtimedir

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Listener is the telemetry socket of this process. The directory stays locked as long as there is one.
type Listener struct {
	socket *net.UnixListener
	dir    *os.File
	path   string // of the directory
}

// Listen makes the directory, mode 0700, takes its lock, and listens on a socket in it, mode 0600. What a
// process that died has left there is replaced. The error wraps ErrInUse while a process of this prefix
// runs, and ErrUnsafe if the directory, or the one above, is not safe from others.
func Listen(base, prefix string) (*Listener, error) {
	if err := CheckPrefix(prefix); err != nil {
		return nil, err
	}
	if base == "" {
		base = Base()
	}
	path := Socket(base, prefix)
	if len(path) > maxPath {
		return nil, errTooLong(path)
	}
	dir, err := lock(base, prefix)
	if err != nil {
		return nil, err
	}
	l := &Listener{dir: dir, path: Dir(base, prefix)}
	if l.socket, err = listen(path); err != nil {
		l.removeDir()
		return nil, err
	}
	return l, nil
}

// lock opens the directory and locks it. A lock on the directory itself leaves no file behind. Its last
// owner removes it, so that what was opened may not be what is there once it is locked.
func lock(base, prefix string) (*os.File, error) {
	const tries = 100
	for range tries {
		dir, err := openDir(base, prefix)
		if errors.Is(err, fs.ErrNotExist) && exists(base) {
			continue // removed since it was made
		}
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && isAt(dir, Dir(base, prefix)) {
			return dir, nil
		}
		dir.Close()
		if err == unix.EWOULDBLOCK {
			return nil, inUse(Socket(base, prefix))
		}
		if err != nil && err != unix.EINTR {
			return nil, fmt.Errorf("lock %s: %w", Dir(base, prefix), err)
		}
	}
	return nil, fmt.Errorf("lock %s: others keep removing it", Dir(base, prefix))
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func isAt(dir *os.File, path string) bool {
	have, err := dir.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(have, there)
}

// openDir makes base/dpdk/prefix where it is not there. Each step is taken from the directory before it
// and follows no symbolic link, and each directory is looked at after it was opened.
func openDir(base, prefix string) (*os.File, error) {
	top, err := os.OpenFile(base, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	if info, err := top.Stat(); err != nil || info.Mode().Perm()&0o022 != 0 && info.Mode()&os.ModeSticky == 0 {
		return nil, errors.Join(err, fmt.Errorf("%s has mode %v: %w", base, info.Mode(), ErrUnsafe))
	}
	all, err := step(top, "dpdk", 0o022, 0)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	return step(all, prefix, 0o077, os.Geteuid())
}

const useOwn = "set XDG_RUNTIME_DIR or RUNTIME_DIRECTORY to a directory of yours"

// step opens a directory in parent, with mode 0700 if it makes it. It must be this user's, or owner's, and
// have no bit of forbidden.
func step(parent *os.File, name string, forbidden os.FileMode, owner int) (*os.File, error) {
	path := parent.Name() + "/" + name
	fail := func(what string, err error) error {
		err = &fs.PathError{Op: what, Path: path, Err: err}
		if errors.Is(err, unix.EACCES) {
			err = fmt.Errorf("%w: %s", err, useOwn)
		}
		return err
	}
	if err := unix.Mkdirat(int(parent.Fd()), name, 0o700); err != nil && err != unix.EEXIST {
		return nil, fail("mkdir", err)
	}
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return nil, fmt.Errorf("%s is a link or a file: %w: remove it", path, ErrUnsafe)
	}
	if err != nil {
		return nil, fail("open", err)
	}
	dir := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	switch {
	case err != nil:
		err = fail("stat", err)
	case int(st.Uid) != os.Geteuid() && int(st.Uid) != owner:
		err = fmt.Errorf("%s belongs to user %d, not to %d: %w: %s", path, st.Uid, os.Geteuid(), ErrUnsafe, useOwn)
	case os.FileMode(st.Mode)&forbidden != 0:
		err = fmt.Errorf("%s has mode %#o: %w: want 0700", path, st.Mode&0o7777, ErrUnsafe)
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// inUse is the error that names the process which listens.
func inUse(path string) error {
	who := "another process"
	if conn, err := dial(path); err == nil {
		if cred, err := peer(conn); err == nil {
			who = fmt.Sprintf("process %d", cred.Pid)
		}
		conn.Close()
	}
	return fmt.Errorf("%s: %w by %s: choose another one with --file-prefix", path, ErrInUse, who)
}

// listen replaces a socket that nobody listens on: the directory is locked, and a DPDK process, which
// knows nothing of the lock, would listen.
func listen(path string) (*net.UnixListener, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode()&os.ModeSocket == 0:
		return nil, fmt.Errorf("%s is no socket: %w: remove it", path, ErrUnsafe)
	default:
		conn, err := dial(path)
		if err == nil {
			conn.Close()
		}
		if err == nil || errors.Is(err, unix.EAGAIN) { // EAGAIN: its queue is full
			return nil, inUse(path)
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			return nil, err
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil { // until here the directory's mode keeps others out
		l.Close()
		return nil, err
	}
	return l, nil
}

// Accept waits for a client of this user or of root. The error is a *RefusedError for any other, which
// is closed, and wraps net.ErrClosed after Close.
func (l *Listener) Accept() (*net.UnixConn, error) {
	conn, err := l.socket.AcceptUnix()
	if err != nil {
		return nil, err
	}
	cred, err := peer(conn)
	if err == nil && cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		err = &RefusedError{UID: cred.Uid, PID: cred.Pid}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// peer is who connected, or listened, at the other end (SO_PEERCRED, unix(7)).
func peer(conn *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, ctlErr)
}

// Path is the socket's.
func (l *Listener) Path() string { return l.path + "/" + SocketName }

// Close removes the socket, and the directory if nothing else is in it. The one above stays: it is of all
// DPDK processes.
func (l *Listener) Close() error {
	err := l.socket.Close()
	return errors.Join(err, l.removeDir())
}

func (l *Listener) removeDir() error {
	err := os.Remove(l.path) // before the lock is given back
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.dir.Close())
}

// MessageLimit is the longest message that the kernel takes on conn, at most limit, in bytes: an
// administrator may have made it less (net.core.wmem_default).
func MessageLimit(conn *net.UnixConn, limit int) int {
	raw, err := conn.SyscallConn()
	if err != nil {
		return limit
	}
	raw.Control(func(fd uintptr) {
		const overhead = 32 // unix_dgram_sendmsg in net/unix/af_unix.c
		if size, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF); err == nil {
			limit = min(limit, size-overhead)
		}
	})
	return limit
}
