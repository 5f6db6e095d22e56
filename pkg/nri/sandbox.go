package nri

import (
	"context"

	"github.com/containerd/nri/pkg/api"

	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// ForSandboxes is the adapter as the manager of sandboxes sees it.
type ForSandboxes struct{ adapter *Adapter }

var _ sandbox.Plugins = ForSandboxes{}

// ForSandboxes returns the view for the manager of sandboxes.
func (a *Adapter) ForSandboxes() ForSandboxes { return ForSandboxes{adapter: a} }

// Block is sandbox.Plugins'.
func (s ForSandboxes) Block() func() { return s.adapter.block() }

// Tell is sandbox.Plugins'.
func (s ForSandboxes) Tell(ctx context.Context, step sandbox.PluginStep, rec sandbox.Record) error {
	a := s.adapter
	a.calls.Lock()
	defer a.calls.Unlock()
	if !a.started || !a.advance(rec.ID, sandboxMoves[step]) || a.witness.plugins.Load() == 0 {
		return nil
	}
	_, err := a.ask(ctx, func(ctx context.Context) error { return a.tellSandbox(ctx, step, podOf(rec)) })
	return err
}

func (a *Adapter) tellSandbox(ctx context.Context, step sandbox.PluginStep, pod *api.PodSandbox) error {
	switch step {
	case sandbox.StepRun:
		return a.library.RunPodSandbox(ctx, &api.RunPodSandboxRequest{Pod: pod})
	case sandbox.StepUpdated:
		return a.library.PostUpdatePodSandbox(ctx, &api.PostUpdatePodSandboxRequest{Pod: pod})
	case sandbox.StepStopped:
		return a.library.StopPodSandbox(ctx, &api.StopPodSandboxRequest{Pod: pod})
	case sandbox.StepRemoved:
		return a.library.RemovePodSandbox(ctx, &api.RemovePodSandboxRequest{Pod: pod})
	}
	return nil
}

// Update is sandbox.Plugins'.
func (s ForSandboxes) Update(ctx context.Context, rec sandbox.Record, overhead, resources *ocispec.Resources) error {
	a := s.adapter
	a.calls.Lock()
	defer a.calls.Unlock()
	if !a.started || a.witness.plugins.Load() == 0 {
		return nil
	}
	_, err := a.ask(ctx, func(ctx context.Context) error {
		_, err := a.library.UpdatePodSandbox(ctx, &api.UpdatePodSandboxRequest{
			Pod:                    podOf(rec),
			OverheadLinuxResources: resourcesOf(overhead),
			LinuxResources:         resourcesOf(resources),
		})
		return err
	})
	return err
}

// move is what a step does to what plugins know.
type move int

const (
	moveBegin move = iota + 1
	moveAlong
	moveStop
	moveEnd
)

var sandboxMoves = map[sandbox.PluginStep]move{
	sandbox.StepRun:     moveBegin,
	sandbox.StepUpdated: moveAlong,
	sandbox.StepStopped: moveStop,
	sandbox.StepRemoved: moveEnd,
}

// advance notes a step and says whether plugins are to be told of it. It needs calls.
func (a *Adapter) advance(id string, m move) bool {
	now := a.told[id]
	switch m {
	case moveBegin:
		a.told[id] = stageAlive
		return true
	case moveAlong:
		return now == stageAlive
	case moveStop:
		if now != stageAlive {
			return false
		}
		a.told[id] = stageStopped
		return true
	case moveEnd:
		delete(a.told, id)
		return now != 0
	}
	return false
}
