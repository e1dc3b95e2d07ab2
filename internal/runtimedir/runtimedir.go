// SPDX-License-Identifier: BSD-3-Clause

// Package runtimedir is the directory that DPDK gives each process, told apart by file prefix, and the
// sockets in it: where it is, who may make it, and what becomes of it.
package runtimedir

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// SocketName is that of the telemetry socket, version 2.
const SocketName = "dpdk_telemetry.v2"

// maxPath is the longest path that the address of a Unix socket holds (sun_path, unix(7)).
const maxPath = 107

var (
	// ErrInUse: a process that runs has this file prefix, be it this one, which listens at that name already.
	ErrInUse = errors.New("the file prefix is in use")
	// ErrUnsafe: others could put something else in the directory's place.
	ErrUnsafe = errors.New("not a directory that only its owner can change")
)

// RefusedError says that a peer is neither this user's nor root's.
type RefusedError struct {
	UID uint32
	PID int32
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("process %d is of user %d: neither of user %d nor of root", e.PID, e.UID, os.Geteuid())
}

// Base is the directory for what lives as long as a process, as EAL finds it (eal_create_runtime_dir).
func Base() string {
	if dir := os.Getenv("RUNTIME_DIRECTORY"); dir != "" { // of systemd, see systemd.exec(5)
		return dir
	}
	if os.Getuid() == 0 {
		return "/var/run"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return dir
	}
	return "/tmp"
}

// Dir is the directory of the prefix, base/dpdk/prefix. An empty base is that of Base.
func Dir(base, prefix string) string {
	if base == "" {
		base = Base()
	}
	return filepath.Join(base, "dpdk", prefix)
}

// Socket is the path of the socket called name in Dir.
func Socket(base, prefix, name string) string { return filepath.Join(Dir(base, prefix), name) }

// CheckPrefix says what is wrong with a prefix, which is the name of a directory.
func CheckPrefix(prefix string) error {
	if prefix == "" || prefix == "." || prefix == ".." || len(prefix) > 64 || strings.ContainsAny(prefix, "/\x00") {
		return fmt.Errorf("file prefix is %q: want a directory's name of 1 to 64 bytes", prefix)
	}
	return nil
}

// Dial connects to the socket of a prefix that is called name.
func Dial(base, prefix, name string) (*net.UnixConn, error) {
	if err := CheckPrefix(prefix); err != nil {
		return nil, err
	}
	return dial(Socket(base, prefix, name))
}

func dial(path string) (*net.UnixConn, error) {
	if len(path) > maxPath {
		return nil, errTooLong(path)
	}
	return net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
}

func errTooLong(path string) error {
	return fmt.Errorf("socket %s: a path of %d bytes, at most %d fit an address: choose a shorter file prefix or runtime directory",
		path, len(path), maxPath)
}

// Each calls admit with each client that Accept lets in, until Close. Who is refused, and what else goes wrong, is told to
// log, with what the clients are.
func (l *Listener) Each(log *slog.Logger, what string, admit func(*net.UnixConn)) {
	for {
		conn, err := l.Accept()
		var refused *RefusedError
		switch {
		case err == nil:
			admit(conn)
		case errors.Is(err, net.ErrClosed):
			return
		case errors.As(err, &refused):
			log.Warn(what+" refused", "error", err)
		default:
			log.Warn("cannot accept a "+what, "error", err)
			time.Sleep(100 * time.Millisecond) // such as want of descriptors
		}
	}
}

// NotThere reports whether err, of Dial, means that nobody listens.
func NotThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// Prefixes are those for which somebody listens on a socket called name.
func Prefixes(base, name string) []string {
	var prefixes []string
	sockets, _ := filepath.Glob(Socket(base, "*", name))
	for _, path := range sockets {
		if conn, err := dial(path); err == nil {
			conn.Close()
			prefixes = append(prefixes, filepath.Base(filepath.Dir(path)))
		}
	}
	return prefixes
}
