// SPDX-License-Identifier: BSD-3-Clause

package ipc

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rtap-project/rtap/internal/runtimedir"
	"golang.org/x/sys/unix"
)

// Client is a secondary's end, until Close.
type Client struct {
	link    *link
	welcome welcome
	running sync.WaitGroup
	once    sync.Once
	err     error // of Close
}

// Dial joins the primary of the prefix. The error wraps ErrNoPrimary, ErrBuild, ErrFull, or what the primary's Join
// returned. Without a deadline in ctx it takes 10 seconds at most.
func Dial(ctx context.Context, cfg ClientConfig) (*Client, error) {
	return dial(ctx, cfg, defaultLimits)
}

func dial(ctx context.Context, cfg ClientConfig, l limits) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*l.handshake)
	defer cancel()
	for {
		c, err := join(ctx, cfg, l)
		if !errors.Is(err, ErrBusy) && !errors.Is(err, unix.EAGAIN) { // EAGAIN: the socket's queue is full
			return c, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func join(ctx context.Context, cfg ClientConfig, l limits) (*Client, error) {
	conn, err := runtimedir.Dial(cfg.Base, cfg.Prefix, SocketName)
	if runtimedir.NotThere(err) {
		err = fmt.Errorf("%w with file prefix %s: nobody listens at %s; %s", ErrNoPrimary, cfg.Prefix,
			runtimedir.Socket(cfg.Base, cfg.Prefix, SocketName), others(cfg.Base))
	}
	if err != nil {
		return nil, fmt.Errorf("ipc: %w", err)
	}
	if err := runtimedir.CheckPeer(conn); err != nil && os.Geteuid() != 0 {
		conn.Close()
		return nil, fmt.Errorf("ipc: the primary of file prefix %s: %w", cfg.Prefix, err)
	}
	c := &Client{link: newLink(conn, l, ErrPrimaryGone)}
	c.link.secondary = true
	c.link.handle = func(op string, body json.RawMessage) (any, []int, error) {
		if cfg.Request == nil {
			return nil, nil, fmt.Errorf("%s: %w", op, ErrNoOp)
		}
		reply, err := cfg.Request(op, body)
		return reply, nil, err
	}
	name := cmp.Or(cfg.Name, filepath.Base(os.Args[0]))
	request := (&message{Op: opHello}).set(hello{magic, cfg.Build, name}, nil)
	ch := c.link.register(request) // before anything is read: who is sent away for others may be so at once
	c.running.Go(func() { c.link.fail(c.link.read()) })
	c.running.Go(func() { c.link.work() })
	a, err := c.link.await(ctx, request, ch)
	if err == nil {
		_, err = a.result(&c.welcome)
	}
	if err != nil {
		c.link.close()
		c.running.Wait()
		return nil, fmt.Errorf("ipc: file prefix %s: %w", cfg.Prefix, err)
	}
	return c, nil
}

func others(base string) string {
	if p := runtimedir.Prefixes(base, SocketName); len(p) > 0 {
		return "there are primaries with " + strings.Join(p, ", ")
	}
	return "there is no other either"
}

// ID is this process's number, 1 to MaxPeers.
func (c *Client) ID() int { return c.welcome.ID }

// PrimaryPID is the primary's process number.
func (c *Client) PrimaryPID() int { return c.welcome.PID }

// Call makes a request of the primary: body and the answer, which is decoded into reply, are JSON; nil stands for
// none. The descriptors fds are the caller's, close-on-exec. Any goroutine may call. The error wraps ErrPrimaryGone
// once it is gone, net.ErrClosed after Close, and is a *RemoteError if the primary answered one.
func (c *Client) Call(ctx context.Context, op string, body, reply any) (fds []int, err error) {
	if fds, err = c.link.call(ctx, op, body, reply); err != nil {
		err = fmt.Errorf("%s: %w", op, err)
	}
	return fds, err
}

// Done is closed when the primary is gone, or refuses to talk on, and after Close.
func (c *Client) Done() <-chan struct{} { return c.link.done }

// Err is why Done is closed: it wraps ErrPrimaryGone, or net.ErrClosed after Close. nil before.
func (c *Client) Err() error { return c.link.cause() }

// Close says goodbye and waits until the primary has taken back what this process had, which it must not use any
// more: 10 seconds at most, and the error says if that took longer. Closing twice does nothing.
func (c *Client) Close() error {
	c.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), c.link.limits.goodbye)
		defer cancel()
		c.link.leaving()
		if _, err := c.link.call(ctx, opGoodbye, nil, nil); err != nil && c.link.cause() == nil {
			c.err = fmt.Errorf("ipc: goodbye: %w", err)
		}
		c.link.close()
		c.running.Wait()
	})
	return c.err
}
