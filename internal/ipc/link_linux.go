// SPDX-License-Identifier: BSD-3-Clause

package ipc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rtap-project/rtap/internal/runtimedir"
	"golang.org/x/sys/unix"
)

// inFlight is how many requests of one side may await their answer; more wait for their turn. The other side
// queues as many, so that it can always read on, and an answer is never stuck behind requests.
const inFlight = 16

// link is one end of a connection, alike on both sides: requests go out and answers come back, and the other way
// round. One goroutine reads; another one handles the other side's requests, so that handling one may call.
type link struct {
	conn   *net.UnixConn
	limits limits
	size   int // bytes of the longest message that can be sent
	// secondary says whose end this is: the primary takes no descriptors, the secondary no goodbye.
	secondary bool
	handle    func(op string, body json.RawMessage) (reply any, fds []int, err error) // of a request

	queue   chan *message // requests of the other side
	gave    bool          // whether descriptors were sent; of who works
	places  chan struct{} // taken by calls that await an answer
	writing chan struct{} // taken by who writes
	full    time.Time     // since when nothing could be written; of who writes

	mu    sync.Mutex
	gone  error                  // what it means if the connection ends
	calls map[uint64]chan answer // by ID, each with room for one
	last  uint64                 // ID given to a call
	err   error
	done  chan struct{} // closed when err is set
}

// answer is what came back, with the descriptors.
type answer struct {
	*message
	fds []int
}

func newLink(conn *net.UnixConn, l limits, gone error) *link {
	return &link{conn: conn, limits: l, size: runtimedir.MessageLimit(conn, maxMessage), gone: gone,
		queue: make(chan *message, inFlight), places: make(chan struct{}, inFlight), writing: make(chan struct{}, 1),
		calls: map[uint64]chan answer{}, done: make(chan struct{})}
}

// end makes this the end of all calls. The first reason counts.
func (l *link) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		close(l.done)
	}
}

// close ends the link from this side.
func (l *link) close() {
	l.end(net.ErrClosed)
	l.conn.Close()
}

// fail ends the link for what the other side did.
func (l *link) fail(why error) {
	if errors.Is(why, io.EOF) {
		why = errHungUp
	}
	l.mu.Lock()
	gone := l.gone
	l.mu.Unlock()
	l.end(fmt.Errorf("%w: %w", gone, why))
	l.conn.Close()
}

var errHungUp = errors.New("it has closed the connection")

// leaving makes it no surprise if the connection ends.
func (l *link) leaving() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = net.ErrClosed
}

// cause is why the link has ended, nil while it has not.
func (l *link) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// call makes a request and decodes the answer into reply, unless that is nil. The descriptors are the caller's.
func (l *link) call(ctx context.Context, op string, body, reply any) ([]int, error) {
	request := (&message{Op: op}).set(body, nil)
	if request.Error != "" {
		return nil, errors.New(request.Error)
	}
	select {
	case l.places <- struct{}{}:
		defer func() { <-l.places }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.done:
		return nil, l.cause()
	}
	a, err := l.await(ctx, request, l.register(request))
	if err != nil {
		return nil, err
	}
	return a.result(reply)
}

// register gives a request its ID, and makes the channel that its answer comes to.
func (l *link) register(m *message) <-chan answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	m.ID = l.last
	ch := make(chan answer, 1)
	l.calls[m.ID] = ch
	return ch
}

// await sends a request and waits for the answer.
func (l *link) await(ctx context.Context, m *message, ch <-chan answer) (answer, error) {
	err := l.send(ctx, m, nil)
	if err == nil {
		select {
		case a := <-ch:
			return a, nil
		case <-ctx.Done():
			err = ctx.Err()
		case <-l.done:
			err = l.cause()
		}
	}
	l.mu.Lock()
	delete(l.calls, m.ID)
	l.mu.Unlock()
	select {
	case a := <-ch: // that came in the meantime
		return a, nil
	default:
		return answer{}, err
	}
}

// result decodes the answer. The descriptors are the caller's.
func (a answer) result(reply any) ([]int, error) {
	var err error
	switch {
	case a.Error != "":
		err = &RemoteError{Code: a.Code, Text: a.Error}
	case len(a.fds) != a.FDs:
		err = fmt.Errorf("%d descriptors of %d came: this process may have too many open (RLIMIT_NOFILE)", len(a.fds), a.FDs)
	case reply != nil:
		err = json.Unmarshal(a.Body, reply)
	}
	if err != nil {
		CloseAll(a.fds)
		return nil, err
	}
	return a.fds, nil
}

// route gives an answer to the call that waits for it. Nobody may: it came too late, or was not asked for.
func (l *link) route(a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := l.calls[a.ID]
	if ch == nil {
		CloseAll(a.fds)
		return
	}
	delete(l.calls, a.ID)
	ch <- a
}

