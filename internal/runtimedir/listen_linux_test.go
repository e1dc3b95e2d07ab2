// SPDX-License-Identifier: BSD-3-Clause

package runtimedir

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"golang.org/x/sys/unix"
)

// newBase is a directory with a short path, for the prefixes of one test.
func newBase(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "rtap")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustListen(t *testing.T, base, prefix string) *Listener {
	t.Helper()
	l, err := Listen(base, prefix, SocketName)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// wantError fails unless err is target and says all of words.
func wantError(t *testing.T, err, target error, words ...string) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("error is %v, want %v", err, target)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

// wantAt fails unless path is there with that mode; of mode 0 nothing may be there.
func wantAt(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	switch {
	case mode == 0 && !errors.Is(err, os.ErrNotExist):
		t.Errorf("%s is there (%v)", path, err)
	case mode != 0 && err != nil:
		t.Error(err)
	case mode != 0 && info.Mode() != mode:
		t.Errorf("%s has mode %v, want %v", path, info.Mode(), mode)
	}
}

func TestListen(t *testing.T) {
	base := newBase(t)
	defer unix.Umask(unix.Umask(0))
	l := mustListen(t, base, "a")
	if want := base + "/dpdk/a/dpdk_telemetry.v2"; l.Path() != want || Socket(base, "a", SocketName) != want {
		t.Errorf("path is %s and %s, want %s", l.Path(), Socket(base, "a", SocketName), want)
	}
	wantAt(t, base+"/dpdk", os.ModeDir|0o700)
	wantAt(t, base+"/dpdk/a", os.ModeDir|0o700)
	wantAt(t, l.Path(), os.ModeSocket|0o600)

	mustListen(t, base, "b") // beside it
	if got := Prefixes(base, SocketName); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("prefixes are %q", got)
	}
	conn, err := l.Accept() // Prefixes has connected
	must(t, err)
	conn.Close()
	must(t, l.Close())
	wantAt(t, base+"/dpdk/a", 0)
	wantAt(t, base+"/dpdk/b", os.ModeDir|0o700)
	if got := Prefixes(base, SocketName); !slices.Equal(got, []string{"b"}) {
		t.Errorf("prefixes are %q", got)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// abandon leaves a socket behind as a process does that is killed.
func abandon(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())
	wantAt(t, path, os.ModeSocket|0o755)
}

func TestStaleSocketIsReplaced(t *testing.T) {
	base := newBase(t)
	must(t, os.MkdirAll(Dir(base, "a"), 0o700))
	abandon(t, Socket(base, "a", SocketName))
	if _, err := Dial(base, "a", SocketName); !NotThere(err) {
		t.Fatalf("a stale socket answers: %v", err)
	}
	l := mustListen(t, base, "a")
	conn, err := Dial(base, "a", SocketName)
	must(t, err)
	conn.Close()
	must(t, l.Close())
	if _, err := Dial(base, "a", SocketName); !NotThere(err) {
		t.Errorf("a socket that was removed: %v", err)
	}
}

// TestLiveSocketIsLeft: be it of a process that holds the lock or of DPDK, which knows of none, and even if
// its queue is full.
func TestLiveSocketIsLeft(t *testing.T) {
	pid := fmt.Sprintf("process %d", os.Getpid())
	base := newBase(t)
	mustListen(t, base, "ours")
	_, err := Listen(base, "ours", SocketName)
	wantError(t, err, ErrInUse, base+"/dpdk/ours/", pid, "--file-prefix")

	must(t, os.MkdirAll(Dir(base, "dpdk"), 0o700))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: Socket(base, "dpdk", SocketName)}))
	must(t, unix.Listen(fd, 3))
	for i := 0; ; i++ {
		if _, err = Listen(base, "dpdk", SocketName); i == 0 {
			wantError(t, err, ErrInUse, pid)
		}
		conn, err := Dial(base, "dpdk", SocketName)
		if err != nil {
			wantError(t, err, unix.EAGAIN)
			break
		}
		defer conn.Close()
	}
	_, err = Listen(base, "dpdk", SocketName)
	wantError(t, err, ErrInUse, "another process")
	wantAt(t, Socket(base, "dpdk", SocketName), os.ModeSocket|0o755)
}

