package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/checkpoint"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// Restored says that a container goes on from a checkpoint when it starts.
type Restored struct {
	// From is the archive, or the image that holds one.
	From string `json:"from"`
	// Exact holds the container's spec against the process that was written down. Otherwise that process
	// stands, whatever the spec asks for: it names an image that has no program of its own.
	Exact bool `json:"exact,omitempty"`
}

// maxImageBytes bounds what the checkpoint in an image unpacks to. An archive on the node's own disk
// unpacks to no more than its size.
const maxImageBytes = 64 << 30

// Restore is Create for a container that goes on from an archive that Checkpoint wrote. What the spec says of
// image and process has to be what was written down, and is ErrInvalid otherwise.
func (m *Manager) Restore(ctx context.Context, sb sandbox.Record, spec Spec, archive string) (string, error) {
	return m.create(ctx, sb, spec, archive)
}

// origin is the unpacked checkpoint of which a container is made.
type origin struct {
	Restored
	id      string // of the container to be
	dir     string
	root    *os.Root
	desc    checkpoint.Description
	manager *Manager
}

// restoreDir has a container's unpacked checkpoint until it was started.
func (m *Manager) restoreDir(id string) string { return filepath.Join(m.opts.RootDir, "restores", id) }

// open resolves the image of a spec. Where that is a checkpoint, or an archive is given, it unpacks it
// and returns the image below it.
func (m *Manager) open(ctx context.Context, sb sandbox.Record, spec Spec, h Handler, archive string) (Image, *origin, error) {
	if archive == "" && filepath.IsAbs(spec.Image) {
		return m.unpacked(ctx, sb, h, Restored{From: spec.Image}, fromFile(spec.Image))
	}
	image, err := m.opts.Images.ResolveImage(ctx, spec.Image, h.Snapshotter)
	if err != nil {
		return Image{}, nil, err
	}
	if archive == "" {
		if checkpoint.NameOf(image.Annotations) == "" {
			return image, nil, nil
		}
		if !m.opts.RestoreImages {
			return Image{}, nil, fmt.Errorf("%w: image %s is a checkpoint, and this node restores none from images: CRIU does as root what an image says (restoreCheckpointImages)", ErrCheckpoint, spec.Image)
		}
		return m.unpacked(ctx, sb, h, Restored{From: spec.Image}, m.fromImage(image))
	}
	base, o, err := m.unpacked(ctx, sb, h, Restored{From: archive, Exact: true}, fromFile(archive))
	if err == nil && base.ID != image.ID {
		err = fmt.Errorf("%w: its image is %s, that of the checkpoint %s", ErrInvalid, image.ID, base.ID)
	}
	if err == nil && o.desc.Config.OCIRuntime != runtimeName(h) {
		err = fmt.Errorf("%w: the checkpoint was made with %s, and the runtime handler runs %s", ErrInvalid, o.desc.Config.OCIRuntime, runtimeName(h))
	}
	if err != nil {
		return Image{}, nil, errors.Join(err, o.remove())
	}
	return base, o, nil
}

// unpacker fills a directory with the content of a checkpoint.
type unpacker func(ctx context.Context, root *os.Root) error

func fromFile(path string) unpacker {
	return func(ctx context.Context, root *os.Root) error {
		// Without waiting for a writer, should it be a FIFO.
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%w: %s is no regular file", ErrInvalid, path)
		}
		if err != nil {
			return err
		}
		return checkpoint.Unpack(ctx, f, root, &checkpoint.Limits{Bytes: info.Size(), Files: checkpoint.MaxFiles})
	}
}

func (m *Manager) fromImage(image Image) unpacker {
	return func(ctx context.Context, root *os.Root) error {
		limits := checkpoint.Limits{Bytes: maxImageBytes, Files: checkpoint.MaxFiles}
		return m.opts.Diffs.ReadLayers(ctx, image.ID, func(layer io.Reader) error {
			return checkpoint.Unpack(ctx, layer, root, &limits)
		})
	}
}

// unpacked unpacks a checkpoint and finds the image that its container was made of.
func (m *Manager) unpacked(ctx context.Context, sb sandbox.Record, h Handler, from Restored, fill unpacker) (Image, *origin, error) {
	err := m.canRestore(sb)
	if err == nil {
		err = m.knowsCheckpoints(ctx, h)
	}
	if err != nil {
		return Image{}, nil, fmt.Errorf("restore from %s: %w", from.From, err)
	}
	o := &origin{Restored: from, id: state.NewID(), manager: m}
	image, err := o.fill(ctx, h, fill)
	if err != nil {
		return Image{}, nil, errors.Join(fmt.Errorf("restore from %s: %w", from.From, err), o.remove())
	}
	return image, o, nil
}

