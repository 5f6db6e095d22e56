package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
	"github.com/userns-shim/userns-shim/pkg/stream"
)

// Remove kills a container that runs and takes everything of it away. It is idempotent: what
// an earlier attempt has removed is done.
func (m *Manager) Remove(ctx context.Context, id string) error {
	rec, err := m.Get(id)
	if err != nil {
		return err
	}
	m.locks.Lock(rec.ID)
	defer m.unlock(rec.ID)
	if rec, err = m.Get(rec.ID); errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.remove(ctx, rec)
}

// remove runs every stage despite the errors of earlier ones; the record goes last, and only
// when nothing is left that it would be needed for.
func (m *Manager) remove(ctx context.Context, rec Record) error {
	if p := m.process(rec.ID); p != nil {
		if err := m.forceStop(ctx, rec, p); err != nil {
			return err
		}
	}
	if err := m.awaitExecs(ctx, rec.ID); err != nil {
		return fmt.Errorf("remove container %s: %w", rec.ID, err)
	}
	// Without its record containerd no longer finds a task.
	if err := m.releaseRuntime(ctx, rec); err != nil {
		return fmt.Errorf("remove container %s: %w", rec.ID, err)
	}
	m.tell(ctx, StepRemoved, rec) // while its specification is there to be shown
	paths := m.Paths(rec.ID)
	err := errors.Join(
		ignoreNotFound(m.opts.Records.DeleteRecord(ctx, rec.ID)),
		ignoreNotFound(m.opts.Snapshots.RemoveSnapshot(ctx, rec.Snapshotter, rec.ID)),
		m.removeDeclared(ctx, rec),
		m.removeImageVolumes(ctx, rec),
		m.removeRestore(rec.ID),
		stream.RemoveFIFOs(paths.IO),
		removeDirs(paths),
	)
	if err != nil {
		return fmt.Errorf("remove container %s: %w", rec.ID, err)
	}
	err = m.opts.DB.Update(func(tx *state.Tx) error { return m.table.Delete(tx, rec) })
	if err != nil {
		return fmt.Errorf("forget container %s: %w", rec.ID, err)
	}
	m.forgetOOM(rec.ID)
	m.releaseLabel(rec)
	if rec.State != StateCreating {
		m.notify(sandbox.EventDeleted, rec)
	}
	klog.FromContext(ctx).V(2).Info("Container removed", "container", rec.ID)
	return nil
}

// RemoveAll removes every container of a sandbox, side by side, and lets its idmapped layers go.
func (m *Manager) RemoveAll(ctx context.Context, sandboxID string) error {
	var group errgroup.Group
	for _, rec := range m.of(sandboxID) {
		group.Go(func() error {
			m.locks.Lock(rec.ID)
			defer m.unlock(rec.ID)
			return m.remove(ctx, rec)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	m.opts.Rootfs.Forget(sandboxID)
	return nil
}

func ignoreNotFound(err error) error {
	if isNotFound(err) {
		return nil
	}
	return err
}

// removeDirs removes names one by one: a recursive removal would descend into a mount.
func removeDirs(p Paths) error {
	var errs []error
	for _, path := range []string{p.Rootfs, p.IO, p.Volumes, p.Dir} {
		errs = append(errs, removePath(path))
	}
	return errors.Join(errs...)
}

// removePath removes a file or an empty directory; one that is gone is done.
func removePath(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