// TestOneAtATime: of many that come and go, never two have the prefix.
func TestOneAtATime(t *testing.T) {
	base := newBase(t)
	var have, won atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range nettest.Scale(300) {
				l, err := Listen(base, "a", SocketName)
				if err != nil {
					if !errors.Is(err, ErrInUse) {
						t.Error(err)
					}
					continue
				}
				won.Add(1)
				if n := have.Add(1); n != 1 {
					t.Errorf("%d have it", n)
				}
				wantAt(t, l.Path(), os.ModeSocket|0o600)
				have.Add(-1)
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if won.Load() == 0 {
		t.Error("nobody ever had it")
	}
	wantAt(t, Dir(base, "a"), 0)
}

// rival comes and goes, with two sockets. Whoever has one finds no other process that has.
func rival(base string) {
	const mark = "/taken"
	won := 0
	for range nettest.Scale(300) {
		l, err := Listen(base, "a", "one")
		if errors.Is(err, ErrInUse) {
			continue
		}
		more, moreErr := Listen(base, "a", "two")
		f, markErr := os.OpenFile(base+mark, os.O_CREATE|os.O_EXCL, 0o600)
		if err := errors.Join(err, moreErr, markErr); err != nil {
			fmt.Println(err)
			return
		}
		won++
		err = errors.Join(f.Close(), l.Close(), os.Remove(base+mark), more.Close())
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println("won:", won > 0)
}

// TestOneProcessAtATime: of several processes that come and go, never two have the prefix.
func TestOneProcessAtATime(t *testing.T) {
	base := newBase(t)
	var wg sync.WaitGroup
	var won atomic.Int32
	for range 4 {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
			cmd.Env = append(os.Environ(), rivalEnv+"="+base)
			out, err := cmd.CombinedOutput()
			switch {
			case err == nil && string(out) == "won: true\n":
				won.Add(1)
			case err != nil || string(out) != "won: false\n":
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	if won.Load() == 0 {
		t.Error("nobody ever had it")
	}
	wantAt(t, Dir(base, "a"), 0)
}

// TestSeveralSockets: a process has as many in its directory as it likes, each name once, and the directory until the
// last is closed.
func TestSeveralSockets(t *testing.T) {
	base := newBase(t)
	alias := newBase(t) + "/alias"
	must(t, os.Symlink(base, alias))
	one := mustListen(t, base, "a")
	two, err := Listen(alias, "a", "two")
	must(t, err)
	defer two.Close()
	for _, c := range []struct{ base, name string }{
		{base, SocketName}, {base, "two"}, {alias, SocketName}, {alias, "two"},
	} {
		_, err := Listen(c.base, "a", c.name)
		wantError(t, err, ErrInUse, fmt.Sprintf("process %d", os.Getpid()))
	}
	for _, l := range []*Listener{one, two} {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: l.Path(), Net: "unixpacket"})
		must(t, err)
		defer conn.Close()
		accepted, err := l.Accept()
		must(t, err)
		accepted.Close()
	}
	another, err := os.Open(Dir(base, "a")) // as another process has it
	must(t, err)
	defer another.Close()
	tryLock := func() error { return unix.Flock(int(another.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

	must(t, one.Close())
	wantError(t, one.Close(), net.ErrClosed)
	wantAt(t, one.Path(), 0)
	wantAt(t, two.Path(), os.ModeSocket|0o600)
	if err := tryLock(); err != unix.EWOULDBLOCK {
		t.Errorf("another process gets the lock: %v", err)
	}
	old := one
	one = mustListen(t, base, "a") // again
	wantError(t, old.Close(), net.ErrClosed)
	_, err = Listen(base, "a", SocketName)
	wantError(t, err, ErrInUse)
	wantAt(t, one.Path(), os.ModeSocket|0o600)
	must(t, two.Close())
	if err := tryLock(); err != unix.EWOULDBLOCK {
		t.Errorf("another process gets the lock: %v", err)
	}
	must(t, one.Close())
	wantAt(t, Dir(base, "a"), 0)
	must(t, tryLock())

	must(t, os.Mkdir(base+"/dpdk/b", 0o700))
	trap := base + "/dpdk/b/two"
	must(t, os.WriteFile(trap, nil, 0o600))
	one = mustListen(t, base, "b")
	_, err = Listen(base, "b", "two") // a socket that fails takes nothing with it
	wantError(t, err, ErrUnsafe)
	must(t, os.Remove(trap))
	two, err = Listen(base, "b", "two")
	must(t, err)
	must(t, errors.Join(one.Close(), two.Close()))
	wantAt(t, Dir(base, "b"), 0)
}

// TestInUseByOther: a process that has the directory is named whichever its sockets are, or not at all.
func TestInUseByOther(t *testing.T) {
	base := newBase(t)
	must(t, os.MkdirAll(Dir(base, "a"), 0o700))
	dir, err := os.Open(Dir(base, "a"))
	must(t, err)
	defer dir.Close()
	must(t, unix.Flock(int(dir.Fd()), unix.LOCK_EX))
	_, err = Listen(base, "a", "one")
	wantError(t, err, ErrInUse, Socket(base, "a", "one"), "another process")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: Socket(base, "a", "two"), Net: "unixpacket"})
	must(t, err)
	defer l.Close()
	_, err = Listen(base, "a", "one")
	wantError(t, err, ErrInUse, Socket(base, "a", "one"), fmt.Sprintf("process %d", os.Getpid()))
}

// TestTraps: what another user, or a slip, may have put there is refused, said, and left as it is.
func TestTraps(t *testing.T) {
	dir := func(path string, mode os.FileMode) error {
		return errors.Join(os.MkdirAll(path, 0o700), os.Chmod(path, mode))
	}
	for _, c := range []struct {
		name string
		trap func(base string) error
		want string
	}{
		{"open base", func(base string) error { return os.Chmod(base, 0o777) }, "mode drwxrwxrwx"},
		{"link above", func(base string) error { return errors.Join(dir(base+"/x", 0o700), os.Symlink("x", base+"/dpdk")) }, "/dpdk is a link"},
		{"link", func(base string) error {
			return errors.Join(dir(base+"/dpdk/x", 0o700), os.Symlink("x", base+"/dpdk/a"))
		}, "/dpdk/a is a link"},
		{"file", func(base string) error {
			return errors.Join(dir(base+"/dpdk", 0o700), os.WriteFile(base+"/dpdk/a", nil, 0o600))
		}, "/dpdk/a is a link or a file"},
		{"writable above", func(base string) error { return dir(base+"/dpdk", 0o770) }, "/dpdk has mode 0770"},
		{"readable", func(base string) error { return dir(base+"/dpdk/a", 0o750) }, "/dpdk/a has mode 0750: not a"},
		{"no socket", func(base string) error {
			return errors.Join(dir(base+"/dpdk/a", 0o700), os.WriteFile(base+"/dpdk/a/dpdk_telemetry.v2", []byte("x"), 0o600))
		}, "is no socket"},
		{"link to a socket", func(base string) error {
			return errors.Join(dir(base+"/dpdk/a", 0o700), os.Symlink("/nowhere", base+"/dpdk/a/dpdk_telemetry.v2"))
		}, "is no socket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := newBase(t)
			must(t, c.trap(base))
			before := tree(t, base)
			_, err := Listen(base, "a", SocketName)
			wantError(t, err, ErrUnsafe, c.want)
			if after := tree(t, base); !slices.Equal(before, after) {
				t.Errorf("before %q, after %q", before, after)
			}
		})
	}
	base := newBase(t) // as /tmp is
	must(t, os.Chmod(base, 0o777|os.ModeSticky))
	mustListen(t, base, "a")
}

// tree is what lies below dir, with its modes.
func tree(t *testing.T, dir string) (paths []string) {
	t.Helper()
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			paths = append(paths, info.Mode().String()+" "+path)
		}
		return err
	}))
	return paths
}

