package stats

import (
	"fmt"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Filesystem is the one that holds a snapshotter's layers.
type Filesystem struct {
	Device             string // "/dev/vda1", or what else the mount table names as the source
	Bytes              uint64
	Inodes, InodesFree uint64
}

func readFilesystem(path string) (Filesystem, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Filesystem{}, fmt.Errorf("read filesystem of %s: %w", path, err)
	}
	device, err := deviceOf(path)
	if err != nil {
		return Filesystem{}, err
	}
	return Filesystem{
		Device:     device,
		Bytes:      st.Blocks * uint64(st.Bsize),
		Inodes:     st.Files,
		InodesFree: st.Ffree,
	}, nil
}

// deviceOf finds the innermost mount above path; of several at one place the last hides the rest.
func deviceOf(path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("find device of %s: %w", path, err)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(path))
	if err != nil {
		return "", fmt.Errorf("find device of %s: %w", path, err)
	}
	var inner *mountinfo.Info
	for _, m := range mounts {
		if inner == nil || len(m.Mountpoint) >= len(inner.Mountpoint) {
			inner = m
		}
	}
	if inner == nil {
		return "", fmt.Errorf("find device of %s: no mount above it", path)
	}
	return inner.Source, nil
}
