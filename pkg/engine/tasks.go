package engine

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/container"
)

// CreateTask creates the task of the container record id in the shim of group. Once it is under way
// it is not cancelled with ctx: containerd would go on undoing it behind the group's next turn.
func (e *Engine) CreateTask(ctx context.Context, group, id string, io container.Stdio) (uint32, error) {
	return e.create(ctx, group, id, taskForm{io: io})
}

// taskForm is how a task is created: from its record's specification, or from CRIU's images.
type taskForm struct {
	io            container.Stdio
	images, works string // CRIU's directories; empty for a new process
}

func (e *Engine) create(ctx context.Context, group, id string, form taskForm) (uint32, error) {
	t, err := e.enterGroup(ctx, turnRequest{group: group, task: id})
	if err != nil {
		return 0, fmt.Errorf("create task %s: %w", id, err)
	}
	result := taskAbsent
	defer func() { t.leave(result) }()
	ctx = context.WithoutCancel(ctx)
	if t.ending() {
		if err := e.endFoundShim(ctx, t); err != nil {
			return 0, fmt.Errorf("create task %s: %w: %w", id, errdefs.ErrUnavailable, err)
		}
	}
	var pid uint32
	e.learnSocketDirDuring(t.name, func() { pid, err = e.createTask(ctx, id, form) })
	switch {
	case err == nil || errdefs.IsAlreadyExists(err):
		result = taskPresent
		e.learnSocketDir(ctx, t.name)
	case ambiguous(err):
		result = taskUnknown
	case t.emptied():
		// containerd has told the shim, which this create started, to shut down.
		e.logEnd(ctx, t, e.endFoundShim(ctx, t))
	}
	if err != nil {
		return 0, fmt.Errorf("create task %s: %w", id, err)
	}
	return pid, nil
}

func (e *Engine) createTask(ctx context.Context, id string, form taskForm) (uint32, error) {
	opts, err := e.taskOptions(ctx, id, form)
	if err != nil {
		return 0, err
	}
	io := shimStdio(form.io)
	resp, err := e.client.TaskService().Create(ctx, &tasksapi.CreateTaskRequest{
		ContainerID: id,
		Stdin:       io.Stdin,
		Stdout:      io.Stdout,
		Stderr:      io.Stderr,
		Terminal:    io.Terminal,
		Options:     opts,
	})
	if err != nil {
		return 0, errgrpc.ToNative(err)
	}
	return resp.GetPid(), nil
}

// taskOptions returns the record's runtime options with the owner of the pipes and CRIU's directories, and
// nil where there is nothing to add: a task without options of its own takes the record's.
func (e *Engine) taskOptions(ctx context.Context, id string, form taskForm) (*anypb.Any, error) {
	if form.io.UID == 0 && form.io.GID == 0 && form.images == "" {
		return nil, nil
	}
	rec, err := e.client.ContainerService().Get(ctx, id)
	if err != nil {
		return nil, err
	}
	opts, err := runtimeOptions(rec)
	if err != nil {
		return nil, err
	}
	opts.IoUid, opts.IoGid = form.io.UID, form.io.GID
	opts.CriuImagePath, opts.CriuWorkPath = form.images, form.works
	packed, err := typeurl.MarshalAnyToProto(opts)
	if err != nil {
		return nil, fmt.Errorf("pack runtime options of container %s: %w", id, err)
	}
	return packed, nil
}

// runtimeOptions are those of a container's record, for the runc shim.
func runtimeOptions(rec containers.Container) (*options.Options, error) {
	opts := &options.Options{}
	if rec.Runtime.Options == nil {
		return opts, nil
	}
	if err := typeurl.UnmarshalTo(rec.Runtime.Options, opts); err != nil {
		return nil, fmt.Errorf("read runtime options of container %s: %w", rec.ID, err)
	}
	return opts, nil
}

// StartTask starts a created task.
func (e *Engine) StartTask(ctx context.Context, id string) error {
	if _, err := e.client.TaskService().Start(ctx, &tasksapi.StartRequest{ContainerID: id}); err != nil {
		return fmt.Errorf("start task %s: %w", id, errgrpc.ToNative(err))
	}
	return nil
}

// KillTask sends a signal. A process that has exited is an error that wraps errdefs.ErrNotFound.
func (e *Engine) KillTask(ctx context.Context, id string, signal uint32, all bool) error {
	_, err := e.client.TaskService().Kill(ctx, &tasksapi.KillRequest{ContainerID: id, Signal: signal, All: all})
	if err == nil {
		return nil
	}
	err = errgrpc.ToNative(err)
	if !errdefs.IsNotFound(err) && e.ended(ctx, id) {
		// The signal met a shim that was going with its last task.
		err = fmt.Errorf("%w: %w", errdefs.ErrNotFound, err)
	}
	return fmt.Errorf("kill task %s with signal %d: %w", id, signal, err)
}

