package engine

import (
	"context"
	"sync"
)

// keyedLock is a mutex for each key that somebody holds or waits for.
type keyedLock struct {
	mu   sync.Mutex
	keys map[string]*keyHolders // guarded by mu
}

type keyHolders struct {
	turn  chan struct{} // holds one element while the key is locked
	count int           // holder and those who wait
}

func newKeyedLock() *keyedLock {
	return &keyedLock{keys: make(map[string]*keyHolders)}
}

// Lock waits for the key until ctx ends.
func (k *keyedLock) Lock(ctx context.Context, key string) error {
	k.mu.Lock()
	h := k.keys[key]
	if h == nil {
		h = &keyHolders{turn: make(chan struct{}, 1)}
		k.keys[key] = h
	}
	h.count++
	k.mu.Unlock()
	select {
	case h.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		k.drop(key, h)
		return context.Cause(ctx)
	}
}

// Unlock passes the key on. It must be locked.
func (k *keyedLock) Unlock(key string) {
	k.mu.Lock()
	h := k.keys[key]
	k.mu.Unlock()
	<-h.turn
	k.drop(key, h)
}

func (k *keyedLock) drop(key string, h *keyHolders) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h.count--; h.count == 0 {
		delete(k.keys, key)
	}
}
