package e2e

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/labimage"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// What the busy container uses, in bytes.
const (
	busyFile     = 8 << 20 // in its writable layer
	busyDownload = 4 << 20 // sent for each request
)

// busy holds memory, fills its layer, serves a file and keeps a processor busy.
const busy = `held=$(head -c 16000000 /dev/zero | tr '\000' a)
dd if=/dev/zero of=/written bs=1048576 count=8
mkdir /www && head -c 4194304 /dev/zero > /tmp/big && mv /tmp/big /www/big
httpd -p 8080 -h /www
echo busy
while true; do :; done`

// runBusy returns once it is busy, and has downloaded from it.
func runBusy(t *testing.T, n *nodetest.Node, pod *nodetest.Pod) *nodetest.Container {
	t.Helper()
	c := pod.Run(t, n.Image(t, labimage.Demo), nodetest.Shell(busy), func(cfg *runtimeapi.ContainerConfig) {
		cfg.Labels["stats"] = "yes"
		cfg.Linux.Resources.MemoryLimitInBytes = 256 << 20
		cfg.Image.UserSpecifiedImage = "demo:latest"
	})
	c.AwaitLog(t, "become busy", func(l nodetest.ContainerLog) bool { return strings.Contains(l.Stdout(), "busy") })
	client := n.World.HTTPClient()
	client.Timeout = time.Minute
	for range 2 {
		resp, err := client.Get("http://" + pod.IP(t) + ":8080/big")
		if err != nil {
			t.Fatal(err)
		}
		size, err := io.Copy(io.Discard, resp.Body)
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if err != nil || size != busyDownload || resp.StatusCode != http.StatusOK {
			t.Fatalf("downloaded %d bytes: %s %v", size, resp.Status, err)
		}
	}
	return c
}

func oneContainerStats(t *testing.T, n *nodetest.Node, id string) *runtimeapi.ContainerStats {
	t.Helper()
	resp, err := n.Runtime.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: id})
	if err != nil {
		t.Fatalf("ContainerStats: %v", err)
	}
	return resp.Stats
}

func onePodStats(t *testing.T, n *nodetest.Node, id string) *runtimeapi.PodSandboxStats {
	t.Helper()
	resp, err := n.Runtime.PodSandboxStats(t.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: id})
	if err != nil {
		t.Fatalf("PodSandboxStats: %v", err)
	}
	return resp.Stats
}

func TestStatsAreTheKernels(t *testing.T) {
	n := sharedNode(t)
	for name, opts := range map[string][]nodetest.PodOption{
		"user namespace":        nil,
		"host's user namespace": {nodetest.HostUsers},
	} {
		t.Run(name, func(t *testing.T) {
			pod := n.RunPod(t, opts...)
			c := runBusy(t, n, pod)
			files := cgroupFilesOf(t, c.PID(t))
			checkContainerStats(t, n, c, files)
			checkPodStats(t, n, pod, c, files)
			checkMetrics(t, n, pod, c, files)
		})
	}
}

func checkContainerStats(t *testing.T, n *nodetest.Node, c *nodetest.Container, files cgroupFiles) {
	t.Helper()
	wantLayer(t, n, c.ID)
	time.Sleep(1500 * time.Millisecond) // sooner, the next request would not begin a new window
	a := files.moment(t)
	oneContainerStats(t, n, c.ID)
	b := files.moment(t)
	time.Sleep(3 * time.Second)
	d := files.moment(t)
	got := oneContainerStats(t, n, c.ID)
	e := files.moment(t)
	wantBetween(t, "rate of processor time", got.GetCpu().GetUsageNanoCores().GetValue(),
		rate(d.nanos-b.nanos, a.since, e.until), rate(e.nanos-a.nanos, b.until, d.since))
	wantUsage(t, "the container", files, d.nanos, got.Cpu, got.Memory)
	wantNear(t, "memory available", got.GetMemory().GetAvailableBytes().GetValue(), 256<<20-got.GetMemory().GetWorkingSetBytes().GetValue())
	if got.GetAttributes().GetId() != c.ID || got.GetAttributes().GetMetadata().GetName() != c.Config.Metadata.Name || got.GetAttributes().GetLabels()["stats"] != "yes" {
		t.Errorf("the stats are of %v", got.Attributes)
	}
	wantPressure(t, files, got)
}

