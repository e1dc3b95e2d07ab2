// SPDX-License-Identifier: BSD-3-Clause

package ipc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rtap-project/rtap/internal/runtimedir"
)

// Server is the primary's end, until Close.
type Server struct {
	cfg      ServerConfig
	limits   limits
	log      *slog.Logger
	listener *runtimedir.Listener
	running  sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	joining []*link             // have not yet said who they are, the oldest first
	peers   [MaxPeers + 1]*Peer // by ID
}

// Peer is a secondary, from Join to Leave.
type Peer struct {
	server  *Server
	link    *link
	process *process
	id      int
	name    string
	left    atomic.Bool
}

// Listen makes the socket of the prefix and serves it until Close. The error wraps runtimedir.ErrInUse while another
// process of this prefix runs.
func Listen(cfg ServerConfig) (*Server, error) { return listen(cfg, defaultLimits) }

func listen(cfg ServerConfig, l limits) (*Server, error) {
	if cfg.Handler == nil || len(cfg.Build) > maxBuild {
		return nil, fmt.Errorf("ipc: a build of %d bytes, and a handler: %v; want at most %d bytes, and a handler",
			len(cfg.Build), cfg.Handler != nil, maxBuild)
	}
	listener, err := runtimedir.Listen(cfg.Base, cfg.Prefix, SocketName)
	if err != nil {
		return nil, fmt.Errorf("ipc: %w", err)
	}
	s := &Server{cfg: cfg, limits: l, log: logger(cfg.Log), listener: listener}
	s.running.Go(func() {
		s.listener.Each(s.log, "secondary process", func(conn *net.UnixConn) { s.greet(newLink(conn, s.limits, ErrPeerGone)) })
	})
	return s, nil
}

// Path is that of the socket.
func (s *Server) Path() string { return s.listener.Path() }

// Close ends all connections, calls Leave for each peer, waits for that, and removes the socket. Closing twice does
// nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.running.Wait()
		return nil
	}
	s.closed = true
	for _, l := range s.joining {
		l.close()
	}
	for _, p := range s.peers {
		if p != nil {
			p.process.release()
		}
	}
	s.mu.Unlock()
	err := s.listener.Close()
	s.running.Wait()
	return err
}

// greet gives a process the time to say who it is. If too many take theirs, the one goes that has for longest.
func (s *Server) greet(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		l.close()
		return
	}
	if len(s.joining) >= s.limits.joining {
		s.joining[0].refuse(helloID, ErrBusy) // which has room for it: nothing was written there before
		s.joining = s.joining[1:]
	}
	s.joining = append(s.joining, l)
	s.running.Go(func() { s.admit(l) })
}

// refuse says why, and ends the connection.
func (l *link) refuse(id uint64, err error) {
	l.post(context.Background(), (&message{ID: id}).set(nil, err), nil)
	l.fail(err)
}

// admit serves a process, if it is let in, until it has left.
func (s *Server) admit(l *link) {
	m, err := s.hear(l)
	if errors.Is(err, io.EOF) || l.cause() != nil { // who looks whether somebody listens says nothing
		l.close()
		return
	}
	var p *Peer
	if err == nil {
		p, err = s.join(l, m)
	}
	if err != nil {
		pid, _ := runtimedir.PeerPID(l.conn)
		s.log.Warn("secondary process refused", "pid", pid, "error", err)
		l.refuse(helloID, err)
		return
	}
	p.live()
}

// hear waits for the first message.
func (s *Server) hear(l *link) (*message, error) {
	l.conn.SetReadDeadline(time.Now().Add(s.limits.handshake))
	m, _, err := l.receive(make([]byte, maxMessage+1))
	l.conn.SetReadDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("it has not said who it is for %v", s.limits.handshake)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.joining, l); i >= 0 {
		s.joining = slices.Delete(s.joining, i, i+1)
	}
	return m, err
}

