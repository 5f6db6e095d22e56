package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// drainTimeout bounds how long a process that has exited is waited for to end its output: a
// child that it left behind can hold it open.
const drainTimeout = 10 * time.Second

// watch waits for the task's exit in a goroutine that Close waits for.
func (m *Manager) watch(rec Record, p *process) {
	m.watchers.Go(func() {
		exit, err := m.opts.Tasks.WaitTask(m.life, rec.ID)
		if m.life.Err() != nil {
			// The daemon ends and the container runs on.
			closeIO(context.WithoutCancel(m.life), rec.ID, p)
			return
		}
		if err != nil {
			klog.FromContext(m.life).Error(err, "Exit code of container is lost", "container", rec.ID)
			exit = Exit{Code: UnknownExitCode, At: m.opts.Clock.Now()}
		}
		m.exited(m.life, rec.ID, p, exit)
	})
}

// UnknownExitCode stands for an exit that nobody saw.
const UnknownExitCode = 255

// exited takes the process's resources away and records its exit, in this order: who sees the
// container exited finds its log complete. The record comes last and in any case; what could
// not be taken away now, Remove takes away.
func (m *Manager) exited(ctx context.Context, id string, p *process, exit Exit) {
	logger := klog.FromContext(ctx).WithValues("container", id)
	drain, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if err := p.io.Drain(drain); err != nil {
		logger.Info("Output of container goes on after its exit and is cut", "reason", err)
	}
	rec, err := m.Get(id)
	if err != nil {
		logger.Error(err, "Exit of an unknown container")
		return
	}
	closeIO(ctx, id, p)
	m.lookForOOM(rec)
	if err := m.releaseRuntime(ctx, rec); err != nil {
		logger.Error(err, "Cleanup after container")
	}
	rec, err = m.recordExit(ctx, id, exit)
	if err != nil {
		logger.Error(err, "Exit of container is not recorded")
		return // the daemon ends; its next run finds the task gone
	}
	m.notify(sandbox.EventStopped, rec) // before who removes it goes on, whom untrack lets
	m.untrack(id)
	m.tell(ctx, StepStopped, rec)
	logger.V(2).Info("Container exited", "exitCode", exit.Code, "reason", rec.Reason)
}

// recordExit tries until the exit is recorded: until then the container counts as running, and
// those who stop it wait. A full disk may get room again.
func (m *Manager) recordExit(ctx context.Context, id string, exit Exit) (rec Record, err error) {
	waitErr := wait.PollUntilContextCancel(ctx, exitRetry, true, func(ctx context.Context) (bool, error) {
		rec, err = m.table.Change(id, func(rec *Record) {
			rec.State, rec.PID = StateExited, 0
			rec.ExitCode, rec.FinishedAt = int32(exit.Code), latest(exit.At, rec.StartedAt)
			rec.Reason = m.reason(id, exit)
		})
		if err != nil {
			klog.FromContext(ctx).Error(err, "Exit of container is recorded later", "container", id)
		}
		return err == nil, nil
	})
	return rec, errors.Join(err, waitErr)
}

// exitRetry is the pause between attempts to record an exit.
const exitRetry = time.Second

// closeIO bounds the wait for a log's disk or a client that does not let go.
func closeIO(ctx context.Context, id string, p *process) {
	bounded, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if err := p.io.Close(bounded); err != nil {
		klog.FromContext(ctx).Error(err, "Stdio of container was not closed", "container", id)
	}
}

// releaseRuntime takes away the task, the mounted root filesystem, the kept output and the hold on a
// target's PID namespace, all idempotently.
func (m *Manager) releaseRuntime(ctx context.Context, rec Record) error {
	err := m.deleteTask(ctx, rec)
	m.releaseOutput(ctx, rec.ID)
	paths := m.Paths(rec.ID)
	return errors.Join(err, m.opts.Rootfs.Unmount(ctx, paths.Rootfs), m.unmountVolumes(ctx, rec), m.opts.PIDPins.UnpinPID(paths.PIDNamespace))
}

// deleteTask takes the task away, and ends one that runs although its start was taken for failed: the
// answer may have been lost with the engine.
func (m *Manager) deleteTask(ctx context.Context, rec Record) error {
	_, err := m.opts.Tasks.DeleteTask(ctx, rec.group(), rec.ID)
	if errors.Is(err, errdefs.ErrFailedPrecondition) {
		if err = m.endTask(ctx, rec); err == nil {
			_, err = m.opts.Tasks.DeleteTask(ctx, rec.group(), rec.ID)
		}
	}
	if err = ignoreNotFound(err); err != nil {
		return fmt.Errorf("delete task: %w", err)
	}
	return nil
}

// process returns the running process of a container, nil when it does not run.
func (m *Manager) process(id string) *process {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.running[id]
}
