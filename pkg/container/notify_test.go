package container

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// TestEventsComeInTheOrderOfALife: a container may end before its start was told, and be removed before its end was.
func TestEventsComeInTheOrderOfALife(t *testing.T) {
	n := newNode(t)
	var mu sync.Mutex
	var told []sandbox.EventKind
	// Whoever tells is held up, as on a busy machine.
	held := map[sandbox.EventKind]time.Duration{sandbox.EventStarted: 100 * time.Millisecond, sandbox.EventStopped: 50 * time.Millisecond}
	n.opts.Notify = func(e sandbox.Event) {
		time.Sleep(held[e.Kind])
		mu.Lock()
		defer mu.Unlock()
		told = append(told, e.Kind)
	}
	n.restart(t)
	n.engine.onStart = func(id string) { n.engine.end(id, 3) }
	id := n.mustStart(t, "a")
	n.awaitExit(t, id)
	if err := n.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	want := []sandbox.EventKind{sandbox.EventCreated, sandbox.EventStarted, sandbox.EventStopped, sandbox.EventDeleted}
	if !slices.Equal(told, want) {
		t.Errorf("told were %q, want %q", told, want)
	}
}
