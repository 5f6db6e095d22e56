package container

import (
	"context"
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// UpdateResources changes the limits of a container that is created or runs, as plugins let it; what r leaves
// out stays.
func (m *Manager) UpdateResources(ctx context.Context, id string, r ocispec.Resources) error {
	rec, err := m.Get(id)
	if err != nil {
		return err
	}
	if err := updatable(rec); err != nil {
		return err
	}
	r, settle, err := m.askUpdate(ctx, rec, r)
	settle(context.WithoutCancel(ctx))
	if err != nil {
		return fmt.Errorf("update container %s: %w", rec.ID, err)
	}
	if err := m.SetResources(ctx, rec.ID, r); err != nil {
		return err
	}
	if rec, err = m.Get(rec.ID); err == nil {
		m.tell(ctx, StepUpdated, rec)
	}
	return nil
}

func (m *Manager) askUpdate(ctx context.Context, rec Record, r ocispec.Resources) (ocispec.Resources, func(context.Context), error) {
	sb, err := m.opts.Sandbox(rec.SandboxID)
	if err != nil {
		return r, settled, err
	}
	defer m.opts.Plugins.Block()()
	return m.opts.Plugins.Update(ctx, sb, rec, r)
}

func updatable(rec Record) error {
	if rec.State != StateCreated && rec.State != StateRunning {
		return fmt.Errorf("update container %s: %w: it is %s", rec.ID, ErrState, rec.State)
	}
	return nil
}

// SetResources is UpdateResources that plugins have no say in. The specification is changed first, so that it never
// lags behind the cgroup, and changed back where the kernel refuses.
func (m *Manager) SetResources(ctx context.Context, id string, r ocispec.Resources) error {
	rec, err := m.Get(id)
	if err != nil {
		return err
	}
	m.locks.Lock(rec.ID)
	defer m.unlock(rec.ID)
	if rec, err = m.Get(rec.ID); err != nil {
		return err
	}
	if err := updatable(rec); err != nil {
		return err
	}
	before, err := m.opts.Records.RecordSpec(ctx, rec.ID)
	if err != nil {
		return err
	}
	after := *before
	linux := *before.Linux
	if linux.Resources, err = ocispec.UpdateResources(before.Linux.Resources, r, m.opts.Host); err != nil {
		return fmt.Errorf("update container %s: %w", rec.ID, err)
	}
	after.Linux = &linux
	if err := m.opts.Updates.UpdateRecordSpec(ctx, rec.ID, &after); err != nil {
		return err
	}
	if err := m.updateTask(ctx, rec, linux.Resources); err != nil {
		return errors.Join(err, m.opts.Updates.UpdateRecordSpec(context.WithoutCancel(ctx), rec.ID, before))
	}
	_, err = m.table.Change(rec.ID, func(rec *Record) {
		merged := r
		if rec.Spec.Resources != nil {
			merged = rec.Spec.Resources.Merge(r)
		}
		rec.Spec.Resources = &merged
	})
	return err
}

func (m *Manager) updateTask(ctx context.Context, rec Record, r *specs.LinuxResources) error {
	if rec.State != StateRunning {
		return nil
	}
	if err := ignoreNotFound(m.opts.Updates.UpdateTask(ctx, rec.ID, r)); err != nil {
		return fmt.Errorf("%w: %w", ErrUpdate, err)
	}
	return nil
}
