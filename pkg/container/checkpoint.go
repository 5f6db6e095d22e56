package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/checkpoint"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// ErrCheckpoint means that a container cannot be written down or brought back. The error says what is
// missing, such as CRIU, or what CRIU could not do.
var ErrCheckpoint = errors.New("checkpoint is not possible")

// thawTimeout bounds how long a container that was frozen is tried to be thawed.
const thawTimeout = time.Minute

// CheckpointOptions are what all checkpoints have in common.
type CheckpointOptions struct {
	// Status returns what is reported of a container, as JSON can hold it.
	Status func(Record) any
}

// Checkpoint writes a running container into an archive at location, which it replaces. The container
// is frozen meanwhile and goes on running afterwards, also after an error.
func (m *Manager) Checkpoint(ctx context.Context, id, location string, opts CheckpointOptions) error {
	rec, err := m.Running(id)
	if err != nil {
		return err
	}
	sb, err := m.opts.Sandbox(rec.SandboxID)
	if err != nil {
		return fmt.Errorf("checkpoint container %s: %w", rec.ID, err)
	}
	return m.capture(ctx, sb, []*captured{{id: rec.ID, archive: location}}, opts)
}

// CheckpointPod writes running containers of a sandbox into a directory that exists and is empty. All of
// them are frozen before the first is written, until the last is. It leaves nothing in the directory on an error.
func (m *Manager) CheckpointPod(ctx context.Context, sb sandbox.Record, ids []string, dir string, opts CheckpointOptions) error {
	if sb.Phase != sandbox.PhaseReady {
		return fmt.Errorf("checkpoint pod %s: %w", sb.ID, sandbox.ErrNotReady)
	}
	if err := m.canRestore(sb); err != nil {
		return fmt.Errorf("checkpoint pod %s: %w", sb.ID, err)
	}
	containers, names, err := m.selected(sb, ids, dir)
	if err != nil {
		return fmt.Errorf("checkpoint pod %s: %w", sb.ID, err)
	}
	handler, err := m.Handler(sb)
	if err != nil {
		return err
	}
	err = m.capture(ctx, sb, containers, opts)
	if err == nil {
		md := sb.Spec.Metadata
		err = checkpoint.WritePod(dir, checkpoint.Pod{
			Name: md.Name, Namespace: md.Namespace, UID: md.UID, Runtime: runtimeName(handler), Containers: names,
		})
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return nil
	}
	errs := []error{fmt.Errorf("checkpoint pod %s: %w", sb.ID, err), removePath(filepath.Join(dir, checkpoint.PodFile))}
	for _, c := range containers {
		errs = append(errs, removePath(c.archive))
	}
	return errors.Join(errs...)
}

// runtimeName names what CRIU's images were made with.
func runtimeName(h Handler) string { return filepath.Base(cmp.Or(h.BinaryName, h.Runtime)) }

// selected finds the containers that a pod's checkpoint is asked for, and their names.
func (m *Manager) selected(sb sandbox.Record, ids []string, dir string) ([]*captured, map[string]string, error) {
	names := map[string]string{}
	var out []*captured
	for _, id := range ids {
		rec, err := m.Running(id)
		if err != nil {
			return nil, nil, err
		}
		if rec.SandboxID != sb.ID {
			return nil, nil, fmt.Errorf("%w: container %s is not of this pod", ErrInvalid, rec.ID)
		}
		name := rec.Spec.Metadata.Name
		if other, twice := names[name]; twice {
			return nil, nil, fmt.Errorf("%w: containers %s and %s are both selected and named %s", ErrInvalid, other, rec.ID, name)
		}
		names[name] = rec.ID
		out = append(out, &captured{id: rec.ID, archive: filepath.Join(dir, checkpoint.ArchiveName(rec.ID))})
	}
	return out, names, nil
}

// captured is a container that is being written down.
type captured struct {
	id      string
	archive string
	rec     Record
	dir     string   // where its checkpoint is put together
	root    *os.Root // of dir
	frozen  bool     // and could not be thawed
}

// capture takes containers of one sandbox through it: all are frozen first, and thawed before anything else
// when all are written or one fails.
func (m *Manager) capture(ctx context.Context, sb sandbox.Record, containers []*captured, opts CheckpointOptions) (err error) {
	handler, err := m.Handler(sb)
	if err != nil {
		return err
	}
	if err := m.knowsCheckpoints(ctx, handler); err != nil {
		return err
	}
	// In one order everywhere, so that two calls do not wait for each other.
	slices.SortFunc(containers, func(a, b *captured) int { return cmp.Compare(a.id, b.id) })
	for _, c := range containers {
		m.locks.Lock(c.id)
		defer m.unlock(c.id)
	}
	defer func() {
		for _, c := range containers {
			err = errors.Join(err, m.endCapture(c))
		}
	}()
	for _, c := range containers {
		if err := m.beginCapture(c); err != nil {
			return fmt.Errorf("checkpoint container %s: %w", c.id, err)
		}
	}
	if err := m.captureFrozen(ctx, sb, handler, containers, opts); err != nil {
		return err
	}
	for _, c := range containers {
		if err := pack(ctx, c); err != nil {
			return fmt.Errorf("checkpoint container %s: %w", c.id, err)
		}
		klog.FromContext(ctx).V(2).Info("Checkpoint written", "container", c.id, "archive", c.archive)
	}
	return nil
}

// knowsCheckpoints tells a runtime that was built without them from one that misses CRIU.
func (m *Manager) knowsCheckpoints(ctx context.Context, h Handler) error {
	known, err := m.opts.Checkpoints.CanCheckpoint(ctx, h.Runtime, h.BinaryName)
	if err == nil && !known {
		err = fmt.Errorf("%w: OCI runtime %s does not support it", ErrCheckpoint, runtimeName(h))
	}
	return err
}

// captureFrozen is the part of capture during which the containers do not run.
func (m *Manager) captureFrozen(ctx context.Context, sb sandbox.Record, handler Handler, containers []*captured, opts CheckpointOptions) (err error) {
	defer func() {
		for _, c := range containers {
			thawErr := m.thaw(ctx, c.id)
			c.frozen = thawErr != nil
			err = errors.Join(err, thawErr)
		}
	}()
	for _, c := range containers {
		if err := m.opts.Checkpoints.PauseTask(ctx, c.id); err != nil {
			return fmt.Errorf("checkpoint container %s: %w", c.id, err)
		}
	}
	for i, c := range containers {
		if err = m.write(ctx, sb, handler, c, opts); err == nil && i == 0 {
			err = m.writeShm(ctx, sb, c)
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("checkpoint container %s: %w", c.id, err)
		}
	}
	return nil
}

// thaw goes on until the container runs, is gone or the time is over.
func (m *Manager) thaw(ctx context.Context, id string) error {
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), thawTimeout)
	defer cancel()
	for {
		err := ignoreNotFound(m.opts.Checkpoints.ResumeTask(clean, id))
		if err == nil {
			return nil
		}
		select {
		case <-clean.Done():
			return fmt.Errorf("container %s stays frozen: %w", id, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
