package engine

import (
	"context"
	"fmt"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"
	"k8s.io/klog/v2"
)

// WatchOOM calls f with the container id of each task in whose cgroup the kernel killed for lack of
// memory, until ctx ends, and returns its error. It goes on when containerd was away; kills of that
// time are not told. f must not block.
func (e *Engine) WatchOOM(ctx context.Context, f func(containerID string)) error {
	filter := fmt.Sprintf("namespace==%q,topic==%q", e.opts.Namespace, "/tasks/oom")
	for delay := 50 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		began := time.Now()
		envelopes, errs := e.client.Subscribe(ctx, filter)
		err := drain(ctx, envelopes, errs, f)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Since(began) > 10*time.Second {
			delay = 50 * time.Millisecond
		}
		klog.FromContext(ctx).V(3).Info("Subscribing to OOM events again", "reason", err)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// drain hands OOM events to f until the subscription ends.
func drain(ctx context.Context, envelopes <-chan *events.Envelope, errs <-chan error, f func(string)) error {
	for {
		select {
		case err := <-errs:
			return err
		case env, ok := <-envelopes:
			if !ok {
				return <-errs
			}
			event, err := typeurl.UnmarshalAny(env.Event)
			if err != nil {
				klog.FromContext(ctx).Error(err, "Event of containerd cannot be read", "topic", env.Topic)
				continue
			}
			if oom, ok := event.(*eventsapi.TaskOOM); ok {
				f(oom.GetContainerID())
			}
		}
	}
}
