package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/state"
	"github.com/userns-shim/userns-shim/pkg/stream"
)

// console is a process as its streams see it. It is a stream.Process.
type console struct {
	consoles    Consoles
	containerID string
	execID      string
}

func (c console) CloseStdin(ctx context.Context) error {
	return c.consoles.CloseStdin(ctx, c.containerID, c.execID)
}

func (c console) Resize(ctx context.Context, width, height uint32) error {
	return c.consoles.Resize(ctx, c.containerID, c.execID, width, height)
}

// Running finds a container that runs, and can be exec'd in and attached to. Another one is
// ErrState.
func (m *Manager) Running(id string) (Record, error) {
	rec, err := m.Get(id)
	if err != nil {
		return Record{}, err
	}
	if rec.State != StateRunning {
		return Record{}, fmt.Errorf("container %s: %w: it is %s", rec.ID, ErrState, rec.State)
	}
	return rec, nil
}

// Exec runs a command in a running container for a client and returns its exit code. A client
// that goes away does not end the command, as on other runtimes.
func (m *Manager) Exec(ctx context.Context, id string, cmd []string, streams stream.Streams) (int32, error) {
	rec, end, err := m.beginExec(id)
	if err != nil {
		return 0, err
	}
	defer end()
	execID := state.NewID()
	io, err := stream.OpenExec(ctx, stream.ExecOptions{Dir: m.Paths(rec.ID).IO, ID: execID, Streams: streams})
	if err != nil {
		return 0, err
	}
	exit, err := m.serveExec(ctx, rec, execID, cmd, io, streams.TTY)
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err = errors.Join(err, io.Close(clean)); err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", rec.ID, err)
	}
	return int32(exit.Code), nil
}

// serveExec starts the command for good: its output may reach a client, which leaves with it, before
// containerd tells of the start.
func (m *Manager) serveExec(ctx context.Context, rec Record, execID string, cmd []string, io *stream.ExecIO, tty bool) (Exit, error) {
	follow, cancel := outliveClient(ctx)
	defer cancel()
	if err := m.startExec(follow, rec, execID, ocispec.Exec{Args: cmd, TTY: tty}, io.Paths()); err != nil {
		return Exit{}, err
	}
	if err := io.Connect(ctx, console{m.opts.Consoles, rec.ID, execID}); err != nil {
		return Exit{}, errors.Join(err, m.abandonExec(follow, rec.ID, execID, io.Drain))
	}
	exit, err := m.opts.Execs.WaitExec(follow, rec.ID, execID)
	if err != nil {
		return Exit{}, err
	}
	clean, cancelClean := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancelClean()
	return exit, m.finishExec(clean, rec.ID, execID, io.Drain)
}

// outliveClient returns a context that ends when the streaming server lets its clients go, and not
// when the one client goes: the command outlives it, and ends at the latest with its container.
func outliveClient(ctx context.Context) (context.Context, context.CancelFunc) {
	follow, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if cause := context.Cause(ctx); errors.Is(cause, stream.ErrReleased) {
			cancel(cause)
		}
	})
	return follow, func() {
		stop()
		cancel(nil)
	}
}

// Attach connects a client to a running container's first process.
func (m *Manager) Attach(ctx context.Context, id string, streams stream.Streams) error {
	rec, err := m.Running(id)
	if err != nil {
		return err
	}
	p := m.process(rec.ID)
	if p == nil {
		return fmt.Errorf("attach to container %s: %w: it has exited", rec.ID, ErrState)
	}
	return p.io.Attach(ctx, streams, console{m.opts.Consoles, rec.ID, ""})
}
