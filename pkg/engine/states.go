package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/container"
)

// Values of container.TaskState.Status.
const (
	statusCreated = "created"
	statusRunning = "running"
	statusPaused  = "paused"
	statusStopped = "stopped"
)

// TaskState returns a task's state, as its shim has it.
func (e *Engine) TaskState(ctx context.Context, id string) (container.TaskState, error) {
	resp, err := e.client.TaskService().Get(ctx, &tasksapi.GetRequest{ContainerID: id})
	if err != nil {
		return container.TaskState{}, fmt.Errorf("read state of task %s: %w", id, errgrpc.ToNative(err))
	}
	return stateOf(resp.GetProcess()), nil
}

// ListTasks returns the states of all tasks of the namespace by container id.
func (e *Engine) ListTasks(ctx context.Context) (map[string]container.TaskState, error) {
	resp, err := e.client.TaskService().List(ctx, &tasksapi.ListTasksRequest{})
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", errgrpc.ToNative(err))
	}
	states := make(map[string]container.TaskState, len(resp.GetTasks()))
	for _, p := range resp.GetTasks() {
		states[p.GetID()] = stateOf(p)
	}
	return states, nil
}

func stateOf(p *task.Process) container.TaskState {
	s := container.TaskState{PID: p.GetPid(), Status: strings.ToLower(p.GetStatus().String())}
	if p.GetStatus() == task.Status_PAUSING {
		s.Status = statusPaused
	}
	if s.Status == statusStopped {
		s.Exit = container.Exit{Code: p.GetExitStatus(), At: p.GetExitedAt().AsTime()}
	}
	return s
}

// WaitTask returns how the task ended, as soon as it has, also when it ended long ago. It goes on
// waiting while containerd is away, and knows the exit code of a task that ended meanwhile on kernels that
// tell it (6.15); on others such a task is not found. Neither is one without a process: a restore that
// failed leaves it, and nobody would ever tell of its end.
func (e *Engine) WaitTask(ctx context.Context, id string) (container.Exit, error) {
	state, err := e.TaskState(ctx, id)
	if err == nil && state.PID == 0 && state.Status == statusCreated {
		return container.Exit{}, fmt.Errorf("wait for task %s: it has no process: %w", id, errdefs.ErrNotFound)
	}
	w := e.watchProcess(ctx, id, state)
	defer w.close()
	exit, err := e.wait(ctx, &tasksapi.WaitRequest{ContainerID: id})
	if w == nil || !errdefs.IsNotFound(err) {
		return exit, err
	}
	ctx, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	seen, werr := w.exit(ctx)
	if werr != nil {
		return container.Exit{}, fmt.Errorf("%w (%w)", err, werr)
	}
	klog.FromContext(ctx).V(2).Info("containerd lost a task, the kernel told its exit code", "container", id, "code", seen.Code)
	return seen, nil
}

// watchProcess returns a witness of the process that the task had before, and nil where there is none to watch.
func (e *Engine) watchProcess(ctx context.Context, id string, before container.TaskState) *witness {
	if before.PID == 0 || before.Status == statusStopped {
		return nil
	}
	w, err := newWitness(before.PID)
	if err != nil {
		klog.FromContext(ctx).V(3).Info("Task cannot be watched beside containerd", "container", id, "reason", err.Error())
		return nil
	}
	// The pid was the task's all the time only if the task has not ended since.
	if after, err := e.TaskState(ctx, id); err != nil || after.PID != before.PID || after.Status == statusStopped {
		w.close()
		return nil
	}
	return w
}

// wait asks the shim, through containerd, to answer when the process has exited. No event is needed,
// so none can be missed: after an error the question is asked again.
func (e *Engine) wait(ctx context.Context, req *tasksapi.WaitRequest) (container.Exit, error) {
	for delay := 20 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		began := time.Now()
		resp, err := e.client.TaskService().Wait(ctx, req)
		if err == nil {
			return container.Exit{Code: resp.GetExitStatus(), At: resp.GetExitedAt().AsTime()}, nil
		}
		err = errgrpc.ToNative(err)
		if ctx.Err() != nil {
			return container.Exit{}, fmt.Errorf("wait for %s: %w", processName(req), context.Cause(ctx))
		}
		if errdefs.IsNotFound(err) {
			return container.Exit{}, fmt.Errorf("wait for %s: %w", processName(req), err)
		}
		if time.Since(began) > time.Minute {
			delay = 20 * time.Millisecond
		}
		klog.FromContext(ctx).V(3).Info("Waiting again for a process", "process", processName(req), "reason", err.Error())
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return container.Exit{}, fmt.Errorf("wait for %s: %w", processName(req), context.Cause(ctx))
		}
	}
}

func processName(req *tasksapi.WaitRequest) string {
	if req.GetExecID() == "" {
		return "task " + req.GetContainerID()
	}
	return "exec " + req.GetExecID() + " in task " + req.GetContainerID()
}
