package engine

import (
	"context"
	"errors"
	"sync"
)

// errClosed ends what runs when the engine is closed.
var errClosed = errors.New("engine is closed")

// flights lets callers that want the same thing at the same time share one run of it. The run is
// cancelled when the last of them has gone.
type flights struct {
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool               // guarded by mu
	byKey  map[string]*flight // guarded by mu
}

type flight struct {
	callers int // guarded by flights.mu
	cancel  context.CancelCauseFunc
	done    chan struct{}
	result  string // set before done is closed
	err     error
}

func newFlights() *flights {
	return &flights{byKey: make(map[string]*flight)}
}

// do returns what run returns, of this call or of one that is under way with the same key. The context
// that run gets keeps the values of the first caller's, and outlives it.
func (f *flights) do(ctx context.Context, key string, run func(context.Context) (string, error)) (string, error) {
	fl, err := f.join(ctx, key, run)
	if err != nil {
		return "", err
	}
	select {
	case <-fl.done:
		return fl.result, fl.err
	case <-ctx.Done():
		f.abandon(key, fl, context.Cause(ctx))
		return "", context.Cause(ctx)
	}
}

func (f *flights) join(ctx context.Context, key string, run func(context.Context) (string, error)) (*flight, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errClosed
	}
	if fl := f.byKey[key]; fl != nil {
		fl.callers++
		return fl, nil
	}
	runCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	fl := &flight{callers: 1, cancel: cancel, done: make(chan struct{})}
	f.byKey[key] = fl
	f.running.Go(func() {
		fl.result, fl.err = run(runCtx)
		f.forget(key, fl)
		close(fl.done)
		cancel(nil)
	})
	return fl, nil
}

func (f *flights) forget(key string, fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byKey[key] == fl {
		delete(f.byKey, key)
	}
}

// abandon counts a caller out. A cancelled run takes no new callers.
func (f *flights) abandon(key string, fl *flight, cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.callers--; fl.callers > 0 {
		return
	}
	if f.byKey[key] == fl {
		delete(f.byKey, key)
	}
	fl.cancel(cause)
}

// close cancels all runs, waits for them, and takes no more. It returns false when it was called before.
func (f *flights) close() bool {
	f.mu.Lock()
	first := !f.closed
	f.closed = true
	for _, fl := range f.byKey {
		fl.cancel(errClosed)
	}
	f.mu.Unlock()
	f.running.Wait()
	return first
}
