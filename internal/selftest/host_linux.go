package selftest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/selftest/inside"
)

// ProcHost is the node as this process sees it through /proc and its file system. Where the test
// runs in a container it sees little, and says ErrNotSeen.
type ProcHost struct{}

// FindProcess goes through /proc.
func (ProcHost) FindProcess(token string) (int, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, path := range paths {
		// A process that has just ended is none.
		data, err := os.ReadFile(path)
		if err != nil || !slices.Contains(strings.Split(string(data), "\x00"), token) {
			continue
		}
		return strconv.Atoi(filepath.Base(filepath.Dir(path)))
	}
	return 0, fmt.Errorf("process with the argument %s: %w", token, ErrNotSeen)
}

// Owner looks through /proc/PID/root. The path is one that the test itself made; a container's
// symbolic link at its end is not followed.
func (ProcHost) Owner(pid int, path string) (inside.Owner, error) {
	_, owner, err := lstat(filepath.Join("/proc", strconv.Itoa(pid), "root", path))
	return owner, err
}

// layerDirs are where layers are below, or beside, the directory that a runtime tells as that of its images:
// containerd's overlayfs snapshotter, containers-storage.
var layerDirs = []string{"snapshots/*/fs", "overlay/*/diff", "*/diff", "../overlay/*/diff"}

// FindLayerFile looks for the path with the same inode: overlay shows the inode numbers of its layers.
func (ProcHost) FindLayerFile(dir string, file inside.Witness) (LayerFile, error) {
	for _, pattern := range layerDirs {
		paths, err := filepath.Glob(filepath.Join(dir, pattern, file.Path))
		if err != nil {
			return LayerFile{}, err
		}
		for _, path := range paths {
			inode, owner, err := lstat(path)
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return LayerFile{}, err
			}
			if err == nil && inode == file.Inode {
				return LayerFile{Path: path, Owner: owner}, nil
			}
		}
	}
	return LayerFile{}, fmt.Errorf("%s, inode %d, in the layers of %s: %w", file.Path, file.Inode, dir, ErrNotSeen)
}

func lstat(path string) (uint64, inside.Owner, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, inside.Owner{}, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return st.Ino, inside.Owner{UID: st.Uid, GID: st.Gid}, nil
}

// MappedIDs reads the uid_map of every process that is not in this process's own namespace.
func (ProcHost) MappedIDs() ([]Extent, error) {
	own, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return nil, fmt.Errorf("read own id map: %w", err)
	}
	paths, err := filepath.Glob("/proc/[0-9]*/uid_map")
	if err != nil {
		return nil, err
	}
	var mapped []Extent
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil || string(data) == string(own) {
			continue
		}
		for line := range strings.Lines(string(data)) {
			var insideID, hostID, length uint32
			if _, err := fmt.Sscan(line, &insideID, &hostID, &length); err != nil {
				return nil, fmt.Errorf("read %s: %w", path, err)
			}
			mapped = append(mapped, Extent{Start: hostID, Length: uint64(length)})
		}
	}
	return mapped, nil
}