// endedTimeout bounds how long a shim that is going away is asked for the state of its task.
const endedTimeout = 2 * time.Second

// ended says whether a task has exited or is gone. While its shim ends, containerd answers with an
// error of its connection.
func (e *Engine) ended(ctx context.Context, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, endedTimeout)
	defer cancel()
	for {
		state, err := e.TaskState(ctx, id)
		switch {
		case errdefs.IsNotFound(err):
			return true
		case err == nil:
			return state.Status == "stopped"
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(endedTimeout / 100):
		}
	}
}

// DeleteTask deletes an exited task, and one that never started after killing it. A running task is
// an error that wraps errdefs.ErrFailedPrecondition. Where containerd knows no such task, what an interrupted
// create has left of it is taken away before that is said.
func (e *Engine) DeleteTask(ctx context.Context, group, id string) (container.Exit, error) {
	if err := e.stopUnstarted(ctx, id); err != nil {
		return container.Exit{}, fmt.Errorf("delete task %s: %w", id, err)
	}
	t, err := e.enterGroup(ctx, turnRequest{group: group, task: id, deleting: true})
	if err != nil {
		return container.Exit{}, fmt.Errorf("delete task %s: %w", id, err)
	}
	result := taskPresent
	defer func() { t.leave(result) }()
	ctx = context.WithoutCancel(ctx)
	last, socket := t.emptied(), ""
	if last {
		// Once it was told to shut down, the shim may be gone before it is found.
		if socket, err = e.shimSocket(t.name); err != nil {
			return container.Exit{}, fmt.Errorf("delete task %s: %w", id, err)
		}
	}
	resp, err := e.client.TaskService().Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
	err = errgrpc.ToNative(err)
	switch {
	case err == nil:
		result = taskAbsent
		if last {
			e.logEnd(ctx, t, e.endShim(ctx, t, socket))
		}
	case errdefs.IsNotFound(err):
		if serr := e.sweep(ctx, t, id); serr != nil {
			return container.Exit{}, fmt.Errorf("delete what is left of task %s: %w", id, serr)
		}
		result = taskAbsent
		if last {
			// Containerd, which has told no shim to shut down, may not know of this one.
			e.logEnd(ctx, t, e.endStrayShim(ctx, t, socket))
		}
	case ambiguous(err):
		result = taskUnknown
	}
	if err != nil {
		return container.Exit{}, fmt.Errorf("delete task %s: %w", id, err)
	}
	return container.Exit{Code: resp.GetExitStatus(), At: resp.GetExitedAt().AsTime()}, nil
}

// stopUnstarted kills a task that was created and never started. A task that is not there is fine.
func (e *Engine) stopUnstarted(ctx context.Context, id string) error {
	state, err := e.TaskState(ctx, id)
	switch {
	case errdefs.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case state.Status == statusRunning || state.Status == statusPaused:
		return fmt.Errorf("it is %s: %w", state.Status, errdefs.ErrFailedPrecondition)
	case state.Status != statusCreated:
		return nil
	}
	if err := e.KillTask(ctx, id, uint32(syscall.SIGKILL), false); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	if _, err := e.WaitTask(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// enterGroup takes a turn in the group, and makes sure that the group's tasks are known.
func (e *Engine) enterGroup(ctx context.Context, r turnRequest) (*turn, error) {
	// Zero is no state of knowledge.
	r.known = func() uint64 { return e.link.connects.Load() + 1 }
	t, err := e.groups.enter(ctx, r)
	if err != nil {
		return nil, err
	}
	if t.stale() {
		if err := e.refresh(ctx, t); err != nil {
			t.leave(taskUnknown)
			return nil, err
		}
	}
	return t, nil
}

// endFoundShim is endShim for a shim whose socket was not looked up yet.
func (e *Engine) endFoundShim(ctx context.Context, t *turn) error {
	socket, err := e.shimSocket(t.name)
	if err != nil {
		return err
	}
	return e.endShim(ctx, t, socket)
}

// logEnd reports that a shim did not end as it should. What was done to the task is done, so this is
// no error of the call.
func (e *Engine) logEnd(ctx context.Context, t *turn, err error) {
	if err != nil {
		klog.FromContext(ctx).Error(err, "Shim did not end with its last task", "group", t.name)
	}
}

// ambiguous says that containerd may have done, or may still do, what it was asked.
func ambiguous(err error) bool {
	return errdefs.IsUnavailable(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
