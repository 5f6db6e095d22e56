package nri

import (
	"context"
	"fmt"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// ForContainers is the adapter as the manager of containers sees it.
type ForContainers struct{ adapter *Adapter }

var _ container.Plugins = ForContainers{}

// ForContainers returns the view for the manager of containers.
func (a *Adapter) ForContainers() ForContainers { return ForContainers{adapter: a} }

// Block is container.Plugins'.
func (c ForContainers) Block() func() { return c.adapter.block() }

// nothing is the Settle of an answer that asks for no change of other containers.
func nothing(context.Context) {}

var containerMoves = map[container.PluginStep]move{
	container.StepCreated: moveAlong,
	container.StepStart:   moveAlong,
	container.StepStarted: moveAlong,
	container.StepUpdated: moveAlong,
	container.StepStopped: moveStop,
	container.StepRemoved: moveEnd,
}

// Tell is container.Plugins'. A container that is removed without having stopped, as one that never
// started, is told as stopped first.
func (c ForContainers) Tell(ctx context.Context, step container.PluginStep, sb sandbox.Record, rec container.Record) error {
	a := c.adapter
	a.calls.Lock()
	defer a.calls.Unlock()
	if !a.started {
		return nil
	}
	if step == container.StepRemoved && a.told[rec.ID] == stageAlive {
		if err := a.tellLocked(ctx, container.StepStopped, sb, rec); err != nil {
			a.opts.Logger.Error(err, "Plugin was told of a container", "container", rec.ID, "step", container.StepStopped)
		}
	}
	return a.tellLocked(ctx, step, sb, rec)
}

// tellLocked needs calls.
func (a *Adapter) tellLocked(ctx context.Context, step container.PluginStep, sb sandbox.Record, rec container.Record) error {
	if !a.advance(rec.ID, containerMoves[step]) || a.witness.plugins.Load() == 0 {
		return nil
	}
	pod, ctr := podOf(sb), a.containerOf(ctx, rec)
	_, err := a.ask(ctx, func(ctx context.Context) error { return a.tellContainer(ctx, step, pod, ctr) })
	return err
}

func (a *Adapter) tellContainer(ctx context.Context, step container.PluginStep, pod *api.PodSandbox, ctr *api.Container) error {
	switch step {
	case container.StepCreated:
		return a.library.PostCreateContainer(ctx, &api.PostCreateContainerRequest{Pod: pod, Container: ctr})
	case container.StepStart:
		return a.library.StartContainer(ctx, &api.StartContainerRequest{Pod: pod, Container: ctr})
	case container.StepStarted:
		return a.library.PostStartContainer(ctx, &api.PostStartContainerRequest{Pod: pod, Container: ctr})
	case container.StepUpdated:
		return a.library.PostUpdateContainer(ctx, &api.PostUpdateContainerRequest{Pod: pod, Container: ctr})
	case container.StepStopped:
		answer, err := a.library.StopContainer(ctx, &api.StopContainerRequest{Pod: pod, Container: ctr})
		if updates := answer.GetUpdate(); len(updates) > 0 {
			a.applyLater(updates)
		}
		return err
	case container.StepRemoved:
		return a.library.RemoveContainer(ctx, &api.RemoveContainerRequest{Pod: pod, Container: ctr})
	}
	return nil
}

// Adjust is container.Plugins'.
func (c ForContainers) Adjust(ctx context.Context, req container.Adjustment) (func(context.Context), error) {
	a := c.adapter
	answer, answers, err := a.askCreate(ctx, req)
	if err != nil || answer == nil {
		return nothing, err
	}
	settle := a.settle(answer.GetUpdate(), answer.GetEvict())
	return settle, a.adjust(ctx, req, adjustment{merged: answer.GetAdjust(), answers: answers})
}

func (a *Adapter) askCreate(ctx context.Context, req container.Adjustment) (*api.CreateContainerResponse, []answer, error) {
	a.calls.Lock()
	defer a.calls.Unlock()
	if !a.started {
		return nil, nil, nil
	}
	a.advance(req.Container.ID, moveBegin)
	if a.witness.plugins.Load() == 0 {
		return nil, nil, nil
	}
	var result *api.CreateContainerResponse
	answers, err := a.ask(ctx, func(ctx context.Context) (err error) {
		result, err = a.library.CreateContainer(ctx, &api.CreateContainerRequest{
			Pod:       podOf(req.Sandbox),
			Container: convertContainer(req.Container, req.Spec),
		})
		return err
	})
	return result, answers, err
}

// Update is container.Plugins'. The last of the library's updates is that of the container itself.
func (c ForContainers) Update(ctx context.Context, sb sandbox.Record, rec container.Record, r ocispec.Resources) (ocispec.Resources, func(context.Context), error) {
	a := c.adapter
	answer, err := a.askUpdate(ctx, sb, rec, r)
	if err != nil || answer == nil {
		return r, nothing, err
	}
	updates := answer.GetUpdate()
	if last := len(updates) - 1; last >= 0 && updates[last].GetContainerId() == rec.ID {
		changed, err := plainResources(updates[last].GetLinux().GetResources())
		if err != nil {
			return r, nothing, fmt.Errorf("%w: UpdateContainer: %w", ErrPlugin, err)
		}
		r, updates = r.Merge(changed), updates[:last]
	}
	return r, a.settle(updates, answer.GetEvict()), nil
}

func (a *Adapter) askUpdate(ctx context.Context, sb sandbox.Record, rec container.Record, r ocispec.Resources) (*api.UpdateContainerResponse, error) {
	a.calls.Lock()
	defer a.calls.Unlock()
	if !a.started || a.witness.plugins.Load() == 0 {
		return nil, nil
	}
	ctr := a.containerOf(ctx, rec)
	var result *api.UpdateContainerResponse
	_, err := a.ask(ctx, func(ctx context.Context) (err error) {
		result, err = a.library.UpdateContainer(ctx, &api.UpdateContainerRequest{
			Pod: podOf(sb), Container: ctr, LinuxResources: resourcesOf(&r),
		})
		return err
	})
	return result, err
}

// containerOf converts a container as containerd has it. Without a specification there is still its name.
func (a *Adapter) containerOf(ctx context.Context, rec container.Record) *api.Container {
	spec, err := a.node.containers.Specification(context.WithoutCancel(ctx), rec.ID)
	if err != nil {
		spec = &specs.Spec{}
	}
	return convertContainer(rec, spec)
}
