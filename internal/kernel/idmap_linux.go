package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// probeTmpfs idmaps a tmpfs that is mounted nowhere.
func (p *Prober) probeTmpfs() error {
	tree, err := detachedTmpfs()
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return p.idmap(tree)
}

// probeIDMapped idmaps a clone of the mount that holds path.
func (p *Prober) probeIDMapped(path string) error {
	tree, err := p.idmappedClone(path)
	if err != nil {
		return err
	}
	return unix.Close(tree)
}

// idmappedClone returns a detached and idmapped clone of the mount that holds path.
func (p *Prober) idmappedClone(path string) (int, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("clone mount of %s: %w", path, err)
	}
	if err := p.idmap(tree); err != nil {
		unix.Close(tree)
		return -1, err
	}
	return tree, nil
}

func (p *Prober) idmap(tree int) error {
	ns, err := p.userNS()
	if err != nil {
		return fmt.Errorf("make user namespace: %w", err)
	}
	defer ns.Close()
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, attr); err != nil {
		return fmt.Errorf("idmap: %w", err)
	}
	return nil
}

// detachedTmpfs returns a tmpfs that is mounted nowhere.
func detachedTmpfs() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open tmpfs: %w", err)
	}
	defer unix.Close(fs)
	return mountDetached(fs)
}

// mountDetached makes the filesystem of a configured context and mounts it nowhere.
func mountDetached(fs int) (int, error) {
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create filesystem: %w", err)
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount filesystem: %w", err)
	}
	return tree, nil
}
