package main

import (
	"context"
	"path/filepath"
	"time"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/internal/metrics"
	"github.com/userns-shim/userns-shim/pkg/idpool/foreign"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
)

// foreignNode is where foreign owners of ids are looked for on this machine. The pods' own namespaces are pinned below the state directory.
func foreignNode(stateDir string) foreign.Node {
	pins := sandbox.PathsOf(stateDir, "*").Namespaces
	return foreign.Node{
		Root:      "/",
		Proc:      "/proc",
		Pins:      filepath.Join(pins, "user"),
		OtherPins: []string{filepath.Join(pins, "*"), filepath.Join(ns.NetNSDir, "cni-*")},
		List:      foreign.Getent("getent"),
	}
}

func (d *daemon) buildScanner(ctx context.Context) (err error) {
	d.scanner, err = foreign.New(foreign.Options{
		Ledger:  d.pool,
		Sources: foreignNode(d.cfg.State).Sources(),
		Observe: func(r foreign.Report) { d.observeForeign(ctx, r) },
	})
	return err
}

func (d *daemon) observeForeign(ctx context.Context, r foreign.Report) {
	scan := metrics.ForeignScan{Owners: map[string]int{}, Took: r.Took}
	for kind, n := range r.Counts {
		scan.Owners[string(kind)] = n
	}
	for _, f := range r.Failed {
		scan.Failed = append(scan.Failed, f.Source)
		klog.FromContext(ctx).Info("A source of foreign owners of ids was not read", "source", f.Source, "reason", f.Err)
	}
	d.metrics.ObserveForeign(scan)
}

// scanForeign looks for foreign owners until ctx ends, unless the configuration turns it off.
func (d *daemon) scanForeign(ctx context.Context) {
	if interval := time.Duration(d.cfg.IDPool.ScanInterval); interval > 0 {
		d.scanner.Run(ctx, interval)
	}
}
