package e2e

import (
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// TestNRIPluginSeesPodsAndContainers holds the order in which a plugin sees a pod and a container, from its
// beginning to its end, and what it is told of both.
func TestNRIPluginSeesPodsAndContainers(t *testing.T) {
	n := sharedNode(t)
	plugin := runPlugin(t, n)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		c := pod.Run(t, n.Image(t, labimage.Demo))
		wantPod(t, n, pod, plugin)
		wantContainer(t, pod, c, plugin)
		update := &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: pod.ID, Resources: &runtimeapi.LinuxContainerResources{CpuShares: 300}}
		if _, err := n.Runtime.UpdatePodSandboxResources(t.Context(), update); err != nil {
			t.Fatal(err)
		}
		c.Stop(t, 0)
		c.Remove(t)
		pod.Remove(t)
		want := []string{
			"RunPodSandbox", "CreateContainer", "PostCreateContainer", "StartContainer", "PostStartContainer",
			"UpdatePodSandbox", "PostUpdatePodSandbox",
			"StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox",
		}
		if got := plugin.of(t, pod.ID); !slices.Equal(got, want) {
			t.Errorf("the plugin saw %q, want %q", got, want)
		}
	})
}

// wantPod holds that a sandbox without a process is told with pid 0 and with the paths of its namespaces.
func wantPod(t *testing.T, n *nodetest.Node, pod *nodetest.Pod, plugin *nriPlugin) {
	t.Helper()
	seen := plugin.entries(t, "RunPodSandbox")
	got := podMessage(t, seen[len(seen)-1].Pod)
	md := pod.Request.Config.Metadata
	if got.Id != pod.ID || got.Name != md.Name || got.Uid != md.Uid || got.Namespace != md.Namespace || got.Pid != 0 {
		t.Errorf("the pod is told as %v", got)
	}
	if !slices.Equal(got.Ips, []string{pod.IP(t)}) || got.Labels["test"] != pod.Request.Config.Labels["test"] {
		t.Errorf("the pod has the addresses %v and the labels %v", got.Ips, got.Labels)
	}
	paths := map[specs.LinuxNamespaceType]string{}
	for _, ns := range got.GetLinux().GetNamespaces() {
		paths[specs.LinuxNamespaceType(ns.Type)] = ns.Path
	}
	want := namespacePaths(n.PodInfo(t, pod.ID).RuntimeSpec)
	if len(paths) != len(want) || paths[specs.NetworkNamespace] == "" {
		t.Errorf("the pod's namespaces are told as %v, want %v", paths, want)
	}
	for kind, path := range want {
		if paths[kind] != path {
			t.Errorf("the %s namespace is told as %q, want %q", kind, paths[kind], path)
		}
	}
}

func wantContainer(t *testing.T, pod *nodetest.Pod, c *nodetest.Container, plugin *nriPlugin) {
	t.Helper()
	last := func(event string) *api.Container {
		seen := plugin.entries(t, event)
		return containerMessage(t, seen[len(seen)-1].Container)
	}
	created := last("CreateContainer")
	if created.Id != c.ID || created.PodSandboxId != pod.ID || created.Name != c.Config.Metadata.Name || created.Image.GetConfigDigest() == "" ||
		len(created.Args) == 0 || len(created.Mounts) == 0 || len(created.GetLinux().GetNamespaces()) == 0 {
		t.Errorf("the container is told as %v", created)
	}
	if got := last("StartContainer"); got.State != api.ContainerState_CONTAINER_CREATED || int(got.Pid) != c.PID(t) {
		t.Errorf("the container that starts is %s with pid %d, want created with pid %d", got.State, got.Pid, c.PID(t))
	}
	if got := last("PostStartContainer"); got.State != api.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container that has started is %s", got.State)
	}
}

// TestNRIPluginSeesExits holds that a plugin is told of a container that ends by itself, once, and of one that
// never started when it goes.
func TestNRIPluginSeesExits(t *testing.T) {
	n := sharedNode(t)
	plugin := runPlugin(t, n)
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Shell("exit 3"))
	if code := c.Wait(t); code != 3 {
		t.Fatalf("exit code %d", code)
	}
	got := containerMessage(t, plugin.await(t, "StopContainer", 1).Container)
	if got.Id != c.ID || got.State != api.ContainerState_CONTAINER_STOPPED || got.ExitCode != 3 {
		t.Errorf("the exit is told as %v", got)
	}
	c.Stop(t, 0)
	c.Remove(t)
	idle := pod.Create(t, n.Image(t, labimage.Demo))
	idle.Remove(t)
	want := []string{
		"RunPodSandbox", "CreateContainer", "PostCreateContainer", "StartContainer", "PostStartContainer", "StopContainer", "RemoveContainer",
		"CreateContainer", "PostCreateContainer", "StopContainer", "RemoveContainer",
	}
	if got := plugin.of(t, pod.ID); !slices.Equal(got, want) {
		t.Errorf("the plugin saw %q, want %q", got, want)
	}
}

