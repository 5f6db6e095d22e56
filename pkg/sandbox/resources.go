package sandbox

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// UpdateResources records what kubelet has made of the pod's overhead and of the sum of its containers'
// resources; nil leaves either as it is. Kubelet sizes the pod's cgroup itself, so nothing else changes.
// The request of the sandbox stays as it was: it is what a repeated one is compared with. Limits that cannot be are
// an error that wraps ocispec.ErrInvalid.
func (m *Manager) UpdateResources(ctx context.Context, id string, overhead, resources *ocispec.Resources) error {
	rec, err := m.Get(id)
	if err != nil {
		return err
	}
	if err := errors.Join(overhead.Check(), resources.Check()); err != nil {
		return fmt.Errorf("update resources of sandbox %s: %w", rec.ID, err)
	}
	m.locks.Lock(rec.ID)
	defer m.locks.Unlock(rec.ID)
	if rec, err = m.Get(rec.ID); err != nil {
		return err
	}
	if err := m.askUpdate(ctx, rec, overhead, resources); err != nil {
		return err
	}
	if overhead != nil {
		rec.Overhead = overhead
	}
	if resources != nil {
		rec.Resources = resources
	}
	if err := m.table.Save(rec); err != nil {
		return err
	}
	m.tell(ctx, StepUpdated, rec)
	klog.FromContext(ctx).V(2).Info("Pod sandbox resources updated", "sandbox", rec.ID)
	return nil
}

func (m *Manager) askUpdate(ctx context.Context, rec Record, overhead, resources *ocispec.Resources) error {
	defer m.opts.Plugins.Block()()
	return m.opts.Plugins.Update(ctx, rec, overhead, resources)
}
