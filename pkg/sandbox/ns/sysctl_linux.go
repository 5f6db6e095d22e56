package ns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteSysctls sets sysctls in the namespaces that pins names; user is the mapping of the pod's
// user namespace, nil for the host's. All are validated before the first is written. Errors wrap
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
		err = writeSysctls(sysctls, user)
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

// writeSysctls writes through the namespaces of the calling thread, in the order of the names so
// that the outcome does not depend on chance.
func writeSysctls(sysctls map[string]string, user *IDMap) error {
	if len(sysctls) == 0 {
		return nil
	}
	root, err := unix.Open("/proc/sys", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /proc/sys: %w", err)
	}
	defer unix.Close(root)
	for _, name := range slices.Sorted(maps.Keys(sysctls)) {
		if err := writeSysctl(root, name, sysctls[name], user); err != nil {
			return err
		}
	}
	return nil
}

func writeSysctl(root int, name, value string, user *IDMap) error {
	path, err := sysctlPath(name)
	if err != nil {
		return err
	}
	fd, err := unix.Openat2(root, strings.Join(path, "/"), &unix.OpenHow{
		Flags:   unix.O_WRONLY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return sysctlError(name, value, err)
	}
	defer unix.Close(fd)
	if user != nil && sysctlOwner(path) == ownerNetwork {
		if err := requireOwner(fd, name, user.HostID); err != nil {
			return err
		}
	}
	// One write per value. The newline lets an empty value clear a list, as with sysctl(8).
	if _, err := unix.Write(fd, []byte(value+"\n")); err != nil {
		return sysctlError(name, value, err)
	}
	return nil
}

// requireOwner refuses a file below /proc/sys/net that is not the network namespace's. The kernel
// shows those of a namespace as owned by the root of its user namespace, and a table that a
// module registered for the whole host as owned by the host's root, who is writing here.
func requireOwner(fd int, name string, uid uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("sysctl %s: %w", name, err)
	}
	if st.Uid != uid {
		return fmt.Errorf("%w: %q is not kept per namespace by this kernel", ErrSysctl, name)
	}
	return nil
}

// sysctlError tells the pod's mistakes from the system's.
func sysctlError(name, value string, err error) error {
	for _, mistake := range []error{unix.ENOENT, unix.EINVAL, unix.ERANGE, unix.EISDIR, unix.ELOOP} {
		if errors.Is(err, mistake) {
			return fmt.Errorf("%w: write %q to %q: %w", ErrSysctl, value, name, err)
		}
	}
	return fmt.Errorf("write sysctl %q = %q: %w", name, value, err)
}
