package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// condition returns one condition of the runtime's status and its message.
func condition(t *testing.T, n *nodetest.Node, kind string) (ok bool, message string) {
	t.Helper()
	resp, err := n.Runtime.Status(t.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatalf("Status: %v", err)
	}
	for _, c := range resp.Status.Conditions {
		if c.Type == kind {
			return c.Status, c.Reason + ": " + c.Message
		}
	}
	t.Fatalf("Status has no condition %s: %v", kind, resp.Status.Conditions)
	return false, ""
}

func TestVersion(t *testing.T) {
	n := sharedNode(t)
	resp, err := n.Runtime.Version(t.Context(), &runtimeapi.VersionRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if resp.RuntimeName != "userns-shim" || resp.RuntimeApiVersion != "v1" || resp.Version == "" || resp.RuntimeVersion == "" {
		t.Errorf("Version is %v", resp)
	}
}

func TestStatusIsReadyAndNamesHandlersWithTheirFeatures(t *testing.T) {
	n := sharedNode(t)
	for _, kind := range []string{runtimeapi.RuntimeReady, runtimeapi.NetworkReady} {
		if ok, message := condition(t, n, kind); !ok {
			t.Errorf("%s is false: %s", kind, message)
		}
	}
	handlers := handlers(t, n)
	// A test node has what user namespaces need, or the rest of this package could not run.
	for _, name := range []string{"", "runc"} {
		if h, ok := handlers[name]; !ok || !h.GetUserNamespaces() {
			t.Errorf("handler %q is %v, want it with user namespaces", name, h)
		}
	}
}

func handlers(t *testing.T, n *nodetest.Node) map[string]*runtimeapi.RuntimeHandlerFeatures {
	t.Helper()
	resp, err := n.Runtime.Status(t.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*runtimeapi.RuntimeHandlerFeatures{}
	for _, h := range resp.RuntimeHandlers {
		found[h.Name] = h.Features
	}
	return found
}

func TestHandlersThatNeverGiveUserNamespacesSaySo(t *testing.T) {
	t.Parallel()
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{
		Handlers: "  never: {runtime: io.containerd.runc.v2, binaryName: runc, userNamespaces: never}",
	}})
	found := handlers(t, n)
	if found["never"].GetUserNamespaces() || !found["runc"].GetUserNamespaces() {
		t.Errorf("handlers are %v, want user namespaces with runc and none with never", found)
	}
	if _, err := n.TryRunPod(t, n.PodRequest(t, nodetest.Handler("never"))); err == nil {
		t.Error("a pod with a user namespace runs on a handler that never gives one")
	}
	n.RunPod(t, nodetest.HostUsers, nodetest.Handler("never"))
}

func TestRuntimeConfigNamesTheCgroupDriver(t *testing.T) {
	n := sharedNode(t)
	resp, err := n.Runtime.RuntimeConfig(t.Context(), &runtimeapi.RuntimeConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.GetLinux().GetCgroupDriver(); got != runtimeapi.CgroupDriver_CGROUPFS {
		t.Errorf("cgroup driver is %s, configured is cgroupfs", got)
	}
}

func TestContainersAreInTheirPodsCgroup(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	c := pod.Run(t, n.Image(t, "demo:latest"))
	members := processes(t, func(p leaks.Process) bool { return p.PID == c.PID(t) })
	if len(members) != 1 || !slices.ContainsFunc(lines(members[0].Cgroups), func(line string) bool {
		return strings.HasSuffix(line, pod.Request.Config.Linux.CgroupParent+"/"+c.ID)
	}) {
		t.Errorf("the container's cgroups are %+v, want one below %s", members, pod.Request.Config.Linux.CgroupParent)
	}
}

// TestOOMScoreAdjGoesAsLowAsTheNodeCan asks for less than a node without CAP_SYS_RESOURCE can give.
func TestOOMScoreAdjGoesAsLowAsTheNodeCan(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Run(t, n.Image(t, "demo:latest"), func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources.OomScoreAdj = -500
	})
	want := "-500"
	config, err := os.ReadFile(n.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(config), "restrictOOMScoreAdj: true") {
		daemons, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", n.Daemon.PID()))
		if err != nil {
			t.Fatal(err)
		}
		want = strings.TrimSpace(string(daemons))
	}
	if got := c.Exec(t, "cat", "/proc/1/oom_score_adj"); got != want {
		t.Errorf("oom_score_adj is %s, want %s", got, want)
	}
}
