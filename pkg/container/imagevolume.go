package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// ImageVolume is an image that the mount with this index shows.
type ImageVolume struct {
	Mount    int    `json:"mount"`
	ImageID  string `json:"imageId"`
	ImageRef string `json:"imageRef"` // as Record.ImageRef
}

// resolveImageVolumes finds the images that mounts name. One that is not present is an error that
// wraps errdefs.ErrNotFound.
func (m *Manager) resolveImageVolumes(ctx context.Context, rec Record) ([]ImageVolume, error) {
	var out []ImageVolume
	for i, v := range rec.Spec.Mounts {
		if v.Image == nil {
			continue
		}
		image, err := m.opts.Images.ResolveImage(ctx, v.Image.Image, rec.Snapshotter)
		if err != nil {
			return nil, fmt.Errorf("%w: volume at %s: %w", ErrImageVolume, v.ContainerPath, err)
		}
		out = append(out, ImageVolume{Mount: i, ImageID: image.ID, ImageRef: cmp.Or(image.Ref, image.ID)})
	}
	return out, nil
}

// imageVolumeKey names the snapshot of an image volume.
func imageVolumeKey(id string, v ImageVolume) string {
	return id + "-volume-" + strconv.Itoa(v.Mount)
}

func imageVolumeKeys(rec Record) []string {
	var keys []string
	for _, v := range rec.ImageVolumes {
		keys = append(keys, imageVolumeKey(rec.ID, v))
	}
	return keys
}

// mountImage mounts an image volume, read-only and idmapped like a root filesystem, for the OCI
// runtime to bind into the container. unmountVolumes takes the mount away.
func (m *Manager) mountImage(ctx context.Context, b *build, i int) (ocispec.Mount, error) {
	known := slices.IndexFunc(b.rec.ImageVolumes, func(v ImageVolume) bool { return v.Mount == i })
	volume := b.rec.ImageVolumes[known]
	paths := m.Paths(b.rec.ID)
	target := paths.Volume(i)
	if err := os.MkdirAll(target, 0o700); err != nil {
		return ocispec.Mount{}, err
	}
	snapshot, err := m.opts.Snapshots.PrepareSnapshot(ctx, SnapshotRequest{
		Snapshotter: b.handler.Snapshotter,
		Key:         imageVolumeKey(b.rec.ID, volume),
		ImageID:     volume.ImageID,
		View:        true,
	})
	if err != nil {
		return ocispec.Mount{}, err
	}
	req := mountRequest(b, snapshot, target)
	req.Readonly = true
	if err := m.opts.Rootfs.Mount(ctx, req); err != nil {
		return ocispec.Mount{}, err
	}
	v := b.rec.Spec.Mounts[i]
	v.Readonly = true
	v.HostPath, err = subPath(target, v.Image.SubPath)
	return v, err
}

// subPath resolves a directory of a mounted image inside of it. Nobody can change what is found, for the
// image is read-only. Single files are not supported, as on other runtimes.
func subPath(root, path string) (string, error) {
	if path == "" {
		return root, nil
	}
	dir, err := pathrs.OpenInRoot(root, path)
	if err != nil {
		return "", fmt.Errorf("%w: sub-path %q of the image: %w", ErrInvalid, path, err)
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%w: sub-path %q of the image is no directory", ErrInvalid, path)
	}
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
}

// removeImageVolumes removes the snapshots of image volumes; their mounts are gone by then.
func (m *Manager) removeImageVolumes(ctx context.Context, rec Record) error {
	var errs []error
	for _, key := range imageVolumeKeys(rec) {
		errs = append(errs, ignoreNotFound(m.opts.Snapshots.RemoveSnapshot(ctx, rec.Snapshotter, key)))
	}
	return errors.Join(errs...)
}
