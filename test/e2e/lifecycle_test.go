package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

func TestRunPodSandboxIsIdempotent(t *testing.T) {
	n := sharedNode(t)
	req := n.PodRequest(t)
	first, err := n.TryRunPod(t, req)
	if err != nil {
		t.Fatal(err)
	}
	second, err := n.TryRunPod(t, req)
	if err != nil {
		t.Fatalf("the same request again: %v", err)
	}
	if first.ID != second.ID {
		t.Errorf("the same request gives %s and %s", first.ID, second.ID)
	}
	req.Config.Hostname = "another"
	_, err = n.TryRunPod(t, req)
	wantError(t, err, codes.AlreadyExists)
}

func TestStopAndRemoveAreIdempotent(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo))
	for range 2 {
		c.Stop(t, 0)
	}
	for range 2 {
		c.Remove(t)
	}
	for range 2 {
		pod.Stop(t)
	}
	if got := pod.Status(t).State; got != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("a stopped sandbox is %s", got)
	}
	for range 2 {
		pod.Remove(t)
	}
	unknown := strings.Repeat("f", 64)
	ctx := t.Context()
	if _, err := n.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: unknown}); err != nil {
		t.Errorf("StopPodSandbox of an unknown id: %v", err)
	}
	if _, err := n.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: unknown}); err != nil {
		t.Errorf("RemovePodSandbox of an unknown id: %v", err)
	}
	if _, err := n.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: unknown}); err != nil {
		t.Errorf("StopContainer of an unknown id: %v", err)
	}
	if _, err := n.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: unknown}); err != nil {
		t.Errorf("RemoveContainer of an unknown id: %v", err)
	}
	_, err := n.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: unknown})
	wantError(t, err, codes.NotFound, unknown)
	_, err = n.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: unknown})
	wantError(t, err, codes.NotFound, unknown)
}

func TestStoppingAPodStopsItsContainers(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo))
	pod.Stop(t)
	if got := c.Status(t).State; got != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("a container of a stopped pod is %s", got)
	}
	_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(n.Image(t, labimage.Demo)))
	wantError(t, err, codes.FailedPrecondition, pod.ID)
}

func TestPodSandboxStatusAndList(t *testing.T) {
	n := sharedNode(t)
	pod, other := n.RunPod(t), n.RunPod(t, nodetest.HostUsers)
	st, config := pod.Status(t), pod.Request.Config
	if st.Id != pod.ID || st.Metadata.GetName() != config.Metadata.Name || st.Metadata.GetUid() != config.Metadata.Uid ||
		st.State != runtimeapi.PodSandboxState_SANDBOX_READY || st.CreatedAt == 0 || st.Labels["test"] != config.Labels["test"] {
		t.Errorf("status is %v", st)
	}
	if got := other.Status(t).GetLinux().GetNamespaces().GetOptions().GetUsernsOptions().GetMode(); got != runtimeapi.NamespaceMode_NODE {
		t.Errorf("a pod in the host's user namespace reports mode %s", got)
	}
	ready := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}
	gone := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY}
	for name, c := range map[string]struct {
		filter *runtimeapi.PodSandboxFilter
		want   int
	}{
		"no filter":     {nil, 2},
		"id":            {&runtimeapi.PodSandboxFilter{Id: pod.ID}, 1},
		"part of an id": {&runtimeapi.PodSandboxFilter{Id: pod.ID[:13]}, 1},
		"ready":         {&runtimeapi.PodSandboxFilter{State: ready}, 2},
		"not ready":     {&runtimeapi.PodSandboxFilter{State: gone}, 0},
		"label":         {&runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"test": config.Labels["test"]}}, 2},
		"no such label": {&runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"test": "none"}}, 0},
	} {
		resp, err := n.Runtime.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{Filter: c.filter})
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.Items) != c.want {
			t.Errorf("%s: %d sandboxes, want %d", name, len(resp.Items), c.want)
		}
	}
}

