package e2e

import (
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestContainerdsCRIPluginLeavesOurPodsAlone has it on in the same containerd, as on a node where nobody switched it off. It
// neither lists, ends nor removes what is ours, through its restart too, and both see the images.
func TestContainerdsCRIPluginLeavesOurPodsAlone(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{Containerd: labnode.ContainerdOptions{WithCRI: true}})
	plugin := runtimeapi.NewRuntimeServiceClient(n.Engine)
	image := n.Image(t, labimage.Demo)
	shared := n.RunPod(t, shareProcesses)
	pods := []*nodetest.Pod{n.RunPod(t), n.RunPod(t, nodetest.HostUsers), shared}
	var running []*nodetest.Container
	for _, pod := range pods {
		running = append(running, pod.Run(t, image))
	}
	ended := pods[0].Run(t, image, nodetest.Shell("exit 3"))
	ended.Wait(t)
	created := pods[0].Create(t, image)
	check := func(when string) {
		t.Helper()
		sandboxes, err := plugin.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
		if err != nil || len(sandboxes.GetItems()) != 0 {
			t.Errorf("%s: the plugin lists the pods %v, %v", when, sandboxes.GetItems(), err)
		}
		containers, err := plugin.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
		if err != nil || len(containers.GetContainers()) != 0 {
			t.Errorf("%s: the plugin lists the containers %v, %v", when, containers.GetContainers(), err)
		}
		for i, c := range running {
			c.Exec(t, "true")
			if got := pods[i].Status(t).State; got != runtimeapi.PodSandboxState_SANDBOX_READY {
				t.Errorf("%s: pod %d is %s", when, i, got)
			}
		}
		if st := ended.Status(t); st.ExitCode != 3 {
			t.Errorf("%s: the container that has ended is %v", when, st)
		}
		images, err := runtimeapi.NewImageServiceClient(n.Engine).ListImages(t.Context(), &runtimeapi.ListImagesRequest{})
		if err != nil || len(images.GetImages()) != 1 {
			t.Errorf("%s: the plugin sees the images %v, %v", when, images.GetImages(), err)
		}
	}
	check("at first")
	for range 2 {
		if err := n.Containerd.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := n.Containerd.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		awaitReady(t, n)
		awaitPlugin(t, plugin)
		check("after a restart of containerd")
	}
	created.Start(t)
	created.Exec(t, "true")
}

// awaitPlugin waits until the plugin has recovered.
func awaitPlugin(t *testing.T, plugin runtimeapi.RuntimeServiceClient) {
	t.Helper()
	var err error
	for range 300 {
		if _, err = plugin.Version(t.Context(), &runtimeapi.VersionRequest{}); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("containerd's CRI plugin does not answer: %v", err)
}
