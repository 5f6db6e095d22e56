package e2e

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// unified says that the host has cgroup v2 alone.
func unified() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// control is one file of a cgroup: on v1 below the controller's own hierarchy.
type control struct{ controller, v1, v2 string }

// read reads the file in the cgroup of a running container, as the host sees it.
func (c control) read(t *testing.T, container *nodetest.Container) string {
	t.Helper()
	dir, file := filepath.Join("/sys/fs/cgroup", c.controller), c.v1
	if unified() {
		dir, file = "/sys/fs/cgroup", c.v2
	}
	text, err := os.ReadFile(filepath.Join(dir, controllerGroup(t, container, c.controller), file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// controllerGroup is the path of the container's cgroup below the mount of its hierarchy.
func controllerGroup(t *testing.T, c *nodetest.Container, controller string) string {
	t.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/cgroup", c.PID(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		parts := strings.SplitN(lines.Text(), ":", 3)
		if unified() || strings.Contains(","+parts[1]+",", ","+controller+",") {
			return parts[2]
		}
	}
	t.Fatalf("the container has no cgroup of controller %s", controller)
	return ""
}

// limits sets a container's resources.
func limits(r *runtimeapi.LinuxContainerResources) nodetest.ContainerOption {
	return func(c *runtimeapi.ContainerConfig) { c.Linux.Resources = r }
}

// limitCase is what a resource makes of its file, on either version of cgroups.
type limitCase struct {
	control
	want1, want2 string
}

func (l limitCase) check(t *testing.T, c *nodetest.Container) {
	t.Helper()
	want := l.want1
	if unified() {
		want = l.want2
	}
	if got := l.read(t, c); got != want {
		t.Errorf("%s/%s holds %q, want %q", l.controller, l.v1, got, want)
	}
}

var (
	cpuShares = control{"cpu", "cpu.shares", "cpu.weight"}
	cpuQuota  = control{"cpu", "cpu.cfs_quota_us", "cpu.max"}
	cpuPeriod = control{"cpu", "cpu.cfs_period_us", "cpu.max"}
	cpusetCPU = control{"cpuset", "cpuset.cpus", "cpuset.cpus"}
	cpusetMem = control{"cpuset", "cpuset.mems", "cpuset.mems"}
	memory    = control{"memory", "memory.limit_in_bytes", "memory.max"}
	memSwap   = control{"memory", "memory.memsw.limit_in_bytes", "memory.swap.max"}
)

func TestResources(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	resources := &runtimeapi.LinuxContainerResources{
		CpuShares: 512, CpuQuota: 25_000, CpuPeriod: 50_000, CpusetCpus: "0", CpusetMems: "0",
		MemoryLimitInBytes: 64 << 20,
	}
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		c := n.RunPod(t, opts...).Run(t, image, limits(resources))
		for _, l := range []limitCase{
			{cpuShares, "512", "59"},
			{cpuQuota, "25000", "25000 50000"},
			{cpuPeriod, "50000", "25000 50000"},
			{cpusetCPU, "0", "0"},
			{cpusetMem, "0", "0"},
			{memory, "67108864", "67108864"},
		} {
			l.check(t, c)
		}
		got := c.Status(t).GetResources().GetLinux()
		if got.GetCpuShares() != 512 || got.GetCpuQuota() != 25_000 || got.GetCpuPeriod() != 50_000 ||
			got.GetCpusetCpus() != "0" || got.GetMemoryLimitInBytes() != 64<<20 {
			t.Errorf("ContainerStatus reports %v", got)
		}
	})
}

// TestMemorySwap: CRI counts memory and swap together, as cgroup v1 does; v2 counts swap alone.
func TestMemorySwap(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	for name, tt := range map[string]struct {
		limit        int64
		want1, want2 string
	}{
		"none":      {64 << 20, "67108864", "0"},
		"some":      {96 << 20, "100663296", "33554432"},
		"no answer": {0, "67108864", "0"}, // a memory limit alone forbids swap
	} {
		t.Run(name, func(t *testing.T) {
			bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
				c := n.RunPod(t, opts...).Run(t, image, limits(&runtimeapi.LinuxContainerResources{
					MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: tt.limit,
				}))
				limitCase{memSwap, tt.want1, tt.want2}.check(t, c)
			})
		})
	}
}

