package foreign

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// class is whose a user namespace is.
type class int

const (
	classOwn class = iota + 1
	classHost
	classForeign
)

// namespaces tells the pods' own user namespaces from those of others.
type namespaces struct {
	proc  string
	pins  []string         // patterns of the paths of the pods' own
	host  uint64           // the inode of the host's user namespace
	class map[uint64]class // by inode, as far as it was told
}

func newNamespaces(proc string, pins ...string) (*namespaces, error) {
	host, err := inode(filepath.Join(proc, "self/ns/user"))
	if err != nil {
		return nil, err
	}
	return &namespaces{proc: proc, pins: pins, host: host, class: map[uint64]class{}}, nil
}

// learnPins notes what is mounted at the pins' paths now as the pods' own.
func (n *namespaces) learnPins() error {
	for _, pattern := range n.pins {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			var fs unix.Statfs_t
			var st unix.Stat_t
			// A pin that goes meanwhile is none.
			if unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC && unix.Stat(path, &st) == nil {
				n.class[st.Ino] = classOwn
			}
		}
	}
	return nil
}

func (n *namespaces) dir(pid int) string { return filepath.Join(n.proc, strconv.Itoa(pid)) }

// classify says whose a process's user namespace is. A process that has ended is the pods' own.
func (n *namespaces) classify(pid int) (space uint64, _ class, err error) {
	path := filepath.Join(n.dir(pid), "ns/user")
	space, err = inode(path)
	switch {
	case gone(err):
		return 0, classOwn, nil
	case err != nil:
		return 0, 0, err
	case space == n.host:
		return space, classHost, nil
	case n.class[space] != 0:
		return space, n.class[space], nil
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if gone(err) {
		return 0, classOwn, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("open user namespace of process %d: %w", pid, err)
	}
	class, err := n.classifyOpen(fd)
	if err == nil {
		n.class[space] = class
	}
	return space, class, err
}

// classifyOpen climbs from a namespace to the host's, and closes fd.
func (n *namespaces) classifyOpen(fd int) (class, error) {
	for {
		parent, err := unix.IoctlRetInt(fd, unix.NS_GET_PARENT)
		unix.Close(fd)
		if errors.Is(err, unix.EPERM) {
			return classForeign, nil // the host's own, or out of sight
		}
		if err != nil {
			return 0, fmt.Errorf("find parent of user namespace: %w", err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(parent, &st); err != nil {
			unix.Close(parent)
			return 0, fmt.Errorf("look at parent of user namespace: %w", err)
		}
		if n.class[st.Ino] == classOwn || st.Ino == n.host {
			unix.Close(parent)
			if st.Ino == n.host {
				return classForeign, nil
			}
			return classOwn, nil
		}
		fd = parent
	}
}

// cgroup is where a process belongs, for somebody who looks for what started it.
func (n *namespaces) cgroup(pid int) string {
	text, err := os.ReadFile(filepath.Join(n.dir(pid), "cgroup"))
	if err != nil {
		return ""
	}
	best := ""
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 && len(fields[2]) > len(best) {
			best = fields[2]
		}
	}
	if best == "" || best == "/" {
		return ""
	}
	return "cgroup " + best
}

// inode is that of a file, through links.
func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// gone says that a process has ended, or has more privilege than this one and is nobody's pod: the kernel shows it to nobody.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}
