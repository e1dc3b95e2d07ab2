// SPDX-License-Identifier: BSD-3-Clause

package epoll

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Set is descriptors that are waited for together, for reading. Its methods may be called concurrently, but
// one goroutine at a time waits.
type Set struct {
	mu   sync.RWMutex // guards fd against Close, bell, done and stop
	fd   int          // -1 once closed
	bell int          // a descriptor in the set that is always readable, or -1
	file *os.File     // fd in Go's poller, from the first Wait on
	raw  syscall.RawConn

	woken    atomic.Bool // Wake was called since the last Wait
	deadline atomic.Bool // and file's deadline has passed, to end that Wait

	// What Wait uses, made once so that it allocates nothing.
	park func(uintptr) bool
	arm  func() error
	err  error           // arm's
	done <-chan struct{} // of the context that stop is for
	stop func() bool
}

// New makes an empty set.
func New() (*Set, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // Go's poller takes no others
		return nil, errors.Join(fmt.Errorf("fcntl: %w", err), unix.Close(fd))
	}
	s := &Set{fd: fd, bell: -1}
	s.park = func(uintptr) bool { return s.attempt() }
	return s, nil
}

// FD is the epoll instance, for a program's own epoll(7), poll(2) or select(2): it is readable while one of the
// descriptors is. The Set keeps it. It is -1 after Close.
func (s *Set) FD() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.fd
}

// Add puts fd into the set. What is there to be read already counts as if it came now. EEXIST if it is in the set.
func (s *Set) Add(fd int) error { return s.control(unix.EPOLL_CTL_ADD, fd) }

// Delete takes fd out of the set. ENOENT if it is not in it; a descriptor leaves by itself when it is closed.
func (s *Set) Delete(fd int) error { return s.control(unix.EPOLL_CTL_DEL, fd) }

func (s *Set) control(op, fd int) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return os.ErrClosed
	}
	if err := unix.EpollCtl(s.fd, op, fd, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// Ring makes the set itself readable, whatever its descriptors are, until it is called with false.
func (s *Set) Ring(on bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.fd < 0:
		return os.ErrClosed
	case on == (s.bell >= 0):
		return nil
	case !on:
		fd := s.bell
		s.bell = -1
		return unix.Close(fd)
	}
	fd, err := unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if err := unix.EpollCtl(s.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		return errors.Join(fmt.Errorf("epoll_ctl: %w", err), unix.Close(fd))
	}
	s.bell = fd
	return nil
}

// Wait calls arm, which adds descriptors, and parks the goroutine until one of the set's is readable or has an
// error. It also returns when Wake is called, when ctx is done, with ctx's error, and at times for nothing: so look
// what there is, and wait again. arm's error ends it. os.ErrClosed after Close.
//
// arm is called at the moment from which on nothing is forgotten: what Go's poller heard of before does not count
// any more then, and what comes later ends the Wait.
func (s *Set) Wait(ctx context.Context, arm func() error) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if s.deadline.Swap(false) {
		if err := s.file.SetReadDeadline(time.Time{}); err != nil {
			return s.closed(err)
		}
	}
	if err := ctx.Err(); err != nil { // whose Wake may have been used up by an earlier Wait
		return err
	}
	s.arm, s.err = arm, nil
	err := s.raw.Read(s.park)
	switch {
	case s.err != nil:
		return s.err
	case errors.Is(err, os.ErrDeadlineExceeded): // Wake, perhaps that of an earlier Wait
		s.deadline.Store(true)
	case err != nil:
		return s.closed(err)
	}
	return ctx.Err()
}

// attempt is called by Read before it parks, to which it says false, and when it was woken up.
func (s *Set) attempt() bool {
	arm := s.arm
	if arm == nil {
		return true
	}
	s.arm = nil
	s.err = arm()
	return s.err != nil || s.woken.Swap(false)
}

// closed says of what a closed file gives what the other methods say.
func (s *Set) closed(err error) error {
	if err != nil && s.FD() < 0 {
		return os.ErrClosed
	}
	return err
}

// prepare gives the set to Go's poller, and has Wake called when ctx is done. The latter is kept, because a loop
// waits with the same ctx each time.
func (s *Set) prepare(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return os.ErrClosed
	}
	if done := ctx.Done(); done != s.done {
		s.forget()
		if done != nil {
			s.done, s.stop = done, context.AfterFunc(ctx, s.Wake)
		}
	}
	if s.file != nil {
		return nil
	}
	f := os.NewFile(uintptr(s.fd), "epoll")
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if err := f.SetReadDeadline(time.Time{}); err != nil { // not in the poller
		return err
	}
	s.file, s.raw = f, raw
	return nil
}

// forget undoes what prepare did with a context.
func (s *Set) forget() {
	if s.stop != nil {
		s.stop()
	}
	s.done, s.stop = nil, nil
}

// Wake ends the Wait that is going on, or else the next one.
func (s *Set) Wake() {
	s.woken.Store(true)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.file != nil && s.fd >= 0 {
		s.deadline.Store(true)
		_ = s.file.SetReadDeadline(time.Unix(1, 0)) // fails when it is closed, which ends a Wait too
	}
}

// Close closes the epoll instance and ends a Wait. Closing again does nothing.
func (s *Set) Close() error {
	fd, bell, file := s.retire()
	var err error
	if bell >= 0 {
		err = unix.Close(bell)
	}
	switch {
	case fd < 0:
		return nil
	case file != nil: // waits for a Wait that is calling arm, which may need the lock
		return errors.Join(err, file.Close())
	}
	return errors.Join(err, unix.Close(fd))
}

// retire makes the set one that is closed, and returns what is to be.
func (s *Set) retire() (fd, bell int, file *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fd, bell, file = s.fd, s.bell, s.file
	s.fd, s.bell = -1, -1
	s.forget()
	return fd, bell, file
}
