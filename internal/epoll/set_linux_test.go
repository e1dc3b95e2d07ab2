// SPDX-License-Identifier: BSD-3-Clause

package epoll

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

const wait = 10 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newSet(t *testing.T) *Set {
	t.Helper()
	s, err := New()
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// event is an eventfd: readable from signal to clear.
type event struct {
	t  *testing.T
	fd int
}

func newEvent(t *testing.T) event {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return event{t, fd}
}

func (e event) signal() {
	_, err := unix.Write(e.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	must(e.t, err)
}

func (e event) clear() {
	_, err := unix.Read(e.fd, make([]byte, 8))
	must(e.t, err)
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(wait))
	t.Cleanup(cancel)
	return ctx
}

// start has s wait for descriptors, added by the wait.
func start(t *testing.T, ctx context.Context, s *Set, events ...event) <-chan error {
	armed, done := make(chan bool), make(chan error, 1)
	go func() {
		done <- s.Wait(ctx, func() error {
			defer close(armed)
			for _, e := range events {
				if err := s.Add(e.fd); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	select {
	case <-armed:
	case err := <-done: // at once, as it may
		done <- err
	case <-time.After(nettest.Bound(wait)):
		t.Fatal("the wait did not begin")
	}
	return done
}

func ended(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(nettest.Bound(wait)):
		t.Fatal("the wait did not end")
		return nil
	}
}

func TestWait(t *testing.T) {
	s, a, b := newSet(t), newEvent(t), newEvent(t)
	b.signal()
	must(t, ended(t, start(t, bounded(t), s, a, b))) // before
	must(t, s.Delete(b.fd))
	must(t, s.Delete(a.fd))
	done := start(t, bounded(t), s, a)
	a.signal()
	must(t, ended(t, done)) // after
	must(t, s.Delete(a.fd))
	if err := s.Delete(a.fd); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("delete again: %v", err)
	}
	must(t, s.Add(a.fd))
	if err := s.Add(a.fd); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("add again: %v", err)
	}
	failure := errors.New("failure")
	if err := s.Wait(bounded(t), func() error { return failure }); err != failure {
		t.Errorf("failed to arm: %v", err)
	}
}

func TestContext(t *testing.T) {
	s, a := newSet(t), newEvent(t)
	for range 3 { // one that is done ends no wait but its own
		ctx, cancel := context.WithCancel(context.Background())
		done := start(t, ctx, s, a)
		cancel()
		if err := ended(t, done); err != nil && err != context.Canceled { // nil: for nothing
			t.Error(err)
		}
		_ = s.Delete(a.fd)
		if err := ended(t, start(t, ctx, s)); err != context.Canceled {
			t.Error(err)
		}
	}
	a.signal()
	must(t, ended(t, start(t, context.Background(), s, a)))
}

func TestWake(t *testing.T) {
	s, a := newSet(t), newEvent(t)
	s.Wake() // before the first wait
	must(t, ended(t, start(t, bounded(t), s, a)))
	must(t, s.Delete(a.fd))
	for range 100 {
		done := start(t, bounded(t), s, a)
		s.Wake()
		must(t, ended(t, done))
		_ = s.Delete(a.fd)
	}
}

func TestClose(t *testing.T) {
	s, a := newSet(t), newEvent(t)
	done := start(t, bounded(t), s, a)
	must(t, s.Close())
	for _, err := range []error{ended(t, done), s.Wait(bounded(t), nil), s.Add(a.fd), s.Delete(a.fd), s.Ring(true)} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	}
	s.Wake()
	must(t, s.Close())
	if s.FD() != -1 {
		t.Errorf("descriptor %d", s.FD())
	}
}

// TestFD: the set is itself a descriptor that is readable while one of its own is, or while it rings.
func TestFD(t *testing.T) {
	s, a := newSet(t), newEvent(t)
	want := func(readable bool, when string) {
		t.Helper()
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.FD()), Events: unix.POLLIN}}, 0)
		must(t, err)
		if n > 0 != readable {
			t.Errorf("%s: readable %t, want %t", when, n > 0, readable)
		}
	}
	must(t, s.Add(a.fd))
	want(false, "at first")
	a.signal()
	want(true, "signalled")
	a.clear()
	want(false, "cleared")
	for range 2 {
		must(t, s.Ring(true))
		want(true, "ringing")
	}
	for range 2 {
		must(t, s.Ring(false))
		want(false, "silent")
	}
	must(t, s.Ring(true)) // and closed so
}

// TestCloseWhileArming: Close waits for a Wait that is just adding descriptors, which it does not keep from doing so.
func TestCloseWhileArming(t *testing.T) {
	s, e := newSet(t), newEvent(t)
	arming, closing := make(chan struct{}), make(chan struct{})
	done := make(chan error, 2)
	go func() {
		done <- s.Wait(t.Context(), func() error {
			close(arming)
			<-closing
			return s.Add(e.fd)
		})
	}()
	<-arming
	go func() { done <- s.Close() }()
	// Until Close has begun: it has the lock, or has had it.
	nettest.Eventually(t, wait, "Close to begin", func() bool {
		if !s.mu.TryRLock() {
			return true
		}
		defer s.mu.RUnlock()
		return s.fd < 0
	})
	close(closing)
	for range 2 {
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, os.ErrClosed) {
				t.Error(err)
			}
		case <-time.After(nettest.Bound(wait)):
			t.Fatal("Wait and Close wait for each other")
		}
	}
}
