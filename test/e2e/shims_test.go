package e2e

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/leaks"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// shims are the node's shim processes, without those that containerd runs for a moment to start a shim or to delete what one left.
func shims(t *testing.T, n *nodetest.Node) []leaks.Process {
	t.Helper()
	return processes(t, func(p leaks.Process) bool {
		words := strings.Fields(p.Cmdline)
		return strings.Contains(p.Cmdline, "containerd-shim-runc-v2") && strings.Contains(p.Cmdline, n.Containerd.Address) &&
			!slices.Contains(words, "start") && !slices.Contains(words, "delete")
	})
}

// memoryOf is the PSS of processes, in KiB: pages that several share count in part.
func memoryOf(t *testing.T, list []leaks.Process) (kib int) {
	t.Helper()
	for _, p := range list {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.PID))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, "Pss:"); ok {
				size, err := strconv.Atoi(strings.Fields(value)[0])
				if err != nil {
					t.Fatal(err)
				}
				kib += size
			}
		}
	}
	return kib
}

// TestHandlerPodsPerShim: pods share shims as the handler says, with less memory, and no pod notices another's end.
func TestHandlerPodsPerShim(t *testing.T) {
	t.Parallel()
	const pods, room = 8, 4
	n := handlerNode(t, fmt.Sprintf("shared binaryName: runc, podsPerShim: %d", room))
	image := n.Image(t, labimage.Demo)
	run := func(handler string) (list []*nodetest.Pod, containers []*nodetest.Container) {
		for i := range pods {
			opts := []nodetest.PodOption{nodetest.Handler(handler)}
			if i%2 == 1 {
				opts = append(opts, nodetest.HostUsers)
			}
			list = append(list, n.RunPod(t, opts...))
			containers = append(containers, list[i].Run(t, image))
		}
		return list, containers
	}
	own, _ := run("runc")
	if got := len(shims(t, n)); got != pods {
		t.Errorf("%d pods have %d shims, want one each", pods, got)
	}
	alone := memoryOf(t, shims(t, n))
	for _, pod := range own {
		pod.Remove(t)
	}
	eventually(t, "no shim left", func() bool { return len(shims(t, n)) == 0 })

	list, containers := run("shared")
	if got := len(shims(t, n)); got != pods/room {
		t.Errorf("%d pods have %d shims, want %d", pods, got, pods/room)
	}
	together := memoryOf(t, shims(t, n))
	t.Logf("shims of %d pods: %d KiB with one each, %d KiB with %d pods in one", pods, alone, together, room)
	if together*2 > alone {
		t.Errorf("%d pods in one shim need %d KiB, with one each %d KiB: nothing is saved", room, together, alone)
	}

	// The pod that the first shim is named after goes, and its place is taken by the next one.
	list[0].Remove(t)
	for _, c := range containers[1:] {
		c.Exec(t, "true")
	}
	n.RunPod(t, nodetest.Handler("shared")).Run(t, image).Exec(t, "true")
	if got := len(shims(t, n)); got != pods/room {
		t.Errorf("after one pod went and one came there are %d shims, want %d", got, pods/room)
	}
	crash(t, n)
	for i, c := range containers[1:] {
		c.Exec(t, "true")
		list[i+1].Remove(t)
	}
	eventually(t, "one shim left, that of the last pod", func() bool { return len(shims(t, n)) == 1 })
}

// TestHandlerPodsPerShimWhenAShimDies: what podsPerShim is the price of. All pods of that shim lose their
// containers, which are reported, no other pod does, and the pods can run containers again.
func TestHandlerPodsPerShimWhenAShimDies(t *testing.T) {
	t.Parallel()
	n := handlerNode(t, "shared binaryName: runc, podsPerShim: 2")
	image := n.Image(t, labimage.Demo)
	var pods []*nodetest.Pod
	var containers []*nodetest.Container
	shimOf := map[int]int{} // pod by shim
	for i, opt := range []nodetest.PodOption{nodetest.HostUsers, func(*runtimeapi.RunPodSandboxRequest) {}, nodetest.HostUsers} {
		pods = append(pods, n.RunPod(t, opt, nodetest.Handler("shared")))
		containers = append(containers, pods[i].Run(t, image))
		for _, shim := range shims(t, n) {
			if _, ok := shimOf[shim.PID]; !ok {
				shimOf[shim.PID] = i
			}
		}
	}
	if len(shimOf) != 2 {
		t.Fatalf("three pods have the shims %v, want two", shimOf)
	}
	for pid, pod := range shimOf {
		if pod == 0 {
			killProcess(t, pid)
		}
	}
	for i, c := range containers[:2] {
		if code := c.Wait(t); code == 0 {
			t.Errorf("container %d, whose shim died, ended with 0", i)
		}
	}
	containers[2].Exec(t, "true")
	for _, pod := range pods {
		if state := pod.Status(t).State; state != runtimeapi.PodSandboxState_SANDBOX_READY {
			t.Errorf("a pod is %s: its namespaces outlive the shim", state)
		}
		pod.Run(t, image).Exec(t, "true")
	}
}

// TestHandlerShimCgroup: shims are in the cgroup that the handler names.
func TestHandlerShimCgroup(t *testing.T) {
	t.Parallel()
	roots, err := leaks.CgroupRoots()
	if err != nil {
		t.Fatal(err)
	}
	group := "/usl-shims-" + rand.Text() // another run on this machine has its own
	for _, root := range roots {
		if strings.Contains(root, "cpuset") {
			continue // a new one takes no process before it has processors
		}
		dir := filepath.Join(root, group)
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
	}
	n := ownNode(t, labnode.Options{Daemon: labnode.DaemonOptions{
		Handlers: "  grouped: {runtime: io.containerd.runc.v2, binaryName: runc, shimCgroup: " + group + "}",
	}})
	n.RunPod(t, nodetest.Handler("grouped")).Run(t, n.Image(t, labimage.Demo)).Exec(t, "true")
	if list := shims(t, n); len(list) != 1 || !strings.Contains(list[0].Cgroups, ":"+group+"\n") {
		t.Errorf("shims are %+v, want one in %s", list, group)
	}
}
