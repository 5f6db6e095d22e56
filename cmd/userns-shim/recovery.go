package main

import (
	"fmt"
	"sync"
)

// recovery says whether the records were held against containerd since the start. The zero
// value has nothing pending.
type recovery struct {
	mu     sync.Mutex
	reason error // guarded by mu
}

// pending is why recovery has not been done, nil once it has.
func (r *recovery) pending() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reason == nil {
		return nil
	}
	return fmt.Errorf("recovery after the start: %w", r.reason)
}

func (r *recovery) wait(reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reason = reason
}

func (r *recovery) done() { r.wait(nil) }
