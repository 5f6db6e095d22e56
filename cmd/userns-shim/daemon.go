package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/userns-shim/userns-shim/internal/config"
	"github.com/userns-shim/userns-shim/internal/kernel"
	"github.com/userns-shim/userns-shim/internal/metrics"
	"github.com/userns-shim/userns-shim/internal/version"
	"github.com/userns-shim/userns-shim/pkg/cgroups"
	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/cri"
	"github.com/userns-shim/userns-shim/pkg/engine"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/idpool/hostids"
	"github.com/userns-shim/userns-shim/pkg/image"
	"github.com/userns-shim/userns-shim/pkg/mounts"
	"github.com/userns-shim/userns-shim/pkg/network"
	"github.com/userns-shim/userns-shim/pkg/nri"
	"github.com/userns-shim/userns-shim/pkg/ocispec/qosclass"
	"github.com/userns-shim/userns-shim/pkg/ocispec/selinuxlabel"
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
	stats      *stats.Collector
	streaming  *stream.Server
	services   cri.Options
	node       *node
	events     *cri.Events
	metrics    *metrics.Metrics
	classes    *qosclass.Classes
	plugins    *nri.Adapter // nil where the configuration turns NRI off

	closers []io.Closer
}

// closerFunc lets a function stand in closers.
type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// newDaemon builds the parts; what it opened is closed on an error.
func newDaemon(ctx context.Context, cfg config.Config) (*daemon, error) {
	d := &daemon{cfg: cfg, events: &cri.Events{}}
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
		d.openEngine, d.openState, d.openMounts, d.buildNode, d.buildPlugins, d.buildSandboxes, d.buildContainers, d.buildStats, d.openStreaming,
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

// openState opens the database and the id pool in it.
func (d *daemon) openState(ctx context.Context) error {
	db, err := state.Open(state.Options{Path: filepath.Join(d.cfg.Root, "state.db"), ObserveCommit: d.metrics.ObserveCommit})
	if err != nil {
		return err
	}
	d.db = db
	d.closers = append(d.closers, db)
	d.witness = hostids.NewWitness(hostids.WitnessOptions{
		Proc:   "/proc",
		Layers: layers{engine: d.engine, snapshotters: slices.Compact(slices.Sorted(maps.Values(d.snapshotters())))},
	})
	opts := poolOptions(d.cfg.IDPool)
	if d.cfg.IDPool.KubeletExtents.Auto {
		opts.KubeletExtents = kubeletExtents(ctx, hostSources())
	}
	opts.Witness = d.witness
	return db.View(func(tx *state.Tx) error {
		d.pool, err = idpool.Load(tx.Raw(sandbox.PoolBucket), opts)
		if err != nil {
			return fmt.Errorf("load id pool: %w", err)
		}
		for _, f := range d.pool.Findings() {
			klog.FromContext(ctx).Info("Id pool finding", "finding", f)
		}
		return nil
	})
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
	prober, err := kernel.New(kernel.Options{UserNS: d.probeUserNS})
	if err != nil {
		return err
	}
	d.node = &node{cfg: d.cfg, kernel: prober, engine: d.engine}
	d.mounter, err = mounts.New(mounts.Options{DetachedLayers: prober.OverlayDetachedLayers})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, d.mounter)
	return nil
}

