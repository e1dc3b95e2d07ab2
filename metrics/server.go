// SPDX-License-Identifier: BSD-3-Clause

package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Bounds of what clients can cost.
const (
	maxConns       = 64 // at a time; others wait to be accepted
	headerTimeout  = 5 * time.Second
	readTimeout    = 10 * time.Second
	writeTimeout   = 20 * time.Second
	idleTimeout    = 30 * time.Second
	maxHeaderBytes = 16 << 10
	closeTimeout   = 2 * time.Second // for answers under way
)

// Server serves what NewHandler returns.
type Server struct {
	http http.Server
	addr net.Addr
	done chan error
}

// Listen serves on a TCP address, such as 127.0.0.1:9100, until Close. Port 0 is a free one: see Addr. There is no
// access control: on an address other than loopback, everybody who gets there may read.
func Listen(addr string, cfg Config) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return Serve(l, cfg), nil
}

// Serve is Listen with a listener of the program's, which Close closes.
func Serve(l net.Listener, cfg Config) *Server { return serve(l, NewHandler(cfg)) }

func serve(l net.Listener, h http.Handler) *Server {
	s := &Server{addr: l.Addr(), done: make(chan error, 1), http: http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       log.New(io.Discard, "", 0), // what clients do wrong is not the program's output
	}}
	go func() {
		s.done <- s.http.Serve(&limited{Listener: l, free: make(chan struct{}, maxConns), closed: make(chan struct{})})
	}()
	return s
}

// Addr is the address that is served.
func (s *Server) Addr() net.Addr { return s.addr }

// Close stops listening, lets answers that are under way finish, for two seconds at most, and closes all
// connections. Calling it again does nothing.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	served := <-s.done
	s.done <- http.ErrServerClosed // for the next call
	if errors.Is(served, http.ErrServerClosed) {
		served = nil
	}
	return errors.Join(err, served)
}

// limited bounds how many connections there are.
type limited struct {
	net.Listener
	free   chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &limitedConn{Conn: c, done: sync.OnceFunc(func() { <-l.free })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	done func()
}

func (c *limitedConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}
