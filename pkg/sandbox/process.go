package sandbox

import (
	"context"
	"errors"

	"k8s.io/klog/v2"
)

// ErrNoProcess means that the process of a shared PID namespace cannot be started on this node:
// its program is missing. The message says what to do.
var ErrNoProcess = errors.New("pods with a shared PID namespace cannot run")

// Process runs the first process of the PID namespace that a pod's containers share. Only such
// pods have one. Everything of it derives from the record, as all of a sandbox does.
type Process interface {
	// Ready is nil when a process could be started, and else wraps ErrNoProcess.
	Ready() error
	// Start runs the process in the namespaces of rec, pins its PID namespace at the path that
	// Paths names, and returns the host's number of the process.
	Start(ctx context.Context, rec Record) (pid int, err error)
	// Check is nil when the process of rec lives in the namespace that rec pins.
	Check(rec Record) error
	// Wait returns nil once the process has ended, at once when there is none.
	Wait(ctx context.Context, rec Record) error
	// Stop ends the process and takes everything of it away. What is not there is done.
	Stop(ctx context.Context, rec Record) error
}

// startProcess starts the process of a pod that needs one, and returns 0 for any other.
func (m *Manager) startProcess(ctx context.Context, rec Record) (pid int, err error) {
	if !rec.ProcessUp {
		return 0, nil
	}
	return m.opts.Process.Start(ctx, rec)
}

func (m *Manager) stopProcess(ctx context.Context, rec *Record) error {
	if !rec.ProcessUp {
		return nil
	}
	if err := m.opts.Process.Stop(ctx, *rec); err != nil {
		return err
	}
	rec.ProcessUp, rec.PID, rec.Pins.PID = false, 0, ""
	return nil
}

// watch waits for the end of a ready sandbox's process in a goroutine that Close waits for. A
// sandbox that is watched already is left alone.
func (m *Manager) watch(rec Record) {
	if !rec.ProcessUp || !m.claimWatch(rec.ID) {
		return
	}
	m.watchers.Go(func() {
		defer m.endWatch(rec.ID)
		err := m.opts.Process.Wait(m.life, rec)
		if m.life.Err() != nil {
			return
		}
		if err != nil {
			klog.FromContext(m.life).Error(err, "Process of pod sandbox is no longer watched", "sandbox", rec.ID)
			return
		}
		m.processEnded(m.life, rec.ID)
	})
}

// recoverProcess goes on watching, or notes that the process ended meanwhile.
func (m *Manager) recoverProcess(ctx context.Context, rec Record) error {
	if !rec.ProcessUp {
		return nil
	}
	if err := m.opts.Process.Check(rec); err != nil {
		return m.processEndedLocked(ctx, rec, err.Error())
	}
	m.watch(rec)
	return nil
}

func (m *Manager) claimWatch(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.watched[id] {
		return false
	}
	m.watched[id] = true
	return true
}

func (m *Manager) endWatch(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.watched, id)
}

// processEnded is for a process that has ended, stopped or by itself.
func (m *Manager) processEnded(ctx context.Context, id string) {
	m.locks.Lock(id)
	defer m.locks.Unlock(id)
	rec, err := m.Get(id)
	if err != nil || rec.Phase != PhaseReady {
		return
	}
	if err := m.processEndedLocked(ctx, rec, "it has exited"); err != nil {
		klog.FromContext(ctx).Error(err, "End of a pod sandbox's process", "sandbox", id)
	}
}

// processEndedLocked takes a ready sandbox out of service whose process has ended although nobody
// stopped it: the kernel has killed every process of the PID namespace, and lets none in any more.
// The rest stays until Stop, which kubelet calls before it makes the pod anew.
func (m *Manager) processEndedLocked(ctx context.Context, rec Record, reason string) error {
	klog.FromContext(ctx).Info("Pod sandbox lost its process", "sandbox", rec.ID, "pid", rec.PID, "reason", reason)
	rec.Phase, rec.PID = PhaseStopped, 0
	if err := m.table.Save(rec); err != nil {
		return err
	}
	m.notify(EventStopped, rec)
	return nil
}