func (o *origin) fill(ctx context.Context, h Handler, fill unpacker) (image Image, err error) {
	o.dir = o.manager.restoreDir(o.id)
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return Image{}, err
	}
	if o.root, err = os.OpenRoot(o.dir); err != nil {
		return Image{}, err
	}
	if err := fill(ctx, o.root); err != nil {
		return Image{}, err
	}
	if o.desc, err = checkpoint.Read(o.root); err != nil {
		return Image{}, err
	}
	if err := os.WriteFile(o.configFile(), []byte(criuConfig), 0o600); err != nil {
		return Image{}, err
	}
	config := o.desc.Config
	ref := cmp.Or(config.RootfsImageRef, config.RootfsImageName, config.RootfsImage)
	image, err = o.manager.opts.Images.ResolveImage(ctx, ref, h.Snapshotter)
	if err != nil {
		return Image{}, fmt.Errorf("its container was made of image %s, which has to be pulled first: %w", ref, err)
	}
	return image, nil
}

// criuConfig has what containerd does not pass on: connections come back closed, for the pod's
// address is another, and what Checkpoint allows to be written can be read.
const criuConfig = "tcp-close\nfile-locks\next-unix-sk\n"

func (o *origin) configFile() string { return filepath.Join(o.dir, "criu.conf") }

// remove removes the unpacked checkpoint. It may be called on nil.
func (o *origin) remove() error {
	if o == nil {
		return nil
	}
	o.close()
	return o.manager.removeRestore(o.id)
}

func (o *origin) close() {
	if o != nil && o.root != nil {
		_ = o.root.Close()
	}
}

func (m *Manager) removeRestore(id string) error {
	return removeTree(filepath.Join(m.opts.RootDir, "restores"), id)
}

// canRestore says why a sandbox can have no restored containers. CRIU makes a user namespace of its own for
// processes that were in one (4.1), even where it is told to join another. From there it cannot
// enter the pod's network namespace, which belongs to the pod's user namespace.
func (m *Manager) canRestore(sb sandbox.Record) error {
	if sb.Range == nil {
		return nil
	}
	return fmt.Errorf("%w: pod %s has a user namespace, and CRIU cannot bring processes back into an existing one", ErrCheckpoint, sb.ID)
}

// applyOrigin brings the snapshot to where the container's root filesystem was.
func (m *Manager) applyOrigin(ctx context.Context, b *build) error {
	if b.origin == nil {
		return nil
	}
	diff, err := b.origin.root.Open(checkpoint.DiffFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer diff.Close()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := checkpoint.CopyDiff(ctx, w, diff, checkpoint.Rewrite{Deleted: b.origin.desc.Deleted})
		w.CloseWithError(err)
		done <- err
	}()
	err = m.opts.Diffs.ApplyDiff(ctx, b.rec.Snapshotter, b.rec.ID, r)
	r.CloseWithError(err)
	if copyErr := <-done; copyErr != nil {
		err = copyErr // ApplyDiff repeats it
	}
	return err
}

// restoreFiles fills what is outside the root filesystem: declared volumes, and /dev/shm where nobody has
// used it yet.
func (m *Manager) restoreFiles(ctx context.Context, b *build) error {
	if b.origin == nil {
		return nil
	}
	for i, p := range b.rec.DeclaredVolumes {
		name := checkpoint.VolumeFile(p)
		if _, err := b.origin.root.Stat(name); err != nil {
			continue // nothing is known of it, so it has what the image has
		}
		dir := m.Paths(b.rec.ID).DeclaredVolume(i)
		if err := removeContent(dir); err != nil {
			return err
		}
		if err := checkpoint.UnpackTree(ctx, b.origin.root, name, dir); err != nil {
			return err
		}
	}
	shm := m.podFiles(b.sb).Shm
	if entries, err := os.ReadDir(shm); err != nil || len(entries) > 0 || b.sb.Spec.Namespaces.IPC == sandbox.ModeNode {
		return err
	}
	return checkpoint.UnpackTree(ctx, b.origin.root, checkpoint.ShmFile, shm)
}

func removeContent(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := root.RemoveAll(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// user is the one that the processes of the checkpoint have.
func (o *origin) user() ocispec.ResolvedUser {
	u := o.desc.Spec.Process.User
	return ocispec.ResolvedUser{UID: u.UID, GID: u.GID, AdditionalGids: u.AdditionalGids}
}

// launchRestored is launch for a container that goes on from a checkpoint.
func (m *Manager) launchRestored(ctx context.Context, rec Record, io Stdio) (uint32, error) {
	dir := m.restoreDir(rec.ID)
	pid, err := m.opts.Checkpoints.RestoreTask(ctx, rec.group(), io, Dump{ID: rec.ID, Images: filepath.Join(dir, checkpoint.ImagesDir), Work: dir})
	if err != nil {
		return 0, criuError(filepath.Join(dir, checkpoint.RestoreLog), err)
	}
	return pid, nil
}

// forgetOrigin removes the checkpoint of a container that runs by now. Remove tries again.
func (m *Manager) forgetOrigin(ctx context.Context, rec Record) {
	if rec.Restored == nil {
		return
	}
	if err := m.removeRestore(rec.ID); err != nil {
		klog.FromContext(ctx).Error(err, "Unpacked checkpoint is still there", "container", rec.ID)
	}
}
