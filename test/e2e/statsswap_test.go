package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// addSwap gives the host 128 MiB of swap until the test ends.
func addSwap(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/proc/swaps"); err != nil {
		t.Skip("the kernel has no swap")
	}
	file := filepath.Join(t.TempDir(), "swap")
	run := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", argv, err, out)
		}
	}
	// No holes: the kernel takes no file that has any.
	run("dd", "if=/dev/zero", "of="+file, "bs=1M", "count=128", "status=none")
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	run("mkswap", file)
	run("swapon", file)
	t.Cleanup(func() { run("swapoff", file) })
}

// swap is what the kernel has swapped out for a cgroup, in bytes.
func (c cgroupFiles) swap(t *testing.T) uint64 {
	t.Helper()
	if c.unified {
		return c.number(t, "", "memory.swap.current", "")
	}
	return c.number(t, "memory", "memory.stat", "total_swap")
}

// TestSwapStats fills more than its memory limit lets a container keep.
func TestSwapStats(t *testing.T) {
	addSwap(t)
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	bothUsers(t, func(t *testing.T, opts ...nodetest.PodOption) {
		pod := n.RunPod(t, opts...)
		c := pod.Run(t, image, nodetest.Shell("head -c 50000000 /dev/urandom > /dev/shm/fill; echo filled; sleep 1000"),
			limits(&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: 128 << 20}))
		c.AwaitLog(t, "that the memory is full", func(l nodetest.ContainerLog) bool { return l.Stdout() != "" })
		files := cgroupFilesOf(t, c.PID(t))
		if files.swap(t) < 10<<20 {
			t.Fatalf("the kernel has swapped %d bytes out, too few to tell", files.swap(t))
		}
		container, err := n.Runtime.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: c.ID})
		if err != nil {
			t.Fatal(err)
		}
		sandbox, err := n.Runtime.PodSandboxStats(t.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: pod.ID})
		if err != nil {
			t.Fatal(err)
		}
		inPod := sandbox.Stats.Linux.Containers
		if len(inPod) != 1 {
			t.Fatalf("the pod's stats have the containers %v", inPod)
		}
		wantNear(t, "the container's swap", container.Stats.Swap.GetSwapUsageBytes().GetValue(), files.swap(t))
		wantNear(t, "the container's swap in the pod's stats", inPod[0].Swap.GetSwapUsageBytes().GetValue(), files.swap(t))
		// The limit is of memory and swap together, and the memory is full.
		wantNear(t, "what is left of the swap", container.Stats.Swap.GetSwapAvailableBytes().GetValue(), 96<<20-files.swap(t))
	})
}
