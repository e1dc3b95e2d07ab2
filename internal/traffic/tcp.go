// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"bytes"
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
	go func() {
		r := serve(ctx, ln, cfg)
		if r.err != nil {
			cancel()
		}
		done <- r
	}()
	start := time.Now()
	sent, sendErr := send(ctx, ln.Addr().String(), cfg, &start)
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
	return t, nil
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

func dialTCP(ctx context.Context, ns *netns.NS, addr string) (conn *net.TCPConn, err error) {
	var d net.Dialer
	d.SetMultipathTCP(false)
	err = inside(ns, func() error {
		c, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			conn = c.(*net.TCPConn)
		}
		return err
	})
	return conn, err
}

// serve takes one connection and reads it to its end.
func serve(ctx context.Context, ln net.Listener, cfg TCPConfig) received {
	conn, err := ln.Accept()
	if err != nil {
		return received{err: err, end: time.Now()}
	}
	defer closeOn(ctx, conn)()
	var r received
	buf := make([]byte, chunkMax)
	for {
		n, err := conn.Read(buf)
		if !cfg.NoVerify && !bytes.Equal(buf[:n], chunk(r.n, n)) {
			r.err = mismatch(buf[:n], r.n)
		}
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
func send(ctx context.Context, addr string, cfg TCPConfig, start *time.Time) (sent int64, err error) {
	conn, err := dialTCP(ctx, cfg.Client, addr)
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
		w, err := conn.Write(chunk(sent, int(min(n, chunkMax))))
		sent += int64(w)
		if err != nil {
			return sent, err
		}
	}
	if err := conn.CloseWrite(); err != nil {
		return sent, err
	}
	// The server closes when it has read everything: then nothing is under way any more.
	_, err = io.Copy(io.Discard, conn)
	return sent, err
}