// TestNRISynchronize holds what a plugin that comes late is shown, and that plugins come back after a restart.
func TestNRISynchronize(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{})
	pod := n.RunPod(t)
	running := pod.Run(t, n.Image(t, labimage.Demo))
	created := pod.Create(t, n.Image(t, labimage.Demo))
	exited := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Shell("true"))
	exited.Wait(t)
	plugin := runPlugin(t, n)
	wantShown(t, plugin.await(t, "Synchronize", 1), pod, running, created)

	installed := install(t, n)
	restart(t, n)
	wantShown(t, plugin.await(t, "Synchronize", 2), pod, running, created)
	first := installed.await(t, "Synchronize", 1)
	wantShown(t, first, pod, running, created)
	// What was shown is followed to its end, by both.
	created.Remove(t)
	running.Stop(t, 0)
	for _, p := range []*nriPlugin{plugin, installed} {
		events := p.of(t, pod.ID)
		if want := []string{"StopContainer", "RemoveContainer", "StopContainer"}; !slices.Equal(events, want) {
			t.Errorf("the plugin saw %q, want %q", events, want)
		}
	}
	// A killed daemon leaves no plugin behind, and starts it again.
	crash(t, n)
	if second := installed.await(t, "Synchronize", 2); second.PID == first.PID {
		t.Errorf("plugin %d was not started again", first.PID)
	}
	eventually(t, "the first plugin process is gone", func() bool { return !exists(filepath.Join("/proc", strconv.Itoa(first.PID), "exe")) })
}

func wantShown(t *testing.T, e pluginEntry, pod *nodetest.Pod, want ...*nodetest.Container) {
	t.Helper()
	if len(e.Pods) != 1 || podMessage(t, e.Pods[0]).Id != pod.ID {
		t.Errorf("the plugin is shown the pods %s", e.Pods)
	}
	var got, ids []string
	for _, c := range e.Containers {
		got = append(got, containerMessage(t, c).Id)
	}
	for _, c := range want {
		ids = append(ids, c.ID)
	}
	if !slices.Equal(got, ids) {
		t.Errorf("the plugin is shown the containers %v, want %v", got, ids)
	}
}

// TestNRIPluginFails holds that what a plugin says no to is not done, that the client is told by whom and why, and that
// nothing stays behind, while no plugin keeps anything from ending.
func TestNRIPluginFails(t *testing.T) {
	n := sharedNode(t)
	plugin := runPlugin(t, n)
	refuse := func(events ...string) {
		s := pluginScript{Fail: map[string]string{}}
		for _, event := range events {
			s.Fail[event] = "not on my node"
		}
		plugin.answer(t, s)
	}
	refuse("RunPodSandbox")
	_, err := n.TryRunPod(t, n.PodRequest(t))
	wantError(t, err, codes.FailedPrecondition, "10-test", "RunPodSandbox", "not on my node")
	if last := plugin.log(t); last[len(last)-1].Event != "RemovePodSandbox" {
		t.Errorf("a plugin that refuses a pod sees %q at last, want RemovePodSandbox", last[len(last)-1].Event)
	}
	refuse()
	pod := n.RunPod(t)
	image := n.Image(t, labimage.Demo)

	refuse("CreateContainer")
	_, err = pod.TryCreate(t.Context(), pod.ContainerConfig(image))
	wantError(t, err, codes.FailedPrecondition, "10-test", "CreateContainer", "not on my node")

	refuse("StartContainer")
	c := pod.Create(t, image)
	wantError(t, c.TryStart(t.Context()), codes.FailedPrecondition, "10-test", "StartContainer", "not on my node")
	if status := c.Status(t); status.State != runtimeapi.ContainerState_CONTAINER_EXITED || status.Reason != "StartError" {
		t.Errorf("the container is %s for %s", status.State, status.Reason)
	}
	refuse("PostCreateContainer", "PostStartContainer", "UpdateContainer", "StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox")
	c = pod.Run(t, image)
	_, err = n.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: c.ID, Linux: &runtimeapi.LinuxContainerResources{CpuShares: 500},
	})
	wantError(t, err, codes.FailedPrecondition, "10-test", "UpdateContainer", "not on my node")
	c.Stop(t, 0)
	c.Remove(t)
	pod.Remove(t)
}

// TestNRIPluginThatHangs holds that a plugin which does not answer fails a pod once, after its time, and is
// then left out.
func TestNRIPluginThatHangs(t *testing.T) {
	n := sharedNode(t)
	plugin := runPlugin(t, n)
	plugin.answer(t, pluginScript{Hang: map[string]bool{"CreateContainer": true, "Synchronize": true}})
	pod := n.RunPod(t)
	start := time.Now()
	_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(n.Image(t, labimage.Demo)))
	wantError(t, err, codes.FailedPrecondition, "10-test", "CreateContainer", "no answer within 2s")
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the error took %s", took)
	}
	c := pod.Run(t, n.Image(t, labimage.Demo))
	c.Stop(t, 0)
	if got := plugin.of(t, pod.ID); !slices.Equal(got, []string{"RunPodSandbox", "CreateContainer"}) {
		t.Errorf("the plugin that hangs saw %q", got)
	}
}
