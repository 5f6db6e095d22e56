package leaks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"
)

func (s Scope) addMounts(inv Inventory) error {
	if len(s.MountRoots) == 0 {
		return nil
	}
	file, err := os.Open(filepath.Join(s.Namespaces.ProcDir(), "mountinfo"))
	if err != nil {
		return fmt.Errorf("open mount table: %w", err)
	}
	defer file.Close()
	mounts, err := mountinfo.GetMountsFromReader(file, func(m *mountinfo.Info) (skip, stop bool) {
		return !belowAny(m.Mountpoint, s.MountRoots), false
	})
	if err != nil {
		return fmt.Errorf("read mount table: %w", err)
	}
	for _, m := range mounts {
		inv.add("mount", "%s (%s)", m.Mountpoint, m.FSType)
	}
	return nil
}

func belowAny(path string, roots []string) bool {
	for _, root := range roots {
		if path == root || strings.HasPrefix(path, strings.TrimRight(root, "/")+"/") {
			return true
		}
	}
	return false
}

// hostPath is a path that leads into the node's mount namespace from any thread.
func (s Scope) hostPath(path string) string {
	return filepath.Join(s.Namespaces.ProcDir(), "root", path)
}

// id matches what sandboxes, containers and shim sockets are named by.
var id = regexp.MustCompile(`[0-9a-f]{64}`)

// discardedBundle matches a bundle that containerd has renamed in order to remove it. Where its two removals of one bundle, that of the
// task and that of the shim that has gone, meet the OCI runtime's log in it, containerd gives up and never looks at it again.
var discardedBundle = regexp.MustCompile(`/io\.containerd\.runtime\.v2\.task/[^/]+/\.[0-9a-f]{64}$`)

func (s Scope) addStateFiles(inv Inventory) error {
	for _, dir := range s.StateDirs {
		err := filepath.WalkDir(s.hostPath(dir), func(path string, entry fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // gone while walking, or never made
			case err != nil:
				return err
			case discardedBundle.MatchString(path):
				return skipDir(entry)
			case entry.Type() == fs.ModeNamedPipe:
				inv.add("fifo", "%s", s.shown(path))
			case id.MatchString(entry.Name()):
				inv.add("state file", "%s", s.shown(path))
				if err := s.addFIFOs(inv, filepath.Join(path, "io")); err != nil {
					return err
				}
				return skipDir(entry)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("walk state directory %s: %w", dir, err)
		}
	}
	return nil
}

// addFIFOs lists those of a container, which are in a directory of its own beside its root file system.
func (s Scope) addFIFOs(inv Inventory, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	for _, entry := range entries {
		if entry.Type() == fs.ModeNamedPipe {
			inv.add("fifo", "%s", s.shown(filepath.Join(dir, entry.Name())))
		}
	}
	return nil
}

// skipDir names a directory without what is inside, which may be a container's whole file system.
func skipDir(entry fs.DirEntry) error {
	if entry.IsDir() {
		return fs.SkipDir
	}
	return nil
}

func (s Scope) shown(path string) string {
	return strings.TrimPrefix(path, filepath.Join(s.Namespaces.ProcDir(), "root"))
}

func (s Scope) addNetNSPins(inv Inventory) error {
	return s.addEntries(inv, "network namespace", s.NetNSDir, func(string) bool { return true })
}

// addAddresses passes over host-local's own bookkeeping.
func (s Scope) addAddresses(inv Inventory) error {
	return s.addEntries(inv, "CNI address", s.AddressDir, func(name string) bool {
		return name != "lock" && !strings.HasPrefix(name, "last_reserved_ip")
	})
}

func (s Scope) addEntries(inv Inventory, kind, dir string, wanted func(name string) bool) error {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(s.hostPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, entry := range entries {
		if wanted(entry.Name()) {
			inv.add(kind, "%s", filepath.Join(dir, entry.Name()))
		}
	}
	return nil
}

func (s Scope) addCgroups(inv Inventory) error {
	if s.Cgroup == "" {
		return nil
	}
	roots, err := CgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		top := filepath.Join(root, s.Cgroup)
		err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case entry.IsDir() && path != top:
				inv.add("cgroup", "%s", path)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("walk cgroups below %s: %w", top, err)
		}
	}
	return nil
}

// CgroupRoots returns where the cgroup hierarchies are mounted, v1 and v2, each once.
func CgroupRoots() ([]string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	seen := map[string]bool{}
	var roots []string
	for _, m := range mounts {
		if !seen[m.Mountpoint] {
			seen[m.Mountpoint] = true
			roots = append(roots, m.Mountpoint)
		}
	}
	return roots, nil
}
