package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/engine"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/rebuild"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// plan looks at the node, and returns what the database is to hold with the options of its pool.
func (r rebuilder) plan(ctx context.Context) (_ rebuild.Plan, opts idpool.Options, err error) {
	opts = poolOptions(r.cfg.IDPool)
	if r.cfg.IDPool.KubeletExtents.Auto {
		opts.KubeletExtents = kubeletExtents(ctx, hostSources())
	}
	in := rebuild.Input{Pins: r.pins, Extents: extents(opts), Now: r.now}
	if err := r.records(&in); err != nil {
		return rebuild.Plan{}, opts, err
	}
	if err := r.pinned(ctx, &in); err != nil {
		return rebuild.Plan{}, opts, err
	}
	if err := r.containerd(ctx, &in); err != nil {
		return rebuild.Plan{}, opts, err
	}
	if in.Look, err = hostids.Take(ctx, "/proc"); err != nil {
		return rebuild.Plan{}, opts, err
	}
	return rebuild.Make(in), opts, nil
}

// extents are all that ranges come from.
func extents(opts idpool.Options) []idpool.Range {
	own, theirs := opts.Extents, opts.KubeletExtents
	if len(own) == 0 {
		own = idpool.DefaultExtents()
	}
	if theirs == nil {
		theirs = idpool.DefaultKubeletExtents()
	}
	return slices.Concat(own, theirs)
}

func (r rebuilder) records(in *rebuild.Input) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	in.BootID = boot
	var damaged []error
	if in.Sandboxes, in.Damaged, err = state.ReadMirror[sandbox.Record](recordsDir(r.cfg.State, "sandboxes")); err != nil {
		return err
	}
	if in.Containers, damaged, err = state.ReadMirror[container.Record](recordsDir(r.cfg.State, "containers")); err != nil {
		return err
	}
	in.Damaged = append(in.Damaged, damaged...)
	return nil
}

// bootID tells boots apart: after another one, no pin is there any more.
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

func (r rebuilder) containerd(ctx context.Context, in *rebuild.Input) (err error) {
	e, err := engine.New(engine.Options{
		Address:            r.cfg.Containerd.Address,
		Namespace:          r.cfg.Containerd.Namespace,
		DefaultSnapshotter: r.cfg.Containerd.Snapshotter,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := e.Ready(ctx); err != nil {
		return err
	}
	if in.Stored, err = e.StoredRecords(ctx); err != nil {
		return err
	}
	if in.Tasks, err = e.ListTasks(ctx); err != nil {
		return err
	}
	d := daemon{cfg: r.cfg, engine: e}
	in.Layers, err = d.layers().Layers(ctx)
	return err
}

// pins are the namespaces of a sandbox that are pinned.
func (r rebuilder) pins(id string) rebuild.Pins {
	paths := sandbox.PathsOf(r.cfg.State, id)
	return ns.Find(paths.Namespaces, ns.NetNSPath(id))
}

// pinned finds the sandboxes that have namespaces and no copy of their record. What cannot be read of one becomes a note, for the others are to be
// made again all the same.
func (r rebuilder) pinned(ctx context.Context, in *rebuild.Input) error {
	entries, err := os.ReadDir(filepath.Dir(sandbox.PathsOf(r.cfg.State, "id").Dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for pinned namespaces: %w", err)
	}
	for _, entry := range entries {
		s := rebuild.Pinned{ID: entry.Name(), Pins: r.pins(entry.Name())}
		if _, copied := in.Sandboxes[s.ID]; copied || s.Pins == (rebuild.Pins{}) {
			continue
		}
		if err := completePinned(ctx, entry, &s); err != nil {
			in.Damaged = append(in.Damaged, fmt.Errorf("sandbox %s has no copy of its record, and its namespaces cannot be read; "+
				"without containers they are taken away when userns-shim starts, and kubelet makes the pod anew: %w", s.ID, err))
			continue
		}
		in.Pinned = append(in.Pinned, s)
	}
	return nil
}

func completePinned(ctx context.Context, entry fs.DirEntry, s *rebuild.Pinned) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	s.Made = info.ModTime()
	pod, _, err := network.Attached(s.ID)
	if err != nil {
		return err
	}
	s.Pod = sandbox.Metadata{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
	if s.Pins.User == "" {
		return nil
	}
	m, err := ns.MappingOf(ctx, s.Pins.User)
	if err != nil {
		return err
	}
	s.Range = &idpool.Range{Start: m.HostID, Length: m.Length}
	return nil
}
