// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
)

// TCPConfig describes a TCP transfer.
type TCPConfig struct {
	Server, Client *netns.NS      // where the receiving and the sending end are
	Addr           netip.AddrPort // where the server listens; port 0 means any
	Bytes          int64          // how much to send; if 0, Duration counts
	Duration       time.Duration  // how long to send; if 0 too, 1 MiB is sent
	NoVerify       bool           // skip the comparison of what arrives, which costs some 0.1 ns a byte
	// Hash sends a stream that never repeats and compares SHA-256 sums of what was sent and what arrived,
	// instead of every byte with the pattern. It costs some 1.5 ns a byte.
	Hash bool

	// What follows is the sending socket's, set before it connects. Linux only.

	Congestion  string // algorithm, such as "cubic"; empty means the namespace's default
	MSS         int    // upper bound of the segment size, bytes; 0 means the kernel's choice
	PacingBytes int    // most bytes a second; 0 means no limit
	// Sender, if not nil, gets what the kernel knows of the sending end when everything has arrived.
	Sender *TCPInfo
}

// TCPInfo is what a connection came to in the eyes of its sender (struct tcp_info in uapi linux/tcp.h).
type TCPInfo struct {
	MSS          int    // bytes of payload in a segment, at the end
	PathMTU      int    // bytes, as known at the end
	Retransmits  uint32 // segments that were sent again
	BytesRetrans uint64 // payload bytes that were sent again (Linux 4.19)
	Delivered    uint32 // segments that were acknowledged (Linux 4.18)
	DeliveredCE  uint32 // of these, acknowledged with a congestion mark (Linux 4.18)
	DSACKs       uint32 // reports that something arrived twice: sent again in vain (Linux 4.19)
	ECN          bool   // both ends agreed on explicit congestion notification (RFC 3168)
}

// TCP sends a stream of known content from the client to the server and returns what arrived. It is an
// error if anything but the whole stream, unchanged, arrives. The context bounds the whole.
func TCP(ctx context.Context, cfg TCPConfig) (Transfer, error) {
	if cfg.Bytes == 0 && cfg.Duration == 0 {
		cfg.Bytes = 1 << 20
	}
	t, err := tcp(ctx, cfg)
	if err != nil {
		return t, fmt.Errorf("traffic: tcp to %v: %w", cfg.Addr, cause(ctx, err))
	}
	return t, nil
}

// cause prefers the context's error to the error that closing everything on its account has caused.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w (%v)", context.Cause(ctx), err)
	}
	return err
}

type received struct {
	n   int64
	end time.Time
	err error
}

func tcp(ctx context.Context, cfg TCPConfig) (Transfer, error) {
	// Whatever fails first ends the rest through this.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ln, err := listenTCP(ctx, cfg)
	if err != nil {
		return Transfer{}, err
	}
	defer closeOn(ctx, ln)()
	done := make(chan received, 1)
	out, in := newContent(cfg), newContent(cfg)
	go func() {
		r := serve(ctx, ln, in)
		if r.err != nil {
			cancel()
		}
		done <- r
	}()
	start := time.Now()
	sent, sendErr := send(ctx, ln.Addr().String(), cfg, out, &start)
	if sendErr != nil {
		cancel()
	}
	r := <-done
	t := Transfer{Bytes: r.n, Elapsed: r.end.Sub(start)}
	switch {
	case r.err != nil && !(sendErr != nil && errors.Is(r.err, net.ErrClosed)):
		return t, errors.Join(r.err, sendErr)
	case sendErr != nil:
		return t, sendErr
	case r.n != sent:
		return t, fmt.Errorf("%d bytes sent, %d received", sent, r.n)
	}
	return t, same(out, in)
}

// closeOn closes c when the context ends, and when the function it returns is called.
func closeOn(ctx context.Context, c io.Closer) (stop func()) {
	unhook := context.AfterFunc(ctx, func() { c.Close() })
	return func() { unhook(); c.Close() }
}

// listenTCP listens in the server's namespace. Package net makes the socket on the calling goroutine
// when the address needs no look-up, so it belongs there. Multipath TCP, which package net prefers for
// listeners, is off: it is not what is to be measured, and not in every kernel.
func listenTCP(ctx context.Context, cfg TCPConfig) (ln net.Listener, err error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	err = inside(cfg.Server, func() error {
		ln, err = lc.Listen(ctx, "tcp", cfg.Addr.String())
		return err
	})
	return ln, err
}

func dialTCP(ctx context.Context, cfg TCPConfig, addr string) (conn *net.TCPConn, err error) {
	d := net.Dialer{Control: cfg.prepare}
	d.SetMultipathTCP(false)
	err = inside(cfg.Client, func() error {
		c, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			conn = c.(*net.TCPConn)
		}
		return err
	})
	return conn, err
}

// serve takes one connection and reads it to its end.
func serve(ctx context.Context, ln net.Listener, want content) received {
	conn, err := ln.Accept()
	if err != nil {
		return received{err: err, end: time.Now()}
	}
	defer closeOn(ctx, conn)()
	var r received
	buf := make([]byte, chunkMax)
	for {
		n, err := conn.Read(buf)
		r.err = want.check(buf[:n], r.n)
		r.n += int64(n)
		if err != nil && err != io.EOF {
			r.err = err
		}
		if err != nil || r.err != nil {
			r.end = time.Now()
			return r
		}
	}
}

// send connects and sends. It sets start when the connection stands.
func send(ctx context.Context, addr string, cfg TCPConfig, what content, start *time.Time) (sent int64, err error) {
	conn, err := dialTCP(ctx, cfg, addr)
	if err != nil {
		return 0, err
	}
	defer closeOn(ctx, conn)()
	*start = time.Now()
	more := func() int64 { return cfg.Bytes - sent }
	if cfg.Bytes == 0 {
		end := start.Add(cfg.Duration)
		more = func() int64 {
			if time.Now().Before(end) {
				return chunkMax
			}
			return 0
		}
	}
	for n := more(); n > 0; n = more() {
		w, err := conn.Write(what.next(sent, int(min(n, chunkMax))))
		sent += int64(w)
		if err != nil {
			return sent, err
		}
	}
	if err := conn.CloseWrite(); err != nil {
		return sent, err
	}
	// The server closes when it has read everything: then nothing is under way any more.
	if _, err = io.Copy(io.Discard, conn); err == nil && cfg.Sender != nil {
		*cfg.Sender, err = senderInfo(conn)
	}
	return sent, err
}