// TestHugepageLimits: where the host counts huge pages the limit is in the cgroup; elsewhere the container starts
// without, for kubelet sends limits of every size to every container.
func TestHugepageLimits(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	resources := limits(&runtimeapi.LinuxContainerResources{
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}},
	})
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		c := n.RunPod(t, opts...).Run(t, image, resources)
		if !hugetlb(t) {
			return
		}
		limitCase{control{"hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"}, "4194304", "4194304"}.check(t, c)
	})
	pod := n.RunPod(t)
	wantCreateError(t, pod, image, codes.InvalidArgument, "page size", limits(&runtimeapi.LinuxContainerResources{
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "huge", Limit: 1}},
	}))
}

// hugetlb says that a hierarchy of the host has the controller.
func hugetlb(t *testing.T) bool {
	t.Helper()
	if !unified() {
		_, err := os.Stat("/sys/fs/cgroup/hugetlb")
		return err == nil
	}
	text, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(strings.Fields(string(text)), "hugetlb")
}

// TestMemoryLimitKills lets a container take more than it may have.
func TestMemoryLimitKills(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		c := n.RunPod(t, opts...).Run(t, image, nodetest.Shell("head -c 100000000 /dev/zero | tail"),
			limits(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: 32 << 20}))
		c.Wait(t)
		if s := c.Status(t); s.Reason != "OOMKilled" {
			t.Errorf("the container ended with code %d, reason %q, want OOMKilled", s.ExitCode, s.Reason)
		}
	})
}

func TestUpdateContainerResourcesOfRunningContainer(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		c := n.RunPod(t, opts...).Run(t, image, limits(&runtimeapi.LinuxContainerResources{
			CpuShares: 512, CpuQuota: 25_000, CpuPeriod: 50_000, MemoryLimitInBytes: 64 << 20,
		}))
		pid := c.PID(t)
		_, err := n.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{
			ContainerId: c.ID,
			Linux: &runtimeapi.LinuxContainerResources{
				CpuShares: 1024, CpuQuota: 75_000, MemoryLimitInBytes: 128 << 20, CpusetCpus: "0",
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range []limitCase{
			{cpuShares, "1024", "100"},
			{cpuQuota, "75000", "75000 50000"},
			{cpuPeriod, "50000", "75000 50000"}, // left out: stays
			{cpusetCPU, "0", "0"},
			{memory, "134217728", "134217728"},
		} {
			l.check(t, c)
		}
		got := c.Status(t).GetResources().GetLinux()
		if got.GetCpuShares() != 1024 || got.GetCpuQuota() != 75_000 || got.GetCpuPeriod() != 50_000 || got.GetMemoryLimitInBytes() != 128<<20 {
			t.Errorf("ContainerStatus reports %v", got)
		}
		if c.PID(t) != pid {
			t.Error("the container was restarted")
		}
	})
}

// TestUpdateContainerResourcesBeforeStart changes a container that is created only: it starts with the new ones.
func TestUpdateContainerResourcesBeforeStart(t *testing.T) {
	n := sharedNode(t)
	c := n.RunPod(t).Create(t, n.Image(t, labimage.Demo), limits(&runtimeapi.LinuxContainerResources{CpuShares: 512}))
	_, err := n.Runtime.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: c.ID, Linux: &runtimeapi.LinuxContainerResources{CpuShares: 256},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Start(t)
	limitCase{cpuShares, "256", "26"}.check(t, c)
}

