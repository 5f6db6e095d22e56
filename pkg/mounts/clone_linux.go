package mounts

import (
	"errors"
	"fmt"
	"os"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// cloneTree returns a detached clone of the mount that holds path, with path as its root.
func cloneTree(path string, recursive bool) (fd, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	f, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return noFD, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	return fd(f), nil
}

// openUserNS opens a pinned user namespace. A pin that is gone leaves an ordinary file, which
// mount_setattr would refuse with the same EINVAL as a filesystem that cannot be idmapped.
func openUserNS(path string) (fd, error) {
	f, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return noFD, &os.PathError{Op: "open user namespace", Path: path, Err: err}
	}
	kind, err := unix.IoctlRetInt(f, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWUSER {
		fd(f).close()
		return noFD, fmt.Errorf("%s is not a user namespace", path)
	}
	return fd(f), nil
}

// idmap gives a detached mount the mapping of a user namespace, and attributes with it. path is
// where the mount comes from, for the error.
func idmap(tree, userns fd, attrs uint64, recursive bool, path string) error {
	err := setattr(tree, recursive, &unix.MountAttr{
		Attr_set:  unix.MOUNT_ATTR_IDMAP | attrs,
		Userns_fd: uint64(userns),
	})
	// EINVAL: the filesystem type cannot. EPERM: idmapped already, or another namespace's filesystem.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		return &IDMapError{Path: path, Err: err}
	}
	if err != nil {
		return fmt.Errorf("idmap %s: %w", path, err)
	}
	return nil
}

func setattr(tree fd, recursive bool, attr *unix.MountAttr) error {
	if attr.Attr_set&unix.MOUNT_ATTR__ATIME != 0 { // one field, of which the kernel wants all bits cleared
		attr.Attr_clr |= unix.MOUNT_ATTR__ATIME
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(int(tree), "", flags, attr)
}

// explain completes an *IDMapError in err with the mount that holds path. Other errors are
// returned as they are.
func explain(err error, path string) error {
	var refused *IDMapError
	if !errors.As(err, &refused) || refused.FSType != "" {
		return err
	}
	refused.FSType, refused.Mountpoint = "unknown filesystem", path
	st, statErr := stat(cwd, path, 0)
	if statErr != nil {
		return err // the refusal matters more than what it is about
	}
	infos, infoErr := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		found := uint64(i.ID) == st.mount
		return !found, found
	})
	if infoErr == nil && len(infos) == 1 {
		refused.FSType, refused.Mountpoint = infos[0].FSType, infos[0].Mountpoint
	}
	return err
}
