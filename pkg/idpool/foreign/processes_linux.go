package foreign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
)

// confirmAfter is the time after which a process has to use its ids still. The helper that makes a pod's namespaces has the pod's
// ids for some milliseconds before it is in one.
const confirmAfter = 250 * time.Millisecond

// Processes looks at all processes of proc, a proc file system of the host's PID namespace. Those in a user namespace that is
// pinned at one of the paths that match the pattern, or in one below such a namespace, are the pods' own.
func Processes(proc, pins string) Source {
	return Source{name: "processes", find: func(ctx context.Context, c claims, f *found) error {
		host, err := inode(filepath.Join(proc, "self/ns/user"))
		if err != nil {
			return err
		}
		l := processLook{
			proc: proc, pins: pins, host: host, claims: c,
			class: map[uint64]class{}, spaces: map[uint64]*candidate{},
		}
		return l.find(ctx, f)
	}}
}

// class is whose a user namespace is.
type class int

const (
	classOwn class = iota + 1
	classHost
	classForeign
)

// candidate is an owner that has to show again. Processes that might prove it are a few of those that were seen in it.
type candidate struct {
	owner Owner
	inode uint64
	pids  []int
	ids   []idpool.Range // the other ranges of a namespace
}

const maxProofs = 8

// maxCandidates bounds what is looked at twice.
const maxCandidates = 1024

type processLook struct {
	proc, pins string
	host       uint64
	claims     claims

	class      map[uint64]class
	spaces     map[uint64]*candidate
	candidates []*candidate
}

func (l *processLook) find(ctx context.Context, f *found) error {
	if err := l.learnPins(); err != nil {
		return err
	}
	err := hostids.ForEachProcess(l.proc, func(pid int) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if len(l.candidates) == maxCandidates {
			return nil
		}
		return l.process(pid)
	})
	if err != nil || len(l.candidates) == 0 {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(confirmAfter):
	}
	// Pods that came meanwhile have their pins by now.
	if err := l.learnPins(); err != nil {
		return err
	}
	for _, cand := range l.candidates {
		if err := l.confirm(cand, f); err != nil {
			return err
		}
	}
	return nil
}

// learnPins notes the namespaces of the pods.
func (l *processLook) learnPins() error { return l.learn(l.pins) }

// learn notes what is mounted at paths that match a pattern as the pods' own.
func (l *processLook) learn(pattern string) error {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	for _, path := range paths {
		var fs unix.Statfs_t
		var st unix.Stat_t
		// A pin that goes meanwhile is none.
		if unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC && unix.Stat(path, &st) == nil {
			l.class[st.Ino] = classOwn
		}
	}
	return nil
}

func (l *processLook) dir(pid int) string { return filepath.Join(l.proc, strconv.Itoa(pid)) }

// process notes the namespace of a process, or the process itself, when it uses ids of the ledger and is no pod's.
func (l *processLook) process(pid int) error {
	space, class, err := l.classify(pid)
	if err != nil || class == classOwn {
		return err
	}
	c, err := hostids.Credentials(l.proc, pid)
	if err != nil || c.Command == "" { // ended, though nobody may have waited for it yet
		return err
	}
	if class == classForeign {
		if known, err := l.namespace(pid, space, c.Command); err != nil || known {
			return err
		}
	}
	for _, id := range c.IDs {
		r := idpool.Range{Start: id, Length: 1}
		o := Owner{Kind: KindProcess, Range: r, Who: who(pid, c.Command), Where: l.cgroup(pid)}
		if l.claims.touches(r) && l.claims.admit(&o, "") {
			l.candidates = append(l.candidates, &candidate{owner: o, inode: space, pids: []int{pid}})
			return nil
		}
	}
	return nil
}

// classify says whose a process's user namespace is. A process that has ended is the pods' own.
func (l *processLook) classify(pid int) (space uint64, _ class, err error) {
	path := filepath.Join(l.dir(pid), "ns/user")
	space, err = inode(path)
	switch {
	case gone(err):
		return 0, classOwn, nil
	case err != nil:
		return 0, 0, err
	case space == l.host:
		return space, classHost, nil
	case l.class[space] != 0:
		return space, l.class[space], nil
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if gone(err) {
		return 0, classOwn, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("open user namespace of process %d: %w", pid, err)
	}
	class, err := l.classifyOpen(fd)
	if err == nil {
		l.class[space] = class
	}
	return space, class, err
}

// classifyOpen climbs from a namespace to the host's, and closes fd.
func (l *processLook) classifyOpen(fd int) (class, error) {
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
		if l.class[st.Ino] == classOwn || st.Ino == l.host {
			unix.Close(parent)
			if st.Ino == l.host {
				return classForeign, nil
			}
			return classOwn, nil
		}
		fd = parent
	}
}

// namespace notes a foreign namespace; known says that it is one that maps ids of the ledger.
func (l *processLook) namespace(pid int, space uint64, command string) (known bool, err error) {
	if cand := l.spaces[space]; cand != nil {
		if len(cand.pids) < maxProofs {
			cand.pids = append(cand.pids, pid)
		}
		return true, nil
	}
	maps, err := hostids.Maps(l.proc, pid)
	if err != nil || !l.claims.touching(maps) {
		return false, err
	}
	cand := &candidate{inode: space, pids: []int{pid}}
	for _, r := range maps {
		o := Owner{Kind: KindNamespace, Range: r, Who: who(pid, command), Where: l.cgroup(pid)}
		switch {
		case !l.claims.admit(&o, ""):
		case cand.owner.Kind == "":
			cand.owner = o
		case o.Range != cand.owner.Range:
			cand.ids = append(cand.ids, o.Range)
		}
	}
	if cand.owner.Kind == "" {
		return false, nil
	}
	l.spaces[space] = cand
	l.candidates = append(l.candidates, cand)
	return true, nil
}

// confirm tells of a candidate that is still there, and no pod's.
func (l *processLook) confirm(cand *candidate, f *found) error {
	if l.class[cand.inode] == classOwn {
		return nil
	}
	for _, pid := range cand.pids {
		space, err := inode(filepath.Join(l.dir(pid), "ns/user"))
		if gone(err) || err == nil && space != cand.inode {
			continue
		}
		if err != nil {
			return err
		}
		c, err := hostids.Credentials(l.proc, pid)
		if err != nil {
			return err
		}
		if c.Command == "" || cand.owner.Kind == KindProcess && !c.Has(cand.owner.Range.Start) {
			continue
		}
		f.add(cand.owner)
		for _, r := range cand.ids {
			o := cand.owner
			o.Range, o.Pod = r, ""
			if l.claims.admit(&o, "") {
				f.add(o)
			}
		}
		return nil
	}
	return nil
}

// cgroup is where a process belongs, for somebody who looks for what started it.
func (l *processLook) cgroup(pid int) string {
	text, err := os.ReadFile(filepath.Join(l.dir(pid), "cgroup"))
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

func who(pid int, command string) string { return fmt.Sprintf("process %d (%s)", pid, command) }

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
