package stream

import (
	"context"
	"fmt"
	"sync"
)

// sessions owns what runs on behalf of clients, so that it can be ended and waited for.
type sessions struct {
	running sync.WaitGroup

	mu     sync.Mutex
	active map[*session]struct{}
	ended  error // set by end: why no session starts any more
}

type session struct {
	cancel context.CancelCauseFunc
}

// begin registers a session, whose context ends with ctx or with end. leave must be
// called when the session and its goroutines are over. It returns the cause given to
// end once that was called.
func (s *sessions) begin(ctx context.Context) (_ context.Context, leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return nil, nil, s.ended
	}
	ctx, cancel := context.WithCancelCause(ctx)
	one := &session{cancel: cancel}
	if s.active == nil {
		s.active = make(map[*session]struct{})
	}
	s.active[one] = struct{}{}
	s.running.Add(1)
	return ctx, func() {
		s.mu.Lock()
		delete(s.active, one)
		s.mu.Unlock()
		cancel(nil)
		s.running.Done()
	}, nil
}

// refuse lets none begin any more, for the reason cause, and leaves those that go on.
func (s *sessions) refuse(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = cause
}

// end ends all sessions, for the reason cause, and lets none begin.
func (s *sessions) end(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = cause
	for one := range s.active {
		one.cancel(cause)
	}
}

// wait waits, after end or refuse, until the sessions have left.
func (s *sessions) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("client sessions: %w", context.Cause(ctx))
	}
}