func TestUnifiedMap(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	config := pod.ContainerConfig(n.Image(t, labimage.Demo), limits(&runtimeapi.LinuxContainerResources{
		Unified: map[string]string{"memory.high": "67108864"},
	}))
	c, err := pod.TryCreate(t.Context(), config)
	if !unified() {
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "cgroup v1") {
			t.Errorf("a unified map on cgroup v1: %v, want FailedPrecondition that says so", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Start(t)
	limitCase{control{v2: "memory.high"}, "", "67108864"}.check(t, c)
}

// TestOOMScoreAdj asks for more and for less than the daemon's own. The lab sets restrictOOMScoreAdj where the
// daemon cannot lower it.
func TestOOMScoreAdj(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	own := oomScoreAdj(t, n.Daemon.PID())
	config, err := os.ReadFile(n.Daemon.Config)
	if err != nil {
		t.Fatal(err)
	}
	lowest := -999
	if strings.Contains(string(config), "restrictOOMScoreAdj: true") {
		lowest = own
	}
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		for asked, want := range map[int64]int{900: 900, -999: lowest} {
			c := pod.Run(t, image, limits(&runtimeapi.LinuxContainerResources{OomScoreAdj: asked}))
			if got := oomScoreAdj(t, c.PID(t)); got != want {
				t.Errorf("oom_score_adj %d gives %d, want %d", asked, got, want)
			}
		}
		wantCreateError(t, pod, image, codes.InvalidArgument, "2000", limits(&runtimeapi.LinuxContainerResources{OomScoreAdj: 2000}))
	})
}

func oomScoreAdj(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		t.Fatal(err)
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return score
}

// wantCreateError wants CreateContainer to fail with a code and a message that says what.
func wantCreateError(t *testing.T, pod *nodetest.Pod, image string, code codes.Code, says string, opts ...nodetest.ContainerOption) {
	t.Helper()
	_, err := pod.TryCreate(t.Context(), pod.ContainerConfig(image, opts...))
	if status.Code(err) != code || !strings.Contains(err.Error(), says) {
		t.Errorf("CreateContainer: %v, want %s that says %q", err, code, says)
	}
}

// TestUpdatePodSandboxResources holds what verbose PodSandboxStatus shows of the update, after a restart too.
func TestUpdatePodSandboxResources(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	update := &runtimeapi.UpdatePodSandboxResourcesRequest{
		PodSandboxId: pod.ID,
		Overhead:     &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 1 << 20},
		Resources:    &runtimeapi.LinuxContainerResources{CpuShares: 300, MemoryLimitInBytes: 90 << 20},
	}
	if _, err := n.Runtime.UpdatePodSandboxResources(t.Context(), update); err != nil {
		t.Fatal(err)
	}
	wantInfo(t, n, pod.ID, "1048576", "94371840", "300")
	for says, bad := range map[string]*runtimeapi.LinuxContainerResources{
		"cpu period -5": {CpuPeriod: -5},
		"../../x":       {Unified: map[string]string{"../../x": "1"}},
		"memory limit":  {MemoryLimitInBytes: -7},
	} {
		for _, req := range []*runtimeapi.UpdatePodSandboxResourcesRequest{
			{PodSandboxId: pod.ID, Overhead: bad}, {PodSandboxId: pod.ID, Resources: bad},
		} {
			_, err := n.Runtime.UpdatePodSandboxResources(t.Context(), req)
			wantError(t, err, codes.InvalidArgument, says)
		}
	}
	wantInfo(t, n, pod.ID, "1048576", "94371840", "300")
	update.PodSandboxId = strings.Repeat("0", 64)
	if _, err := n.Runtime.UpdatePodSandboxResources(t.Context(), update); status.Code(err) != codes.NotFound {
		t.Errorf("update of an unknown sandbox: %v, want NotFound", err)
	}
}

func wantInfo(t *testing.T, n *nodetest.Node, id string, overhead, memory, shares string) {
	t.Helper()
	info := n.PodInfo(t, id)
	if info.Overhead.Linux["memory_limit_in_bytes"].String() != overhead || info.Resources.Linux["memory_limit_in_bytes"].String() != memory ||
		info.Resources.Linux["cpu_shares"].String() != shares {
		t.Errorf("verbose status has overhead %v and resources %v, want those of the update", info.Overhead, info.Resources)
	}
}
