package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
)

// Stray is what is left on the node of a sandbox that has no record.
type Stray struct {
	// ID is the sandbox's; empty for a network namespace alone.
	ID string
	// Pins are the paths of its namespaces.
	Pins []string
	// IDs are its host ids, none where they are the host's or nobody can tell.
	IDs idpool.Range
	// Process is in one of the namespaces, 0 for none.
	Process int
}

// Strays looks for namespaces and files of sandboxes that have no record. Those of a sandbox are made after its record
// and removed before it, and no id is used twice: what is there before and after a moment without a record
// is left over. Network namespaces stand among others'; one alone is ours if mine says so of the id that owns it.
func (m *Manager) Strays(ctx context.Context, mine func(owner uint32) bool) ([]Stray, error) {
	ids, err := m.strayDirs()
	if err != nil {
		return nil, err
	}
	var found []Stray
	known := map[string]bool{}
	for _, id := range ids {
		net := ns.NetNSPath(id)
		known[net] = true
		found = append(found, Stray{ID: id, Pins: ns.Find(m.Paths(id).Namespaces, net).Paths()})
	}
	nets, err := m.strayNets(known, mine)
	if err != nil {
		return nil, err
	}
	found = append(found, nets...)
	for i := range found {
		if err := found[i].look(ctx); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// look completes a stray by what its namespaces tell. Where the user namespace itself is not pinned any more, the others name
// its first id, and it counts as one of a usual length.
func (s *Stray) look(ctx context.Context) (err error) {
	for _, path := range s.Pins {
		owner, err := ns.OwnerID(path)
		if errors.Is(err, ns.ErrNotPinned) {
			continue // a file that was never mounted on
		}
		if err != nil {
			return err
		}
		if owner == 0 {
			continue
		}
		length := uint32(idpool.Unit)
		if m, err := ns.MappingOf(ctx, path); err == nil && m.HostID == owner {
			length = m.Length
		}
		s.IDs = idpool.Range{Start: owner, Length: max(s.IDs.Length, length)}
	}
	s.Process, err = ns.Tenant("/proc", s.Pins)
	return err
}

// strayDirs are the ids of directories without a record.
func (m *Manager) strayDirs() ([]string, error) {
	top := filepath.Dir(m.Paths("id").Dir)
	entries, err := os.ReadDir(top)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for namespaces without a sandbox: %w", err)
	}
	var ids []string
	for _, entry := range entries {
		id := entry.Name()
		if !m.table.Has(id) && isThere(m.Paths(id).Dir) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// strayNets are network namespaces that belong to a pod's ids and to no record.
func (m *Manager) strayNets(known map[string]bool, mine func(owner uint32) bool) ([]Stray, error) {
	pins, err := filepath.Glob(filepath.Join(ns.NetNSDir, "cni-*"))
	if err != nil {
		return nil, fmt.Errorf("look for network namespaces without a sandbox: %w", err)
	}
	for _, rec := range m.table.All() {
		known[ns.NetNSPath(rec.ID)] = true
	}
	var found []Stray
	for _, path := range slices.DeleteFunc(pins, func(path string) bool { return known[path] }) {
		owner, err := ns.OwnerID(path)
		if err != nil || owner == 0 || !mine(owner) { // others' pins come and go
			continue
		}
		found = append(found, Stray{Pins: []string{path}})
	}
	return found, nil
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// SyncMirror brings the records outside of the database in line with it. Those of sandboxes that it does not know stay while
// something of such a sandbox is left on the node.
func (m *Manager) SyncMirror() error {
	return m.table.SyncMirror(func(id string) bool { return isThere(m.Paths(id).Dir) })
}

// RemoveStray takes away what Strays found, and disconnects it from its network. A process in it would be cut off from
// that: it is an error then, and nothing is done.
func (m *Manager) RemoveStray(ctx context.Context, s Stray) error {
	if s.Process != 0 {
		return fmt.Errorf("remove what is left of sandbox %s: process %d is in it", s.ID, s.Process)
	}
	if s.ID == "" {
		return m.opts.Namespaces.Remove(ctx, "", s.Pins[0])
	}
	m.locks.Lock(s.ID)
	defer m.locks.Unlock(s.ID)
	if m.table.Has(s.ID) {
		return fmt.Errorf("remove what is left of sandbox %s: it has a record", s.ID)
	}
	paths, net := m.Paths(s.ID), ns.NetNSPath(s.ID)
	var errs []error
	if slices.Contains(s.Pins, paths.PID) {
		errs = append(errs, m.opts.Process.Stop(ctx, Record{ID: s.ID}))
	}
	errs = append(errs, m.opts.Network.Teardown(ctx, network.Pod{ID: s.ID, NetNSPath: net}))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what is left of sandbox %s: %w", s.ID, err)
	}
	if err := errors.Join(m.opts.Namespaces.Remove(ctx, paths.Namespaces, net), removeFiles(paths)); err != nil {
		return fmt.Errorf("remove what is left of sandbox %s: %w", s.ID, err)
	}
	return nil
}
