package mounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Volume asks for a read-only view of a host's file or directory, idmapped for one pod.
//
// An OCI runtime could idmap the volume itself, but it makes its mounts inside the pod's mount
// namespace, where a process with CAP_SYS_ADMIN in the pod may make them writable again. A mount
// that is read-only before the pod's mount namespace is copied from the host's is locked so by
// the kernel (lock_mnt_tree), because the namespaces belong to different user namespaces.
type Volume struct {
	Source string // file or directory, without symbolic links in the way
	Target string // made by Mount as a file or a directory, like the source
	UserNS string // path of the pod's pinned user namespace
	// Recursive makes the mounts below Source read-only too. They come along in any case, and as
	// with a runtime's option "idmap" their ids stay the host's.
	Recursive bool
	// Follow receives mounts that appear below Source later; otherwise the view is private.
	Follow bool
}

// MountVolume makes the view at v.Target; Unmount and os.Remove take it away again. An error that
// wraps ErrNotIDMappable names the filesystem.
func (m *Mounter) MountVolume(ctx context.Context, v Volume) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("mount volume %s: %w", v.Source, err)
	}
	if err := makeTarget(v); err != nil {
		return fmt.Errorf("mount volume %s: %w", v.Source, err)
	}
	tree, err := m.volume(v)
	if err != nil {
		return fmt.Errorf("mount volume %s: %w", v.Source, explain(err, v.Source))
	}
	defer tree.close()
	if err := moveMount(tree, cwd, v.Target); err != nil {
		return fmt.Errorf("mount volume %s at %s: %w", v.Source, v.Target, err)
	}
	m.mounts.Add(1)
	return nil
}

// volume returns the detached view. Propagation is changed before it is attached, so that an
// unmount of the view never reaches the source.
func (m *Mounter) volume(v Volume) (fd, error) {
	ns, err := openUserNS(v.UserNS)
	if err != nil {
		return noFD, err
	}
	defer ns.close()
	tree, err := cloneTree(v.Source, true)
	if err != nil {
		return noFD, err
	}
	shared := &unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if v.Follow {
		shared.Propagation = unix.MS_SLAVE
	}
	err = setattr(tree, true, shared)
	if err == nil && v.Recursive {
		err = setattr(tree, true, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	if err == nil {
		err = idmap(tree, ns, unix.MOUNT_ATTR_RDONLY, false, v.Source)
	}
	if err != nil {
		tree.close()
		return noFD, err
	}
	m.idmaps.Add(1)
	return tree, nil
}

// makeTarget makes what the view is attached to: the kernel wants a file for a file.
func makeTarget(v Volume) error {
	info, err := os.Stat(v.Source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.Mkdir(v.Target, 0o700)
	} else {
		var f *os.File
		if f, err = os.OpenFile(v.Target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err == nil {
			err = f.Close()
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", v.Target, ErrMounted)
	}
	return err
}
