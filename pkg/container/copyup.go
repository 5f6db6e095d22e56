package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	continuity "github.com/containerd/continuity/fs"
	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"

	"github.com/userns-shim/userns-shim/pkg/mounts"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// declaredVolumes are the paths of an image config's Volumes that no mount of the client covers.
func declaredVolumes(declared map[string]struct{}, covering []ocispec.Mount) []string {
	var out []string
	for p := range declared {
		p = path.Join("/", p)
		covers := func(m ocispec.Mount) bool { return path.Join("/", m.ContainerPath) == p }
		if !slices.ContainsFunc(covering, covers) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// DeclaredVolume is the directory of a record's i-th declared volume.
func (p Paths) DeclaredVolume(i int) string { return filepath.Join(p.Declared, strconv.Itoa(i)) }

// declaredMounts show the declared volumes. They are idmapped like volumes of the client.
func (m *Manager) declaredMounts(rec Record) []ocispec.Mount {
	paths := m.Paths(rec.ID)
	var out []ocispec.Mount
	for i, p := range rec.DeclaredVolumes {
		out = append(out, ocispec.Mount{HostPath: paths.DeclaredVolume(i), ContainerPath: p, SELinuxRelabel: true})
	}
	return out
}

// fillVolumes makes the directories of the declared volumes, each with what the image has at its
// path. Owners on disk are those in the image, for the directories are mounted idmapped.
func (m *Manager) fillVolumes(ctx context.Context, b *build) error {
	if len(b.rec.DeclaredVolumes) == 0 {
		return nil
	}
	paths := m.Paths(b.rec.ID)
	// 0700: programs that a pod makes setuid belong to the host's root here.
	if err := os.MkdirAll(paths.Declared, 0o700); err != nil {
		return fmt.Errorf("make directory for volumes: %w", err)
	}
	root, err := m.unshiftedRoot(ctx, b)
	if err != nil {
		return err
	}
	for i, p := range b.rec.DeclaredVolumes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := copyUp(root, p, paths.DeclaredVolume(i)); err != nil {
			return fmt.Errorf("fill volume %s of image %s: %w", p, b.rec.Spec.Image, err)
		}
	}
	if root == paths.Rootfs {
		return nil
	}
	return m.releaseImageView(ctx, b.rec)
}

// unshiftedRoot is where the image's files have their own owners. The root filesystem of a pod with
// a user namespace is idmapped: files copied from there into a volume that is idmapped
// too would be shifted twice. So the image is mounted once more, as it is and read-only.
func (m *Manager) unshiftedRoot(ctx context.Context, b *build) (string, error) {
	paths := m.Paths(b.rec.ID)
	if b.sb.Pins.User == "" {
		return paths.Rootfs, nil
	}
	if err := os.Mkdir(paths.Image, 0o700); err != nil {
		return "", fmt.Errorf("make directory for the image: %w", err)
	}
	view, err := m.opts.Snapshots.PrepareSnapshot(ctx, SnapshotRequest{
		Snapshotter: b.handler.Snapshotter,
		Key:         imageViewKey(b.rec.ID),
		ImageID:     b.image.ID,
		View:        true,
	})
	if err != nil {
		return "", err
	}
	err = m.opts.Rootfs.Mount(ctx, mounts.Request{Mounts: view, Target: paths.Image, Readonly: true})
	return paths.Image, err
}

// imageViewKey names the snapshot that unshiftedRoot mounts.
func imageViewKey(id string) string { return id + "-image" }

// releaseImageView takes away what unshiftedRoot made.
func (m *Manager) releaseImageView(ctx context.Context, rec Record) error {
	image := m.Paths(rec.ID).Image
	if err := m.opts.Rootfs.Unmount(ctx, image); err != nil {
		return err
	}
	return errors.Join(
		removePath(image),
		ignoreNotFound(m.opts.Snapshots.RemoveSnapshot(ctx, rec.Snapshotter, imageViewKey(rec.ID))),
	)
}

// copyUp makes dir with the content, owners, modes and extended attributes that a directory of the
// image has. The path comes from the image, as may symbolic links in its way: it is resolved
// inside root.
func copyUp(root, imagePath, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	source, err := pathrs.OpenInRoot(root, imagePath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%w: it is no directory in the image", ErrInvalid)
	}
	// By the descriptor, so that what was resolved is what is copied; the dot makes it a directory
	// also for calls that do not follow a link at the end.
	return continuity.CopyDir(dir, fmt.Sprintf("/proc/self/fd/%d/.", source.Fd()),
		continuity.WithXAttrExclude("security.selinux"),
		continuity.WithXAttrErrorHandler(func(_, _, _ string, err error) error {
			if errors.Is(err, syscall.ENOTSUP) {
				return nil // the volumes' filesystem has none of this kind
			}
			return err
		}))
}

// removeDeclared removes the declared volumes. No mount is below them: a container mounts them
// private, and has ended.
func (m *Manager) removeDeclared(ctx context.Context, rec Record) error {
	if len(rec.DeclaredVolumes) == 0 {
		return nil
	}
	err := os.RemoveAll(m.Paths(rec.ID).Declared)
	if rec.State == StateCreating {
		err = errors.Join(err, m.releaseImageView(ctx, rec))
	}
	return err
}
