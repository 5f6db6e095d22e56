package engine_test

import (
	"context"
	"errors"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/pkg/container"
)

// TestWatchOOM: a container that runs out of memory is told, also after containerd was away.
func TestWatchOOM(t *testing.T) {
	l := newLab(t)
	demo := l.pull(labimage.Demo)
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan string, 10), make(chan error, 1)
	go func() { ended <- l.WatchOOM(ctx, func(id string) { told <- id }) }()
	time.Sleep(500 * time.Millisecond) // until it has subscribed
	for range 2 {
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
		time.Sleep(2 * time.Second) // until it has subscribed again
		for len(told) > 0 {
			<-told
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ends by %v", err)
	}
}