// send writes a message, with descriptors. An error that the link outlives is one of this message.
func (l *link) send(ctx context.Context, m *message, fds []int) error {
	if err := l.cause(); err != nil {
		return err
	}
	return l.post(ctx, m, fds)
}

// post is send, even if the link has ended.
func (l *link) post(ctx context.Context, m *message, fds []int) error {
	m.FDs = len(fds)
	b, err := m.encode(l.size)
	if err != nil {
		return err
	}
	if len(fds) > maxFDs {
		return fmt.Errorf("a message with %d descriptors: at most %d can be sent", len(fds), maxFDs)
	}
	select {
	case l.writing <- struct{}{}:
		defer func() { <-l.writing }()
		return l.write(ctx, b, fds)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write waits until the other side has room, but no longer than ctx and limits.write.
func (l *link) write(ctx context.Context, b []byte, fds []int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	begin, stopped := time.Now(), make(chan struct{})
	l.conn.SetWriteDeadline(begin.Add(l.limits.write))
	stop := context.AfterFunc(ctx, func() {
		l.conn.SetWriteDeadline(time.Unix(1, 0))
		close(stopped)
	})
	_, _, err := l.conn.WriteMsgUnix(b, oob, nil)
	if !stop() {
		<-stopped // lest it stop who writes next
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return l.tooSlow(ctx, begin)
	case errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET):
		return nil // read sees the end as well, but after what was sent before it
	case errors.Is(err, net.ErrClosed):
		return l.cause()
	}
	l.full = time.Time{}
	return err
}

// tooSlow is what comes of a write that began then, and has found no room.
func (l *link) tooSlow(ctx context.Context, begin time.Time) error {
	if l.full.IsZero() {
		l.full = begin
	}
	if time.Since(l.full) < l.limits.write {
		return ctx.Err()
	}
	l.fail(fmt.Errorf("it has not read for %v", l.limits.write))
	return l.cause()
}

// read takes messages until the connection ends, and says why it did.
func (l *link) read() error {
	buf := make([]byte, maxMessage+1)
	for {
		m, fds, err := l.receive(buf)
		if err != nil {
			return err
		}
		if m.Op == "" {
			l.route(answer{m, fds})
			continue
		}
		CloseAll(fds)
		select {
		case l.queue <- m:
		case <-l.done:
			return l.cause()
		}
	}
}

// receive reads a message, and closes the descriptors of one that is not right.
func (l *link) receive(buf []byte) (*message, []int, error) {
	var oob []byte
	if l.secondary {
		oob = make([]byte, unix.CmsgSpace(4*(maxFDs+3)))
	}
	n, oobn, flags, _, err := l.conn.ReadMsgUnix(buf, oob)
	if errors.Is(err, unix.ECONNRESET) { // the kernel says so ahead of what was sent before
		n, oobn, flags, _, err = l.conn.ReadMsgUnix(buf, oob)
	}
	fds := rights(oob[:max(oobn, 0)]) // of an empty message too, which is the end
	m, err := check(buf[:max(n, 0)], flags, l.secondary, err)
	if err != nil {
		CloseAll(fds)
		return nil, nil, err
	}
	return m, fds, nil
}

func check(b []byte, flags int, secondary bool, err error) (*message, error) {
	switch {
	case err != nil:
		return nil, err
	case flags&unix.MSG_TRUNC != 0 || len(b) > maxMessage:
		return nil, fmt.Errorf("a message of more than %d bytes", maxMessage)
	case flags&unix.MSG_CTRUNC != 0 && !secondary:
		return nil, errors.New("descriptors that nobody asked for")
	}
	return decode(b)
}

// rights are the descriptors in control messages.
func rights(oob []byte) (all []int) {
	msgs, _ := unix.ParseSocketControlMessage(oob)
	for _, m := range msgs {
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			all = append(all, fds...)
		}
	}
	return all
}

// CloseAll closes descriptors, such as those that Call returned.
func CloseAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// work handles requests until the link ends, or until a goodbye, which it returns.
func (l *link) work() *message {
	for l.cause() == nil {
		select {
		case m := <-l.queue:
			if m.Op == opGoodbye && !l.secondary {
				return m
			}
			l.answer(m.ID, m.Op, m.Body)
		case <-l.done:
		}
	}
	return nil
}

func (l *link) answer(id uint64, op string, body json.RawMessage) {
	var reply any
	var fds []int
	err := fmt.Errorf("%s: %w", clip(op), ErrNoOp)
	if !strings.HasPrefix(op, reserved) {
		reply, fds, err = l.handle(op, body)
	}
	defer CloseAll(fds)
	m := (&message{ID: id}).set(reply, err)
	if m.Error != "" {
		fds = nil
	}
	err = l.send(context.Background(), m, fds)
	l.gave = l.gave || err == nil && len(fds) > 0
	if err != nil && l.cause() == nil {
		l.send(context.Background(), (&message{ID: id}).set(nil, fmt.Errorf("%s: answer: %w", op, err)), nil)
	}
}
