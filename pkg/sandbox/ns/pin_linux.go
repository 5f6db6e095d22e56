package ns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// makePinFiles makes the empty files that the pins are mounted on, all or none. A file that
// exists is another creation's.
func makePinFiles(req Request, pins Pins) (err error) {
	var made []string
	defer func() {
		if err != nil {
			for _, path := range made {
				err = errors.Join(err, os.Remove(path))
			}
		}
	}()
	if pins.User+pins.IPC+pins.UTS != "" {
		if err := os.MkdirAll(req.Dir, 0o700); err != nil {
			return fmt.Errorf("pin directory: %w", err)
		}
	}
	if pins.Network != "" {
		// Readable by everybody: this is where `ip netns` and CNI daemons look.
		if err := os.MkdirAll(filepath.Dir(pins.Network), 0o755); err != nil {
			return fmt.Errorf("directory of network namespaces: %w", err)
		}
	}
	for _, k := range kinds {
		path := k.path(pins)
		if path == "" {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o444)
		if err != nil {
			return fmt.Errorf("pin file of the %s namespace: %w", k.name, err)
		}
		made = append(made, path)
		if err := f.Close(); err != nil {
			return fmt.Errorf("pin file of the %s namespace: %w", k.name, err)
		}
	}
	return nil
}

// Remove takes away the pins below dir and the one at netPath, and with the last of their
// references the namespaces. Either may be empty. What is not there is done; dir itself is
// removed when nothing else lies in it, and otherwise an error. It goes on after an error and
// joins them.
func Remove(ctx context.Context, dir, netPath string) error {
	var errs []error
	if netPath != "" {
		errs = append(errs, unpin(netPath))
	}
	if dir != "" {
		for _, name := range []string{utsPin, ipcPin, userPin} {
			errs = append(errs, unpin(filepath.Join(dir, name)))
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove pin directory: %w", err))
		}
	}
	err := errors.Join(errs...)
	if err == nil {
		klog.FromContext(ctx).V(4).Info("Namespaces removed", "dir", dir, "network", netPath)
	}
	return err
}

// unpin unmounts what is mounted on the file at path and removes the file. Removing it also
// detaches the copies of the mount that other mount namespaces cloned (kernel 3.18), so that a
// container that bind-mounted the host's /run does not keep the namespace alive.
func unpin(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("unpin namespace: %w", err)
	case !info.Mode().IsRegular(): // a bind-mounted namespace looks like a regular file
		return fmt.Errorf("unpin namespace: %s is a %s, not a pin", path, info.Mode().Type())
	}
	// A failed creation cannot stack mounts; a hand that repaired something can. EINVAL: no
	// mount is left.
	for err = nil; err == nil; {
		err = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount pin %s: %w", path, err)
	}
	if err := unix.Unlink(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove pin %s: %w", path, err)
	}
	return nil
}