func TestContainerStatusAndList(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	image := n.Image(t, labimage.Demo)
	c := pod.Create(t, image, nodetest.Shell("exit 5"))
	if st := c.Status(t); st.State != runtimeapi.ContainerState_CONTAINER_CREATED || st.CreatedAt == 0 || st.StartedAt != 0 {
		t.Errorf("a created container is %v", st)
	}
	c.Start(t)
	if code := c.Wait(t); code != 5 {
		t.Errorf("exit code is %d, want 5", code)
	}
	st := c.Status(t)
	if st.CreatedAt > st.StartedAt || st.StartedAt > st.FinishedAt || st.Reason != "Error" || st.LogPath != c.LogPath() || st.ImageRef == "" {
		t.Errorf("an exited container is %v", st)
	}
	running := pod.Run(t, image)
	exited := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_EXITED}
	for name, f := range map[string]struct {
		filter *runtimeapi.ContainerFilter
		want   int
	}{
		"no filter": {nil, 2},
		"id":        {&runtimeapi.ContainerFilter{Id: running.ID}, 1},
		"sandbox":   {&runtimeapi.ContainerFilter{PodSandboxId: pod.ID}, 2},
		"exited":    {&runtimeapi.ContainerFilter{State: exited}, 1},
		"label":     {&runtimeapi.ContainerFilter{LabelSelector: running.Config.Labels}, 1},
	} {
		resp, err := n.Runtime.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{Filter: f.filter})
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.Containers) != f.want {
			t.Errorf("%s: %d containers, want %d", name, len(resp.Containers), f.want)
		}
	}
}

func TestStopContainerSignalsFirstAndKillsAfterTheTimeout(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	image := n.Image(t, labimage.Demo)
	polite := pod.Run(t, image, nodetest.Shell("trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.1; done"))
	polite.AwaitLog(t, "come up", func(l nodetest.ContainerLog) bool { return len(l) > 0 })
	polite.Stop(t, 20*time.Second)
	if st := polite.Status(t); st.ExitCode != 3 || !strings.Contains(polite.Log(t).Stdout(), "asked") {
		t.Errorf("a container that obeys SIGTERM has exit code %d and the log %s", st.ExitCode, polite.Log(t))
	}
	stubborn := pod.Run(t, image, nodetest.Shell("trap '' TERM; echo up; while :; do sleep 0.1; done"))
	stubborn.AwaitLog(t, "come up", func(l nodetest.ContainerLog) bool { return len(l) > 0 })
	start := time.Now()
	stubborn.Stop(t, time.Second)
	if st, took := stubborn.Status(t), time.Since(start); st.ExitCode != 137 || took < time.Second || took > 15*time.Second {
		t.Errorf("a container that ignores SIGTERM has exit code %d after %s, want 137 after a second", st.ExitCode, took)
	}
}

func TestReopenContainerLogWritesToANewFile(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Run(t, n.Image(t, labimage.Demo), nodetest.Shell("i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"))
	c.AwaitLog(t, "three lines", func(l nodetest.ContainerLog) bool { return len(l) >= 3 })
	rotated := c.LogPath() + ".1"
	if err := os.Rename(c.LogPath(), rotated); err != nil {
		t.Fatal(err)
	}
	reopen(t, n, c)
	fresh := c.AwaitLog(t, "three lines in the new file", func(l nodetest.ContainerLog) bool { return len(l) >= 3 })
	old := nodetest.ReadLog(t, rotated)
	for i, line := range append(old, fresh...) {
		if number(line) != i {
			t.Fatalf("line %d over both files is %q", i, line.Text)
		}
	}
}

func TestImageConfigIsHonoured(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	if got := pod.Output(t, n.Image(t, labimage.Entrypoint)); got != "hello world" {
		t.Errorf("entrypoint with the image's command prints %q", got)
	}
	withArgs := func(c *runtimeapi.ContainerConfig) { c.Args = []string{"other", "words"} }
	if got := pod.Output(t, n.Image(t, labimage.Entrypoint), withArgs); got != "other words" {
		t.Errorf("entrypoint with the container's arguments prints %q", got)
	}
	for _, image := range []string{labimage.User, labimage.UserNumber} {
		c := pod.Run(t, n.Image(t, image))
		if got := c.Exec(t, "id", "-u"); got != "1000" {
			t.Errorf("%s runs as %s, want 1000", image, got)
		}
	}
	if got := pod.Run(t, n.Image(t, labimage.User)).Exec(t, "pwd"); got != "/home/nonroot" {
		t.Errorf("working directory is %s", got)
	}
	byName := func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.RunAsUsername = "nonroot" }
	c := pod.Run(t, n.Image(t, labimage.Demo), byName)
	if got := c.Exec(t, "id"); !strings.Contains(got, "uid=1000") || !strings.Contains(got, "2000") {
		t.Errorf("user nonroot of the image is %q, want uid 1000 with its group 2000", got)
	}
}
