package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// Interrupted returns the ids of containers that an earlier run may have been about to start when it
// ended.
func (m *Manager) Interrupted() []string { return m.interrupted(Record.Key) }

// InterruptedGroups returns the shim groups of those containers.
func (m *Manager) InterruptedGroups() []string { return m.interrupted(Record.group) }

func (m *Manager) interrupted(name func(Record) string) []string {
	var names []string
	for _, rec := range m.table.All() {
		if rec.State == StateCreated {
			names = append(names, name(rec))
		}
	}
	return names
}

// Recover brings the records in line with containerd before anything is served: what was half
// made is removed, tasks that run are watched again, and exits that nobody saw are recorded.
// It goes on after an error, which names the container; an error that wraps errdefs.ErrUnavailable means that containerd does not answer
// and that Recover has to be called again. A shim that does not answer is no such error: it would keep all pods waiting.
func (m *Manager) Recover(ctx context.Context) error {
	// Before anything is asked for: containerd does not list a task that CRIU is still writing down.
	if err := m.recoverCheckpoints(ctx); err != nil {
		return fmt.Errorf("recover containers: %w", err)
	}
	tasks, err := m.opts.Inspector.ListTasks(ctx)
	if err != nil {
		return fmt.Errorf("recover containers: %w", err)
	}
	var errs []error
	for _, rec := range m.table.All() {
		if err := m.recover(ctx, rec, tasks); err != nil {
			errs = append(errs, fmt.Errorf("recover container %s: %w", rec.ID, err))
		}
	}
	err = errors.Join(errs...)
	if !errors.Is(err, errdefs.ErrUnavailable) {
		return err
	}
	if _, away := m.opts.Inspector.ListTasks(ctx); away != nil {
		return fmt.Errorf("recover containers: %w: %w", away, err)
	}
	return shimError{err}
}

// shimError is an error of a shim, while containerd answers. It does not wrap errdefs.ErrUnavailable.
type shimError struct{ err error }

func (e shimError) Error() string { return e.err.Error() }

func (m *Manager) recover(ctx context.Context, rec Record, tasks map[string]TaskState) error {
	m.locks.Lock(rec.ID)
	defer m.unlock(rec.ID)
	task, found := tasks[rec.ID]
	switch rec.State {
	case StateCreating:
		return m.remove(ctx, rec)
	case StateCreated:
		// A task without a record of its start belongs to a Start that did not come to its end.
		if found {
			return m.startFailed(ctx, rec, fmt.Errorf("start container %s: userns-shim ended meanwhile", rec.ID))
		}
		// That it has no task does not mean that nothing of one is left.
		return errors.Join(m.deleteTask(ctx, rec), m.recoverCreated(ctx, rec))
	case StateRunning:
		if !found {
			return m.recoverUnlisted(ctx, rec)
		}
		return m.rewatch(ctx, rec, task)
	case StateExited, StateUnknown:
		return m.releaseOrLater(ctx, rec)
	}
	return fmt.Errorf("record has the unknown state %q", rec.State)
}

// recoverUnlisted is for a container whose task containerd did not list. It leaves tasks out whose shims do not answer
// within two seconds, as on a node that is overloaded: only a task of which it does not know is gone. Any other is waited for.
func (m *Manager) recoverUnlisted(ctx context.Context, rec Record) error {
	task, err := m.opts.Inspector.TaskState(ctx, rec.ID)
	if isNotFound(err) {
		return m.lost(ctx, rec)
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "Shim of a container does not answer", "container", rec.ID)
	}
	return m.rewatch(ctx, rec, task)
}

// releaseOrLater is releaseRuntime, which goes on in the background where it fails.
func (m *Manager) releaseOrLater(ctx context.Context, rec Record) error {
	err := m.releaseRuntime(ctx, rec)
	if err != nil {
		m.releaseLater(rec)
	}
	return err
}

// recoverCreated ends a container whose sandbox did not survive: it can never start.
func (m *Manager) recoverCreated(ctx context.Context, rec Record) error {
	sb, err := m.opts.Sandbox(rec.SandboxID)
	if err == nil && sb.Phase == sandbox.PhaseReady {
		return nil
	}
	return m.lost(ctx, rec)
}

// rewatch goes on where the last run of the daemon ended. A task that has stopped meanwhile goes
// the same way: its exit is waiting in containerd.
func (m *Manager) rewatch(ctx context.Context, rec Record, task TaskState) error {
	if m.process(rec.ID) != nil {
		return nil // an earlier Recover got this far
	}
	sb, err := m.opts.Sandbox(rec.SandboxID)
	if err != nil {
		return err
	}
	io, err := m.openIO(ctx, sb, rec)
	if err != nil {
		// Without a reader the container would block on a full pipe.
		klog.FromContext(ctx).Error(err, "Output of container is thrown away from now on", "container", rec.ID)
		rec.LogPath = ""
		if io, err = m.openIO(ctx, sb, rec); err != nil {
			return err
		}
	}
	m.watch(rec, m.track(rec.ID, io))
	klog.FromContext(ctx).V(2).Info("Container watched again", "container", rec.ID, "pid", task.PID, "status", task.Status)
	return nil
}

// lost records the end of a container whose task is gone, as after a reboot.
func (m *Manager) lost(ctx context.Context, rec Record) error {
	rec.State, rec.PID = StateExited, 0
	rec.ExitCode, rec.Reason = UnknownExitCode, ReasonUnknown
	rec.FinishedAt = m.opts.Clock.Now()
	if rec.StartedAt.IsZero() {
		rec.StartedAt = time.Unix(0, 0)
	}
	return errors.Join(m.releaseOrLater(ctx, rec), m.table.Save(rec))
}
