package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/mounts"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/ocispec/userdb"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// cleanupTimeout bounds the removal of a container that could not be made.
const cleanupTimeout = 30 * time.Second

// Create makes a container in a ready sandbox and returns its id. Nothing runs yet. The same
// name again is ErrExists, unless the spec is the same too and the container has not started.
func (m *Manager) Create(ctx context.Context, sb sandbox.Record, spec Spec) (string, error) {
	return m.create(ctx, sb, spec, "")
}

// create makes a container of its image, or of a checkpoint: the archive, or what its image is.
func (m *Manager) create(ctx context.Context, sb sandbox.Record, spec Spec, archive string) (id string, err error) {
	if sb.Phase != sandbox.PhaseReady {
		return "", fmt.Errorf("create container %s: sandbox %s: %w", spec.Metadata.Name, sb.ID, sandbox.ErrNotReady)
	}
	if err := checkMapping(sb, spec); err != nil {
		return "", err
	}
	if spec.Security.Privileged && !sb.Spec.Privileged {
		return "", fmt.Errorf("%w: container %s is privileged and its sandbox %s is not", ErrInvalid, spec.Metadata.Name, sb.ID)
	}
	handler, err := m.Handler(sb)
	if err != nil {
		return "", err
	}
	image, from, err := m.open(ctx, sb, spec, handler, archive)
	if err != nil {
		return "", fmt.Errorf("create container %s: %w", spec.Metadata.Name, err)
	}
	rec := m.newRecord(sb, spec, image, handler)
	if from != nil {
		rec.ID, rec.Restored = from.id, &from.Restored
		defer func() {
			from.close()
			if id != from.id {
				err = errors.Join(err, from.remove())
			}
		}()
	}
	if rec.ImageVolumes, err = m.resolveImageVolumes(ctx, rec); err != nil {
		return "", createError(rec, err)
	}
	holder, err := m.reserve(rec)
	if err != nil || holder != "" {
		return holder, err
	}
	b := &build{sb: sb, rec: rec, image: image, handler: handler, origin: from, settle: settled}
	err = m.complete(ctx, b)
	b.settle(context.WithoutCancel(ctx))
	if err != nil {
		return "", err
	}
	return rec.ID, nil
}

