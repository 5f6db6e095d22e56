package mounts

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Mapping is the one extent that a pod's user namespace maps, for uids and gids alike:
// container ids 0 to Length-1 are host ids from HostID.
type Mapping struct {
	HostID uint32
	Length uint32
}

// contains says whether the host id id belongs to the mapping.
func (m Mapping) contains(id uint32) bool {
	return id >= m.HostID && uint64(id) < uint64(m.HostID)+uint64(m.Length)
}

// Request asks for one root filesystem.
type Request struct {
	// Pod is the key under which the pod's idmapped clones are kept until Forget. Every key is
	// used with one user namespace only. It means nothing when UserNS is empty.
	Pod string
	// UserNS is the path of the pod's pinned user namespace; empty for the host's, which makes
	// plain mounts.
	UserNS string
	// Mapping is what UserNS maps.
	Mapping Mapping
	// Mounts is what the snapshotter returned.
	Mounts []Mount
	// Target is an existing directory that is no mountpoint.
	Target string
	// Readonly makes the mount read-only, also where the snapshot is writable.
	Readonly bool
}

func (r Request) validate() error {
	if !filepath.IsAbs(r.Target) {
		return fmt.Errorf("target %q is not an absolute path", r.Target)
	}
	if r.UserNS == "" {
		return nil
	}
	if r.Pod == "" {
		return errors.New("a mount in a user namespace needs the pod that it is for")
	}
	if r.Mapping.Length == 0 {
		return errors.New("a mount in a user namespace needs the mapping")
	}
	return nil
}

// shiftedOwner returns the host id that the image root's owner has for the pod. disk is the
// owner on disk and seen the owner through the idmapped clone, where the kernel shows its overflow
// id for one that the mapping does not have; such an owner becomes the pod's own overflow id, which
// looks the same inside and belongs to nobody else. It is also the check that the user
// namespace is the one that the request describes: ErrMapping if not.
func shiftedOwner(disk, seen uint32, m Mapping) (uint32, error) {
	if disk >= m.Length {
		return m.HostID + min(overflowID, m.Length-1), nil
	}
	if want := m.HostID + disk; seen != want {
		return 0, fmt.Errorf("id %d appears as %d instead of %d: %w", disk, seen, want, ErrMapping)
	}
	return seen, nil
}

// overflowID is what a user namespace shows for an id that it does not map, the kernel's default
// for kernel.overflowuid and kernel.overflowgid.
const overflowID = 65534

// needsOwner says whether an upper directory owned by have still has to be given an owner. disk is
// the image root's owner on disk. An id of the pod was given by an earlier mount, or by the container
// itself, and stays; unless it is the on-disk id by chance, which happens when a range overlaps
// the host's own ids.
func needsOwner(have, disk uint32, m Mapping) bool {
	return !m.contains(have) || have == disk
}
