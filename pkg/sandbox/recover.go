package sandbox

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/klog/v2"
)

// Interrupted returns the ids of sandboxes that an earlier run was bringing up or taking away when it ended.
func (m *Manager) Interrupted() []string { return m.interrupted(Record.Key) }

// InterruptedGroups returns the shim groups of those sandboxes.
func (m *Manager) InterruptedGroups() []string { return m.interrupted(Record.Group) }

func (m *Manager) interrupted(name func(Record) string) []string {
	var names []string
	for _, rec := range m.table.All() {
		if rec.Phase == PhaseCreating || rec.Phase == PhaseStopped && !rec.tornDown() {
			names = append(names, name(rec))
		}
	}
	return names
}

// Recover brings the records in line with the node before anything is served: what was
// half made is removed, a sandbox whose pins are gone, as after a reboot, is stopped, and
// processes are watched again. It goes on after an error, which names the sandbox and leaves it
// to the next call; one that wraps errdefs.ErrUnavailable says that containerd does not answer.
func (m *Manager) Recover(ctx context.Context) error {
	var errs []error
	for _, rec := range m.table.All() {
		if err := m.recoverBounded(ctx, rec); err != nil {
			errs = append(errs, fmt.Errorf("recover sandbox %s: %w", rec.ID, err))
		}
	}
	return errors.Join(errs...)
}

// recoverBounded keeps a sandbox whose network hangs from holding up all others.
func (m *Manager) recoverBounded(ctx context.Context, rec Record) error {
	ctx, cancel := context.WithTimeout(ctx, teardownTimeout)
	defer cancel()
	return m.recover(ctx, rec)
}

func (m *Manager) recover(ctx context.Context, rec Record) error {
	m.locks.Lock(rec.ID)
	defer m.locks.Unlock(rec.ID)
	switch rec.Phase {
	case PhaseCreating:
		return m.remove(ctx, rec)
	case PhaseReady:
		if err := m.alive(rec); err != nil {
			klog.FromContext(ctx).Info("Pod sandbox lost its namespaces", "sandbox", rec.ID, "reason", err)
			return m.stop(ctx, rec)
		}
		return m.recoverProcess(ctx, rec)
	case PhaseStopped:
		return nil
	}
	return fmt.Errorf("record has the unknown phase %q", rec.Phase)
}

// alive reports why a sandbox that was ready is so no longer.
func (m *Manager) alive(rec Record) error {
	if rec.BootID != m.opts.BootID {
		return fmt.Errorf("made in boot %s", rec.BootID)
	}
	return m.opts.Namespaces.Check(rec.Pins, m.namespaceRequest(rec).User)
}
