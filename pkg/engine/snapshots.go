package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/mounts"
)

// leaseTime is how long a prepared snapshot may wait for its container record.
const leaseTime = 2 * time.Hour

// PrepareSnapshot makes a snapshot, or a read-only view, over the image's layers. One that exists is an error that
// wraps errdefs.ErrAlreadyExists; an image that is missing or not unpacked, errdefs.ErrNotFound.
func (e *Engine) PrepareSnapshot(ctx context.Context, req container.SnapshotRequest) ([]mounts.Mount, error) {
	made, err := e.prepareSnapshot(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("prepare snapshot %s over image %s: %w", req.Key, req.ImageID, err)
	}
	return made, nil
}

func (e *Engine) prepareSnapshot(ctx context.Context, req container.SnapshotRequest) ([]mounts.Mount, error) {
	parent, err := e.chainOf(ctx, req.ImageID)
	if err != nil {
		return nil, err
	}
	leased, err := e.createLease(ctx, req.Key)
	if err != nil {
		return nil, err
	}
	sn := e.client.SnapshotService(e.snapshotter(req.Snapshotter))
	prepare := sn.Prepare
	if req.View {
		prepare = sn.View
	}
	made, err := prepare(leases.WithLease(ctx, leaseID(req.Key)), req.Key, parent, snapshots.WithLabels(req.Labels))
	if err == nil {
		return convertMounts(made), nil
	}
	if !leased {
		return nil, err // the lease holds a snapshot of this key that was made before
	}
	ctx, cancel := cleanup(ctx)
	defer cancel()
	return nil, errors.Join(explainFull(err), e.deleteLease(ctx, req.Key))
}

// SnapshotMounts returns the mounts of a snapshot that exists.
func (e *Engine) SnapshotMounts(ctx context.Context, snapshotter, key string) ([]mounts.Mount, error) {
	made, err := e.client.SnapshotService(e.snapshotter(snapshotter)).Mounts(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read mounts of snapshot %s: %w", key, err)
	}
	return convertMounts(made), nil
}

// RemoveSnapshot removes the snapshot and the lease that PrepareSnapshot made.
func (e *Engine) RemoveSnapshot(ctx context.Context, snapshotter, key string) error {
	err := e.client.SnapshotService(e.snapshotter(snapshotter)).Remove(ctx, key)
	if err = errors.Join(err, e.deleteLease(ctx, key)); err != nil {
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	return nil
}

// SnapshotLabels returns the values that a label has on snapshots of the snapshotters, by the snapshots' keys.
func (e *Engine) SnapshotLabels(ctx context.Context, label string, snapshotters []string) (map[string]string, error) {
	values := map[string]string{}
	for _, name := range snapshotters {
		err := e.client.SnapshotService(e.snapshotter(name)).Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			values[info.Name] = info.Labels[label]
			return nil
		}, fmt.Sprintf("labels.%q", label))
		if err != nil {
			return nil, fmt.Errorf("list snapshots of %s with label %s: %w", name, label, err)
		}
	}
	return values, nil
}

// leaseID names the lease of a container's snapshot.
func leaseID(key string) string { return "userns-shim-" + key }

// createLease makes the lease of a snapshot, and returns false where it exists.
func (e *Engine) createLease(ctx context.Context, key string) (bool, error) {
	_, err := e.client.LeasesService().Create(ctx, leases.WithID(leaseID(key)), leases.WithExpiration(leaseTime))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return false, fmt.Errorf("create lease %s: %w", leaseID(key), err)
	}
	return err == nil, nil
}

// deleteLease deletes the lease of a snapshot. One that is missing is fine.
func (e *Engine) deleteLease(ctx context.Context, key string) error {
	err := e.client.LeasesService().Delete(ctx, leases.Lease{ID: leaseID(key)})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete lease %s: %w", leaseID(key), err)
	}
	return nil
}

func convertMounts(from []mount.Mount) []mounts.Mount {
	to := make([]mounts.Mount, 0, len(from))
	for _, m := range from {
		to = append(to, mounts.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return to
}
