package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
	"github.com/userns-shim/userns-shim/pkg/reconcile"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
)

func (d *daemon) buildReconciler(context.Context) error {
	d.leaks = reconcile.New(reconcile.Options{
		DB:             d.db,
		Pool:           d.pool,
		Sandboxes:      d.sandboxes,
		Engine:         d.layers(),
		Look:           func(ctx context.Context) (*hostids.Look, error) { return hostids.Take(ctx, "/proc") },
		NamespaceOwner: namespaceOwner,
		Sync:           func() error { return errors.Join(d.sandboxes.SyncMirror(), d.containers.SyncMirror()) },
		Known:          func(id string) bool { return d.sandboxes.Has(id) || d.containers.Has(id) },
		Clock:          clock.RealClock{},
	})
	return nil
}

// namespaceOwner looks whether the process is in the namespace still; then that is the one that was looked at before.
func namespaceOwner(n hostids.Namespace) (uint32, error) {
	path := fmt.Sprintf("/proc/%d/ns/user", n.Process.PID)
	link, err := os.Readlink(path)
	if err != nil {
		return 0, err
	}
	if link != fmt.Sprintf("user:[%d]", n.Inode) {
		return 0, fmt.Errorf("process %d is in %s by now", n.Process.PID, link)
	}
	return ns.OwnerID(path)
}

// reconcileFirst looks for what leaked, before the first pod is made. What keeps it from looking keeps no pod from running.
func (d *daemon) reconcileFirst(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reconcile.Timeout)
	defer cancel()
	if _, err := d.leaks.Once(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Look for leaked id ranges")
	}
}

// reconcileAgain does so now and then, once pods of the last run were looked at.
func (d *daemon) reconcileAgain(ctx context.Context) {
	for d.node.recovery.pending() != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(recoverRetry):
		}
	}
	d.leaks.Run(ctx, time.Duration(d.cfg.IDPool.ReconcileInterval))
}

// leakCounts are what was found and repaired since the start; every kind is there from the beginning.
func (d *daemon) leakCounts() (found, repaired map[string]uint64) {
	f, r := d.leaks.Counts()
	found, repaired = map[string]uint64{}, map[string]uint64{}
	for _, kind := range reconcile.Kinds() {
		found[string(kind)], repaired[string(kind)] = f[kind], r[kind]
	}
	return found, repaired
}

// Leaks implements admin.Pool.
func (v poolView) Leaks(ctx context.Context, fresh bool) admin.Leaks {
	report, out := v.leaks.Findings(), admin.Leaks{Leaks: []admin.Leak{}}
	err := report.Err
	if fresh {
		ctx, cancel := context.WithTimeout(ctx, reconcile.Timeout)
		defer cancel()
		report, err = v.leaks.Once(ctx)
	}
	if err != nil {
		out.Error = err.Error()
	}
	out.Began, out.Took = report.Began, report.Took.String()
	for _, f := range report.Findings {
		out.Leaks = append(out.Leaks, admin.Leak{
			Kind:    string(f.Kind),
			Start:   f.Range.Start,
			Length:  f.Range.Length,
			Pod:     string(f.Pod),
			Sandbox: f.Sandbox,
			Found:   f.Found,
			Repair:  f.Repair,
			Remedy:  f.Remedy,
			Since:   f.Since,
		})
	}
	return out
}
