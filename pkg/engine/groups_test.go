package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// modelShim behaves like the runc shim: it ends when it is told so without a task, and whoever creates a task
// in it just then is cut off. A task that is being created does not count.
type modelShim struct {
	mu       sync.Mutex
	tasks    map[string]bool
	creating int
	ending   bool
	cutOff   int
}

func (s *modelShim) create(id string, fail bool) {
	s.mu.Lock()
	if s.ending {
		s.cutOff++
	}
	s.creating++
	s.mu.Unlock()
	time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.creating--
	if fail {
		s.shutdownLocked()
		return
	}
	s.tasks[id] = true
}

func (s *modelShim) delete(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tasks, id)
	s.shutdownLocked()
}

func (s *modelShim) shutdownLocked() {
	if len(s.tasks) > 0 {
		return
	}
	s.cutOff += s.creating
	s.ending = true
}

// awaitEnd takes its time, and then a new shim may come.
func (s *modelShim) awaitEnd() {
	time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = false
}

func one() uint64 { return 1 }

// TestTurns drives several groups of model shims from many goroutines.
func TestTurns(t *testing.T) {
	groups := newTaskGroups()
	shims := make([]*modelShim, 3)
	for i := range shims {
		shims[i] = &modelShim{tasks: make(map[string]bool)}
	}
	beside := 0
	var mu sync.Mutex
	var done sync.WaitGroup
	for worker := range 12 {
		done.Go(func() {
			for i := range 60 {
				g := rand.IntN(len(shims))
				id := fmt.Sprintf("%d-%d", worker, i)
				if !turnOf(t, groups, g, id, false, func(tn *turn) outcome {
					fail := rand.IntN(4) == 0
					shims[g].create(id, fail)
					if !tn.alone {
						mu.Lock()
						beside++
						mu.Unlock()
					}
					if !fail {
						return taskPresent
					}
					if tn.emptied() {
						shims[g].awaitEnd()
					}
					return taskAbsent
				}) {
					continue
				}
				time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond) // the task's life
				turnOf(t, groups, g, id, true, func(tn *turn) outcome {
					last := tn.emptied()
					shims[g].delete(id)
					if last {
						shims[g].awaitEnd()
					}
					return taskAbsent
				})
			}
		})
	}
	done.Wait()
	for i, s := range shims {
		if s.cutOff > 0 {
			t.Errorf("shim %d: %d creates were cut off", i, s.cutOff)
		}
	}
	if beside == 0 {
		t.Error("no create ran beside another turn")
	}
	if len(groups.groups) != 0 {
		t.Errorf("%d groups are remembered although nothing is left", len(groups.groups))
	}
}

// turnOf takes one turn and says whether the task is there after it.
func turnOf(t *testing.T, groups *taskGroups, group int, id string, deleting bool, f func(*turn) outcome) bool {
	tn, err := groups.enter(context.Background(), turnRequest{
		group: fmt.Sprint(group), task: id, deleting: deleting, known: one,
	})
	if err != nil {
		t.Error(err)
		return false
	}
	if tn.stale() {
		if !tn.alone {
			t.Error("a stale turn is not alone")
		}
		tn.learn(nil)
	}
	o := f(tn)
	tn.leave(o)
	return o == taskPresent
}

func enterNow(t *testing.T, g *taskGroups, task string, deleting bool, known uint64) *turn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	tn, err := g.enter(ctx, turnRequest{group: "g", task: task, deleting: deleting, known: func() uint64 { return known }})
	if err != nil {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		return nil
	}
	return tn
}

// TestTurnsByCase spells out who waits for whom.
func TestTurnsByCase(t *testing.T) {
	g := newTaskGroups()
	first := enterNow(t, g, "a", false, 1)
	first.learn(nil)
	if enterNow(t, g, "b", false, 1) != nil {
		t.Error("a create ran beside the first of its group")
	}
	first.leave(taskPresent)

	b, c := enterNow(t, g, "b", false, 1), enterNow(t, g, "c", false, 1)
	if b == nil || c == nil {
		t.Fatal("creates did not run side by side although a task stays")
	}
	if enterNow(t, g, "a", true, 1) != nil {
		t.Error("the only task was deleted beside creates")
	}
	b.leave(taskPresent)
	deleteA := enterNow(t, g, "a", true, 1)
	if deleteA == nil {
		t.Fatal("a delete waits although another task stays")
	}
	if enterNow(t, g, "b", true, 1) != nil {
		t.Error("the last task that stays was deleted beside others")
	}
	c.leave(taskAbsent)
	deleteA.leave(taskAbsent)

	last := enterNow(t, g, "b", true, 1)
	if last == nil || !last.alone || !last.emptied() {
		t.Fatal("the last delete is not alone")
	}
	if enterNow(t, g, "d", false, 1) != nil {
		t.Error("a create ran beside the last delete")
	}
	last.leave(taskAbsent)
	if len(g.groups) != 0 {
		t.Error("an empty group is remembered")
	}
}

// TestTurnsAfterReconnect: what was known before containerd was away is read again, alone.
func TestTurnsAfterReconnect(t *testing.T) {
	g := newTaskGroups()
	first := enterNow(t, g, "a", false, 1)
	first.learn(nil)
	first.leave(taskPresent)
	next := enterNow(t, g, "b", false, 2)
	if next == nil || !next.stale() || !next.alone {
		t.Fatalf("turn after a reconnect: %+v, want it stale and alone", next)
	}
	if got := next.candidates(); len(got) != 2 {
		t.Errorf("candidates %v, want a and b", got)
	}
	next.learn([]string{"a"})
	next.leave(taskUnknown)
	third := enterNow(t, g, "c", false, 2)
	if third == nil || !third.stale() {
		t.Fatalf("turn after an unknown outcome: %+v, want it stale", third)
	}
	third.learn([]string{"a"})
	third.setEnding(true)
	third.leave(taskAbsent)
	if again := enterNow(t, g, "a", true, 2); again == nil || !again.ending() {
		t.Errorf("turn %+v forgot that the shim is ending", again)
	}
}
