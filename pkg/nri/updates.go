package nri

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/sandbox/ns"
)

// laterTimeout bounds updates that nothing waits for.
const laterTimeout = time.Minute

// settle makes what an answer asks for of other containers. What cannot be made is logged: the
// container that was asked about is none of it.
func (a *Adapter) settle(updates []*api.ContainerUpdate, evictions []*api.ContainerEviction) func(context.Context) {
	if len(updates)+len(evictions) == 0 {
		return nothing
	}
	return func(ctx context.Context) {
		for _, e := range evictions {
			if err := a.evict(ctx, e); err != nil {
				klog.FromContext(ctx).Error(err, "Eviction that a plugin asks for")
			}
		}
		if _, err := a.apply(ctx, updates); err != nil {
			klog.FromContext(ctx).Error(err, "Updates that a plugin asks for")
		}
	}
}

// applyLater makes updates in a goroutine that Close waits for: who told the plugin may have containers locked. After
// Close it makes none.
func (a *Adapter) applyLater(updates []*api.ContainerUpdate) {
	a.later.Lock()
	defer a.later.Unlock()
	if a.closed {
		return
	}
	a.work.Go(func() {
		ctx, cancel := context.WithTimeout(a.life, laterTimeout)
		defer cancel()
		a.settle(updates, nil)(ctx)
	})
}

// apply makes updates and returns those that failed although they must not. A container that is gone, or not
// made yet, is passed over.
func (a *Adapter) apply(ctx context.Context, updates []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	var failed []*api.ContainerUpdate
	var errs []error
	for _, u := range updates {
		err := a.update(ctx, u)
		if err == nil || errors.Is(err, container.ErrNotFound) {
			continue
		}
		if u.GetIgnoreFailure() {
			klog.FromContext(ctx).V(2).Info("Update that a plugin asks for", "container", u.GetContainerId(), "reason", err)
			continue
		}
		failed, errs = append(failed, u), append(errs, err)
	}
	return failed, errors.Join(errs...)
}

func (a *Adapter) update(ctx context.Context, u *api.ContainerUpdate) error {
	r, err := plainResources(u.GetLinux().GetResources())
	if err != nil {
		return fmt.Errorf("update container %s: %w", u.GetContainerId(), err)
	}
	return a.node.containers.SetResources(ctx, u.GetContainerId(), r)
}

func (a *Adapter) evict(ctx context.Context, e *api.ContainerEviction) error {
	klog.FromContext(ctx).Info("Plugin evicts a container", "container", e.GetContainerId(), "reason", e.GetReason())
	err := a.node.containers.Evict(ctx, e.GetContainerId())
	if errors.Is(err, container.ErrNotFound) {
		return nil
	}
	return err
}

// updateContainers serves a plugin that asks unasked.
func (a *Adapter) updateContainers(_ context.Context, updates []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	ctx, cancel := context.WithTimeout(a.life, laterTimeout)
	defer cancel()
	return a.apply(ctx, updates)
}

// synchronize shows the node to plugins that have just come: all sandboxes, and the containers that can still
// run. The library calls it with everything blocked that could change meanwhile; so the updates that the
// plugins ask for, which lock containers, are made afterwards.
func (a *Adapter) synchronize(ctx context.Context, show adaptation.SyncCB) error {
	sandboxes, containers := a.node.sandboxes.List(), a.node.containers.List()
	var pods []*api.PodSandbox
	for _, rec := range sandboxes {
		pods = append(pods, podOf(rec))
	}
	var ctrs []*api.Container
	for _, rec := range containers {
		if rec.State == container.StateCreated || rec.State == container.StateRunning {
			ctrs = append(ctrs, a.containerOf(ctx, rec))
		}
	}
	a.learn(sandboxes, ctrs)
	updates, err := show(ctx, pods, ctrs)
	if err != nil {
		return err
	}
	if len(updates) > 0 {
		a.applyLater(updates)
	}
	return nil
}

// learn notes what plugins know from now on, apart from what others were told already.
func (a *Adapter) learn(sandboxes []sandbox.Record, containers []*api.Container) {
	a.calls.Lock()
	defer a.calls.Unlock()
	for _, rec := range sandboxes {
		if a.told[rec.ID] != 0 {
			continue
		}
		a.told[rec.ID] = stageStopped
		if rec.Phase == sandbox.PhaseReady || rec.Pins != (ns.Pins{}) {
			a.told[rec.ID] = stageAlive
		}
	}
	for _, ctr := range containers {
		if a.told[ctr.Id] == 0 {
			a.told[ctr.Id] = stageAlive
		}
	}
}
