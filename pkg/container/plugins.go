package container

import (
	"context"
	"fmt"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// PluginStep is a step in the life of a container that plugins are told of.
type PluginStep string

// The steps. A plugin can refuse StepStart only, which comes when the container has a pid and its
// process does not run yet.
const (
	StepCreated PluginStep = "created"
	StepStart   PluginStep = "start"
	StepStarted PluginStep = "started"
	StepUpdated PluginStep = "updated"
	StepStopped PluginStep = "stopped"
	StepRemoved PluginStep = "removed"
)

// Plugins look on at the containers of a node and change them; package nri has them for real. They are told
// a step of a container once, however often they are to be told, and none of a container that they do not know.
//
// An answer can ask for changes of other containers. Settle makes them. It locks those containers, so it is
// called with none locked, and with plugins not blocked; it is never nil.
type Plugins interface {
	// Block keeps plugins that connect from being shown the node until the result is called: who tells of
	// something and then records it does so with plugins blocked. It must not be called twice by one
	// goroutine, and no container may be locked before the result is called.
	Block() (unblock func())
	// Adjust changes the specification of a container that is being created.
	Adjust(ctx context.Context, a Adjustment) (settle func(context.Context), err error)
	// Tell returns an error for StepStart that a plugin refuses. Errors of other steps are for the log.
	Tell(ctx context.Context, step PluginStep, sb sandbox.Record, rec Record) error
	// Update returns what becomes of a request for other resources.
	Update(ctx context.Context, sb sandbox.Record, rec Record, r ocispec.Resources) (ocispec.Resources, func(context.Context), error)
}

// Adjustment is a container that is being created.
type Adjustment struct {
	Sandbox   sandbox.Record
	Container Record
	Spec      *specs.Spec // changed in place
	// Volume makes a bind mount that a plugin asks for one that the pod can have: its source resolved, and
	// idmapped in a pod with a user namespace. What it mounts goes with the container's volumes.
	Volume func(ctx context.Context, v ocispec.Mount) (ocispec.Mount, error)
}

// noPlugins stands where a node has none.
type noPlugins struct{}

func settled(context.Context) {}

func (noPlugins) Block() func() { return func() {} }

func (noPlugins) Adjust(context.Context, Adjustment) (func(context.Context), error) {
	return settled, nil
}

func (noPlugins) Tell(context.Context, PluginStep, sandbox.Record, Record) error { return nil }

func (noPlugins) Update(_ context.Context, _ sandbox.Record, _ Record, r ocispec.Resources) (ocispec.Resources, func(context.Context), error) {
	return r, settled, nil
}

// tell is for steps that nobody can refuse.
func (m *Manager) tell(ctx context.Context, step PluginStep, rec Record) {
	defer m.opts.Plugins.Block()()
	m.tellBlocked(ctx, step, rec)
}

// tellBlocked needs plugins blocked.
func (m *Manager) tellBlocked(ctx context.Context, step PluginStep, rec Record) {
	sb, err := m.opts.Sandbox(rec.SandboxID)
	if err != nil { // removed meanwhile
		sb = sandbox.Record{ID: rec.SandboxID}
	}
	if err := m.opts.Plugins.Tell(ctx, step, sb, rec); err != nil {
		klog.FromContext(ctx).Error(err, "Plugin was told of a container", "container", rec.ID, "step", step)
	}
}

// pluginVolume readies a bind mount that a plugin asks for as volumes does those of the client. Unlike
// theirs its source has to exist.
func (m *Manager) pluginVolume(ctx context.Context, b *build, v ocispec.Mount) (ocispec.Mount, error) {
	source, err := filepath.EvalSymlinks(v.HostPath)
	if err != nil {
		return v, fmt.Errorf("%w: source %s: %w", ErrInvalid, v.HostPath, err)
	}
	v.HostPath = source
	if err := checkPropagation(b.sb, v); err != nil {
		return v, err
	}
	if b.sb.Pins.User == "" {
		return v, nil
	}
	// Behind those of the client and of the image.
	i := len(b.rec.Spec.Mounts) + len(b.rec.DeclaredVolumes) + b.pluginVolumes
	b.pluginVolumes++
	return m.idmapVolume(ctx, b, i, v)
}

// publishCreated has plugins adjust the specification, records the container with containerd and here, and
// shows it.
func (m *Manager) publishCreated(ctx context.Context, b *build) error {
	spec, err := m.specification(ctx, b)
	if err != nil {
		return err
	}
	defer m.opts.Plugins.Block()()
	b.settle, err = m.opts.Plugins.Adjust(ctx, Adjustment{
		Sandbox:   b.sb,
		Container: b.rec,
		Spec:      spec,
		Volume:    func(ctx context.Context, v ocispec.Mount) (ocispec.Mount, error) { return m.pluginVolume(ctx, b, v) },
	})
	if err != nil {
		return err
	}
	if b.origin != nil { // what plugins did then they do again
		if err := b.origin.adapt(spec); err != nil {
			return err
		}
	}
	if err := m.record(ctx, b, spec); err != nil {
		return err
	}
	b.rec.State = StateCreated
	if err := m.table.Save(b.rec); err != nil {
		return err
	}
	m.tellBlocked(ctx, StepCreated, b.rec)
	return nil
}
