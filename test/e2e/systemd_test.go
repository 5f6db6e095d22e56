package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// inSlice puts a pod into a slice of its own, as kubelet does with the systemd driver, and stops the slice when the
// test ends.
func inSlice(t *testing.T, name string) nodetest.PodOption {
	t.Helper()
	t.Cleanup(func() {
		if out, err := exec.Command("systemctl", "stop", name).CombinedOutput(); err != nil {
			t.Errorf("stop slice %s: %v: %s", name, err, out)
		}
	})
	return func(req *runtimeapi.RunPodSandboxRequest) {
		req.Config.Linux.CgroupParent = "/usernsshime2e.slice/" + name
	}
}

// TestSystemdCgroupDriver holds that containers are scopes of systemd in their pod's slice, with their limits.
func TestSystemdCgroupDriver(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("the host does not run systemd")
	}
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{CgroupDriver: "systemd"}})
	config, err := n.Runtime.RuntimeConfig(t.Context(), &runtimeapi.RuntimeConfigRequest{})
	if err != nil || config.GetLinux().GetCgroupDriver() != runtimeapi.CgroupDriver_SYSTEMD {
		t.Errorf("RuntimeConfig: %v, %v, want the driver systemd", config, err)
	}
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, append(opts, inSlice(t, "usernsshime2e-pod.slice"))...)
		c := pod.Run(t, image, limits(&runtimeapi.LinuxContainerResources{CpuShares: 512, MemoryLimitInBytes: 64 << 20}))
		scope := "cri-containerd-" + c.ID + ".scope"
		if got := controllerGroup(t, c, "memory"); !strings.HasSuffix(got, "/usernsshime2e.slice/usernsshime2e-pod.slice/"+scope) {
			t.Errorf("the container's cgroup is %s, want %s in the pod's slice", got, scope)
		}
		out, err := exec.Command("systemctl", "show", "--property", "ActiveState,MemoryMax", scope).CombinedOutput()
		if err != nil || fields(string(out)) != "MemoryMax=67108864 ActiveState=active" && fields(string(out)) != "ActiveState=active MemoryMax=67108864" {
			t.Errorf("systemd says of the scope: %v: %s", err, out)
		}
		limitCase{memory, "67108864", "67108864"}.check(t, c)
		_, err = n.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{
			ContainerId: c.ID, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 96 << 20},
		})
		if err != nil {
			t.Fatal(err)
		}
		limitCase{memory, "100663296", "100663296"}.check(t, c)
		stats, err := n.Runtime.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: c.ID})
		if err != nil || stats.GetStats().GetMemory().GetUsageBytes().GetValue() == 0 {
			t.Errorf("stats of a container in a scope: %v, %v", stats, err)
		}
		c.Remove(t)
		if out, err := exec.Command("systemctl", "show", "--property", "ActiveState", "--value", scope).Output(); err != nil || strings.TrimSpace(string(out)) != "inactive" {
			t.Errorf("after the container's removal its scope is %s (%v), want inactive", out, err)
		}
	})
}
