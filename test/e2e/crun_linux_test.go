package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"k8s.io/apimachinery/pkg/util/version"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// crunEnv names another crun than the machine's, for one that its distribution does not have.
const crunEnv = "USERNS_SHIM_TEST_CRUN"

// crun is the path of crun (Debian package crun, hack/deps.sh test).
func crun(t *testing.T) string {
	t.Helper()
	shared.programs(t) // skips without root
	path, err := exec.LookPath(cmp.Or(os.Getenv(crunEnv), "crun"))
	if err != nil {
		t.Fatalf("%v (hack/deps.sh test installs it)", err)
	}
	return path
}

// crunFeatures is what crun says of itself; nil from one that has no command for it.
func crunFeatures(t *testing.T) *features.Features {
	t.Helper()
	out, err := exec.Command(crun(t), "features").Output()
	if err != nil {
		return nil
	}
	told := &features.Features{}
	if err := json.Unmarshal(out, told); err != nil {
		t.Fatal(err)
	}
	return told
}

// crunMapsMounts says whether crun has what pods with a user namespace need.
func crunMapsMounts(t *testing.T) bool {
	t.Helper()
	told := crunFeatures(t)
	if told == nil || told.Linux == nil || told.Linux.MountExtensions == nil || told.Linux.MountExtensions.IDMap == nil {
		return false
	}
	enabled := told.Linux.MountExtensions.IDMap.Enabled
	at, err := version.ParseGeneric(told.Annotations["run.oci.crun.version"])
	if err != nil {
		t.Fatal(err)
	}
	return enabled != nil && *enabled && at.AtLeast(version.MajorMinor(1, 24))
}

// crunNode starts a node with the handler crun, which keeps its state in the directory that is returned.
func crunNode(t *testing.T) (n *nodetest.Node, state string) {
	t.Helper()
	state = t.TempDir()
	n = handlerNode(t, fmt.Sprintf("crun binaryName: %s, root: %s", crun(t), state))
	inNode(t, n, hideControllersOfV2)
	ownNull(t, n)
	return n, state
}

// ownNull gives the node a /dev/null of its own: crun before 1.24 gives it to the container's user.
func ownNull(t *testing.T, n *nodetest.Node) {
	t.Helper()
	node := filepath.Join(n.Dir, "null")
	onNode(t, n, "mknod", "-m", "666", node, "c", "1", "3")
	onNode(t, n, "mount", "--bind", node, "/dev/null")
	before := ownerOf(t, "/dev/null")
	t.Cleanup(func() {
		if got := ownerOf(t, "/dev/null"); got != before {
			t.Errorf("the host's /dev/null belongs to %+v now", got)
		}
	})
}

// hideControllersOfV2 hides the second hierarchy in the node's mount namespace where it has controllers beside
// hierarchies of version 1: crun refuses such a machine. It writes to the place all the same, so a tmpfs of the node's own
// covers it.
func hideControllersOfV2() error {
	const second = "/sys/fs/cgroup/unified"
	if _, err := os.Stat(second + "/cgroup.controllers"); err != nil {
		return nil
	}
	return unix.Mount("tmpfs", second, "tmpfs", 0, "")
}

// TestHandlerCrunFeatures: Status reports of crun what crun says, and pods get no more than that.
func TestHandlerCrunFeatures(t *testing.T) {
	t.Parallel()
	n, _ := crunNode(t)
	told := crunFeatures(t)
	able := crunMapsMounts(t)
	got := handlers(t, n)["crun"]
	if got.GetUserNamespaces() != able || got.GetRecursiveReadOnlyMounts() != (told != nil && slices.Contains(told.MountOptions, "rro")) {
		t.Errorf("handler crun is %v; crun says %+v", got, told)
	}
	if !able {
		_, err := n.TryRunPod(t, n.PodRequest(t, nodetest.Handler("crun")))
		wantError(t, err, codes.FailedPrecondition, "crun")
	}
}

