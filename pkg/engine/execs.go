package engine

import (
	"context"
	"errors"
	"fmt"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"

	"github.com/userns-shim/userns-shim/pkg/container"
)

// StartExec runs one more process in a running task. Its pipes belong to the owner of the task's
// pipes, whatever Stdio says: containerd takes none for an exec.
func (e *Engine) StartExec(ctx context.Context, req container.ExecRequest) (uint32, error) {
	pid, err := e.startExec(ctx, req)
	if err != nil {
		return 0, fmt.Errorf("start exec %s in task %s: %w", req.ExecID, req.ContainerID, err)
	}
	return pid, nil
}

func (e *Engine) startExec(ctx context.Context, req container.ExecRequest) (uint32, error) {
	spec, err := typeurl.MarshalAnyToProto(req.Process)
	if err != nil {
		return 0, fmt.Errorf("pack process: %w", err)
	}
	tasks, io := e.client.TaskService(), shimStdio(req.Stdio)
	if _, err := tasks.Exec(ctx, &tasksapi.ExecProcessRequest{
		ContainerID: req.ContainerID,
		ExecID:      req.ExecID,
		Stdin:       io.Stdin,
		Stdout:      io.Stdout,
		Stderr:      io.Stderr,
		Terminal:    io.Terminal,
		Spec:        spec,
	}); err != nil {
		return 0, errgrpc.ToNative(err)
	}
	resp, err := tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: req.ContainerID, ExecID: req.ExecID})
	if err == nil {
		return resp.GetPid(), nil
	}
	ctx, cancel := cleanup(ctx)
	defer cancel()
	return 0, errors.Join(errgrpc.ToNative(err), e.abandonExec(ctx, req.ContainerID, req.ExecID))
}

// abandonExec removes an exec whose start failed, or was given up while the process started.
func (e *Engine) abandonExec(ctx context.Context, containerID, execID string) error {
	const sigkill = 9
	if err := e.KillExec(ctx, containerID, execID, sigkill); err == nil {
		if _, err := e.WaitExec(ctx, containerID, execID); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	if err := e.DeleteExec(ctx, containerID, execID); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// WaitExec returns how the process ended, as soon as it has. Like WaitTask it goes on waiting while
// containerd is away.
func (e *Engine) WaitExec(ctx context.Context, containerID, execID string) (container.Exit, error) {
	return e.wait(ctx, &tasksapi.WaitRequest{ContainerID: containerID, ExecID: execID})
}

// KillExec sends a signal. A process that has exited is an error that wraps errdefs.ErrNotFound.
func (e *Engine) KillExec(ctx context.Context, containerID, execID string, signal uint32) error {
	_, err := e.client.TaskService().Kill(ctx, &tasksapi.KillRequest{ContainerID: containerID, ExecID: execID, Signal: signal})
	if err != nil {
		return fmt.Errorf("kill exec %s in task %s with signal %d: %w", execID, containerID, signal, errgrpc.ToNative(err))
	}
	return nil
}

// DeleteExec forgets an exec that has exited.
func (e *Engine) DeleteExec(ctx context.Context, containerID, execID string) error {
	_, err := e.client.TaskService().DeleteProcess(ctx, &tasksapi.DeleteProcessRequest{ContainerID: containerID, ExecID: execID})
	if err != nil {
		return fmt.Errorf("delete exec %s in task %s: %w", execID, containerID, errgrpc.ToNative(err))
	}
	return nil
}

// Resize sets the size of a terminal, in characters.
func (e *Engine) Resize(ctx context.Context, containerID, execID string, width, height uint32) error {
	_, err := e.client.TaskService().ResizePty(ctx, &tasksapi.ResizePtyRequest{
		ContainerID: containerID,
		ExecID:      execID,
		Width:       width,
		Height:      height,
	})
	if err != nil {
		return fmt.Errorf("resize terminal of task %s, exec %q: %w", containerID, execID, errgrpc.ToNative(err))
	}
	return nil
}

// CloseStdin ends the standard input of a process. The shim holds its FIFO open for writing, so that
// closing the other writers does not.
func (e *Engine) CloseStdin(ctx context.Context, containerID, execID string) error {
	_, err := e.client.TaskService().CloseIO(ctx, &tasksapi.CloseIORequest{ContainerID: containerID, ExecID: execID, Stdin: true})
	if err != nil {
		return fmt.Errorf("close stdin of task %s, exec %q: %w", containerID, execID, errgrpc.ToNative(err))
	}
	return nil
}
