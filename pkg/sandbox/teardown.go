package sandbox

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// Stop takes the sandbox's process, network and namespaces away; its record, name and range stay until
// Remove. Halt comes before, and then the stop of its containers. It is idempotent, and an unknown id is done.
func (m *Manager) Stop(ctx context.Context, id string) error {
	m.locks.Lock(id)
	defer m.locks.Unlock(id)
	rec, err := m.Get(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if rec.tornDown() {
		return nil
	}
	return m.stop(ctx, rec)
}

// Halt records that the sandbox takes no container any more. Those that were recorded before are
// all to be seen afterwards, so that who stops or removes them misses none.
func (m *Manager) Halt(id string) error {
	m.locks.Lock(id)
	defer m.locks.Unlock(id)
	rec, err := m.Get(id)
	if errors.Is(err, ErrNotFound) {
		return nil // removed by another request meanwhile
	}
	if err != nil || rec.Phase == PhaseStopped {
		return err
	}
	rec.Phase = PhaseStopped
	return m.table.Save(rec)
}

// tornDown says whether stop has nothing left to do.
func (r Record) tornDown() bool {
	return r.Phase == PhaseStopped && !r.NetworkUp && !r.ProcessUp && r.Pins == (ns.Pins{})
}

// stop runs every stage despite the errors of earlier ones, and records the outcome. The
// phase changes first: once a stage has run, the sandbox is of no use to a new container.
func (m *Manager) stop(ctx context.Context, rec Record) error {
	known := rec.Phase != PhaseCreating
	rec.Phase = PhaseStopped
	m.tell(ctx, StepStopped, rec)
	processErr := m.stopProcess(ctx, &rec)
	netErr := m.teardownNetwork(ctx, &rec)
	namespaceErr := m.removeNamespaces(ctx, &rec)
	err := errors.Join(
		processErr,
		netErr,
		namespaceErr,
		unmountShm(m.Paths(rec.ID)),
		m.table.Save(rec),
	)
	if err != nil {
		return fmt.Errorf("stop sandbox %s: %w", rec.ID, err)
	}
	if known {
		m.notify(EventStopped, rec)
	}
	klog.FromContext(ctx).V(2).Info("Pod sandbox stopped", "sandbox", rec.ID)
	return nil
}

// teardownNetwork runs CNI DEL once: its success is recorded with the phase.
func (m *Manager) teardownNetwork(ctx context.Context, rec *Record) error {
	if !rec.NetworkUp {
		return nil
	}
	if err := m.opts.Network.Teardown(ctx, networkPod(*rec)); err != nil {
		return fmt.Errorf("tear down network: %w", err)
	}
	rec.NetworkUp = false
	return nil
}

// removeNamespaces keeps the network namespace while CNI DEL has not succeeded, which needs it.
func (m *Manager) removeNamespaces(ctx context.Context, rec *Record) error {
	req, left := m.namespaceRequest(*rec), ns.Pins{}
	if rec.NetworkUp {
		req.NetPath, left.Network = "", rec.Pins.Network
	}
	if err := m.opts.Namespaces.Remove(ctx, req.Dir, req.NetPath); err != nil {
		return fmt.Errorf("remove namespaces: %w", err)
	}
	rec.Pins = left
	return nil
}

// Remove stops the sandbox where that is still to be done, and then frees its files, name and
// range, the range last. Halt comes before, and then the removal of its containers. An unknown id
// is done.
func (m *Manager) Remove(ctx context.Context, id string) error {
	m.locks.Lock(id)
	defer m.locks.Unlock(id)
	rec, err := m.Get(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.remove(ctx, rec)
}

func (m *Manager) remove(ctx context.Context, rec Record) error {
	if !rec.tornDown() {
		if err := m.stop(ctx, rec); err != nil {
			return err
		}
	}
	if err := removeFiles(m.Paths(rec.ID)); err != nil {
		return fmt.Errorf("remove sandbox %s: %w", rec.ID, err)
	}
	err := m.opts.DB.Update(func(tx *state.Tx) error {
		if rec.Range != nil {
			if err := m.opts.Pool.Release(tx.Raw(PoolBucket), rec.ID); err != nil {
				return err
			}
		}
		return m.table.Delete(tx, rec)
	})
	if err != nil {
		return fmt.Errorf("forget sandbox %s: %w", rec.ID, err)
	}
	if rec.Range != nil && m.opts.ObserveRelease != nil {
		m.opts.ObserveRelease(rec.Spec.Metadata, *rec.Range)
	}
	m.releaseLabel(rec)
	m.tell(ctx, StepRemoved, rec)
	if rec.Phase != PhaseCreating {
		m.notify(EventDeleted, rec)
	}
	klog.FromContext(ctx).V(2).Info("Pod sandbox removed", "sandbox", rec.ID)
	return nil
}
