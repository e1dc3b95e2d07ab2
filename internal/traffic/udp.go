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

	// Segments is how many datagrams go down in one system call, cut by the kernel or whatever it leaves
	// that to (UDP_SEGMENT in udp(7), Linux 4.18); default 1, at most 64 (UDP_MAX_SEGMENTS). None may be longer
	// than the MTU allows, all together not longer than 65507 bytes. Linux only.
	Segments int
	// Tail is the payload of the last datagram of each such call, 8 to SizeBytes; 0 means SizeBytes.
	Tail int
	// GRO lets the receiving end take several datagrams at once (UDP_GRO in udp(7), Linux 5.0). Linux only.
	GRO bool
}

// UDPResult is what a UDP transfer came to.
type UDPResult struct {
	Transfer
	Sent       int // datagrams
	Received   int // different datagrams that arrived unchanged
	Duplicates int // arrived again
	Reordered  int // arrived after a later one
	Corrupt    int // arrived with another content or length
	Merged     int // system calls that received several at once
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
	set(&cfg.Segments, 1)
	set(&cfg.Tail, cfg.SizeBytes)
	set(&cfg.Window, max(cfg.Segments, min(16, windowBytes/max(1, cfg.SizeBytes))))
	if cfg.Linger == 0 {
		cfg.Linger = time.Second
	}
	if cfg.SizeBytes < seqLen || cfg.SizeBytes > 65507 {
		return fmt.Errorf("SizeBytes is %d; a datagram has %d to 65507 bytes", cfg.SizeBytes, seqLen)
	}
	if cfg.Segments < 1 || cfg.Segments > 64 || cfg.Segments*cfg.SizeBytes > 65507 {
		return fmt.Errorf("UDPConfig.Segments is %d; a call takes 1 to 64 datagrams, and of %d bytes at most %d", cfg.Segments,
			cfg.SizeBytes, 65507/cfg.SizeBytes)
	}
	if cfg.Tail < seqLen || cfg.Tail > cfg.SizeBytes {
		return fmt.Errorf("UDPConfig.Tail is %d; the last datagram has %d to %d bytes", cfg.Tail, seqLen, cfg.SizeBytes)
	}
	return nil
}

// size is the payload of datagram seq.
func (cfg *UDPConfig) size(seq int) int {
	if seq%cfg.Segments == cfg.Segments-1 || seq == cfg.Count-1 {
		return cfg.Tail
	}
	return cfg.SizeBytes
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
	client, err := dialUDP(ctx, cfg, server.LocalAddr().String())
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
		lc := net.ListenConfig{Control: cfg.prepareServer}
		c, err := lc.ListenPacket(ctx, "udp", cfg.Addr.String())
		if err == nil {
			conn = c.(*net.UDPConn)
			err = conn.SetReadBuffer(readBuffer) // the kernel gives what net.core.rmem_max allows
		}
		return err
	})
	return conn, err
}

const readBuffer = 8 << 20

func dialUDP(ctx context.Context, cfg UDPConfig, addr string) (conn net.Conn, err error) {
	err = inside(cfg.Client, func() error {
		d := net.Dialer{Control: cfg.prepareClient}
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
	buf, oob := make([]byte, 65536), make([]byte, 64)
	for s.result.Received < s.cfg.Count {
		finished := s.allSent.Load()
		if err := s.conn.SetReadDeadline(time.Now().Add(s.cfg.Linger)); err != nil {
			return err
		}
		n, oobn, _, _, err := s.conn.ReadMsgUDP(buf, oob)
		var timeout net.Error
		switch {
		case err == nil:
			s.takeAll(buf[:n], mergedSize(oob[:oobn]))
		case errors.As(err, &timeout) && timeout.Timeout() && finished:
			return nil
		case errors.As(err, &timeout) && timeout.Timeout():
		default:
			return err
		}
	}
	return nil
}

// takeAll takes what one system call received: datagrams of size bytes, the last perhaps shorter; size 0 is
// one alone.
func (s *sink) takeAll(b []byte, size int) {
	if size > 0 && len(b) > size {
		s.result.Merged++
		for ; len(b) > size; b = b[size:] {
			s.take(b[:size])
		}
	}
	s.take(b)
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
	if len(b) < seqLen {
		s.result.Corrupt++
		return
	}
	seq := binary.BigEndian.Uint64(b)
	if seq >= uint64(len(s.seen)) || len(b) != s.cfg.size(int(seq)) || !bytes.Equal(b[seqLen:], chunk(int64(seq), len(b)-seqLen)) {
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
	buf := make([]byte, s.cfg.Segments*s.cfg.SizeBytes)
	for lost := int64(0); s.sent < s.cfg.Count; {
		n := min(s.cfg.Segments, s.cfg.Count-s.sent)
		for s.cfg.Window > 0 && int64(s.sent+n)-s.arrived.Load()-lost > int64(max(n, s.cfg.Window)) {
			select {
			case <-s.progress:
			case <-time.After(s.cfg.Linger):
				lost = int64(s.sent) - s.arrived.Load()
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		// A queue on the way that is full is a datagram lost, like any other.
		if _, err := conn.Write(s.encode(buf, n)); err != nil && !errors.Is(err, syscall.ENOBUFS) {
			return err
		}
		s.sent += n
	}
	return nil
}

// encode puts the next n datagrams into buf.
func (s *sink) encode(buf []byte, n int) []byte {
	at := 0
	for seq := s.sent; seq < s.sent+n; seq++ {
		b := buf[at:][:s.cfg.size(seq)]
		binary.BigEndian.PutUint64(b, uint64(seq))
		copy(b[seqLen:], chunk(int64(seq), len(b)-seqLen))
		at += len(b)
	}
	return buf[:at]
}
