package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// openTarget opens the directory that a root filesystem will be mounted on: no symbolic link, and
// no mountpoint.
func openTarget(path string) (fd, error) {
	f, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return noFD, &os.PathError{Op: "open", Path: path, Err: err}
	}
	st, err := stat(fd(f), "", 0)
	if err == nil && st.mountRoot {
		err = ErrMounted
	}
	if err != nil {
		fd(f).close()
		return noFD, err
	}
	return fd(f), nil
}

// attach makes a detached mount visible on target.
func attach(tree, target fd) error {
	if err := moveMount(tree, target, ""); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

// moveMount attaches a detached mount on path below dir, or on dir itself when path is empty.
func moveMount(tree, dir fd, path string) error {
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH
	if path == "" {
		flags |= unix.MOVE_MOUNT_T_EMPTY_PATH
	}
	if err := unix.MoveMount(int(tree), "", int(dir), path, flags); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	return nil
}

// Unmount unmounts everything that is mounted on target. It is done when nothing is: a target that is not
// there, or is no mountpoint, is no error. A mount that is in use is detached from the
// tree and ends with its last user. The directory stays; who removes it must use a call that
// cannot reach into a mount (rmdir).
func (m *Mounter) Unmount(ctx context.Context, target string) error {
	for unmounted := 0; ; unmounted++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
		switch err := unmount(ctx, target); {
		case err == nil: // perhaps another one below
		case errors.Is(err, errNotMounted):
			if unmounted > 0 {
				m.unmounts.Add(1)
			}
			return nil
		default:
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
}

// errNotMounted says that there is nothing left to unmount.
var errNotMounted = errors.New("not mounted")

// unmount unmounts the topmost mount on target.
func unmount(ctx context.Context, target string) error {
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		klog.FromContext(ctx).V(4).Info("Mount is busy, detaching it", "target", target)
		err = unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return errNotMounted
	case errors.Is(err, unix.EINVAL):
		// No mountpoint, but also a mount that may not be unmounted.
		if st, statErr := stat(cwd, target, unix.AT_SYMLINK_NOFOLLOW); statErr == nil && st.mountRoot {
			return err
		}
		return errNotMounted
	}
	return err
}
