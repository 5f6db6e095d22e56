package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func mountTmpfs(dir string) (result, error) {
	return result{}, os.NewSyscallError("mount", unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
}

// remountWritable asks mount(2) to drop the read-only flag of a mount, then tries to write.
func remountWritable(dir string) (result, error) {
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil {
		return result{}, os.NewSyscallError("mount", err)
	}
	return result{}, write(dir)
}

// setattrWritable does the same with mount_setattr(2).
func setattrWritable(dir string) (result, error) {
	attr := &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, dir, 0, attr); err != nil {
		return result{}, os.NewSyscallError("mount_setattr", err)
	}
	return result{}, write(dir)
}

// rebindWritable makes a bind mount of the mount, which a process with CAP_SYS_ADMIN may, and tries to make
// that one writable.
func rebindWritable(dir string) (result, error) {
	other, err := os.MkdirTemp("", "rebind-")
	if err != nil {
		return result{}, err
	}
	if err := unix.Mount(dir, other, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return result{}, os.NewSyscallError("bind", err)
	}
	return remountWritable(other)
}

func unmount(dir string) (result, error) {
	return result{}, os.NewSyscallError("umount", unix.Unmount(dir, unix.MNT_DETACH))
}

func write(dir string) error {
	return os.WriteFile(filepath.Join(dir, "written"), []byte("by probe\n"), 0o644)
}
