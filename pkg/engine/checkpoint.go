package engine

import (
	"context"
	"fmt"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"

	"github.com/userns-shim/userns-shim/pkg/container"
)

// PauseTask freezes all processes of a task.
func (e *Engine) PauseTask(ctx context.Context, id string) error {
	if _, err := e.client.TaskService().Pause(ctx, &tasksapi.PauseTaskRequest{ContainerID: id}); err != nil {
		return fmt.Errorf("pause task %s: %w", id, errgrpc.ToNative(err))
	}
	return nil
}

// ResumeTask thaws a task. One that is not frozen is fine; one that is gone is an error that wraps
// errdefs.ErrNotFound.
func (e *Engine) ResumeTask(ctx context.Context, id string) error {
	_, err := e.client.TaskService().Resume(ctx, &tasksapi.ResumeTaskRequest{ContainerID: id})
	if err == nil {
		return nil
	}
	state, stateErr := e.TaskState(ctx, id)
	if stateErr != nil {
		return fmt.Errorf("resume task %s: %w", id, stateErr)
	}
	if state.Status != statusPaused {
		return nil
	}
	return fmt.Errorf("resume task %s: %w", id, errgrpc.ToNative(err))
}

// DumpTask has CRIU write a task's processes. It ends by itself and not with ctx: a process in which CRIU
// works must not lose it, and a CRIU that goes on alone would freeze a task again that was thawed meanwhile.
func (e *Engine) DumpTask(ctx context.Context, d container.Dump) error {
	opts, err := typeurl.MarshalAnyToProto(&options.CheckpointOptions{
		ImagePath: d.Images,
		WorkPath:  d.Work,
		// What a restore cannot bring back, such as a connection, is no reason not to write down the rest.
		OpenTcp:             true,
		ExternalUnixSockets: true,
		FileLocks:           true,
	})
	if err != nil {
		return fmt.Errorf("pack options of checkpoint of task %s: %w", d.ID, err)
	}
	_, err = e.client.TaskService().Checkpoint(context.WithoutCancel(ctx), &tasksapi.CheckpointTaskRequest{ContainerID: d.ID, Options: opts})
	if err != nil {
		return fmt.Errorf("checkpoint task %s: %w", d.ID, errgrpc.ToNative(err))
	}
	return nil
}

// RestoreTask creates and starts the task of a container record from CRIU's images.
func (e *Engine) RestoreTask(ctx context.Context, group string, io container.Stdio, d container.Dump) (uint32, error) {
	if _, err := e.create(ctx, group, d.ID, taskForm{io: io, images: d.Images, works: d.Work}); err != nil {
		return 0, err
	}
	resp, err := e.client.TaskService().Start(ctx, &tasksapi.StartRequest{ContainerID: d.ID})
	if err != nil {
		return 0, fmt.Errorf("restore task %s: %w", d.ID, errgrpc.ToNative(err))
	}
	return resp.GetPid(), nil
}

// checkpointAnnotation is in the features of runtimes that can make checkpoints: runc's, and crun's, which has
// it for the sake of those that ask.
const checkpointAnnotation = "org.opencontainers.runc.checkpoint.enabled"

// CanCheckpoint says whether an OCI runtime was built with support for checkpoints. It does not look for CRIU.
func (e *Engine) CanCheckpoint(ctx context.Context, runtime, binary string) (bool, error) {
	known, err := e.RuntimeFeatures(ctx, runtime, binary)
	if err != nil || known.All == nil {
		return false, err
	}
	return known.All.Annotations[checkpointAnnotation] == "true", nil
}
