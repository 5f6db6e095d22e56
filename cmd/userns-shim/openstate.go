package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
	"k8s.io/klog/v2"
)

// openState opens the database and the id pool in it.
func (d *daemon) openState(ctx context.Context) error {
	if err := checkLost(d.cfg); err != nil {
		return err
	}
	db, err := state.Open(state.Options{Path: databasePath(d.cfg.Root), ObserveCommit: d.metrics.ObserveCommit})
	if err != nil {
		return err
	}
	d.db = db
	d.closers = append(d.closers, db)
	d.witness = hostids.NewWitness(hostids.WitnessOptions{
		Proc:   "/proc",
		Layers: d.layers(),
	})
	opts := poolOptions(d.cfg.IDPool)
	if d.cfg.IDPool.KubeletExtents.Auto {
		opts.KubeletExtents = kubeletExtents(ctx, hostSources())
	}
	opts.Witness = d.witness
	return db.View(func(tx *state.Tx) error {
		d.pool, err = idpool.Load(tx.Raw(sandbox.PoolBucket), opts)
		if errors.Is(err, idpool.ErrCorrupt) {
			return fmt.Errorf("%w; `userns-shim pool rebuild --force` makes the database again from what runs on the node, without stopping a pod", err)
		}
		if err != nil {
			return fmt.Errorf("load id pool: %w", err)
		}
		logFindings(klog.FromContext(ctx), d.pool.Findings())
		if d.pool.Len() > manyEntries {
			debug.SetGCPercent(manyEntriesGC)
		}
		return nil
	})
}

// A ledger of many entries lies in memory for good. By default the collector waits until as much again is garbage before it
// looks, which for 65,534 entries is 25 MiB; with manyEntriesGC half of that. A look takes 20 ms of a processor then.
const (
	manyEntries   = 8192
	manyEntriesGC = 50 // percent
)

// logFindings tells of each kind once: changed extents make a finding of every range.
func logFindings(logger klog.Logger, findings []idpool.Finding) {
	first, count := map[idpool.FindingKind]idpool.Finding{}, map[idpool.FindingKind]int{}
	for _, f := range findings {
		if count[f.Kind]++; count[f.Kind] == 1 {
			first[f.Kind] = f
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(first)) {
		logger.Info("Id pool finding; pool check tells of all", "kind", kind, "first", first[kind].Range, "pod", first[kind].Pod, "count", count[kind])
	}
}

func (d *daemon) layers() layers {
	return layers{engine: d.engine, snapshotters: slices.Compact(slices.Sorted(maps.Values(d.snapshotters())))}
}

func poolOptions(c config.IDPool) idpool.Options {
	opts := idpool.Options{
		Extents:       ranges(c.Extents),
		Claims:        idpool.Claims(c.Claims),
		QuarantineAge: time.Duration(c.Quarantine),
	}
	if !c.KubeletExtents.Auto {
		opts.KubeletExtents = ranges(c.KubeletExtents.Extents)
	}
	if c.Quarantine == 0 {
		opts.QuarantineAge = -1
	}
	return opts
}

func ranges(extents []config.Extent) []idpool.Range {
	out := make([]idpool.Range, 0, len(extents))
	for _, e := range extents {
		out = append(out, idpool.Range{Start: e.Start, Length: uint32(min(e.Length, idpool.Invalid))})
	}
	return out
}
