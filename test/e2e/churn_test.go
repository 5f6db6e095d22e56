package e2e

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestFiveHundredContainersInOnePod creates, starts and deletes containers one after another, so that the pod's shim
// loses its last task each time, and then side by side, while containerd collects garbage in between.
func TestFiveHundredContainersInOnePod(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	image := n.Image(t, labimage.Demo)
	pod := n.RunPod(t)
	for i := range 150 {
		if err := churn(t.Context(), n, pod, image); err != nil {
			t.Fatalf("container %d, one after another: %v", i, err)
		}
		if i%50 == 49 {
			collectGarbage(t, n)
		}
	}
	const workers = 6
	var count atomic.Int64
	group, ctx := errgroup.WithContext(t.Context())
	for range workers {
		group.Go(func() error {
			for {
				i := count.Add(1)
				if i > 350 {
					return nil
				}
				if err := churn(ctx, n, pod, image); err != nil {
					return fmt.Errorf("container %d, side by side: %w", i, err)
				}
			}
		})
	}
	for range 5 {
		time.Sleep(time.Second)
		collectGarbage(t, n)
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// churn is one short container's life. It is removed at once, whether it still runs or has ended.
func churn(ctx context.Context, n *nodetest.Node, pod *nodetest.Pod, image string) error {
	config := pod.ContainerConfig(image, nodetest.Command("true"))
	c, err := pod.TryCreate(ctx, config)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := c.TryStart(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if _, err := n.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID}); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

func collectGarbage(t *testing.T, n *nodetest.Node) {
	t.Helper()
	nodetest.CollectGarbage(t, n.Engine)
}

func TestGarbageCollectionRemovesNothingThatLives(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	pod := n.RunPod(t)
	running := pod.Run(t, image)
	running.Exec(t, "sh", "-c", "echo kept > /kept")
	created := pod.Create(t, image)
	stopped := pod.Run(t, image, nodetest.Shell("exit 3"))
	stopped.Wait(t)

	collectGarbage(t, n)
	time.Sleep(200 * time.Millisecond) // for a collection that was under way
	collectGarbage(t, n)

	if got := running.Exec(t, "cat", "/kept"); got != "kept" {
		t.Errorf("a file of a running container holds %q", got)
	}
	if got := running.Exec(t, "cat", "/data/added"); got != "by the last layer" {
		t.Errorf("a file of the image holds %q", got)
	}
	created.Start(t)
	created.Exec(t, "true")
	if got := stopped.Status(t).ExitCode; got != 3 {
		t.Errorf("exit code of the stopped container is %d, want 3", got)
	}
	n.RunPod(t).Run(t, image).Exec(t, "true") // the image itself is there
}

// TestHostPathRootRunsWhileOthersComeAndGo is node-exporter: its mount namespace has a copy of every mount
// that was there when it started, pins included.
func TestHostPathRootRunsWhileOthersComeAndGo(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	for _, kind := range []struct {
		name string
		opts []nodetest.PodOption
	}{{"with a user namespace", nil}, {"in the host's", []nodetest.PodOption{nodetest.HostUsers}}} {
		t.Run(kind.name, func(t *testing.T) {
			early := n.RunPod(t)
			early.Run(t, image).Exec(t, "true")
			watcher := n.RunPod(t, kind.opts...).Run(t, image, nodetest.Mount("/", "/host"))
			early.Remove(t)
			for range 5 {
				pod := n.RunPod(t)
				pod.Run(t, image).Exec(t, "true")
				pod.Remove(t)
			}
			if got := watcher.Exec(t, "cat", "/host"+n.Dir+"/config.yaml"); got == "" {
				t.Error("the host's files are not there")
			}
		})
	}
}