// complete makes a reserved container, or removes it.
func (m *Manager) complete(ctx context.Context, b *build) error {
	rec := b.rec
	m.locks.Lock(rec.ID)
	defer m.unlock(rec.ID)
	err := m.label(b.sb, &rec)
	if err == nil {
		b.rec = rec
		if err = m.make(ctx, b); err == nil {
			return nil
		}
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	return errors.Join(createError(rec, err), m.remove(clean, rec))
}

// createError names the container, after what kubelet looks for at the beginning.
func createError(rec Record, err error) error {
	err = fmt.Errorf("create container %s: %w", rec.Spec.Metadata.Name, err)
	if errors.Is(err, ErrImageVolume) {
		return fmt.Errorf("%w: %w", ErrImageVolume, err)
	}
	return err
}

// unlock drops a lock that this goroutine holds, for which the library has no error.
func (m *Manager) unlock(id string) { _ = m.locks.Unlock(id) }

func (m *Manager) newRecord(sb sandbox.Record, spec Spec, image Image, handler Handler) Record {
	rec := Record{
		ID:          state.NewID(),
		SandboxID:   sb.ID,
		Spec:        spec,
		ImageID:     image.ID,
		ImageRef:    image.Ref,
		Snapshotter: handler.Snapshotter,
		ShimGroup:   sb.ShimGroup,
		StopSignal:  stopSignal(spec.StopSignal, image.Config.StopSignal),
		State:       StateCreating,
		CreatedAt:   m.creationTime(sb, spec.Metadata.Name),

		DeclaredVolumes: declaredVolumes(image.Config.Volumes, spec.Mounts),
	}
	if sb.Spec.LogDirectory != "" && spec.LogPath != "" {
		rec.LogPath = filepath.Join(sb.Spec.LogDirectory, spec.LogPath)
	}
	return rec
}

// checkMapping holds a container's mapping against the one that was requested for its sandbox,
// or against the effective one where the client left the choice to the runtime.
func checkMapping(sb sandbox.Record, spec Spec) error {
	got := spec.Namespaces.Requested
	if got == nil {
		return nil
	}
	want := sb.Mapping()
	if user := sb.Spec.Namespaces.User; user != nil && user.Requested != nil {
		want = user.Requested
	}
	if want == nil {
		return fmt.Errorf("%w: it has a user namespace mapping and its sandbox %s uses the host's user namespace", ErrInvalid, sb.ID)
	}
	if *got != *want {
		return fmt.Errorf("%w: its user namespace maps host ids %d:%d, and that of its sandbox %s %d:%d",
			ErrInvalid, got.HostID, got.Length, sb.ID, want.HostID, want.Length)
	}
	return nil
}

// reserve commits the name with the record of a container to be. It returns the id of a
// container that was created from the same request before.
func (m *Manager) reserve(rec Record) (holder string, err error) {
	err = m.opts.DB.Update(func(tx *state.Tx) error {
		if err := sandbox.CheckReady(tx, rec.SandboxID); err != nil {
			return err
		}
		other, taken, err := m.table.Reserve(tx, rec)
		if err != nil || !taken {
			return err
		}
		if other.State == StateCreated && state.Same(other.Spec, rec.Spec) {
			holder = other.ID
			return nil
		}
		return fmt.Errorf("%w: %s attempt %d belongs to container %s (%s)",
			ErrExists, rec.Spec.Metadata.Name, rec.Spec.Metadata.Attempt, other.ID, other.State)
	})
	if err != nil {
		return "", fmt.Errorf("reserve container name: %w", err)
	}
	return holder, nil
}

// build is what the steps of one creation share.
type build struct {
	sb      sandbox.Record
	rec     Record
	image   Image
	handler Handler
	origin  *origin // nil for a container that begins anew
	// pluginVolumes counts the mounts of plugins that were idmapped, and settle is theirs.
	pluginVolumes int
	settle        func(context.Context)
}

// make takes a reserved container to StateCreated. What it leaves behind on an error is
// removed by its caller.
func (m *Manager) make(ctx context.Context, b *build) error {
	paths := m.Paths(b.rec.ID)
	// 0711: the pod's root is not the host's and has to reach its root filesystem.
	if err := os.MkdirAll(paths.Rootfs, 0o711); err != nil {
		return fmt.Errorf("make container directory: %w", err)
	}
	snapshot, err := m.opts.Snapshots.PrepareSnapshot(ctx, SnapshotRequest{
		Snapshotter: b.handler.Snapshotter,
		Key:         b.rec.ID,
		ImageID:     b.image.ID,
		Labels:      layerLabels(b.sb),
	})
	if err != nil {
		return err
	}
	if err := m.applyOrigin(ctx, b); err != nil {
		return err
	}
	if err := m.opts.Rootfs.Mount(ctx, mountRequest(b, snapshot, paths.Rootfs)); err != nil {
		return fmt.Errorf("mount root filesystem: %w", err)
	}
	if err := m.pinTarget(b.rec); err != nil {
		return err
	}
	b.rec.User, err = ocispec.ResolveUser(userdb.RootOpener(paths.Rootfs), b.image.Config.User, b.rec.Spec.Security.User)
	if err != nil {
		return err
	}
	if b.origin != nil && !b.origin.Exact {
		b.rec.User = b.origin.user()
	}
	if err := m.fillVolumes(ctx, b); err != nil {
		return err
	}
	if err := m.restoreFiles(ctx, b); err != nil {
		return err
	}
	if err := m.publishCreated(ctx, b); err != nil {
		return err
	}
	m.notify(sandbox.EventCreated, b.rec)
	klog.FromContext(ctx).V(2).Info("Container created", "container", b.rec.ID, "sandbox", b.sb.ID, "name", b.rec.Spec.Metadata.Name)
	return nil
}

// LabelIDs is a label of writable layers in a pod's user namespace: the host ids that own what is in them, as
// idpool.Range writes them.
const LabelIDs = "userns-shim.io/ids"

func layerLabels(sb sandbox.Record) map[string]string {
	if sb.Range == nil {
		return nil
	}
	return map[string]string{LabelIDs: sb.Range.String()}
}

func mountRequest(b *build, snapshot []mounts.Mount, target string) mounts.Request {
	sb := b.sb
	req := mounts.Request{Pod: sb.ID, UserNS: sb.Pins.User, Mounts: labeled(snapshot, b.rec.SELinux.Mount), Target: target}
	if sb.Range != nil {
		req.Mapping = mounts.Mapping{HostID: sb.Range.Start, Length: sb.Range.Length}
	}
	return req
}

// record stores the OCI specification with containerd.
func (m *Manager) record(ctx context.Context, b *build, spec *specs.Spec) error {
	return m.opts.Records.CreateRecord(ctx, EngineRecord{
		ID:            b.rec.ID,
		Image:         b.image.Name,
		Snapshotter:   b.handler.Snapshotter,
		SnapshotKey:   b.rec.ID,
		ViewKeys:      imageVolumeKeys(b.rec),
		Runtime:       b.handler.Runtime,
		BinaryName:    b.handler.BinaryName,
		Options:       b.handler.Options,
		SystemdCgroup: m.opts.SystemdCgroup,
		Group:         b.rec.ShimGroup,
		Labels:        labels(b),
		Spec:          spec,
	})
}

// The labels that tools of a node read.
const (
	labelKind          = "io.cri-containerd.kind"
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"
)

func labels(b *build) map[string]string {
	out := map[string]string{}
	for k, v := range b.rec.Spec.Labels {
		out[k] = v
	}
	md := b.sb.Spec.Metadata
	out[labelKind] = "container"
	out[LabelPodName] = md.Name
	out[LabelPodNamespace] = md.Namespace
	out[LabelPodUID] = md.UID
	out[LabelContainerName] = b.rec.Spec.Metadata.Name
	return out
}
