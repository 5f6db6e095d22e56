package kernel

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// Options configure a Prober.
type Options struct {
	// UserNS makes a user namespace that maps at least id 0 to an id other than 0, and returns it open. The
	// caller closes the file.
	UserNS func() (*os.File, error)
}

// Prober answers what the kernel can do. Its methods may be called concurrently; the first call of
// each does the work. All of them need root.
type Prober struct {
	userNS func() (*os.File, error)

	userNamespaces func() error
	pidFD          func() error
	tmpfsIDMapped  func() error
	detachedLayers func() error
	cgroupMode     func() CgroupMode

	mu    sync.Mutex // guards paths
	paths map[question]func() error
}

// question is a feature whose answer depends on a path.
type question struct {
	feature feature
	path    string
}

// New returns a Prober that has probed nothing yet.
func New(o Options) (*Prober, error) {
	if o.UserNS == nil {
		return nil, errors.New("new kernel prober: no way to make a user namespace")
	}
	p := &Prober{userNS: o.UserNS, paths: make(map[question]func() error), cgroupMode: sync.OnceValue(cgroupMode)}
	p.userNamespaces = sync.OnceValue(p.probeUserNamespaces)
	p.pidFD = sync.OnceValue(func() error { return pidFD.answer("", probePIDFD()) })
	p.tmpfsIDMapped = sync.OnceValue(func() error { return tmpfsIDMapped.answer("", p.probeTmpfs()) })
	p.detachedLayers = sync.OnceValue(func() error { return detachedLayers.answer("", probeDetachedLayers()) })
	return p, nil
}

// UserNamespaces returns nil when user namespaces can be made.
func (p *Prober) UserNamespaces() error { return p.userNamespaces() }

// PIDFD returns nil when processes can be held by file descriptors.
func (p *Prober) PIDFD() error { return p.pidFD() }

// TmpfsIDMapped returns nil when tmpfs can be idmapped. Where it cannot, every pod with a
// memory-backed volume fails, and a service account's token is one.
func (p *Prober) TmpfsIDMapped() error { return p.tmpfsIDMapped() }

// OverlayDetachedLayers returns nil when overlay takes layers from a mount that is attached nowhere.
func (p *Prober) OverlayDetachedLayers() error { return p.detachedLayers() }

// CgroupMode returns how cgroups are mounted.
func (p *Prober) CgroupMode() CgroupMode { return p.cgroupMode() }

// IDMapped returns nil when the filesystem that holds path can be idmapped.
func (p *Prober) IDMapped(path string) error {
	return p.once(question{idmappedMounts, path}, p.probeIDMapped)
}

// OverlayLayersIDMapped returns nil when an overlay can be mounted over idmapped layers that lie
// on the filesystem that holds dir, into which the probe puts an empty directory for a moment.
func (p *Prober) OverlayLayersIDMapped(dir string) error {
	return p.once(question{idmappedOverlays, dir}, p.probeIDMappedOverlay)
}

// once runs the probe of one path, unless that was done before.
func (p *Prober) once(q question, probe func(path string) error) error {
	p.mu.Lock()
	ask := p.paths[q]
	if ask == nil {
		ask = sync.OnceValue(func() error { return q.feature.answer(q.path, probe(q.path)) })
		p.paths[q] = ask
	}
	p.mu.Unlock()
	return ask()
}

// Features returns all features that do not depend on a path.
func (p *Prober) Features() []Feature {
	list := []struct {
		feature feature
		ask     func() error
	}{
		{userNamespaces, p.UserNamespaces},
		{pidFD, p.PIDFD},
		{tmpfsIDMapped, p.TmpfsIDMapped},
		{detachedLayers, p.OverlayDetachedLayers},
	}
	features := make([]Feature, len(list))
	for i, f := range list {
		features[i] = Feature{Name: f.feature.name, Needs: f.feature.needs, Err: f.ask()}
	}
	return features
}

// answer turns what a probe got from the kernel into what is told.
func (f feature) answer(where string, err error) error {
	switch {
	case err == nil:
		return nil
	case refused(err):
		return &FeatureError{Feature: f.name, Where: where, Needs: f.needs, Err: err}
	case where != "":
		return fmt.Errorf("probe %s on %s: %w", f.name, where, err)
	}
	return fmt.Errorf("probe %s: %w", f.name, err)
}
