package container

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/stream"
	"github.com/userns-shim/userns-shim/pkg/stream/crilog"
)

// startErrorCode is the exit code of a container whose process could not be started, as on
// other runtimes.
const startErrorCode = 128

// process is a task that runs: its stdio, and a channel that is closed once its exit is
// recorded.
type process struct {
	io        *stream.ContainerIO
	done      chan struct{}
	signalled atomic.Bool // the stop signal was sent
}

// Start runs a created container. When its process cannot be started the container has
// exited with the reason ContainerCannotRun or StartError, and the error says why.
func (m *Manager) Start(ctx context.Context, id string) error {
	rec, err := m.Get(id)
	if err != nil {
		return err
	}
	m.locks.Lock(rec.ID)
	defer m.unlock(rec.ID)
	if rec, err = m.Get(rec.ID); err != nil {
		return err
	}
	if rec.State != StateCreated {
		return fmt.Errorf("start container %s: %w: it is %s", rec.ID, ErrState, rec.State)
	}
	sb, err := m.readySandbox(rec)
	if err != nil {
		return err
	}
	if err := m.start(ctx, sb, rec); err != nil {
		defer m.untrack(rec.ID)
		err = fmt.Errorf("start container %s: %w: %w", rec.ID, ErrStart, err)
		return errors.Join(err, m.startFailed(ctx, rec, err))
	}
	return nil
}

// readySandbox returns the container's sandbox as it is now.
func (m *Manager) readySandbox(rec Record) (sandbox.Record, error) {
	sb, err := m.opts.Sandbox(rec.SandboxID)
	if err == nil && sb.Phase != sandbox.PhaseReady {
		err = sandbox.ErrNotReady
	}
	if err != nil {
		return sandbox.Record{}, fmt.Errorf("start container %s: sandbox %s: %w", rec.ID, rec.SandboxID, err)
	}
	return sb, nil
}

// start tracks the process, and then asks for the sandbox again: who halts a sandbox and then
// stops what runs in it either finds the process, or is found by it. What an error leaves
// behind is its caller's.
func (m *Manager) start(ctx context.Context, sb sandbox.Record, rec Record) error {
	io, err := m.openIO(ctx, sb, rec)
	if err != nil {
		return err
	}
	p := m.track(rec.ID, io)
	if _, err = m.readySandbox(rec); err == nil {
		rec.PID, err = m.createTask(ctx, sb, rec, io)
	}
	if err == nil {
		err = m.runTask(ctx, sb, &rec)
	}
	if err != nil {
		closeIO(context.WithoutCancel(ctx), rec.ID, p)
		return err
	}
	m.notify(sandbox.EventStarted, rec) // before its end can be told
	m.watch(rec, p)
	m.forgetOrigin(ctx, rec)
	klog.FromContext(ctx).V(2).Info("Container started", "container", rec.ID, "sandbox", rec.SandboxID, "pid", rec.PID)
	return nil
}

