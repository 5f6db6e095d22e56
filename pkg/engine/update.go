package engine

import (
	"context"
	"fmt"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// UpdateTask sets the limits of a task's cgroup. A missing task is an error that wraps
// errdefs.ErrNotFound.
func (e *Engine) UpdateTask(ctx context.Context, id string, resources *specs.LinuxResources) error {
	packed, err := typeurl.MarshalAnyToProto(resources)
	if err != nil {
		return fmt.Errorf("update task %s: pack resources: %w", id, err)
	}
	_, err = e.client.TaskService().Update(ctx, &tasksapi.UpdateTaskRequest{ContainerID: id, Resources: packed})
	if err != nil {
		return fmt.Errorf("update task %s: %w", id, errgrpc.ToNative(err))
	}
	return nil
}

// UpdateRecordSpec replaces the specification of a record.
func (e *Engine) UpdateRecordSpec(ctx context.Context, id string, spec *specs.Spec) error {
	packed, err := typeurl.MarshalAny(spec)
	if err != nil {
		return fmt.Errorf("update container %s: pack spec: %w", id, err)
	}
	_, err = e.client.ContainerService().Update(ctx, containers.Container{ID: id, Spec: packed}, "spec")
	if err != nil {
		return fmt.Errorf("update container %s: %w", id, err)
	}
	return nil
}