// wantPressure wants it where the kernel has it for the container.
func wantPressure(t *testing.T, files cgroupFiles, got *runtimeapi.ContainerStats) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(files.dirs[""], "cpu.pressure"))
	if files.dirs[""] == "" || err != nil {
		if got.GetCpu().GetPsi() != nil {
			t.Errorf("there is pressure %v, which the kernel does not know", got.GetCpu().GetPsi())
		}
		return
	}
	_, total, _ := strings.Cut(strings.SplitN(string(data), "\n", 2)[0], "total=")
	micros, err := strconv.ParseUint(total, 10, 64)
	if err != nil {
		t.Fatalf("cpu.pressure is %q: %v", data, err)
	}
	if got.GetMemory().GetPsi().GetSome() == nil || got.GetIo().GetPsi().GetSome() == nil {
		t.Errorf("pressure of memory is %v, of devices %v", got.GetMemory().GetPsi(), got.GetIo().GetPsi())
	}
	// The clock runs on between the two readings.
	if psi := got.GetCpu().GetPsi().GetSome().GetTotal(); psi > micros*1000 || micros*1000-psi > uint64(5*time.Second) {
		t.Errorf("pressure of the processor is %d ns, the file says %d µs", psi, micros)
	}
}

// wantLayer waits until the layer was summed up anew: that is done at most every ten seconds.
func wantLayer(t *testing.T, n *nodetest.Node, id string) {
	t.Helper()
	const want = busyFile + busyDownload
	var layer *runtimeapi.FilesystemUsage
	for range 100 {
		layer = oneContainerStats(t, n, id).GetWritableLayer()
		if layer.GetUsedBytes().GetValue() >= want {
			break
		}
		time.Sleep(250 * time.Millisecond)
	}
	wantNear(t, "the writable layer", layer.GetUsedBytes().GetValue(), want)
	if layer.GetInodesUsed().GetValue() < 3 {
		t.Errorf("the writable layer has %d inodes, want two files and a directory at least", layer.GetInodesUsed().GetValue())
	}
	resp, err := n.Images.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// kubelet finds the filesystem by it.
	if got, want := layer.GetFsId().GetMountpoint(), resp.ContainerFilesystems[0].GetFsId().GetMountpoint(); got != want {
		t.Errorf("the layer is in %q, containers are in %q", got, want)
	}
}

func checkPodStats(t *testing.T, n *nodetest.Node, pod *nodetest.Pod, c *nodetest.Container, files cgroupFiles) {
	t.Helper()
	before := files.parent().cpuNanos(t)
	got := onePodStats(t, n, pod.ID)
	wantUsage(t, "the pod", files.parent(), before, got.GetLinux().GetCpu(), got.GetLinux().GetMemory())
	if got.GetLinux().GetCpu().GetUsageNanoCores().GetValue() == 0 {
		t.Error("the pod has no rate of processor time")
	}
	dev := netDev(t, c.PID(t))["eth0"]
	network := got.GetLinux().GetNetwork()
	if names := interfaceNames(network); !slices.Equal(names, []string{"eth0"}) || network.GetDefaultInterface().GetName() != "eth0" {
		t.Errorf("interfaces are %q, by default %q", names, network.GetDefaultInterface().GetName())
	}
	wantNear(t, "bytes received", network.GetDefaultInterface().GetRxBytes().GetValue(), dev[0])
	wantNear(t, "bytes transmitted", network.GetDefaultInterface().GetTxBytes().GetValue(), dev[8])
	if dev[8] < 2*busyDownload {
		t.Errorf("net/dev says %d bytes transmitted of %d downloaded", dev[8], 2*busyDownload)
	}
	if got := got.GetLinux().GetProcess().GetProcessCount().GetValue(); got != 2 {
		t.Errorf("the pod has %d processes, want the shell and the web server", got)
	}
	if ctrs := got.GetLinux().GetContainers(); len(ctrs) != 1 || ctrs[0].GetAttributes().GetId() != c.ID || ctrs[0].GetCpu() == nil {
		t.Errorf("the pod's containers are %v", ctrs)
	}
	md := pod.Request.Config.Metadata
	if at := got.GetAttributes(); at.GetId() != pod.ID || at.GetMetadata().GetUid() != md.Uid || at.GetMetadata().GetName() != md.Name || at.GetLabels()["test"] == "" {
		t.Errorf("the stats are of %v", at)
	}
}

func interfaceNames(network *runtimeapi.NetworkUsage) []string {
	var names []string
	for _, i := range network.GetInterfaces() {
		names = append(names, i.GetName())
	}
	return names
}
