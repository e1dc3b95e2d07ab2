// SPDX-License-Identifier: BSD-3-Clause

package telemetry

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/rtap-project/rtap/internal/runtimedir"
	"github.com/rtap-project/rtap/mbuf"
)

// Config says what to show, and where.
type Config struct {
	// FilePrefix tells this program from others on the machine, as EAL's --file-prefix. "": DefaultFilePrefix.
	FilePrefix string
	// Dir has the directory dpdk/FilePrefix in it, with the socket. "": as EAL finds it, $RUNTIME_DIRECTORY,
	// /var/run for root, $XDG_RUNTIME_DIR, /tmp, where dpdk-telemetry.py looks for it.
	Dir string
	// Ports are shown by their ID, 0 to 65535, each another. They may be closed before the server is.
	Ports []Port
	// Pools are shown by their name, likewise.
	Pools []*mbuf.Pool
	// Version is the program's name and version, for /info; at most 256 bytes. "": "rtap".
	Version string
	// Log is told of clients that are refused, and of trouble. nil: nobody is.
	Log *slog.Logger
}

// Version of DPDK whose replies these are.
const dpdkVersion = "DPDK 24.11.0"

// maxOutput is the longest reply in bytes, as clients are told when they connect. DPDK has 16384, which
// would cut the xstats of a port with many queues. Up to about this size a message needs no large pages of
// the kernel (SKB_MAX_ALLOC and the fragments of an skb).
const maxOutput = 65536

// limits bound what clients can take.
type limits struct {
	clients   int           // at a time
	idle      time.Duration // between requests
	writeWait time.Duration // until a reply is taken
}

var defaultLimits = limits{clients: 16, idle: 10 * time.Minute, writeWait: 5 * time.Second}

// Server serves clients until Close.
type Server struct {
	cfg      Config
	limits   limits
	listener *runtimedir.Listener
	ports    map[int]*Port
	log      *slog.Logger
	one      sync.Mutex // one request at a time
	places   chan struct{}
	running  sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	clients map[*client]struct{}
}

// client is a connection, and the goroutine that serves it.
type client struct {
	conn   *net.UnixConn
	limit  int       // of a reply, bytes
	active time.Time // when it last asked; under Server.mu
}

// Serve makes the socket, FilePrefix's, and serves it until Close. It admits root and the user that the
// program runs as. Up to 16 clients are served at a time; for one more, the one goes that has been silent
// for longest. A client that asks nothing for 10 minutes, or does not read for 5 seconds, is closed.
//
// The directory dpdk/FilePrefix is made with mode 0700 and the socket with 0600. What is left of a
// program that died is replaced. The error wraps ErrInUse while a program with that prefix runs, be it DPDK's
// or ours, and errors.ErrUnsupported on other systems than Linux.
func Serve(cfg Config) (*Server, error) { return serve(cfg, defaultLimits) }

func serve(cfg Config, l limits) (*Server, error) {
	cfg.FilePrefix = cmp.Or(cfg.FilePrefix, DefaultFilePrefix)
	cfg.Version = cmp.Or(cfg.Version, "rtap")
	s := &Server{cfg: cfg, limits: l, ports: map[int]*Port{}, log: cfg.Log, places: make(chan struct{}, l.clients),
		clients: map[*client]struct{}{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Version) > 256 {
		return nil, fmt.Errorf("telemetry: Config.Version has %d bytes: want at most 256", len(cfg.Version))
	}
	for i, p := range cfg.Ports {
		if p.ID < 0 || p.ID > 0xffff || p.Device == nil || s.ports[p.ID] != nil {
			return nil, fmt.Errorf("telemetry: Config.Ports[%d] has ID %d, and a device: %v; want an ID of its own, 0 to 65535, and a device",
				i, p.ID, p.Device != nil)
		}
		s.ports[p.ID] = &cfg.Ports[i]
	}
	var err error
	if s.listener, err = runtimedir.Listen(cfg.Dir, cfg.FilePrefix, runtimedir.SocketName); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	s.running.Go(func() { s.listener.Each(s.log, "telemetry client", s.admit) })
	return s, nil
}

// Path is that of the socket.
func (s *Server) Path() string { return s.listener.Path() }

// FilePrefix is what clients are to be told: dpdk-telemetry.py -f FILEPREFIX.
func (s *Server) FilePrefix() string { return s.cfg.FilePrefix }

// Close ends all connections, waits for the requests that are being answered, and removes the socket and
// its directory. Closing twice does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	for c := range s.clients {
		c.conn.Close()
	}
	s.mu.Unlock()
	err := s.listener.Close()
	s.running.Wait()
	return err
}

// admit finds a client a place, and a goroutine.
func (s *Server) admit(conn *net.UnixConn) {
	select {
	case s.places <- struct{}{}:
	default:
		s.evict()
		s.places <- struct{}{}
	}
	c := &client{conn: conn, limit: runtimedir.MessageLimit(conn, maxOutput), active: time.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Close()
		<-s.places
		return
	}
	s.clients[c] = struct{}{}
	s.running.Go(func() {
		s.serve(c)
		conn.Close()
		s.mu.Lock()
		delete(s.clients, c)
		s.mu.Unlock()
		<-s.places
	})
}

// evict closes the client that has been silent for longest.
func (s *Server) evict() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest *client
	for c := range s.clients {
		if oldest == nil || c.active.Before(oldest.active) {
			oldest = c
		}
	}
	if oldest != nil {
		oldest.conn.Close()
	}
}

// serve answers a client until it goes.
func (s *Server) serve(c *client) {
	err := s.write(c, marshal(s.hello(c.limit)))
	request := make([]byte, maxRequest+1) // a longer message is cut, and seen to be too long
	for err == nil {
		var n int
		c.conn.SetReadDeadline(time.Now().Add(s.limits.idle))
		if n, err = c.conn.Read(request); err == nil {
			s.mu.Lock()
			c.active = time.Now()
			s.mu.Unlock()
			err = s.write(c, s.reply(request[:n], c.limit))
		}
	}
	s.log.Debug("telemetry client is gone", "reason", err)
}

func (s *Server) write(c *client, b []byte) error {
	c.conn.SetWriteDeadline(time.Now().Add(s.limits.writeWait))
	_, err := c.conn.Write(b)
	return err
}

func (s *Server) hello(limit int) Hello {
	return Hello{Version: dpdkVersion + " / " + s.cfg.Version, PID: os.Getpid(), MaxOutputLen: limit}
}
