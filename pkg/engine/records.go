package engine

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/container"
)

// snapshotRef is the prefix of labels that keep a snapshot from being collected as garbage.
const snapshotRef = "containerd.io/gc.ref.snapshot."

// CreateRecord makes the container record, which holds the snapshots from now on, and ends their
// leases. An existing record is an error that wraps errdefs.ErrAlreadyExists.
func (e *Engine) CreateRecord(ctx context.Context, rec container.EngineRecord) error {
	rec.Spec = e.fitSpec(ctx, rec)
	c, err := e.record(rec)
	if err != nil {
		return fmt.Errorf("create container %s: %w", rec.ID, err)
	}
	if _, err := e.client.ContainerService().Create(ctx, c); err != nil {
		return fmt.Errorf("create container %s: %w", rec.ID, err)
	}
	for _, key := range heldSnapshots(rec) {
		if err := e.deleteLease(ctx, key); err != nil {
			// It expires. The record exists, so this is no reason to undo the container.
			klog.FromContext(ctx).Error(err, "Lease of a container's snapshot was not deleted", "container", rec.ID)
		}
	}
	return nil
}

// heldSnapshots are the keys of all snapshots that the record holds, its root's first.
func heldSnapshots(rec container.EngineRecord) []string {
	var keys []string
	if rec.SnapshotKey != "" {
		keys = append(keys, rec.SnapshotKey)
	}
	return append(keys, rec.ViewKeys...)
}

func (e *Engine) record(rec container.EngineRecord) (containers.Container, error) {
	spec, err := typeurl.MarshalAny(rec.Spec)
	if err != nil {
		return containers.Container{}, fmt.Errorf("pack spec: %w", err)
	}
	opts, err := typeurl.MarshalAny(&options.Options{
		BinaryName:    rec.BinaryName,
		SystemdCgroup: rec.SystemdCgroup,
		Root:          rec.Options.Root,
		ShimCgroup:    rec.Options.ShimCgroup,
	})
	if err != nil {
		return containers.Container{}, fmt.Errorf("pack runtime options: %w", err)
	}
	labels := maps.Clone(rec.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	labels[groupLabel] = groupOf(rec.ID, rec.Spec)
	label := snapshotRef + e.snapshotter(rec.Snapshotter)
	for i, key := range heldSnapshots(rec) {
		if i > 0 { // containerd reads up to the slash
			labels[label+"/"+strconv.Itoa(i)] = key
			continue
		}
		labels[label] = key
	}
	return containers.Container{
		ID:          rec.ID,
		Labels:      labels,
		Image:       rec.Image,
		Runtime:     containers.RuntimeInfo{Name: rec.Runtime, Options: opts},
		Spec:        spec,
		Snapshotter: e.snapshotter(rec.Snapshotter),
	}, nil
}

// DeleteRecord deletes a container record. A missing one is an error that wraps errdefs.ErrNotFound.
func (e *Engine) DeleteRecord(ctx context.Context, id string) error {
	if err := e.client.ContainerService().Delete(ctx, id); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	return nil
}

// Containers returns the ids of the records that were made here, those of pods' own processes among them.
func (e *Engine) Containers(ctx context.Context) ([]string, error) {
	recs, err := e.client.ContainerService().List(ctx, fmt.Sprintf("labels.%q", groupLabel))
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	ids := make([]string, 0, len(recs))
	for _, rec := range recs {
		ids = append(ids, rec.ID)
	}
	return ids, nil
}

// StoredRecords returns the records that were made here, of pods' own processes too.
func (e *Engine) StoredRecords(ctx context.Context) ([]container.StoredRecord, error) {
	recs, err := e.client.ContainerService().List(ctx, fmt.Sprintf("labels.%q", groupLabel))
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	stored := make([]container.StoredRecord, 0, len(recs))
	for _, rec := range recs {
		var spec specs.Spec
		if err := typeurl.UnmarshalTo(rec.Spec, &spec); err != nil {
			return nil, fmt.Errorf("unpack spec of container %s: %w", rec.ID, err)
		}
		stored = append(stored, container.StoredRecord{
			ID:          rec.ID,
			Image:       rec.Image,
			Snapshotter: rec.Snapshotter,
			Group:       rec.Labels[groupLabel],
			Labels:      ownLabels(rec.Labels),
			CreatedAt:   rec.CreatedAt,
			Spec:        &spec,
		})
	}
	return stored, nil
}

// ownLabels leaves out those that record adds.
func ownLabels(labels map[string]string) map[string]string {
	own := maps.Clone(labels)
	maps.DeleteFunc(own, func(key, _ string) bool { return key == groupLabel || strings.HasPrefix(key, snapshotRef) })
	return own
}

// ListRecords returns the ids of the records that carry the label with this value.
func (e *Engine) ListRecords(ctx context.Context, label, value string) ([]string, error) {
	recs, err := e.client.ContainerService().List(ctx, fmt.Sprintf("labels.%q==%q", label, value))
	if err != nil {
		return nil, fmt.Errorf("list containers with label %s: %w", label, err)
	}
	ids := make([]string, 0, len(recs))
	for _, rec := range recs {
		ids = append(ids, rec.ID)
	}
	return ids, nil
}
