package foreign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
)

// PinCopies looks through the mount namespaces of all processes of proc for namespaces with ids of the ledger that are mounted and
// belong to no pod. The copies of pins that a pod gets which has the host's file system mounted are none: the kernel takes them away
// with the pin's file. What somebody has bound elsewhere stays when the pod has gone. It keeps no range, for no process is in
// it; but whoever can enter it gets the ids of the next pod that has them. others are patterns of the paths at which pods' namespaces of other
// kinds are pinned; those belong to a user namespace of pins, so they are named only to be passed over quickly.
//
// Descriptors that hold a namespace are not looked for: that would be a system call for each descriptor of the node.
func PinCopies(proc, pins string, others ...string) Source {
	return Source{name: "mounts", find: func(ctx context.Context, c claims, f *found) error {
		own, err := newNamespaces(proc, append([]string{pins}, others...)...)
		if err != nil {
			return err
		}
		l := copyLook{namespaces: own, claims: c, seen: map[uint64]bool{}, copies: map[uint64][]pinCopy{}}
		return lookTwice(ctx, proc, &l, f)
	}}
}

// copyLook is a look at the namespaces that processes see mounted.
type copyLook struct {
	*namespaces
	claims claims
	seen   map[uint64]bool      // mount namespaces, by inode
	copies map[uint64][]pinCopy // of each namespace a few, by inode
}

// pinCopy is a mount of a namespace, where a process sees it.
type pinCopy struct {
	pid   int
	path  string
	inode uint64 // of the namespace that is mounted
}

func (l *copyLook) noted() bool { return len(l.copies) > 0 }

func (l *copyLook) confirm(ctx context.Context, f *found) error {
	for _, inode := range slices.Sorted(maps.Keys(l.copies)) {
		if err := l.tellFirst(ctx, l.copies[inode], f); err != nil {
			return err
		}
	}
	return nil
}

// tellFirst tells of the first copy of a namespace that is there still.
func (l *copyLook) tellFirst(ctx context.Context, copies []pinCopy, f *found) error {
	for _, c := range copies {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if told, err := l.tell(c, f); told || err != nil {
			return err
		}
	}
	return nil
}

// process notes the namespaces that a process sees mounted, once for each mount namespace.
func (l *copyLook) process(pid int) error {
	space, err := inode(filepath.Join(l.dir(pid), "ns/mnt"))
	if gone(err) || err == nil && l.seen[space] {
		return nil
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(l.dir(pid), "mountinfo"))
	if errors.Is(err, unix.EINVAL) || gone(err) { // ended, or between two namespaces
		return nil
	}
	if err != nil {
		return err
	}
	l.seen[space] = true
	for line := range bytes.Lines(text) {
		c, ok := parseNamespaceMount(string(line))
		if ok && l.class[c.inode] == 0 && len(l.copies) < maxCandidates && len(l.copies[c.inode]) < maxProofs {
			c.pid = pid
			l.copies[c.inode] = append(l.copies[c.inode], c)
		}
	}
	return nil
}

// parseNamespaceMount reads a line of mountinfo (proc_pid_mountinfo(5)), whose root is such as user:[4026532281] for a namespace.
func parseNamespaceMount(line string) (c pinCopy, ok bool) {
	before, after, found := strings.Cut(line, " - ")
	fields := strings.Fields(before)
	if !found || len(fields) < 6 || !strings.HasPrefix(after, "nsfs ") {
		return pinCopy{}, false
	}
	_, number, found := strings.Cut(strings.TrimSuffix(fields[3], "]"), ":[")
	n, err := strconv.ParseUint(number, 10, 64)
	if !found || err != nil {
		return pinCopy{}, false
	}
	return pinCopy{path: unescapeMount(fields[4]), inode: n}, true
}

// unescapeMount undoes the kernel's octal escapes of blanks and backslashes.
func unescapeMount(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// tell adds a copy that has ids of the ledger and is no pod's. False says that it is not there any more, or cannot be seen.
func (l *copyLook) tell(c pinCopy, f *found) (told bool, err error) {
	if l.class[c.inode] == classOwn {
		return true, nil
	}
	space, err := l.open(c)
	if err != nil || space == nil {
		return false, err
	}
	class, owner, err := l.ownerOf(space)
	if err != nil || class == classOwn || owner == 0 || owner%idpool.Unit != 0 {
		return true, err
	}
	r := idpool.Range{Start: owner, Length: idpool.Unit}
	held, err := hostids.Credentials(l.proc, c.pid)
	if err != nil || held.Command == "" {
		return false, err
	}
	o := Owner{
		Kind: KindPinCopy, Range: r, Who: who(c.pid, held.Command),
		// Quoted: the path is a pod's choice, and goes to somebody's terminal.
		Where: strings.TrimSpace(fmt.Sprintf("at %q %s", c.path, l.cgroup(c.pid))),
	}
	if l.claims.touches(r) && l.claims.admit(&o, "") {
		f.add(o)
	}
	return true, nil
}

// open opens the namespace of a copy, nil where it has gone. The path is a pod's: it is resolved inside of the pod's root, whatever links it
// is made of, and what is found there is opened only when it is a namespace, for to open anything else may have effects.
func (l *copyLook) open(c pinCopy) (*os.File, error) {
	root, err := os.OpenFile(filepath.Join(l.dir(c.pid), "root"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	handle, err := pathrs.OpenatInRoot(root, c.path)
	if errors.Is(err, fs.ErrNotExist) || gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at the namespace that process %d has at %s: %w", c.pid, c.path, err)
	}
	defer handle.Close()
	var st unix.Stat_t
	var kind unix.Statfs_t
	if err := errors.Join(unix.Fstat(int(handle.Fd()), &st), unix.Fstatfs(int(handle.Fd()), &kind)); err != nil {
		return nil, fmt.Errorf("look at the namespace that process %d has at %s: %w", c.pid, c.path, err)
	}
	if kind.Type != unix.NSFS_MAGIC || st.Ino != c.inode {
		return nil, nil // something else is mounted over it, or by now
	}
	return pathrs.Reopen(handle, unix.O_RDONLY)
}

// ownerOf tells whose the user namespace is that a namespace is or belongs to, and its owner's host id, which is the first id of a pod's. It
// closes space.
func (l *copyLook) ownerOf(space *os.File) (class, uint32, error) {
	defer space.Close()
	kind, err := unix.IoctlRetInt(int(space.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return 0, 0, fmt.Errorf("kind of a namespace that is mounted: %w", err)
	}
	var user int
	if kind == unix.CLONE_NEWUSER {
		user, err = unix.FcntlInt(space.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	} else {
		user, err = unix.IoctlRetInt(int(space.Fd()), unix.NS_GET_USERNS)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("user namespace of a namespace that is mounted: %w", err)
	}
	owner, err := unix.IoctlGetUint32(user, unix.NS_GET_OWNER_UID)
	var st unix.Stat_t
	err = errors.Join(err, unix.Fstat(user, &st))
	if err != nil || l.class[st.Ino] == classOwn {
		unix.Close(user)
		return classOwn, owner, err
	}
	class, err := l.classifyOpen(user)
	return class, owner, err
}
