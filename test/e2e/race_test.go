package e2e

import (
	"context"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestRemovedPodLeavesNoContainer removes pods while containers are created and started in them. None may
// outlive its pod: the pod's range is given to the next one.
func TestRemovedPodLeavesNoContainer(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	for round := range 12 {
		pod := n.RunPod(t)
		var racing sync.WaitGroup
		for range 3 {
			racing.Go(func() {
				// Either call may come too late, which is what this is about.
				c, err := pod.TryCreate(t.Context(), pod.ContainerConfig(image, nodetest.Command("sleep", "1000")))
				if err == nil {
					_ = c.TryStart(t.Context())
				}
			})
		}
		time.Sleep(time.Duration(round) * 15 * time.Millisecond)
		remove(t, n, pod.ID, round%2 == 0)
		racing.Wait()
		list, err := n.Runtime.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{
			Filter: &runtimeapi.ContainerFilter{PodSandboxId: pod.ID},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list.Containers {
			t.Errorf("round %d: container %s (%s) outlived its pod", round, c.Id, c.State)
		}
	}
}

// remove removes a pod, in one step or as kubelet does.
func remove(t *testing.T, n *nodetest.Node, id string, stopFirst bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if stopFirst {
		if _, err := n.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Fatalf("StopPodSandbox: %v", err)
		}
	}
	if _, err := n.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Fatalf("RemovePodSandbox: %v", err)
	}
}
