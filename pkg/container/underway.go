package container

import (
	"context"
	"fmt"
	"sync"
)

// underWay counts the execs of each container, whose FIFOs are in the container's directory: its removal
// waits for them. The zero value is ready for use.
type underWay struct {
	mu    sync.Mutex
	execs map[string]*execCount
}

type execCount struct {
	n    int
	none chan struct{} // closed when n is 0 again
}

func (u *underWay) begin(id string) (end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.execs == nil {
		u.execs = map[string]*execCount{}
	}
	count := u.execs[id]
	if count == nil {
		count = &execCount{none: make(chan struct{})}
		u.execs[id] = count
	}
	count.n++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if count.n--; count.n == 0 {
			close(count.none)
			delete(u.execs, id)
		}
	}
}

// wait returns when a container has no exec, or with the cause of ctx's end.
func (u *underWay) wait(ctx context.Context, id string) error {
	u.mu.Lock()
	count := u.execs[id]
	u.mu.Unlock()
	if count == nil {
		return nil
	}
	select {
	case <-count.none:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for execs: %w", context.Cause(ctx))
	}
}

// beginExec finds a container that runs, and holds its removal up until end is called. It counts first and
// looks then: who removes a container lets it exit first and looks for execs then.
func (m *Manager) beginExec(id string) (rec Record, end func(), err error) {
	if rec, err = m.Running(id); err != nil {
		return Record{}, nil, err
	}
	end = m.underWay.begin(rec.ID)
	if rec, err = m.Running(rec.ID); err != nil {
		end()
		return Record{}, nil, err
	}
	return rec, end, nil
}

// awaitExecs is for a container that has exited: it gets no exec any more, and those that it has end with its
// processes.
func (m *Manager) awaitExecs(ctx context.Context, id string) error {
	bounded, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	return m.underWay.wait(bounded, id)
}
