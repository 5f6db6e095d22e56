package foreign

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
)

// Processes looks at all processes of proc, a proc file system of the host's PID namespace. Those in a user namespace that is
// pinned at one of the paths that match the pattern, or in one below such a namespace, are the pods' own.
func Processes(proc, pins string) Source {
	return Source{name: "processes", find: func(ctx context.Context, c claims, f *found) error {
		own, err := newNamespaces(proc, pins)
		if err != nil {
			return err
		}
		return lookTwice(ctx, proc, &processLook{namespaces: own, claims: c, spaces: map[uint64]*candidate{}}, f)
	}}
}

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

// processLook is a look at the ids that processes have.
type processLook struct {
	*namespaces
	claims     claims
	spaces     map[uint64]*candidate // those that map ids of the ledger, by inode
	candidates []*candidate
}

// process notes the namespace of a process, or the process itself, when it uses ids of the ledger and is no pod's.
func (l *processLook) process(pid int) error {
	if len(l.candidates) == maxCandidates {
		return nil
	}
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

func (l *processLook) noted() bool { return len(l.candidates) > 0 }

func (l *processLook) confirm(ctx context.Context, f *found) error {
	for _, cand := range l.candidates {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := l.tell(cand, f); err != nil {
			return err
		}
	}
	return nil
}

// tell adds a candidate that is still there, and no pod's.
func (l *processLook) tell(cand *candidate, f *found) error {
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

func who(pid int, command string) string { return fmt.Sprintf("process %d (%s)", pid, command) }
