package sandbox

import (
	"context"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
)

// PluginStep is a step in the life of a sandbox that plugins are told of.
type PluginStep string

// The steps. A plugin can refuse StepRun only; StepUpdated comes after an update was made.
const (
	StepRun     PluginStep = "run"
	StepUpdated PluginStep = "updated"
	StepStopped PluginStep = "stopped"
	StepRemoved PluginStep = "removed"
)

// Plugins look on at the sandboxes of a node; package nri has them for real. They are told a step of a
// sandbox once, however often they are to be told, and none of a sandbox whose StepRun they missed.
type Plugins interface {
	// Block keeps plugins that connect from being shown the node until the result is called: who tells of
	// something and then records it does so with plugins blocked. It must not be called twice by one goroutine.
	Block() (unblock func())
	// Tell returns an error for StepRun that a plugin refuses. Errors of other steps are for the log.
	Tell(ctx context.Context, step PluginStep, rec Record) error
	// Update asks whether the sandbox may get these resources; nil is no change.
	Update(ctx context.Context, rec Record, overhead, resources *ocispec.Resources) error
}

// noPlugins stands where a node has none.
type noPlugins struct{}

func (noPlugins) Block() func() { return func() {} }

func (noPlugins) Tell(context.Context, PluginStep, Record) error { return nil }

func (noPlugins) Update(context.Context, Record, *ocispec.Resources, *ocispec.Resources) error {
	return nil
}

// tell is for steps that nobody can refuse.
func (m *Manager) tell(ctx context.Context, step PluginStep, rec Record) {
	defer m.opts.Plugins.Block()()
	if err := m.opts.Plugins.Tell(ctx, step, rec); err != nil {
		klog.FromContext(ctx).Error(err, "Plugin was told of a pod sandbox", "sandbox", rec.ID, "step", step)
	}
}

// publishReady asks plugins for a sandbox that is up, and records it.
func (m *Manager) publishReady(ctx context.Context, rec Record) error {
	defer m.opts.Plugins.Block()()
	if err := m.opts.Plugins.Tell(ctx, StepRun, rec); err != nil {
		return err
	}
	return m.table.Save(rec)
}