// TestHandlerCrunRunsPods: a pod's whole life on crun, with whatever user namespaces this crun has.
func TestHandlerCrunRunsPods(t *testing.T) {
	t.Parallel()
	n, state := crunNode(t)
	modes := map[string][]nodetest.PodOption{"host users": {nodetest.HostUsers}, "host users, shared processes": {nodetest.HostUsers, shareProcesses}}
	if crunMapsMounts(t) {
		modes["own user namespace"] = nil
		modes["own user namespace, shared processes"] = []nodetest.PodOption{shareProcesses}
	}
	image, dir := n.Image(t, labimage.Demo), volume(t, n)
	write(t, filepath.Join(dir, "users"), "theirs", 1000, 2000)
	for name, opts := range modes {
		t.Run(name, func(t *testing.T) {
			pod := n.RunPod(t, append(opts, nodetest.Handler("crun"))...)
			c := pod.Run(t, image, nodetest.Mount(dir, "/vol"), nodetest.ReadOnlyMount(dir, "/ro"), nodetest.User(1000, 2000),
				nodetest.Shell("trap 'exit 7' TERM; echo out; echo err >&2; while :; do sleep 0.05; done"))
			if _, err := os.Stat(filepath.Join(state, "k8s.io", c.ID, "status")); err != nil {
				t.Errorf("crun has no state of the container: %v", err)
			}
			wantCrunUsers(t, pod, c)
			for path, want := range map[string]string{"/vol/users": "1000:2000", "/ro/users": "1000:2000", "/bin/box": "0:0"} {
				if got := c.Exec(t, "stat", "-c", "%u:%g", path); got != want {
					t.Errorf("%s belongs to %s inside, want %s", path, got, want)
				}
			}
			if got := c.Exec(t, "id", "-u"); got != "1000" {
				t.Errorf("exec runs as %s, want 1000", got)
			}
			c.Exec(t, "sh", "-c", "echo more >> /vol/users")
			wantFailure(t, c, "sh", "-c", "echo more >> /ro/users")
			c.AwaitLog(t, "both lines", func(l nodetest.ContainerLog) bool { return len(l) == 2 })
			c.Stop(t, 10*time.Second)
			if got := c.Status(t); got.ExitCode != 7 || got.Reason != "Error" {
				t.Errorf("the container ended with %d (%s), want 7 by its own handler of SIGTERM", got.ExitCode, got.Reason)
			}
		})
	}
}

func wantCrunUsers(t *testing.T, pod *nodetest.Pod, c *nodetest.Container) {
	t.Helper()
	want := "0 0 4294967295"
	if podNamespaces(pod.Request).UsernsOptions != nil {
		want = fmt.Sprintf("0 %d 65536", pod.Range(t))
	}
	if got := fields(c.Exec(t, "cat", "/proc/self/uid_map")); got != want {
		t.Errorf("uid_map is %q, want %q", got, want)
	}
}

// TestHandlerCrunKeepsLimitsAndConfinement: what a specification says is done by crun as by runc.
func TestHandlerCrunKeepsLimitsAndConfinement(t *testing.T) {
	t.Parallel()
	n, _ := crunNode(t)
	c := n.RunPod(t, nodetest.HostUsers, nodetest.Handler("crun")).Run(t, n.Image(t, labimage.Demo), func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 512, CpuQuota: 50000, CpuPeriod: 100000}
		c.Linux.SecurityContext.NoNewPrivs = true
		c.Linux.SecurityContext.ReadonlyRootfs = true
		c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"CHOWN"}}
	})
	status := c.Exec(t, "cat", "/proc/self/status")
	for _, want := range []string{"CapEff:\t0000000000000001", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in the process status:\n%s", want, status)
		}
	}
	wantFailure(t, c, "touch", "/made")
	resp, err := n.Runtime.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: c.ID})
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Stats.GetMemory().GetAvailableBytes().GetValue(); got == 0 || got > 64<<20 {
		t.Errorf("stats tell %d bytes available below a limit of 64 MiB", got)
	}
	if _, err := n.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: c.ID, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 128 << 20},
	}); err != nil {
		t.Errorf("update of a running container: %v", err)
	}
}
