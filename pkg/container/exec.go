package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/state"
	"github.com/userns-shim/userns-shim/pkg/stream"
	"github.com/userns-shim/userns-shim/pkg/stream/fifo"
)

// Output is what ExecSync's command wrote and returned. Each stream is cut at 16 MiB.
type Output struct {
	Stdout, Stderr []byte
	ExitCode       int32
}

// execDrainTimeout is drainTimeout for a command whose children hold its output open.
const execDrainTimeout = 2 * time.Second

// ExecSync runs a command in a running container and waits for it. After timeout, where it is
// not zero, the command is killed and the error wraps context.DeadlineExceeded.
func (m *Manager) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (Output, error) {
	rec, end, err := m.beginExec(id)
	if err != nil {
		return Output{}, err
	}
	defer end()
	execID := state.NewID()
	capture, err := stream.OpenCapture(ctx, stream.CaptureOptions{Dir: m.Paths(rec.ID).IO, ID: execID})
	if err != nil {
		return Output{}, err
	}
	exit, err := m.runExec(ctx, rec, execID, capture, cmd, timeout)
	out := capture.Output()
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err = errors.Join(err, capture.Close(clean)); err != nil {
		return Output{}, fmt.Errorf("exec in container %s: %w", rec.ID, err)
	}
	stdout, stderr := fit(out.Stdout, out.Stderr, maxOutput)
	return Output{Stdout: stdout, Stderr: stderr, ExitCode: int32(exit.Code)}, nil
}

// maxOutput is what both streams may have together: the answer has to fit into the 16 MiB of a
// message that kubelet takes, with something left for its other fields.
const maxOutput = 16<<20 - 64<<10

// fit cuts two streams so that they have at most total bytes together. The shorter one is cut
// only where both have more than half.
func fit(a, b []byte, total int) (cutA, cutB []byte) {
	half := total / 2
	a = a[:min(len(a), total-min(len(b), half))]
	return a, b[:min(len(b), total-len(a))]
}

// runExec drains before it deletes: the shim's delete waits for output that a child of the
// command holds open, and longer than we do.
func (m *Manager) runExec(ctx context.Context, rec Record, execID string, capture *stream.Capture, cmd []string, timeout time.Duration) (Exit, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("command timed out after %s: %w", timeout, context.DeadlineExceeded))
		defer cancel()
	}
	err := m.startExec(ctx, rec, execID, ocispec.Exec{Args: cmd}, capture.Paths())
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	if err != nil {
		return Exit{}, err
	}
	exit, err := m.opts.Execs.WaitExec(ctx, rec.ID, execID)
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Exit{}, errors.Join(err, m.abandonExec(clean, rec.ID, execID, capture.Drain))
	}
	return exit, m.finishExec(clean, rec.ID, execID, capture.Drain)
}

// finishExec takes what is left of a command that has exited. A child that it left in the
// background and that holds its output open is no error: what came so far is the answer.
func (m *Manager) finishExec(ctx context.Context, id, execID string, drain func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, execDrainTimeout)
	defer cancel()
	err := drain(bounded)
	if errors.Is(err, stream.ErrNotDrained) {
		m.deleteExecLater(id, execID)
		return nil
	}
	return errors.Join(err, ignoreNotFound(m.opts.Execs.DeleteExec(ctx, id, execID)))
}

// deleteExecLater spares the client the wait of the shim's delete, which is as long as a child of
// the command holds its output, and ten seconds at most.
func (m *Manager) deleteExecLater(id, execID string) {
	m.watchers.Go(func() {
		ctx, cancel := context.WithTimeout(m.life, cleanupTimeout)
		defer cancel()
		if err := ignoreNotFound(m.opts.Execs.DeleteExec(ctx, id, execID)); err != nil && m.life.Err() == nil {
			klog.FromContext(ctx).Error(err, "Exec was not deleted", "container", id, "exec", execID)
		}
	})
}

// startExec starts one more process, which is like the container's own but for its arguments
// and terminal.
func (m *Manager) startExec(ctx context.Context, rec Record, execID string, exec ocispec.Exec, paths fifo.Set) error {
	spec, err := m.opts.Records.RecordSpec(ctx, rec.ID)
	if err != nil {
		return err
	}
	process, err := ocispec.BuildExec(spec.Process, exec)
	if err != nil {
		return err
	}
	if _, err = m.opts.Execs.StartExec(ctx, ExecRequest{
		ContainerID: rec.ID,
		ExecID:      execID,
		Process:     process,
		Stdio:       Stdio{Stdin: paths.Stdin, Stdout: paths.Stdout, Stderr: paths.Stderr, Terminal: exec.TTY},
	}); err != nil {
		return fmt.Errorf("%w: %w", ErrStart, err)
	}
	return nil
}

// abandonExec kills a command that nobody waits for any longer. As on other runtimes its children live on.
func (m *Manager) abandonExec(ctx context.Context, id, execID string, drain func(context.Context) error) error {
	if err := ignoreNotFound(m.opts.Execs.KillExec(ctx, id, execID, killSignal)); err != nil {
		return err
	}
	if _, err := m.opts.Execs.WaitExec(ctx, id, execID); ignoreNotFound(err) != nil {
		return err
	}
	return m.finishExec(ctx, id, execID, drain)
}

// ReopenLog goes on in a new log file, after the old one was renamed.
func (m *Manager) ReopenLog(ctx context.Context, id string) error {
	rec, err := m.Get(id)
	if err != nil {
		return err
	}
	p := m.process(rec.ID)
	if p == nil {
		return fmt.Errorf("reopen log of container %s: %w: it is %s", rec.ID, ErrState, rec.State)
	}
	return p.io.Reopen(ctx)
}