// TestForeignDirectory: in a directory of another user there is nothing to be had, nor in one that another
// user can replace.
func TestForeignDirectory(t *testing.T) {
	nettest.NeedRoot(t)
	for _, path := range []string{"dpdk", "dpdk/a"} {
		base := newBase(t)
		must(t, os.MkdirAll(base+"/dpdk/a", 0o700))
		must(t, os.Chown(base+"/"+path, 65534, 65534))
		_, err := Listen(base, "a", SocketName)
		wantError(t, err, ErrUnsafe, path+" belongs to user 65534, not to 0", "XDG_RUNTIME_DIR")
	}
}

// shared is where the two halves of a test meet, one with and one without privileges.
const shared = "RTAP_TEST_RUNTIME_BASE"

// TestWithoutPrivileges: any user can listen in a directory of his own, also below root's, and is told where
// he cannot.
func TestWithoutPrivileges(t *testing.T) {
	if os.Getenv(shared) == "" {
		nettest.NeedRoot(t)
		base := newBase(t)
		must(t, errors.Join(os.MkdirAll(base+"/dpdk/his", 0o700), os.Chmod(base, 0o755), os.Chmod(base+"/dpdk", 0o755),
			os.Chown(base+"/dpdk/his", 65534, 65534)))
		t.Setenv(shared, base)
	}
	nettest.Unprivileged(t, func(t *testing.T) {
		for _, c := range []struct{ base, prefix string }{{newBase(t), "a"}, {os.Getenv(shared), "his"}} {
			l := mustListen(t, c.base, c.prefix)
			conn, err := Dial(c.base, c.prefix, SocketName)
			must(t, err)
			defer conn.Close()
			accepted, err := l.Accept()
			must(t, err)
			accepted.Close()
		}
		_, err := Listen(os.Getenv(shared), "a", SocketName)
		wantError(t, err, unix.EACCES, "mkdir", "XDG_RUNTIME_DIR")
	})
}

// TestOtherUserIsRefused: even where the file modes would let him in.
func TestOtherUserIsRefused(t *testing.T) {
	if os.Getenv(shared) == "" {
		nettest.NeedRoot(t)
		base := newBase(t)
		l := mustListen(t, base, "a")
		for _, dir := range []string{base, base + "/dpdk", base + "/dpdk/a"} {
			must(t, os.Chmod(dir, 0o755))
		}
		must(t, os.Chmod(l.Path(), 0o666))
		t.Setenv(shared, base)
		refused := make(chan error, 1)
		go func() { _, err := l.Accept(); refused <- err }()
		defer func() {
			var e *RefusedError
			if err := <-refused; !errors.As(err, &e) || e.UID != 65534 || e.PID <= 0 {
				t.Errorf("accept: %v", err)
			}
		}()
	}
	nettest.Unprivileged(t, func(t *testing.T) {
		conn, err := Dial(os.Getenv(shared), "a", SocketName)
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(nettest.Bound(10*time.Second))))
		if n, err := conn.Read(make([]byte, 100)); n > 0 || !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("read %d bytes, %v", n, err)
		}
	})
}
