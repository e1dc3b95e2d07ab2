// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
)

// UDPConfig describes a UDP transfer.
type UDPConfig struct {
	Server, Client *netns.NS      // where the receiving and the sending end are
	Addr           netip.AddrPort // where the server receives; port 0 means any
	Count          int            // datagrams, default 100
	SizeBytes      int            // payload of each, 8 to 65507, default 1024
	// Window is how many datagrams may be under way, so that no buffer on the way overflows: by default 16,
	// or fewer that fill windowBytes. Negative means no limit.
	Window int
	// Linger is how long to wait for a datagram before it counts as lost, default 1 s.
	Linger time.Duration
}

// UDPResult is what a UDP transfer came to.
type UDPResult struct {
	Transfer
	Sent       int // datagrams
	Received   int // different datagrams that arrived unchanged
	Duplicates int // arrived again
	Reordered  int // arrived after a later one
	Corrupt    int // arrived with another content or length
}

// Lost is how many datagrams did not arrive unchanged.
func (r UDPResult) Lost() int { return r.Sent - r.Received }

// windowBytes is less than a socket's buffer holds by default: 212992 bytes, of which the kernel's
// bookkeeping takes about half.
const windowBytes = 64 << 10

func (cfg *UDPConfig) defaults() error {
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	set(&cfg.Count, 100)
	set(&cfg.SizeBytes, 1024)
	set(&cfg.Window, max(1, min(16, windowBytes/max(1, cfg.SizeBytes))))
	if cfg.Linger == 0 {
		cfg.Linger = time.Second
	}
	if cfg.SizeBytes < seqLen || cfg.SizeBytes > 65507 {
		return fmt.Errorf("SizeBytes is %d; a datagram has %d to 65507 bytes", cfg.SizeBytes, seqLen)
	}
	return nil
}

// UDP sends numbered datagrams of known content from the client to the server. Loss is no error but
// counted. The context bounds the whole. While the client's kernel still asks for the server's Ethernet
// address it keeps datagrams back, and later ones may overtake them: ping first if the order matters.
func UDP(ctx context.Context, cfg UDPConfig) (UDPResult, error) {
	err := cfg.defaults()
	var r UDPResult
	if err == nil {
		r, err = udp(ctx, cfg)
	}
	if err != nil {
		return r, fmt.Errorf("traffic: udp to %v: %w", cfg.Addr, cause(ctx, err))
	}
	return r, nil
}

func udp(ctx context.Context, cfg UDPConfig) (UDPResult, error) {
	server, err := listenUDP(ctx, cfg)
	if err != nil {
		return UDPResult{}, err
	}
	defer closeOn(ctx, server)()
	client, err := dialUDP(ctx, cfg.Client, server.LocalAddr().String())
	if err != nil {
		return UDPResult{}, err
	}
	defer closeOn(ctx, client)()
	s := &sink{cfg: cfg, conn: server, seen: make([]bool, cfg.Count), progress: make(chan struct{}, 1)}
	done := make(chan error, 1)
	go func() { done <- s.run() }()
	start := time.Now()
	sendErr := s.feed(ctx, client)
	s.allSent.Store(true)
	if sendErr != nil {
		server.Close()
	}
	recvErr := <-done
	s.result.Sent = s.sent
	if s.result.Received > 0 {
		s.result.Elapsed = s.last.Sub(start)
	}
	if sendErr != nil {
		return s.result, sendErr
	}
	return s.result, recvErr
}

func listenUDP(ctx context.Context, cfg UDPConfig) (conn *net.UDPConn, err error) {
	err = inside(cfg.Server, func() error {
		var lc net.ListenConfig
		c, err := lc.ListenPacket(ctx, "udp", cfg.Addr.String())
		if err == nil {
			conn = c.(*net.UDPConn)
			err = conn.SetReadBuffer(8 << 20) // the kernel gives what net.core.rmem_max allows
		}
		return err
	})
	return conn, err
}

func dialUDP(ctx context.Context, ns *netns.NS, addr string) (conn net.Conn, err error) {
	err = inside(ns, func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "udp", addr)
		return err
	})
	return conn, err
}

// seqLen is the length of the number in front of every datagram.
const seqLen = 8

// sink receives datagrams and tells the sender how far it got.
type sink struct {
	cfg      UDPConfig
	conn     *net.UDPConn
	seen     []bool
	next     uint64 // one past the highest number seen
	last     time.Time
	sent     int
	result   UDPResult
	arrived  atomic.Int64
	allSent  atomic.Bool
	progress chan struct{}
}

// run receives until everything has arrived, or nothing more comes after the last was sent.
func (s *sink) run() error {
	buf := make([]byte, 65536)
	for s.result.Received < s.cfg.Count {
		finished := s.allSent.Load()
		if err := s.conn.SetReadDeadline(time.Now().Add(s.cfg.Linger)); err != nil {
			return err
		}
		n, err := s.conn.Read(buf)
		var timeout net.Error
		switch {
		case err == nil:
			s.take(buf[:n])
		case errors.As(err, &timeout) && timeout.Timeout() && finished:
			return nil
		case errors.As(err, &timeout) && timeout.Timeout():
		default:
			return err
		}
	}
	return nil
}

func (s *sink) take(b []byte) {
	s.last = time.Now()
	defer func() {
		s.arrived.Add(1)
		select {
		case s.progress <- struct{}{}:
		default:
		}
	}()
	if len(b) != s.cfg.SizeBytes {
		s.result.Corrupt++
		return
	}
	seq := binary.BigEndian.Uint64(b)
	if seq >= uint64(len(s.seen)) || !bytes.Equal(b[seqLen:], chunk(int64(seq), len(b)-seqLen)) {
		s.result.Corrupt++
		return
	}
	if s.seen[seq] {
		s.result.Duplicates++
		return
	}
	s.seen[seq] = true
	s.result.Received++
	s.result.Bytes += int64(len(b))
	if seq < s.next {
		s.result.Reordered++
	}
	s.next = max(s.next, seq+1)
}

// feed sends all datagrams, no more than Window ahead of what has arrived or is given up.
func (s *sink) feed(ctx context.Context, conn net.Conn) error {
	b := make([]byte, s.cfg.SizeBytes)
	for lost := int64(0); s.sent < s.cfg.Count; {
		for s.cfg.Window > 0 && int64(s.sent)-s.arrived.Load()-lost >= int64(s.cfg.Window) {
			select {
			case <-s.progress:
			case <-time.After(s.cfg.Linger):
				lost = int64(s.sent) - s.arrived.Load()
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		binary.BigEndian.PutUint64(b, uint64(s.sent))
		copy(b[seqLen:], chunk(int64(s.sent), len(b)-seqLen))
		// A queue on the way that is full is a datagram lost, like any other.
		if _, err := conn.Write(b); err != nil && !errors.Is(err, syscall.ENOBUFS) {
			return err
		}
		s.sent++
	}
	return nil
}
