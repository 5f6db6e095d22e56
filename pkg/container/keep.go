package container

import (
	"context"

	"k8s.io/klog/v2"

	"github.com/userns-shim/userns-shim/pkg/stream/fifo"
)

// keepOutput has the container's output FIFOs kept. Without that, what the container writes while
// the daemon is down is lost if it also exits then, which is no reason not to run it.
func (m *Manager) keepOutput(ctx context.Context, id string, fifos fifo.Set) {
	if m.opts.Keeper == nil {
		return
	}
	paths := []string{fifos.Stdout}
	if fifos.Stderr != "" {
		paths = append(paths, fifos.Stderr)
	}
	if err := m.opts.Keeper.Keep(id, paths...); err != nil {
		klog.FromContext(ctx).Error(err, "Output of container is not kept while userns-shim is down", "container", id)
	}
}

// releaseOutput undoes keepOutput when the output is read to its end. What is kept by mistake is a
// few descriptors, and no reason to keep a container from being removed.
func (m *Manager) releaseOutput(ctx context.Context, id string) {
	if m.opts.Keeper == nil {
		return
	}
	if err := m.opts.Keeper.Release(id); err != nil {
		klog.FromContext(ctx).Error(err, "Output of container stays kept", "container", id)
	}
}
