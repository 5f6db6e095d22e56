package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/image"
)

// usageAge is how old the usage of a writable snapshot may be. Reading it walks the whole directory, so one that took long
// may be usageShare times as old as that: kubelet asks every ten seconds. That of a committed snapshot is constant.
const (
	usageAge   = 10 * time.Second
	usageShare = 10
)

// usageTries is how often a snapshot is summed up until that succeeds: containerd gives up when a file goes away between its
// directory's listing and its own turn.
const usageTries = 3

// usageCache remembers what snapshots hold, for each snapshotter.
type usageCache struct {
	mu      sync.Mutex
	byKey   map[usageKey]snapshotUsage // guarded by mu
	roots   map[string]string          // root directories of snapshotters, guarded by mu
	reading *keyedLock                 // snapshotters that are being summed up
}

type usageKey struct{ snapshotter, name string }

type snapshotUsage struct {
	image.Usage
	constant bool
	took     time.Duration
}

func (u snapshotUsage) fresh() bool {
	return u.constant || time.Since(u.At) < max(usageAge, usageShare*u.took)
}

func newUsageCache() *usageCache {
	return &usageCache{
		byKey:   make(map[usageKey]snapshotUsage),
		roots:   make(map[string]string),
		reading: newKeyedLock(),
	}
}

func (c *usageCache) get(key usageKey) (image.Usage, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u, ok := c.byKey[key]
	return u.Usage, ok && u.fresh()
}

// last is what was read last, however long ago that was; zero where nothing was.
func (c *usageCache) last(key usageKey) image.Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byKey[key].Usage
}

func (c *usageCache) put(key usageKey, u snapshotUsage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byKey[key] = u
}

// keep forgets the snapshots of a snapshotter that are not among names.
func (c *usageCache) keep(snapshotter string, names map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.byKey {
		if key.snapshotter == snapshotter && !names[key.name] {
			delete(c.byKey, key)
		}
	}
}

// FSUsage sums up all snapshots of a snapshotter, those of containers included, as containerd's CRI
// plugin does.
func (e *Engine) FSUsage(ctx context.Context, snapshotter string) (image.Usage, error) {
	snapshotter = e.snapshotter(snapshotter)
	total, err := e.fsUsage(ctx, snapshotter)
	if err != nil {
		return image.Usage{}, fmt.Errorf("read usage of snapshotter %s: %w", snapshotter, err)
	}
	return total, nil
}

func (e *Engine) fsUsage(ctx context.Context, snapshotter string) (image.Usage, error) {
	if err := e.usage.reading.Lock(ctx, snapshotter); err != nil {
		return image.Usage{}, err
	}
	defer e.usage.reading.Unlock(snapshotter)
	root, err := e.SnapshotterRoot(ctx, snapshotter)
	if err != nil {
		return image.Usage{}, err
	}
	kinds := make(map[string]bool) // whether the snapshot is constant, by name
	err = e.client.SnapshotService(snapshotter).Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		kinds[info.Name] = info.Kind == snapshots.KindCommitted
		return nil
	})
	if err != nil {
		return image.Usage{}, err
	}
	total := image.Usage{Mountpoint: root, At: time.Now()}
	names := make(map[string]bool, len(kinds))
	for name, constant := range kinds {
		names[name] = true
		u, err := e.readUsage(ctx, usageKey{snapshotter, name}, constant)
		if errdefs.IsNotFound(err) {
			continue // removed meanwhile
		}
		if errdefs.IsUnavailable(err) || ctx.Err() != nil {
			return image.Usage{}, fmt.Errorf("snapshot %s: %w", name, err)
		}
		if err != nil {
			// One container that changes its files all the time must not blind kubelet to a disk that fills up.
			klog.FromContext(ctx).V(2).Info("Snapshot was not summed up", "snapshotter", snapshotter, "snapshot", name, "err", err)
			if u = e.usage.last(usageKey{snapshotter, name}); u.At.IsZero() {
				continue
			}
		}
		total.Bytes += u.Bytes
		total.Inodes += u.Inodes
		if u.At.Before(total.At) && !constant {
			total.At = u.At
		}
	}
	e.usage.keep(snapshotter, names)
	return total, nil
}

func (e *Engine) readUsage(ctx context.Context, key usageKey, constant bool) (image.Usage, error) {
	if u, ok := e.usage.get(key); ok {
		return u, nil
	}
	began := time.Now()
	var read snapshots.Usage
	var err error
	for range usageTries {
		read, err = e.client.SnapshotService(key.snapshotter).Usage(ctx, key.name)
		if err == nil {
			break
		}
		if errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) || ctx.Err() != nil {
			return image.Usage{}, err
		}
	}
	if err != nil {
		return image.Usage{}, err
	}
	u := image.Usage{Bytes: uint64(max(read.Size, 0)), Inodes: uint64(max(read.Inodes, 0)), At: time.Now()}
	e.usage.put(key, snapshotUsage{Usage: u, constant: constant, took: u.At.Sub(began)})
	return u, nil
}

// SnapshotUsage returns what one writable snapshot holds, as old as usageAge says at most.
func (e *Engine) SnapshotUsage(ctx context.Context, snapshotter, key string) (image.Usage, error) {
	snapshotter = e.snapshotter(snapshotter)
	u, err := e.readUsage(ctx, usageKey{snapshotter, key}, false)
	if err != nil {
		return image.Usage{}, fmt.Errorf("read usage of snapshot %s: %w", key, err)
	}
	if u.Mountpoint, err = e.SnapshotterRoot(ctx, snapshotter); err != nil {
		return image.Usage{}, err
	}
	return u, nil
}

// SnapshotterRoot returns the directory in which a snapshotter keeps its data. A snapshotter that
// containerd does not have is an error that wraps errdefs.ErrNotFound.
func (e *Engine) SnapshotterRoot(ctx context.Context, snapshotter string) (string, error) {
	snapshotter = e.snapshotter(snapshotter)
	e.usage.mu.Lock()
	root, ok := e.usage.roots[snapshotter]
	e.usage.mu.Unlock()
	if ok {
		return root, nil
	}
	filter := fmt.Sprintf("type==%s,id==%q", plugins.SnapshotPlugin, snapshotter)
	resp, err := e.client.IntrospectionService().Plugins(ctx, filter)
	if err != nil {
		return "", fmt.Errorf("ask for snapshotter %s: %w", snapshotter, err)
	}
	if len(resp.GetPlugins()) == 0 {
		return "", fmt.Errorf("snapshotter %s: %w", snapshotter, errdefs.ErrNotFound)
	}
	plugin := resp.GetPlugins()[0]
	if msg := plugin.GetInitErr().GetMessage(); msg != "" {
		return "", fmt.Errorf("snapshotter %s does not work: %s: %w", snapshotter, msg, errdefs.ErrFailedPrecondition)
	}
	root = plugin.GetExports()["root"]
	e.usage.mu.Lock()
	defer e.usage.mu.Unlock()
	e.usage.roots[snapshotter] = root
	return root, nil
}
