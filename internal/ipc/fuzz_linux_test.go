// SPDX-License-Identifier: BSD-3-Clause

package ipc

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"golang.org/x/sys/unix"
)

// mute is a handler that fails if it is told what it must not be.
type mute struct{ t *testing.T }

func (h mute) Join(*Peer) error { return nil }

func (h mute) Leave(p *Peer) {
	if !p.Left() {
		h.t.Error("a peer leaves that has not left")
	}
}

func (h mute) Request(_ *Peer, op string, body json.RawMessage) (any, []int, error) {
	if op == "" || op == opHello || op == opGoodbye || len(body) > 0 && !json.Valid(body) {
		h.t.Errorf("request %q %q", op, body)
	}
	return body, nil, nil
}

// FuzzServer sends messages, one a line, before or after a hello. The server is done with the peer when it has gone.
func FuzzServer(f *testing.F) {
	f.Add([]byte(`{"id":2,"op":"a","body":[1]}`+"\n"+`{"id":1,"body":2}`+"\n"+`{"id":3,"op":"ipc.goodbye"}`), true, true)
	f.Add([]byte(goodHello+"\n"+goodHello+"\n\n"), false, false)
	f.Add([]byte("{\n[]"), true, false)
	f.Fuzz(func(t *testing.T, b []byte, hello, read bool) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		must(t, err)
		ours, theirs := connOf(t, fds[0]), connOf(t, fds[1])
		s := &Server{cfg: ServerConfig{Prefix: "p", Build: "1", Handler: mute{t}}, limits: defaultLimits, log: logger(nil)}
		s.greet(newLink(ours, defaultLimits, ErrPeerGone))
		var wg sync.WaitGroup
		if read {
			wg.Go(func() {
				for n, buf := 1, make([]byte, maxMessage); n > 0; {
					n, _ = theirs.Read(buf)
				}
			})
		}
		if hello {
			theirs.Write([]byte(goodHello))
		}
		theirs.SetWriteDeadline(time.Now().Add(nettest.Bound(wait)))
		for msg := range bytes.SplitSeq(b, []byte("\n")) {
			theirs.Write(msg)
		}
		theirs.Close()
		wg.Wait()
		done := make(chan struct{})
		go func() {
			s.running.Wait()
			close(done)
		}()
		await(t, done, "the server is done with the peer")
		if !s.idle() {
			t.Error("somebody is left")
		}
	})
}

func connOf(t *testing.T, fd int) *net.UnixConn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	must(t, err)
	return c.(*net.UnixConn)
}