func (m *Manager) track(id string, io *stream.ContainerIO) *process {
	p := &process{io: io, done: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running[id] = p
	return p
}

// untrack lets go those who wait for the process, if there is one.
func (m *Manager) untrack(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, ok := m.running[id]; ok {
		delete(m.running, id)
		close(p.done)
	}
}

// openIO makes or reopens the FIFOs and the log file. Their readers end with Close of the
// result, not with the request.
func (m *Manager) openIO(ctx context.Context, sb sandbox.Record, rec Record) (*stream.ContainerIO, error) {
	opts := stream.Options{
		ID:        rec.ID,
		Dir:       m.Paths(rec.ID).IO,
		Stdin:     rec.Spec.Stdin,
		StdinOnce: rec.Spec.StdinOnce,
		TTY:       rec.Spec.TTY,
	}
	if rec.LogPath != "" {
		opts.Log = crilog.Options{Dir: sb.Spec.LogDirectory, Path: rec.Spec.LogPath, MaxLineBytes: m.opts.MaxLogLine}
	}
	io, err := stream.Open(ctx, opts)
	if err == nil {
		m.keepOutput(ctx, rec.ID, io.Paths())
	}
	return io, err
}

// runTask asks plugins for a container whose task was created, runs it and records that it runs.
func (m *Manager) runTask(ctx context.Context, sb sandbox.Record, rec *Record) error {
	defer m.opts.Plugins.Block()()
	if err := m.opts.Plugins.Tell(ctx, StepStart, sb, *rec); err != nil {
		return err
	}
	// Before the process can run: no exit is earlier than the start.
	rec.StartedAt = latest(m.opts.Clock.Now(), rec.CreatedAt)
	if rec.Restored == nil { // what goes on from a checkpoint runs already
		if err := m.opts.Tasks.StartTask(ctx, rec.ID); err != nil {
			return refusal(err)
		}
	}
	rec.State = StateRunning
	if err := m.table.Save(*rec); err != nil {
		return err
	}
	m.tellBlocked(ctx, StepStarted, *rec)
	return nil
}

func (m *Manager) createTask(ctx context.Context, sb sandbox.Record, rec Record, io *stream.ContainerIO) (uint32, error) {
	if err := m.checkTarget(rec); err != nil {
		return 0, err
	}
	uid, gid, err := rec.User.HostIDs(sb.Mapping())
	if err != nil {
		return 0, err
	}
	paths := io.Paths()
	stdio := Stdio{
		Stdin:    paths.Stdin,
		Stdout:   paths.Stdout,
		Stderr:   paths.Stderr,
		Terminal: rec.Spec.TTY,
		UID:      uid,
		GID:      gid,
	}
	if rec.Restored != nil {
		return m.launchRestored(ctx, rec, stdio)
	}
	pid, err := m.opts.Tasks.CreateTask(ctx, rec.group(), rec.ID, stdio)
	return pid, refusal(err)
}

// startFailed records that the container will never run and why, and takes its task away, which may
// run where only the record of that could not be written. Its error is that something is left.
func (m *Manager) startFailed(ctx context.Context, rec Record, cause error) error {
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	now := m.opts.Clock.Now()
	rec.State, rec.Reason, rec.Message = StateExited, startReason(cause), cause.Error()
	rec.ExitCode, rec.PID = startErrorCode, 0
	rec.StartedAt, rec.FinishedAt = time.Unix(0, 0), latest(now, rec.CreatedAt)
	ended := errors.Join(m.endTask(clean, rec), m.releaseRuntime(clean, rec))
	if ended != nil {
		m.releaseLater(rec)
	}
	err := errors.Join(ended, m.table.Save(rec))
	m.tell(clean, StepStopped, rec)
	m.notify(sandbox.EventStopped, rec)
	return err
}

// releaseLater goes on until nothing of a task is left that counts as exited: it may run, and the engine
// was away when it was to be ended.
func (m *Manager) releaseLater(rec Record) {
	m.watchers.Go(func() {
		// The error says that the daemon ends; its next run finds the task.
		_ = wait.PollUntilContextCancel(m.life, exitRetry, false, func(ctx context.Context) (bool, error) {
			m.locks.Lock(rec.ID)
			defer m.unlock(rec.ID)
			if _, err := m.Get(rec.ID); err != nil {
				return true, nil // removed meanwhile
			}
			bounded, cancel := context.WithTimeout(ctx, cleanupTimeout)
			defer cancel()
			return m.releaseRuntime(bounded, rec) == nil, nil
		})
	})
}

// endTask kills a task that nobody watches, and waits for its end. No task is done.
func (m *Manager) endTask(ctx context.Context, rec Record) error {
	err := m.kill(ctx, rec, true)
	if err == nil {
		_, err = m.opts.Tasks.WaitTask(ctx, rec.ID)
	}
	return ignoreNotFound(err)
}
