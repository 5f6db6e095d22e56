package hostids

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// passes is how often the processes are gone through. One that forks and ends while it is passed by slips
// through when its child gets a number that has been passed, as after the last number of all. What counts is what
// all passes together see.
const passes = 2

// Take looks at all processes of a proc file system, such as /proc of the host's PID namespace. Processes
// that end meanwhile are left out. The error is ctx's, or says what could not be read: then
// nothing is known.
func Take(ctx context.Context, proc string) (*Look, error) {
	t := taker{
		proc:       proc,
		look:       &Look{Began: time.Now()},
		namespaces: map[uint64]bool{},
		holders:    map[uint32]Process{},
	}
	host, err := namespaceInode(filepath.Join(proc, "self"))
	if err != nil {
		return nil, fmt.Errorf("look at host ids: %w", err)
	}
	t.namespaces[host] = true
	for range passes {
		if err := t.pass(ctx); err != nil {
			return nil, fmt.Errorf("look at host ids: %w", err)
		}
	}
	for id, p := range t.holders {
		t.look.Holders = append(t.look.Holders, Holder{ID: id, Process: p})
	}
	slices.SortFunc(t.look.Holders, func(a, b Holder) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(t.look.Namespaces, func(a, b Namespace) int { return cmp.Compare(a.Inode, b.Inode) })
	return t.look, nil
}

// taker is one look that is being taken.
type taker struct {
	proc       string
	look       *Look
	namespaces map[uint64]bool // inodes of those that are known
	holders    map[uint32]Process
}

func (t *taker) pass(ctx context.Context) error {
	return forEachNumber(t.proc, func(pid int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return ignoreGone(t.process(pid))
	})
}

// process looks at all threads, because each has credentials of its own. They share the user namespace: the
// kernel lets only a process of one thread enter another.
func (t *taker) process(pid int) error {
	dir := filepath.Join(t.proc, strconv.Itoa(pid))
	var alive *Process
	err := forEachNumber(filepath.Join(dir, "task"), func(tid int) error {
		text, err := os.ReadFile(filepath.Join(dir, "task", strconv.Itoa(tid), "status"))
		if err != nil {
			return ignoreGone(err)
		}
		c, err := parseStatus(text)
		if err != nil || c.dead {
			return err
		}
		if alive == nil {
			alive = &Process{PID: pid, Command: c.name}
		}
		t.hold(*alive, c)
		return nil
	})
	if err != nil || alive == nil {
		return err
	}
	return t.namespace(dir, *alive)
}

// hold notes the credentials that are not the host's own ids.
func (t *taker) hold(p Process, c credentials) {
	for _, ids := range [][]uint32{c.uids, c.gids} {
		for _, id := range ids {
			if _, known := t.holders[id]; !known && !idpool.HostRange().Contains(id) {
				t.holders[id] = p
			}
		}
	}
}

// namespace notes the process's user namespace when it is a new one.
func (t *taker) namespace(dir string, p Process) error {
	inode, err := namespaceInode(dir)
	if err != nil || t.namespaces[inode] {
		return err
	}
	n := Namespace{Inode: inode, Process: p}
	for file, ranges := range map[string]*[]idpool.Range{"uid_map": &n.UIDs, "gid_map": &n.GIDs} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		if *ranges, err = parseIDMap(text); err != nil {
			return fmt.Errorf("process %d: %w", p.PID, err)
		}
	}
	// A namespace whose maps are not written yet is looked at again.
	if n.UIDs == nil && n.GIDs == nil {
		return nil
	}
	if inode != 0 {
		t.namespaces[inode] = true
	}
	t.look.Namespaces = append(t.look.Namespaces, n)
	return nil
}

// namespaceInode is 0 for a process that has more privilege than its reader: then the kernel shows its maps only.
func namespaceInode(dir string) (uint64, error) {
	link, err := os.Readlink(filepath.Join(dir, "ns", "user"))
	if errors.Is(err, fs.ErrPermission) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(link, "user:["), "]"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read user namespace: %w", err)
	}
	return inode, nil
}

// forEachNumber calls fn for each entry of a directory whose name is a number. It reads the directory as it
// goes, in the kernel's order, which is that of the numbers: the child of a process that was passed by comes later.
func forEachNumber(dir string, fn func(int) error) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(1)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		number, err := strconv.Atoi(names[0])
		if err != nil {
			continue // self, sys and others
		}
		if err := fn(number); err != nil {
			return err
		}
	}
}

// ignoreGone takes a process that has ended for nothing to see.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}
