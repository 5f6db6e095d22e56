package labnode

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/internal/leaks"
)

// tunables are the kernel parameters that kubelet sets when it starts. They are the machine's, in no namespace.
var tunables = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// hideTunables is run in a mount namespace that is kubelet's alone: files of the directory $0 take the place of kernel
// parameters, and then "$@" is run. A change of the world's own /proc would keep pods from mounting theirs.
const hideTunables = `mount --make-private /proc
cd "$0"
for file in */* kernel/keys/*; do
    [ -d "$file" ] || mount --bind "$file" "/proc/sys/$file"
done
cd /
exec "$@"`

// writeTunables copies the kernel's own values into dir.
func writeTunables(dir string) error {
	for _, name := range tunables {
		value, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if err != nil {
			return fmt.Errorf("read kernel parameter: %w", err)
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make directory for kernel parameters: %w", err)
		}
		if err := os.WriteFile(path, value, 0o644); err != nil {
			return fmt.Errorf("write stand-in of kernel parameter: %w", err)
		}
	}
	return nil
}

// makeCgroups makes the cgroup called name at the top of every hierarchy: kubelet wants its root to exist.
func makeCgroups(name string) error {
	roots, err := leaks.CgroupRoots()
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range roots {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, fmt.Errorf("make kubelet's root cgroup: %w", err))
		}
		errs = append(errs, fillCpuset(dir))
	}
	return errors.Join(errs...)
}

// fillCpuset gives a new cgroup of version 1 its parent's processors and memory nodes, without which nothing can run in
// it. It does nothing in other hierarchies.
func fillCpuset(dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read cpuset: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), value, 0o644); err != nil {
			return fmt.Errorf("write cpuset: %w", err)
		}
	}
	return nil
}

// addNodeIP runs in the world.
func addNodeIP() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	addr, err := netlink.ParseAddr(NodeIP + "/32")
	if err != nil {
		return fmt.Errorf("parse the node's address: %w", err)
	}
	if err := netlink.AddrReplace(lo, addr); err != nil {
		return fmt.Errorf("add the node's address: %w", err)
	}
	return nil
}

// setKubeletUser runs in the world. It covers the files of users and subordinate ids with copies in which there is a
// user called kubelet with these ids, or uncovers the machine's own when there are none.
func setKubeletUser(dir string, ids Extent) error {
	for _, file := range []struct{ path, line string }{
		{"/etc/passwd", "kubelet:x:998:998::/:/usr/sbin/nologin\n"},
		{"/etc/subuid", fmt.Sprintf("kubelet:%d:%d\n", ids.Start, ids.Length)},
		{"/etc/subgid", fmt.Sprintf("kubelet:%d:%d\n", ids.Start, ids.Length)},
	} {
		copied := filepath.Join(dir, filepath.Base(file.path))
		if err := uncover(file.path, copied); err != nil {
			return err
		}
		if ids == (Extent{}) {
			continue
		}
		if err := cover(file.path, copied, file.line); err != nil {
			return err
		}
	}
	return nil
}

// uncover undoes cover, of which the copy is the trace.
func uncover(path, copied string) error {
	err := os.Remove(copied)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove copy of %s: %w", path, err)
	}
	if err := unix.Unmount(path, 0); err != nil {
		return fmt.Errorf("uncover %s: %w", path, err)
	}
	return nil
}

// cover binds a copy of a file with one more line over it.
func cover(path, copied, line string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read users: %w", err)
	}
	if err := os.WriteFile(copied, append(text, line...), 0o644); err != nil {
		return fmt.Errorf("write users: %w", err)
	}
	if err := unix.Mount(copied, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cover %s: %w", path, err)
	}
	return nil
}
