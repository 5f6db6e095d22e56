package ns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// OwnerID returns the host id of the creator of the user namespace at path, or of the one that the namespace at path
// belongs to. For the namespaces of a pod with ids of its own that is the first of them. Errors wrap ErrNotPinned
// where no namespace is at path.
func OwnerID(path string) (uint32, error) {
	f, err := openAny(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return 0, fmt.Errorf("kind of namespace %s: %w", path, err)
	}
	owner := int(f.Fd())
	if kind != unix.CLONE_NEWUSER {
		if owner, err = unix.IoctlRetInt(owner, unix.NS_GET_USERNS); err != nil {
			return 0, fmt.Errorf("user namespace of %s: %w", path, err)
		}
		defer unix.Close(owner)
	}
	uid, err := ownerUID(owner)
	if err != nil {
		return 0, fmt.Errorf("owner of namespace %s: %w", path, err)
	}
	return uid, nil
}

// openAny opens a namespace of any kind.
func openAny(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotPinned, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open namespace: %w", err)
	}
	var st unix.Statfs_t
	if err = unix.Fstatfs(int(f.Fd()), &st); err == nil && st.Type != unix.NSFS_MAGIC {
		err = fmt.Errorf("%w: nothing is mounted on it", ErrNotPinned)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open namespace %s: %w", path, err), f.Close())
	}
	return f, nil
}

// Tenant returns a process that is in one of the namespaces at the paths, 0 where there is none. Paths that hold no
// namespace are passed over. A process in a namespace below them only does not count.
func Tenant(proc string, paths []string) (pid int, err error) {
	var pinned []nsInode
	for _, path := range paths {
		f, err := openAny(path)
		if errors.Is(err, ErrNotPinned) {
			continue
		}
		if err != nil {
			return 0, err
		}
		// Open until the end: the kernel gives the number of a namespace that ends to the next.
		defer f.Close()
		inode, err := inodeOf(int(f.Fd()))
		if err != nil {
			return 0, fmt.Errorf("look at namespace %s: %w", path, err)
		}
		pinned = append(pinned, inode)
	}
	if len(pinned) == 0 {
		return 0, nil
	}
	links, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "ns", "*"))
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	for _, link := range links {
		var st unix.Stat_t
		if unix.Stat(link, &st) != nil {
			continue // it has ended
		}
		if slices.Contains(pinned, nsInode{st.Dev, st.Ino}) {
			_, err := fmt.Sscanf(filepath.Base(filepath.Dir(filepath.Dir(link))), "%d", &pid)
			return pid, err
		}
	}
	return 0, nil
}

// Find returns which of a sandbox's pins are there, in its directory and at netPath.
func Find(dir, netPath string) Pins {
	there := func(path string) string {
		if _, err := os.Lstat(path); err != nil {
			return ""
		}
		return path
	}
	return Pins{
		User:    there(filepath.Join(dir, userPin)),
		IPC:     there(filepath.Join(dir, ipcPin)),
		UTS:     there(filepath.Join(dir, utsPin)),
		PID:     there(filepath.Join(dir, "pid")),
		Network: there(netPath),
	}
}

// Paths are those that are not empty.
func (p Pins) Paths() []string {
	return slices.DeleteFunc([]string{p.User, p.IPC, p.UTS, p.PID, p.Network}, func(path string) bool { return path == "" })
}
