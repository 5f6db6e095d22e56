package hostids

import (
	"cmp"
	"slices"
	"time"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// Process is one that uses ids.
type Process struct {
	PID     int
	Command string // as the kernel cuts it, 15 bytes
}

// Namespace is a user namespace, other than the host's, that a process is in.
type Namespace struct {
	Inode      uint64         // 0 where the kernel does not show it
	UIDs, GIDs []idpool.Range // host ids that it maps
	Process    Process        // one of those in it
}

// Maps tells whether a uid or a gid of r is mapped.
func (n Namespace) Maps(r idpool.Range) bool {
	return slices.ContainsFunc(n.UIDs, r.Overlaps) || slices.ContainsFunc(n.GIDs, r.Overlaps)
}

// Holder is a process with credentials outside of any mapping, or in one.
type Holder struct {
	ID      uint32
	Process Process
}

// Look is what the processes of a node used at a time.
type Look struct {
	// Began is before anything was read: who started later may be missing.
	Began time.Time
	// Namespaces are ordered by their inodes.
	Namespaces []Namespace
	// Holders are ordered by their ids, one for each id that is not the host's own
	// (see idpool.HostRange).
	Holders []Holder
}

// Mapping returns the first namespace that maps an id of r.
func (l *Look) Mapping(r idpool.Range) (Namespace, bool) {
	i := slices.IndexFunc(l.Namespaces, func(n Namespace) bool { return n.Maps(r) })
	if i < 0 {
		return Namespace{}, false
	}
	return l.Namespaces[i], true
}

// Holding returns the process with the lowest id of r among its credentials.
func (l *Look) Holding(r idpool.Range) (Holder, bool) {
	i, _ := slices.BinarySearchFunc(l.Holders, r.Start, func(h Holder, id uint32) int { return cmp.Compare(h.ID, id) })
	if i == len(l.Holders) || !r.Contains(l.Holders[i].ID) {
		return Holder{}, false
	}
	return l.Holders[i], true
}
