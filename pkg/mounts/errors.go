package mounts

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrUnsupportedMount says that a snapshotter's mounts are of a form that this package cannot
	// make: templates, loop devices, filesystems that need a helper program, several mounts.
	// Another snapshotter has to be configured.
	ErrUnsupportedMount = errors.New("unsupported snapshot mount")

	// ErrNotIDMappable says that a filesystem cannot be idmapped. Errors that wrap it are an
	// *IDMapError, whose text names the filesystem and what can be done.
	ErrNotIDMappable = errors.New("filesystem cannot be idmapped")

	// ErrMounted says that the target of Mount is a mountpoint already. Unmount it first.
	ErrMounted = errors.New("target is a mountpoint already")

	// ErrMapping says that a user namespace does not map what the request says it maps.
	ErrMapping = errors.New("user namespace has another mapping")
)

// IDMapError is the refusal of one filesystem to be idmapped. It wraps ErrNotIDMappable and the
// kernel's error.
type IDMapError struct {
	Path       string // what was asked for
	Mountpoint string // the mount that refuses: the one that holds Path, or one below it
	FSType     string // as in /proc/mounts
	Err        error
}

// Error names the path, the filesystem and the remedy.
func (e *IDMapError) Error() string {
	return fmt.Sprintf("idmap %s: %v: %s on %s: %v; %s",
		e.Path, ErrNotIDMappable, e.FSType, e.Mountpoint, e.Err, remedy(e.FSType))
}

// Unwrap returns ErrNotIDMappable and the kernel's error.
func (e *IDMapError) Unwrap() []error { return []error{ErrNotIDMappable, e.Err} }

// remedy tells what can be done about a filesystem type that was refused. The kernel versions
// are those that taught the filesystem idmapped mounts.
func remedy(fsType string) string {
	const otherwise = "or run the pod with hostUsers: true"
	name, _, _ := strings.Cut(fsType, ".")
	switch name {
	case "nfs", "nfs4", "cifs", "smb3":
		return "no kernel can idmap this network filesystem; use a volume on ext4, xfs, btrfs or cephfs, " + otherwise
	case "overlay":
		return "a merged overlay cannot be idmapped; use a directory outside of it, " + otherwise
	case "tmpfs":
		return "tmpfs needs Linux 6.3; upgrade the kernel, " + otherwise
	case "hugetlbfs":
		return "hugetlbfs needs Linux 6.9; upgrade the kernel, " + otherwise
	case "ceph":
		return "cephfs needs Linux 6.7 and a server that knows idmapped mounts; upgrade, " + otherwise
	case "fuse", "fuseblk", "virtiofs":
		return "FUSE needs Linux 6.12 and a server that opts in; " +
			"upgrade, use another volume, " + otherwise
	default:
		return "use a volume on ext4, xfs, btrfs or another filesystem that can be, " + otherwise
	}
}
