package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/engine"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

const (
	// keepInterval is the pause between looks at the node, and keepShare the part of the time at most that
	// they take: on a node with many processes the pauses grow.
	keepInterval = 10 * time.Second
	keepShare    = 0.02
	// reapBatch bounds the transaction that frees rested ranges.
	reapBatch = 256
)

// layers finds the writable layers of pods with a user namespace.
type layers struct {
	engine       *engine.Engine
	snapshotters []string
}

// LayerRanges implements hostids.Layers.
func (l layers) LayerRanges(ctx context.Context) ([]idpool.Range, error) {
	found, err := l.Layers(ctx)
	return slices.Collect(maps.Values(found)), err
}

// Layers implements reconcile.Engine, as Containers does.
func (l layers) Layers(ctx context.Context) (map[string]idpool.Range, error) {
	labels, err := l.engine.SnapshotLabels(ctx, container.LabelIDs, l.snapshotters)
	if err != nil {
		return nil, err
	}
	found := make(map[string]idpool.Range, len(labels))
	for key, label := range labels {
		if found[key], err = idpool.ParseRange(label); err != nil {
			return nil, fmt.Errorf("label %s of snapshot %s: %w", container.LabelIDs, key, err)
		}
	}
	return found, nil
}

func (l layers) Containers(ctx context.Context) ([]string, error) { return l.engine.Containers(ctx) }

// poolKeeper looks at what still uses the ranges in quarantine, and frees those that have rested.
type poolKeeper struct {
	db      *state.DB
	pool    *idpool.Pool
	witness *hostids.Witness
}

// run works until ctx ends. Nothing waits for it: a pod that needs a range which nobody has looked at
// looks by itself.
func (k poolKeeper) run(ctx context.Context) {
	pause := keepInterval
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		began := time.Now()
		if err := k.keep(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Look at the ranges in quarantine; they rest on")
		}
		pause = max(keepInterval, time.Duration(float64(time.Since(began))/keepShare))
	}
}

func (k poolKeeper) keep(ctx context.Context) error {
	if !k.pool.Resting() {
		return nil
	}
	if err := k.witness.Look(ctx); err != nil {
		return err
	}
	k.pool.Review()
	for {
		freed := 0
		err := k.db.Update(func(tx *state.Tx) (err error) {
			freed, err = k.pool.Reap(tx.Raw(sandbox.PoolBucket), reapBatch)
			return err
		})
		if err != nil || freed < reapBatch {
			return err
		}
	}
}