// join finds the process that said m a number, if it may have one.
func (s *Server) join(l *link, m *message) (*Peer, error) {
	var h hello
	if err := json.Unmarshal(m.Body, &h); m.Op != opHello || m.ID != helloID || err != nil || h.Magic != magic {
		return nil, errors.New("this is the control socket of an rtap primary process, and the peer no rtap process")
	}
	if h.Build != s.cfg.Build {
		return nil, fmt.Errorf("this program is rtap %s, the primary of prefix %s is rtap %s: run the same build: %w",
			printable(h.Build, maxBuild), s.cfg.Prefix, s.cfg.Build, ErrBuild)
	}
	process, err := processOf(l.conn)
	if err != nil {
		return nil, err
	}
	p := &Peer{server: s, link: l, process: process, name: printable(h.Name, maxName)}
	if err := s.place(p); err != nil {
		process.close()
		return nil, err
	}
	l.handle = p.request
	if err := s.cfg.Handler.Join(p); err != nil {
		s.remove(p)
		return nil, err
	}
	return p, nil
}

func (s *Server) place(p *Peer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := 1; id <= MaxPeers && !s.closed; id++ {
		if s.peers[id] == nil {
			s.peers[id], p.id = p, id
			return nil
		}
	}
	if s.closed {
		return ErrPrimaryGone
	}
	return fmt.Errorf("%w: %d", ErrFull, MaxPeers)
}

func (s *Server) remove(p *Peer) {
	s.mu.Lock()
	s.peers[p.id] = nil
	s.mu.Unlock()
	p.process.close()
}

// ID is 1 to MaxPeers. Another process may have it after Leave.
func (p *Peer) ID() int { return p.id }

// PID is the number of the process.
func (p *Peer) PID() int { return p.process.pid }

// Name is what the process calls itself.
func (p *Peer) Name() string { return p.name }

func (p *Peer) String() string { return fmt.Sprintf("%s (process %d)", p.name, p.PID()) }

// Left reports, in Leave, whether the process does not use any more what it was given: false means that it is the
// server that is closed, while the process lives.
func (p *Peer) Left() bool { return p.left.Load() }

// Call makes a request of the secondary: body and the answer, which is decoded into reply, are JSON. Any goroutine
// may call; nil stands for none. The error wraps ErrPeerGone once the process has left or broken the connection.
func (p *Peer) Call(ctx context.Context, op string, body, reply any) error {
	if _, err := p.link.call(ctx, op, body, reply); err != nil {
		return fmt.Errorf("%v: %s: %w", p, op, err)
	}
	return nil
}

func (p *Peer) request(op string, body json.RawMessage) (any, []int, error) {
	return p.server.cfg.Handler.Request(p, op, body)
}

// live serves a peer until it has left.
func (p *Peer) live() {
	l := p.link
	l.send(context.Background(), (&message{ID: helloID}).set(welcome{p.id, os.Getpid()}, nil), nil)
	var goodbye *message
	var reading, working sync.WaitGroup
	reading.Go(func() { l.fail(l.read()) })
	working.Go(func() {
		goodbye = l.work()
		p.brokenOff(goodbye != nil)
	})
	if p.process.wait() {
		p.left.Store(true)
		l.fail(errors.New("it has ended"))
	} else if p.server.isClosed() {
		l.close()
	}
	working.Wait()
	l.end(ErrPeerGone)
	p.server.cfg.Handler.Leave(p)
	p.server.remove(p)
	if goodbye != nil {
		l.post(context.Background(), &message{ID: goodbye.ID}, nil)
	}
	l.conn.Close()
	reading.Wait()
}

// brokenOff is called when no request will be handled any more. A process that says goodbye has left, and so has one
// that was given nothing it could still use; any other has when it ends.
func (p *Peer) brokenOff(goodbye bool) {
	if goodbye || !p.link.gave {
		p.left.Store(true)
		p.process.release()
		return
	}
	p.server.log.Info("secondary process has not said goodbye: what it has stays with it until it ends",
		"process", p.String(), "reason", p.link.cause())
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}
