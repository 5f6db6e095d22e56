package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/internal/forecast"
	"github.com/userns-shim/userns-shim/internal/kernel"
	"github.com/userns-shim/userns-shim/internal/metrics"
	"github.com/userns-shim/userns-shim/internal/statusz"
	"github.com/userns-shim/userns-shim/internal/version"
	"github.com/userns-shim/userns-shim/pkg/cgroups"
	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/cri"
	"github.com/userns-shim/userns-shim/pkg/engine"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/foreign"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
	"github.com/userns-shim/userns-shim/pkg/image"
	"github.com/userns-shim/userns-shim/pkg/mounts"
	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/nri"
	"github.com/userns-shim/userns-shim/pkg/ocispec/qosclass"
	"github.com/userns-shim/userns-shim/pkg/reconcile"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
	"github.com/userns-shim/userns-shim/pkg/state"
	"github.com/userns-shim/userns-shim/pkg/stats"
	"github.com/userns-shim/userns-shim/pkg/stream"
	"github.com/userns-shim/userns-shim/pkg/stream/fdstore"
)

// daemon is everything that runs, wired together.
type daemon struct {
	cfg config.Config

	db         *state.DB
	pool       *idpool.Pool
	witness    *hostids.Witness
	cgroups    *cgroups.Host
	engine     *engine.Engine
	mounter    *mounts.Mounter
	sandboxes  *sandbox.Manager
	containers *container.Manager
	leaks      *reconcile.Reconciler
	scanner    *foreign.Scanner
	stats      *stats.Collector
	streaming  *stream.Server
	services   cri.Options
	node       *node
	events     *cri.Events
	metrics    *metrics.Metrics
	tracker    *forecast.Tracker
	history    *statusz.History
	started    time.Time
	classes    *qosclass.Classes
	plugins    *nri.Adapter   // nil where the configuration turns NRI off
	systemd    *fdstore.Store // nil where systemd does not run us

	closers []io.Closer
}

// closerFunc lets a function stand in closers.
type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// newDaemon builds the parts; what it opened is closed on an error.
func newDaemon(ctx context.Context, cfg config.Config) (*daemon, error) {
	d := &daemon{cfg: cfg, events: &cri.Events{}, tracker: forecast.NewTracker(time.Duration(cfg.IDPool.ForecastWindow))}
	d.history, d.started = statusz.NewHistory(keptEvents), time.Now()
	d.systemd = fdstore.FromEnvironment()
	d.metrics = metrics.New(version.Version, d.poolStats)
	if err := d.build(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// build makes the parts from the bottom up.
func (d *daemon) build(ctx context.Context) error {
	// 0711: pods' roots, who are not the host's, reach their own files below.
	if err := os.MkdirAll(d.cfg.State, 0o711); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	for _, part := range []func(context.Context) error{
		d.openEngine, d.openState, d.openMounts, d.buildNode, d.buildPlugins, d.buildSandboxes, d.buildContainers, d.buildReconciler, d.buildScanner, d.buildStats, d.openStreaming,
	} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	images, err := image.New(image.Options{
		Store:              d.engine,
		DefaultSnapshotter: d.cfg.Containerd.Snapshotter,
		Snapshotters:       d.snapshotters(),
	})
	if err != nil {
		return err
	}
	d.services = cri.Options{
		Sandboxes:  d.sandboxes,
		Containers: d.containers,
		Images:     images,
		Node:       d.node,
		Streaming:  d.streaming,
		Stats:      d.stats,
		Events:     d.events,
		Capacity:   d.poolCapacity,
		Version:    version.Version,
	}
	if d.plugins != nil {
		d.services.PluginsReady = d.plugins.Ready
		d.closers = append(d.closers, d.plugins)
	}
	return nil
}

// close releases everything in the opposite order of its making.
func (d *daemon) close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		errs = append(errs, d.closers[i].Close())
	}
	d.closers = nil
	return errors.Join(errs...)
}

func (d *daemon) openEngine(context.Context) (err error) {
	if d.cgroups, err = cgroups.New(); err != nil {
		return err
	}
	e, err := engine.New(engine.Options{
		Cgroups:             d.cgroups,
		Address:             d.cfg.Containerd.Address,
		Namespace:           d.cfg.Containerd.Namespace,
		DefaultSnapshotter:  d.cfg.Containerd.Snapshotter,
		RegistryConfigPath:  d.cfg.Registry.ConfigPath,
		PullProgressTimeout: time.Duration(d.cfg.Registry.PullProgressTimeout),
		PinnedImages:        d.cfg.Registry.PinnedImages,
	})
	if err != nil {
		return err
	}
	d.engine = e
	d.closers = append(d.closers, e)
	return nil
}

func (d *daemon) openMounts(context.Context) error {
	prober, err := kernel.New(kernel.Options{UserNS: probeUserNS})
	if err != nil {
		return err
	}
	d.node = &node{cfg: d.cfg, kernel: prober, engine: d.engine, cgroup2: cgroup2Mounts}
	d.mounter, err = mounts.New(mounts.Options{DetachedLayers: prober.OverlayDetachedLayers})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, d.mounter)
	return nil
}

// probeUserNS makes a user namespace for the probes of what the kernel can do. Only its descriptor holds it: a daemon that is
// killed while it probes leaves nothing.
func probeUserNS() (*os.File, error) {
	idmap := fmt.Sprintf("0:%d:%d", idpool.DefaultExtents()[0].Start, idpool.Unit)
	f, err := mount.GetUsernsFD(idmap, idmap)
	if err != nil {
		return nil, fmt.Errorf("make a user namespace to probe the kernel: %w", err)
	}
	return f, nil
}

func (d *daemon) buildNode(ctx context.Context) (err error) {
	d.node.network, err = network.New(network.Options{BinDirs: d.cfg.CNI.BinDirs, ConfDir: d.cfg.CNI.ConfDir})
	if err != nil {
		return err
	}
	if err := ns.CheckLimits(); err != nil {
		klog.FromContext(ctx).Info("Limits of userns-shim cap those of pods with a user namespace", "reason", err)
	}
	return nil
}

// snapshotters are those of the runtime handlers by name.
func (d *daemon) snapshotters() map[string]string {
	out := map[string]string{}
	for name, h := range d.cfg.RuntimeHandlers {
		out[name] = d.cfg.Containerd.Snapshotter
		if h.Snapshotter != "" {
			out[name] = h.Snapshotter
		}
	}
	return out
}
