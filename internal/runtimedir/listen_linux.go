// SPDX-License-Identifier: BSD-3-Clause

package runtimedir

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Listener is a socket of this process in the directory of a prefix. The directory stays locked as long as the
// process has one there.
type Listener struct {
	socket *net.UnixListener
	dir    *directory
	path   string
}

// directory is one that this process has locked. The lock is the process's, whatever its sockets there are.
type directory struct {
	file  *os.File
	path  string
	names map[string]bool // of the sockets
}

// held are the directories that this process has locked, by what they are and not by their paths, of which there
// may be several.
var held = struct {
	sync.Mutex
	dirs map[inode]*directory
}{dirs: map[inode]*directory{}}

type inode struct{ dev, ino uint64 }

// Listen makes the directory, mode 0700, takes its lock unless this process has it, and listens on a socket called
// name in it, mode 0600. What a process that died has left there is replaced. The error wraps ErrInUse while
// another process of this prefix runs, or this one listens at that name, and ErrUnsafe if the directory, or the
// one above, is not safe from others.
func Listen(base, prefix, name string) (*Listener, error) {
	if err := CheckPrefix(prefix); err != nil {
		return nil, err
	}
	if base == "" {
		base = Base()
	}
	path := Socket(base, prefix, name)
	if len(path) > maxPath {
		return nil, errTooLong(path)
	}
	held.Lock()
	defer held.Unlock()
	dir, err := lock(base, prefix, name)
	if err != nil {
		return nil, err
	}
	if dir.names[name] {
		return nil, inUse(path)
	}
	dir.names[name] = true
	socket, err := listen(path)
	if err != nil {
		return nil, errors.Join(err, dir.leave(name))
	}
	return &Listener{socket: socket, dir: dir, path: path}, nil
}

// lock opens the directory and locks it. A lock on the directory itself leaves no file behind. Its last
// owner removes it, so that what was opened may not be what is there once it is locked.
func lock(base, prefix, name string) (*directory, error) {
	const tries = 100
	for range tries {
		file, err := openDir(base, prefix)
		if errors.Is(err, fs.ErrNotExist) && exists(base) {
			continue // removed since it was made
		}
		if err != nil {
			return nil, err
		}
		if dir := held.dirs[inodeOf(file)]; dir != nil {
			return dir, file.Close()
		}
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && isAt(file, Dir(base, prefix)) {
			dir := &directory{file: file, path: Dir(base, prefix), names: map[string]bool{}}
			held.dirs[inodeOf(file)] = dir
			return dir, nil
		}
		file.Close()
		if err == unix.EWOULDBLOCK {
			return nil, inUse(Socket(base, prefix, name))
		}
		if err != nil && err != unix.EINTR {
			return nil, fmt.Errorf("lock %s: %w", Dir(base, prefix), err)
		}
	}
	return nil, fmt.Errorf("lock %s: others keep removing it", Dir(base, prefix))
}

func inodeOf(file *os.File) inode {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return inode{} // which no file has
	}
	return inode{uint64(st.Dev), st.Ino}
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

// inUse is the error that names the process which listens, at path or, if it has no such socket, beside it.
func inUse(path string) error {
	who := "another process"
	others, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	for _, p := range append([]string{path}, others...) {
		conn, err := dial(p)
		if err != nil {
			continue
		}
		cred, err := peer(conn)
		conn.Close()
		if err == nil {
			who = fmt.Sprintf("process %d", cred.Pid)
			break
		}
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
	if err := CheckPeer(conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// CheckPeer is a *RefusedError unless the other end is of this user or of root.
func CheckPeer(conn *net.UnixConn) error {
	cred, err := peer(conn)
	if err == nil && cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		err = &RefusedError{UID: cred.Uid, PID: cred.Pid}
	}
	return err
}

// PeerPID is the process that connected, or listens, at the other end: 0 if it has no number here, because it is in
// another PID namespace (pid_namespaces(7)).
func PeerPID(conn *net.UnixConn) (int, error) {
	cred, err := peer(conn)
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
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
func (l *Listener) Path() string { return l.path }

// Close removes the socket, and with the process's last one there the directory, if nothing else is in it. The one
// above stays: it is of all DPDK processes. Closing twice is an error that wraps net.ErrClosed.
func (l *Listener) Close() error {
	held.Lock()
	defer held.Unlock()
	if err := l.socket.Close(); errors.Is(err, net.ErrClosed) {
		return err
	} else {
		return errors.Join(err, l.dir.leave(filepath.Base(l.path)))
	}
}

// leave gives back the lock with the last socket.
func (d *directory) leave(name string) error {
	delete(d.names, name)
	if len(d.names) > 0 {
		return nil
	}
	delete(held.dirs, inodeOf(d.file))
	err := os.Remove(d.path) // before the lock is given back
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, d.file.Close())
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
