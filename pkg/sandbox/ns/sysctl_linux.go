package ns

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// WriteSysctls sets sysctls in the namespaces that pins names; user is the mapping of the pod's
// user namespace, nil for the host's, and ids in values are the pod's. All are validated before the first is written. Errors wrap
// ErrSysctl where the name or value is at fault.
func WriteSysctls(ctx context.Context, pins Pins, user *IDMap, sysctls map[string]string) error {
	if len(sysctls) == 0 {
		return nil
	}
	for name := range sysctls {
		if err := ValidateSysctl(name, pins.own()); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write sysctls: %w", context.Cause(ctx))
	}
	var err error
	onThrowawayThread(func() {
		for _, k := range kinds {
			path := k.path(pins)
			if k.flag == unix.CLONE_NEWUSER || path == "" {
				continue
			}
			if err = enter(path, k); err != nil {
				return
			}
		}
		for _, s := range sortedSysctls(sysctls) {
			if err = s.write(user); err != nil {
				return
			}
		}
	})
	return err
}

// enter moves the calling thread into a pinned namespace.
func enter(path string, k kind) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("enter %s namespace: %w", k.name, err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), int(k.flag)); err != nil {
		return fmt.Errorf("enter %s namespace %s: %w", k.name, path, err)
	}
	return nil
}

// write sets s through the namespaces of the calling thread and with its credentials, which are the host's.
func (s sysctl) write(user *IDMap) error {
	s, err := s.onHost(user)
	if err != nil {
		return err
	}
	// The path has no component that could lead elsewhere, and /proc/sys no symlinks.
	fd, err := unix.Openat2(unix.AT_FDCWD, s.file(), &unix.OpenHow{
		Flags:   unix.O_WRONLY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return s.writeError(err)
	}
	defer unix.Close(fd)
	if user != nil && sysctlOwner(s.path) == ownerNetwork {
		if err := s.requireOwner(fd, user.HostID); err != nil {
			return err
		}
	}
	if _, err := unix.Write(fd, s.line()); err != nil { // the kernel takes a value in one write
		return s.writeError(err)
	}
	return nil
}

// requireOwner refuses a file below /proc/sys/net that is not the network namespace's. The kernel
// shows those of a namespace as owned by the root of its user namespace, and a table that a
// module registered for the whole host as owned by the host's root, who is writing here.
func (s sysctl) requireOwner(fd int, uid uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("owner of sysctl %s: %w", s.name, err)
	}
	if st.Uid != uid {
		return fmt.Errorf("%w: %q is not kept per namespace by this kernel", ErrSysctl, s.name)
	}
	return nil
}

// writeError tells the pod's mistakes from the system's.
func (s sysctl) writeError(err error) error {
	for _, mistake := range []error{unix.ENOENT, unix.ENOTDIR, unix.EINVAL, unix.ERANGE, unix.EISDIR, unix.ELOOP} {
		if errors.Is(err, mistake) {
			return fmt.Errorf("%w: write %q to %q: %w", ErrSysctl, s.value, s.name, err)
		}
	}
	return fmt.Errorf("write %q to sysctl %q: %w", s.value, s.name, err)
}
