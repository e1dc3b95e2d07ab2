// SPDX-License-Identifier: BSD-3-Clause

package netstack

import (
	"context"
	"sync"
	"sync/atomic"
)

// session is one attachment: the goroutines that deliver. After its end each of them ends as soon as the stack has returned
// the packet that it has, if any.
type session struct {
	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup
	over   atomic.Bool
	told   bool // why it ended by itself; of the endpoint's mu

	live    atomic.Int32 // goroutines that have not ended
	outside atomic.Int32 // those of them that are not in the stack
	mu      sync.Mutex
	change  sync.Cond // of the above, to what somebody may wait for
}

func newSession(goroutines int) *session {
	s := &session{}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.change.L = &s.mu
	s.live.Store(int32(goroutines))
	s.outside.Store(int32(goroutines))
	return s
}

// end has the goroutines end.
func (s *session) end() {
	s.over.Store(true)
	s.cancel()
	s.tellAll()
}

// enter and leave say that a goroutine is in the stack.
func (s *session) enter() {
	if s.outside.Add(-1) == 0 && s.over.Load() {
		s.tellAll()
	}
}

func (s *session) leave() { s.outside.Add(1) }

// ended says that a goroutine is about to end.
func (s *session) ended() {
	s.outside.Add(-1)
	s.live.Add(-1)
	s.tellAll()
}

func (s *session) tellAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change.Broadcast()
}

// wait waits for all goroutines to end or, after the end, at least to be in the stack.
func (s *session) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.live.Load() > 0 && !(s.over.Load() && s.outside.Load() <= 0) {
		s.change.Wait()
	}
}
