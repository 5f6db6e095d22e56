package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// fakeTasks notes the groups whose shims it was to end.
type fakeTasks struct {
	groups []string
	err    error
}

func (f *fakeTasks) DeleteTask(_ context.Context, group, id string) (container.Exit, error) {
	if group == id {
		f.groups = append(f.groups, group)
	}
	return container.Exit{}, f.err
}

func TestStraysAreLookedAfterForATime(t *testing.T) {
	db, err := state.Open(state.Options{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	now := time.Unix(1000, 0)
	tasks := &fakeTasks{err: errdefs.ErrNotFound}
	s := strays{db: db, tasks: tasks, now: func() time.Time { return now }}
	look := func(wantLeft int, wantGroups ...string) {
		t.Helper()
		tasks.groups = nil
		left, err := s.look(t.Context())
		if err != nil || left != wantLeft || !slices.Equal(tasks.groups, wantGroups) {
			t.Errorf("left %d, %v, asked for %v; want %d and %v", left, err, tasks.groups, wantLeft, wantGroups)
		}
	}
	look(0)
	if err := s.note([]string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	look(2, "a", "b")
	now = now.Add(strayTime / 2)
	if err := s.note([]string{"b"}); err != nil {
		t.Fatal(err)
	}
	tasks.err = errdefs.ErrFailedPrecondition // its process runs
	now = now.Add(strayTime/2 + time.Second)
	look(1, "a", "b")
	tasks.err = errors.New("containerd is away")
	if left, err := s.look(t.Context()); !errors.Is(err, tasks.err) || left != 1 {
		t.Errorf("left %d, %v, want one and the error", left, err)
	}
	tasks.err = errdefs.ErrNotFound
	now = now.Add(strayTime)
	look(0, "b")
	look(0)
}
