package mounts

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"k8s.io/klog/v2"
)

// Way is how an overlay over idmapped layers comes about.
type Way int

const (
	// WayAuto asks Options.DetachedLayers, once.
	WayAuto Way = iota

	// WayDetached gives overlay its layers as file descriptors in a clone that is attached nowhere.
	// Linux 6.15 and later.
	WayDetached

	// WayStaged attaches the clone in a mount namespace that only this Mounter uses, mounts the overlay
	// there with mount(2), and takes the result out as a detached clone. Linux 5.19 and later.
	//
	// It serves all kernels before 6.15. A third way between them, lowerdir+ by path (6.8) on an
	// attached clone, would need the same namespace and the same attaching for the gain of not having to fit
	// the options into one page; the staged way fits them by giving every layer a name of
	// one to three digits, and it is the one that Debian's 6.1 needs in any case.
	WayStaged
)

// String names the way as it appears in logs.
func (w Way) String() string {
	switch w {
	case WayAuto:
		return "auto"
	case WayDetached:
		return "detached"
	case WayStaged:
		return "staged"
	default:
		return fmt.Sprintf("way %d", int(w))
	}
}

// Options configure a Mounter.
type Options struct {
	// Way is how overlays are made; the zero value lets DetachedLayers decide.
	Way Way
	// DetachedLayers returns nil when the kernel takes detached mounts as overlay layers. It is needed for
	// WayAuto and asked once, when the first overlay is mounted.
	DetachedLayers func() error
}

// Stats counts what a Mounter did since it was made.
type Stats struct {
	IDMaps   uint64 // mounts that were idmapped: clones of layers, whole mounts
	Checks   uint64 // idmaps of throwaway clones by CheckIDMappable
	Mounts   uint64 // root filesystems that were mounted
	Unmounts uint64 // calls of Unmount that found something mounted
	Clones   int    // idmapped clones that are held now
}

// Mounter mounts root filesystems. Its methods may be called concurrently.
type Mounter struct {
	opts Options

	wayOnce sync.Once
	way     Way // set by wayOnce

	stage stage

	idmaps, checks, mounts, unmounts atomic.Uint64
	clones                           atomic.Int64

	mu     sync.Mutex // guards pods and closed
	pods   map[string]*pod
	closed bool
}

// errClosed is what a closed Mounter returns.
var errClosed = errors.New("mounter is closed")

// New returns a Mounter that holds no clones.
func New(o Options) (*Mounter, error) {
	switch o.Way {
	case WayDetached, WayStaged:
	case WayAuto:
		if o.DetachedLayers == nil {
			return nil, errors.New("new mounter: way auto needs DetachedLayers")
		}
	default:
		return nil, fmt.Errorf("new mounter: unknown %v", o.Way)
	}
	return &Mounter{opts: o, pods: make(map[string]*pod)}, nil
}

// overlayWay returns the way to mount overlays, never WayAuto.
func (m *Mounter) overlayWay(ctx context.Context) Way {
	m.wayOnce.Do(func() {
		m.way = m.opts.Way
		if m.way != WayAuto {
			return
		}
		m.way = WayDetached
		if err := m.opts.DetachedLayers(); err != nil {
			m.way = WayStaged
			klog.FromContext(ctx).V(2).Info("Overlays are staged in a private mount namespace", "reason", err.Error())
		}
	})
	return m.way
}

// Mount mounts the root filesystem that req describes on req.Target. It appears there complete or
// not at all. Errors wrap ErrUnsupportedMount, ErrNotIDMappable, ErrMounted, ErrMapping or the kernel's.
func (m *Mounter) Mount(ctx context.Context, req Request) error {
	if err := m.mount(ctx, req); err != nil {
		return fmt.Errorf("mount root filesystem on %s: %w", req.Target, err)
	}
	m.mounts.Add(1)
	return nil
}

func (m *Mounter) mount(ctx context.Context, req Request) error {
	if err := req.validate(); err != nil {
		return err
	}
	p, err := newPlan(req.Mounts, req.Readonly)
	if err != nil {
		return err
	}
	target, err := openTarget(req.Target)
	if err != nil {
		return err
	}
	defer target.close()
	root, err := m.build(ctx, req, p)
	if err != nil {
		return err
	}
	defer root.close() // which also drops the mount when it was not attached
	if err := ctx.Err(); err != nil {
		return err
	}
	return attach(root, target)
}

// build makes the detached mount.
func (m *Mounter) build(ctx context.Context, req Request, p plan) (fd, error) {
	switch p.kind {
	case kindOverlay:
		return m.overlay(ctx, req, p)
	case kindBind:
		return m.bind(ctx, req, p)
	default:
		return m.filesystem(ctx, req, p)
	}
}

// Forget closes the clones that are held for a pod. What is mounted stays mounted. A later Mount
// for the same key begins anew.
func (m *Mounter) Forget(key string) {
	m.mu.Lock()
	p := m.pods[key]
	delete(m.pods, key)
	m.mu.Unlock()
	if p != nil {
		p.forget()
	}
}

// Close forgets all pods. What is mounted stays mounted. Calls of Mount that run meanwhile
// fail or finish; later ones fail.
func (m *Mounter) Close() error {
	m.mu.Lock()
	pods := m.pods
	m.pods, m.closed = nil, true
	m.mu.Unlock()
	for _, p := range pods {
		p.forget()
	}
	return m.stage.close()
}

// Stats returns the counters.
func (m *Mounter) Stats() Stats {
	return Stats{
		IDMaps:   m.idmaps.Load(),
		Checks:   m.checks.Load(),
		Mounts:   m.mounts.Load(),
		Unmounts: m.unmounts.Load(),
		Clones:   int(m.clones.Load()),
	}
}
