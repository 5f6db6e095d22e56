package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/state"
)

const (
	// strayLook is the pause between looks, and strayTime how long groups are looked after: containerd learns
	// late that a client is gone, and may start the shim of its request only then.
	strayLook = 5 * time.Second
	strayTime = time.Minute
)

// strayBucket holds the groups by name, with the time until which they are looked after.
var strayBucket = state.NewBucket[time.Time]("stray-groups")

// taskDeleter is what ends a shim of which containerd knows nothing; *engine.Engine is one.
type taskDeleter interface {
	DeleteTask(ctx context.Context, group, id string) (container.Exit, error)
}

// strays ends shims that appear after recovery, on behalf of requests of the last run. It remembers the groups of
// what that run was killed in the middle of, beyond further kills.
type strays struct {
	db    *state.DB
	tasks taskDeleter
	now   func() time.Time
}

// note looks after the groups from now on.
func (s strays) note(groups []string) error {
	if len(groups) == 0 {
		return nil
	}
	return s.db.Update(func(tx *state.Tx) error {
		for _, group := range groups {
			if err := strayBucket.Put(tx, group, s.now().Add(strayTime)); err != nil {
				return fmt.Errorf("note group %s: %w", group, err)
			}
		}
		return nil
	})
}

// run looks until no group is left or ctx ends.
func (s strays) run(ctx context.Context) {
	for {
		left, err := s.look(ctx)
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Look for shims of interrupted requests")
		}
		if left == 0 && err == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(strayLook):
		}
	}
}

// look ends the shims that have no task, and forgets the groups whose time is over.
func (s strays) look(ctx context.Context) (left int, err error) {
	var groups, over []string
	err = s.db.View(func(tx *state.Tx) error {
		return strayBucket.ForEach(tx, func(group string, until time.Time) error {
			groups = append(groups, group)
			if s.now().After(until) {
				over = append(over, group)
			}
			return nil
		})
	})
	if err != nil {
		return 0, err
	}
	for _, group := range groups {
		// There is no such task, unless it is that of a pod's own process: then it lives and the call changes nothing. Where
		// it is the group's last, the engine ends a shim that is left.
		_, err := s.tasks.DeleteTask(ctx, group, group)
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
			return len(groups), err
		}
	}
	if len(over) == 0 {
		return len(groups), nil
	}
	err = s.db.Update(func(tx *state.Tx) error {
		for _, group := range over {
			if err := strayBucket.Delete(tx, group); err != nil {
				return err
			}
		}
		return nil
	})
	return len(slices.DeleteFunc(groups, func(g string) bool { return slices.Contains(over, g) })), err
}
