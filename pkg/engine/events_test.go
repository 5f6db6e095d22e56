package engine_test

import (
	"context"
	"errors"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/pkg/container"
)

// TestWatchOOM: a container that runs out of memory is told, also after containerd was away.
func TestWatchOOM(t *testing.T) {
	l := newLab(t)
	demo := l.pull(labimage.Demo)
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan string, 10), make(chan error, 1)
	go func() { ended <- l.WatchOOM(ctx, func(id string) { told <- id }) }()
	for range 2 { // containerd is killed between
		l.awaitSubscriber(t, told)
		b := l.prepareBox(demo, newID(), "tail", "/dev/zero")
		limit := int64(16 << 20)
		b.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
		b.record()
		b.start(container.Stdio{})
		if exit, err := l.WaitTask(t.Context(), b.id); err != nil || exit.Code != 137 {
			t.Errorf("the greedy task: %+v, %v, want code 137", exit, err)
		}
		select {
		case id := <-told:
			if id != b.id {
				t.Errorf("told of %s, want %s", id, b.id)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nothing was told")
		}
		if err := l.containerd.Kill9(); err != nil {
			t.Fatal(err)
		}
		if err := l.containerd.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		awaitReady(t, l.Engine)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ends by %v", err)
	}
}

// awaitSubscriber publishes an event of the kind that the watch looks for, of nothing, until it is told: what is published before it has
// subscribed is lost. The last one that it is told of is another, so that no more of them are to come.
func (l *lab) awaitSubscriber(t *testing.T, told <-chan string) {
	t.Helper()
	client, err := containerd.New(l.containerd.Address, containerd.WithDefaultNamespace(labnode.Namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	publish := func(name string) {
		ctx := namespaces.WithNamespace(t.Context(), labnode.Namespace)
		if err := client.EventService().Publish(ctx, "/tasks/oom", &eventsapi.TaskOOM{ContainerID: name}); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the watch has subscribed", func() bool {
		publish("first")
		return len(told) > 0
	})
	publish("last")
	for {
		select {
		case id := <-told:
			if id == "last" {
				return
			}
		case <-time.After(10 * time.Second):
			t.Fatal("an event after the first is not told")
		}
	}
}
