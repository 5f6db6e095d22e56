package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/userns-shim/userns-shim/pkg/mounts"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// volumes resolves the sources of the client's mounts. In a pod with a user namespace their
// owners are the host's and the pod shall see them as such: writable ones are idmapped by the
// OCI runtime, read-only ones here, since only that way can the pod not make them writable.
func (m *Manager) volumes(ctx context.Context, b *build) ([]ocispec.Mount, error) {
	wanted := slices.Concat(b.rec.Spec.Mounts, m.declaredMounts(b.rec))
	out := make([]ocispec.Mount, 0, len(wanted))
	for i, v := range wanted {
		if v.Image != nil {
			mounted, err := m.mountImage(ctx, b, i)
			if err != nil {
				return nil, fmt.Errorf("%w: image %s at %s: %w", ErrImageVolume, v.Image.Image, v.ContainerPath, err)
			}
			out = append(out, mounted)
			continue
		}
		source, err := hostPath(v.HostPath)
		if err != nil {
			return nil, fmt.Errorf("volume at %s: %w", v.ContainerPath, err)
		}
		v.HostPath = source
		if err := checkPropagation(b.sb, v); err != nil {
			return nil, fmt.Errorf("volume at %s: %w", v.ContainerPath, err)
		}
		if v.SELinuxRelabel {
			if err := m.opts.Labels.Relabel(v.HostPath, b.rec.SELinux.Mount); err != nil {
				return nil, fmt.Errorf("volume at %s: %w", v.ContainerPath, err)
			}
		}
		if b.sb.Pins.User != "" {
			if v, err = m.idmapVolume(ctx, b, i, v); err != nil {
				return nil, fmt.Errorf("volume at %s in a pod with a user namespace: %w", v.ContainerPath, err)
			}
		}
		out = append(out, v)
	}
	return out, nil
}

// idmapVolume asks the kernel in both cases now, so that the error names the volume and does not
// come from the OCI runtime at the start.
func (m *Manager) idmapVolume(ctx context.Context, b *build, i int, v ocispec.Mount) (ocispec.Mount, error) {
	if !v.Readonly {
		v.IDMapped = true
		return v, m.opts.Rootfs.CheckIDMappable(ctx, mounts.Check{Path: v.HostPath, UserNS: b.sb.Pins.User})
	}
	paths := m.Paths(b.rec.ID)
	if err := os.MkdirAll(paths.Volumes, 0o700); err != nil {
		return v, err
	}
	view := paths.Volume(i)
	err := m.opts.Rootfs.MountVolume(ctx, mounts.Volume{
		Source:    v.HostPath,
		Target:    view,
		UserNS:    b.sb.Pins.User,
		Recursive: v.RecursiveReadOnly,
		Follow:    v.Propagation != ocispec.PropagationPrivate,
	})
	v.HostPath = view
	return v, err
}

// Volume is where the read-only view of a record's i-th mount is.
func (p Paths) Volume(i int) string { return filepath.Join(p.Volumes, strconv.Itoa(i)) }

// unmountVolumes takes the views of a container away, those of plugins too: it looks what there are.
func (m *Manager) unmountVolumes(ctx context.Context, rec Record) error {
	dir := m.Paths(rec.ID).Volumes
	views, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list volumes: %w", err)
	}
	var errs []error
	for _, entry := range views {
		view := filepath.Join(dir, entry.Name())
		if err := m.opts.Rootfs.Unmount(ctx, view); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := os.Remove(view); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// hostPath resolves symlinks, and creates what does not exist as a directory, as other runtimes
// do: kubelet has checked the type of a hostPath volume before.
func hostPath(path string) (string, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if err == nil {
		return resolved, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: source %s: %w", ErrInvalid, path, err)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", fmt.Errorf("%w: source %s does not exist and cannot be made: %w", ErrInvalid, path, err)
	}
	return path, nil
}