// probeUserNS makes a user namespace for the probes of what the kernel can do.
func (d *daemon) probeUserNS() (*os.File, error) {
	dir, err := os.MkdirTemp(d.cfg.State, "probe-")
	if err != nil {
		return nil, fmt.Errorf("probe the kernel: %w", err)
	}
	ctx := context.Background()
	extents := idpool.DefaultExtents()
	pins, err := ns.Create(ctx, ns.Request{User: &ns.IDMap{HostID: extents[0].Start, Length: idpool.Unit}, Dir: filepath.Join(dir, "ns")})
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	f, err := os.Open(pins.User)
	return f, errors.Join(err, ns.Remove(ctx, filepath.Join(dir, "ns"), ""), os.Remove(dir))
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

// hostNamespaces makes namespaces for real.
type hostNamespaces struct{}

func (hostNamespaces) Create(ctx context.Context, req ns.Request) (ns.Pins, error) {
	return ns.Create(ctx, req)
}

func (hostNamespaces) WriteSysctls(ctx context.Context, pins ns.Pins, user *ns.IDMap, sysctls map[string]string) error {
	return ns.WriteSysctls(ctx, pins, user, sysctls)
}

func (hostNamespaces) Remove(ctx context.Context, dir, netPath string) error {
	return ns.Remove(ctx, dir, netPath)
}

func (hostNamespaces) Check(pins ns.Pins, user *ns.IDMap) error { return ns.Check(pins, user) }

func (d *daemon) buildSandboxes(ctx context.Context) error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read boot id: %w", err)
	}
	process, err := d.podInit()
	if err != nil {
		return err
	}
	policies, perShim := map[string]sandbox.UserNamespacePolicy{}, map[string]int{}
	for name, h := range d.cfg.RuntimeHandlers {
		perShim[name] = h.PodsPerShim
		policies[name] = sandbox.UserNamespacePolicy(h.UserNamespaces)
	}
	d.sandboxes, err = sandbox.New(sandbox.Options{
		DB:             d.db,
		Pool:           d.pool,
		Look:           d.witness.Look,
		Namespaces:     hostNamespaces{},
		Network:        d.node.network,
		Process:        process,
		Labels:         selinuxlabel.Host{},
		StateDir:       d.cfg.State,
		BootID:         strings.TrimSpace(string(boot)),
		Clock:          clock.RealClock{},
		Logger:         klog.FromContext(ctx),
		UserNamespaces: policies,
		PodsPerShim:    perShim,
		DefaultHandler: d.cfg.DefaultRuntimeHandler,

		CheckUserNamespaces: d.node.checkUserNamespaces,

		Notify:            d.events.Publish,
		ObserveLease:      d.observeLease,
		Plugins:           d.sandboxPlugins(),
		RejectConflicts:   d.cfg.IDPool.OnConflict == config.ConflictReject,
		UnprivilegedPorts: d.cfg.EnableUnprivilegedPorts,
		UnprivilegedICMP:  d.cfg.EnableUnprivilegedICMP,
	})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, closerFunc(func() error { d.sandboxes.Close(); return nil }))
	return nil
}

func (d *daemon) buildContainers(ctx context.Context) error {
	host, err := d.node.host()
	if err != nil {
		return err
	}
	d.containers, err = container.New(container.Options{
		DB:             d.db,
		Images:         d.engine,
		Snapshots:      d.engine,
		Records:        d.engine,
		Tasks:          d.engine,
		Inspector:      d.engine,
		Execs:          d.engine,
		Consoles:       d.engine,
		Updates:        d.engine,
		Checkpoints:    d.engine,
		Diffs:          d.engine,
		RestoreImages:  d.cfg.RestoreCheckpointImages,
		Rootfs:         d.mounter,
		Sandbox:        d.sandboxes.Get,
		PIDPins:        hostNamespaces{},
		Cgroups:        d.cgroups,
		Labels:         selinuxlabel.Host{},
		Clock:          clock.RealClock{},
		Logger:         klog.FromContext(ctx),
		Notify:         d.events.Publish,
		Plugins:        d.containerPlugins(),
		StateDir:       d.cfg.State,
		RootDir:        d.cfg.Root,
		Handlers:       d.handlers(),
		DefaultHandler: d.cfg.DefaultRuntimeHandler,
		Host:           host,

		RecursiveReadOnly: d.node.recursiveReadOnly,

		SystemdCgroup: d.node.SystemdCgroup(),
		CDISpecDirs:   d.cfg.CDISpecDirs,
		Classes:       d.classes,
		Keeper:        fdstore.FromEnvironment(),
		MaxLogLine:    d.cfg.MaxContainerLogLineSize,
	})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, closerFunc(func() error { d.containers.Close(); return nil }))
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
