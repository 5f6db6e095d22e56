package leaks

import (
	"context"
	"errors"
	"fmt"
	"io"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"google.golang.org/grpc/metadata"
)

// snapshotter is the one that lab nodes use.
const snapshotter = "overlayfs"

// addContainerd asks containerd over its plain gRPC API: the client package is pkg/engine's alone.
func (s Scope) addContainerd(ctx context.Context, inv Inventory) error {
	if s.Containerd == nil {
		return nil
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", s.ContainerdNamespace)
	return errors.Join(
		s.addContainers(ctx, inv),
		s.addTasks(ctx, inv),
		s.addLeases(ctx, inv),
		s.addSnapshots(ctx, inv),
	)
}

func (s Scope) addContainers(ctx context.Context, inv Inventory) error {
	list, err := containersapi.NewContainersClient(s.Containerd).List(ctx, &containersapi.ListContainersRequest{})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, container := range list.Containers {
		inv.add("containerd container", "%s", container.ID)
	}
	return nil
}

func (s Scope) addTasks(ctx context.Context, inv Inventory) error {
	list, err := tasksapi.NewTasksClient(s.Containerd).List(ctx, &tasksapi.ListTasksRequest{})
	if err != nil {
		return fmt.Errorf("list tasks: %w", err)
	}
	for _, task := range list.Tasks {
		inv.add("containerd task", "%s (pid %d)", task.ID, task.Pid)
	}
	return nil
}

func (s Scope) addLeases(ctx context.Context, inv Inventory) error {
	list, err := leasesapi.NewLeasesClient(s.Containerd).List(ctx, &leasesapi.ListRequest{})
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, lease := range list.Leases {
		inv.add("containerd lease", "%s", lease.ID)
	}
	return nil
}

// addSnapshots passes over committed snapshots: those are image layers, and images may stay.
func (s Scope) addSnapshots(ctx context.Context, inv Inventory) error {
	stream, err := snapshotsapi.NewSnapshotsClient(s.Containerd).List(ctx,
		&snapshotsapi.ListSnapshotsRequest{Snapshotter: snapshotter})
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	for {
		page, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list snapshots: %w", err)
		}
		for _, info := range page.Info {
			if info.Kind != snapshotsapi.Kind_COMMITTED {
				inv.add("containerd snapshot", "%s (parent %q)", info.Name, info.Parent)
			}
		}
	}
}
