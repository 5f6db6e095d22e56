package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
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

// cgroupFiles reads the kernel's own figures of the cgroup that a process is in, as a person would.
type cgroupFiles struct {
	unified bool
	dirs    map[string]string // by controller; all the same on version 2
}

func cgroupFilesOf(t *testing.T, pid int) cgroupFiles {
	t.Helper()
	const root = "/sys/fs/cgroup"
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, err = os.Stat(root + "/cgroup.controllers")
	files := cgroupFiles{unified: err == nil, dirs: map[string]string{}}
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		parts := strings.SplitN(line, ":", 3)
		for _, controller := range strings.Split(parts[1], ",") {
			dir := filepath.Join(root, controller, parts[2])
			if controller == "" && !files.unified {
				dir = filepath.Join(root, "unified", parts[2])
			}
			files.dirs[controller] = dir
		}
	}
	return files
}

// parent is the pod's cgroup.
func (c cgroupFiles) parent() cgroupFiles {
	up := cgroupFiles{unified: c.unified, dirs: map[string]string{}}
	for controller, dir := range c.dirs {
		up.dirs[controller] = filepath.Dir(dir)
	}
	return up
}

// number reads the word behind key in a file, or the only word when key is empty.
func (c cgroupFiles) number(t *testing.T, controller, file, key string) uint64 {
	t.Helper()
	if c.unified {
		controller = ""
	}
	data, err := os.ReadFile(filepath.Join(c.dirs[controller], file))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(data))
	at := 0
	if key != "" {
		at = slices.Index(fields, key) + 1
	}
	if at >= len(fields) || key != "" && at == 0 {
		t.Fatalf("%s has no %q:\n%s", file, key, data)
	}
	number, err := strconv.ParseUint(fields[at], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return number
}

func (c cgroupFiles) cpuNanos(t *testing.T) uint64 {
	t.Helper()
	if c.unified {
		return 1000 * c.number(t, "", "cpu.stat", "usage_usec")
	}
	return c.number(t, "cpuacct", "cpuacct.usage", "")
}

// memory returns the usage, and that without inactive files.
func (c cgroupFiles) memory(t *testing.T) (usage, workingSet, rss uint64) {
	t.Helper()
	if c.unified {
		usage = c.number(t, "", "memory.current", "")
		return usage, usage - c.number(t, "", "memory.stat", "inactive_file"), c.number(t, "", "memory.stat", "anon")
	}
	usage = c.number(t, "memory", "memory.usage_in_bytes", "")
	return usage, usage - c.number(t, "memory", "memory.stat", "total_inactive_file"), c.number(t, "memory", "memory.stat", "total_rss")
}

// wantNear holds a figure to a tenth of what the kernel says.
func wantNear(t *testing.T, what string, got, want uint64) {
	t.Helper()
	if diff := float64(got) - float64(want); diff > float64(want)/10 || -diff > float64(want)/10 {
		t.Errorf("%s is %d, the kernel says %d", what, got, want)
	}
}

// wantBetween holds a figure that grows to what the kernel said before and says after it was read.
func wantBetween(t *testing.T, what string, got, before, after uint64) {
	t.Helper()
	if float64(got) < 0.9*float64(before) || float64(got) > 1.1*float64(after) {
		t.Errorf("%s is %d, the kernel said %d before and says %d after", what, got, before, after)
	}
}

// moment is processor time with the time at which it was read: after since and before until.
type moment struct {
	since, until time.Time
	nanos        uint64
}

func (c cgroupFiles) moment(t *testing.T) moment {
	t.Helper()
	m := moment{since: time.Now(), nanos: c.cpuNanos(t)}
	m.until = time.Now()
	return m
}

// rate is the average between two moments.
func rate(nanos uint64, from, to time.Time) uint64 {
	return uint64(float64(nanos) / to.Sub(from).Seconds())
}

// wantUsage compares what was read since processor time was cpuBefore.
func wantUsage(t *testing.T, whose string, files cgroupFiles, cpuBefore uint64, cpu *runtimeapi.CpuUsage, memory *runtimeapi.MemoryUsage) {
	t.Helper()
	now := time.Now().UnixNano()
	for what, at := range map[string]int64{"processor": cpu.GetTimestamp(), "memory": memory.GetTimestamp()} {
		if age := time.Duration(now - at); age < 0 || age > time.Minute {
			t.Errorf("%s's stats of its %s are from %v ago", whose, what, age)
		}
	}
	wantBetween(t, whose+"'s processor time", cpu.GetUsageCoreNanoSeconds().GetValue(), cpuBefore, files.cpuNanos(t))
	usage, workingSet, rss := files.memory(t)
	wantNear(t, whose+"'s memory", memory.GetUsageBytes().GetValue(), usage)
	wantNear(t, whose+"'s working set", memory.GetWorkingSetBytes().GetValue(), workingSet)
	wantNear(t, whose+"'s anonymous memory", memory.GetRssBytes().GetValue(), rss)
	if memory.GetPageFaults().GetValue() == 0 {
		t.Errorf("%s has had no page faults", whose)
	}
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

// netDev is /proc/<pid>/net/dev: eight counters received and eight transmitted, by interface.
func netDev(t *testing.T, pid int) map[string][]uint64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]uint64{}
	for _, line := range strings.Split(string(data), "\n")[2:] {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		for _, field := range strings.Fields(rest) {
			number, err := strconv.ParseUint(field, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			out[name] = append(out[name], number)
		}
	}
	return out
}

func checkMetrics(t *testing.T, n *nodetest.Node, pod *nodetest.Pod, c *nodetest.Container, files cgroupFiles) {
	t.Helper()
	descriptors := metricDescriptors(t, n)
	before := files.cpuNanos(t)
	podMetrics, container := metricsOf(t, n, pod.ID, c.ID)
	podSeries := series(t, descriptors, podMetrics)
	got := series(t, descriptors, container)

	usage, workingSet, rss := files.memory(t)
	for name, want := range map[string]uint64{
		"container_memory_usage_bytes":       usage,
		"container_memory_working_set_bytes": workingSet,
		"container_memory_rss":               rss,
		"container_spec_memory_limit_bytes":  256 << 20,
		"container_processes":                2,
		"container_threads":                  2,
	} {
		number, ok := got[name]
		if !ok {
			t.Errorf("there is no %s", name)
		}
		wantNear(t, name, number, want)
	}
	// Whole seconds.
	wantBetween(t, "processor time in metrics", got["container_cpu_usage_seconds_total cpu=total"],
		before/uint64(time.Second), files.cpuNanos(t)/uint64(time.Second))
	if listening := got["container_sockets"]; listening < 1 {
		t.Errorf("%d open sockets, want that of the web server", listening)
	}
	if fds := got["container_file_descriptors"]; fds < 6 {
		t.Errorf("%d open files, want three of each process", fds)
	}
	wantNear(t, "bytes transmitted", podSeries["container_network_transmit_bytes_total interface=eth0"], netDev(t, c.PID(t))["eth0"][8])
	if podSeries["container_memory_usage_bytes"] < rss {
		t.Errorf("the pod's memory is %d, its container's %d", podSeries["container_memory_usage_bytes"], rss)
	}
	wantLabels(t, descriptors, container[0], map[string]string{
		"id": strings.TrimPrefix(files.dirs[anyController(files)], cgroupRootOf(files)), "name": c.ID, "image": "demo:latest",
		"namespace": "e2e", "pod": pod.Request.Config.Metadata.Name, "container": c.Config.Metadata.Name,
	})
}

func anyController(files cgroupFiles) string {
	if files.unified {
		return ""
	}
	return "memory"
}

func cgroupRootOf(files cgroupFiles) string {
	return filepath.Join("/sys/fs/cgroup", anyController(files))
}

func wantLabels(t *testing.T, descriptors map[string][]string, m *runtimeapi.Metric, want map[string]string) {
	t.Helper()
	for i, key := range descriptors[m.Name] {
		if value, ok := want[key]; ok && m.LabelValues[i] != value {
			t.Errorf("label %s of %s is %q, want %q", key, m.Name, m.LabelValues[i], value)
		}
	}
}

func metricDescriptors(t *testing.T, n *nodetest.Node) map[string][]string {
	t.Helper()
	resp, err := n.Runtime.ListMetricDescriptors(t.Context(), &runtimeapi.ListMetricDescriptorsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, d := range resp.Descriptors {
		out[d.Name] = d.LabelKeys
	}
	return out
}

func metricsOf(t *testing.T, n *nodetest.Node, podID, containerID string) (pod, container []*runtimeapi.Metric) {
	t.Helper()
	resp, err := n.Runtime.ListPodSandboxMetrics(t.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range resp.PodMetrics {
		if p.PodSandboxId != podID {
			continue
		}
		for _, c := range p.ContainerMetrics {
			if c.ContainerId == containerID {
				return p.Metrics, c.Metrics
			}
		}
	}
	t.Fatalf("no metrics of container %s in pod %s: %v", containerID, podID, resp.PodMetrics)
	return nil, nil
}

// commonLabels are those that all metrics have first.
const commonLabels = 6

// series checks metrics against their descriptors and keys their values by name and own labels.
func series(t *testing.T, descriptors map[string][]string, metrics []*runtimeapi.Metric) map[string]uint64 {
	t.Helper()
	out := map[string]uint64{}
	for _, m := range metrics {
		keys, ok := descriptors[m.Name]
		if !ok || len(keys) != len(m.LabelValues) {
			t.Errorf("%s has the labels %q for the keys %q", m.Name, m.LabelValues, keys)
			continue
		}
		name := m.Name
		for i := commonLabels; i < len(keys); i++ {
			name += " " + keys[i] + "=" + m.LabelValues[i]
		}
		if _, twice := out[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		out[name] = m.Value.GetValue()
	}
	return out
}

func listStats(t *testing.T, n *nodetest.Node, filter *runtimeapi.ContainerStatsFilter) map[string]*runtimeapi.ContainerStats {
	t.Helper()
	resp, err := n.Runtime.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{Filter: filter})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*runtimeapi.ContainerStats{}
	for _, s := range resp.Stats {
		out[s.Attributes.Id] = s
	}
	return out
}

func TestStatsFilters(t *testing.T) {
	n := sharedNode(t)
	image := n.Image(t, labimage.Demo)
	labelled := func(value string) nodetest.ContainerOption {
		return func(cfg *runtimeapi.ContainerConfig) { cfg.Labels["colour"] = value }
	}
	pod, other := n.RunPod(t), n.RunPod(t)
	red, blue := pod.Run(t, image, labelled("red")).ID, pod.Run(t, image, labelled("blue")).ID
	away := other.Run(t, image, labelled("red")).ID
	for _, tc := range []struct {
		name   string
		filter *runtimeapi.ContainerStatsFilter
		want   []string
	}{
		{"none", nil, []string{red, blue, away}},
		{"empty", &runtimeapi.ContainerStatsFilter{}, []string{red, blue, away}},
		{"id", &runtimeapi.ContainerStatsFilter{Id: blue}, []string{blue}},
		{"prefix of an id", &runtimeapi.ContainerStatsFilter{Id: blue[:20]}, []string{blue}},
		{"unknown id", &runtimeapi.ContainerStatsFilter{Id: strings.Repeat("f", 64)}, nil},
		{"pod", &runtimeapi.ContainerStatsFilter{PodSandboxId: pod.ID}, []string{red, blue}},
		{"label", &runtimeapi.ContainerStatsFilter{LabelSelector: map[string]string{"colour": "red"}}, []string{red, away}},
		{"all together", &runtimeapi.ContainerStatsFilter{PodSandboxId: pod.ID, LabelSelector: map[string]string{"colour": "red"}}, []string{red}},
	} {
		got := listStats(t, n, tc.filter)
		if len(got) != len(tc.want) {
			t.Errorf("filter %s: %d stats, want %d", tc.name, len(got), len(tc.want))
		}
		for _, id := range tc.want {
			if got[id].GetCpu() == nil || got[id].GetMemory() == nil {
				t.Errorf("filter %s: stats of %s are %v", tc.name, id, got[id])
			}
		}
	}
	checkPodFilters(t, n, pod, other)
	checkStreams(t, n, 3, 2)
}

func checkPodFilters(t *testing.T, n *nodetest.Node, pod, other *nodetest.Pod) {
	t.Helper()
	for _, tc := range []struct {
		name   string
		filter *runtimeapi.PodSandboxStatsFilter
		want   []string
	}{
		{"none", nil, []string{pod.ID, other.ID}},
		{"prefix of an id", &runtimeapi.PodSandboxStatsFilter{Id: pod.ID[:20]}, []string{pod.ID}},
		{"label", &runtimeapi.PodSandboxStatsFilter{LabelSelector: pod.Request.Config.Labels}, []string{pod.ID, other.ID}},
		{"another label", &runtimeapi.PodSandboxStatsFilter{LabelSelector: map[string]string{"no": "such"}}, nil},
	} {
		resp, err := n.Runtime.ListPodSandboxStats(t.Context(), &runtimeapi.ListPodSandboxStatsRequest{Filter: tc.filter})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range resp.Stats {
			got = append(got, s.Attributes.Id)
		}
		if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(tc.want))) {
			t.Errorf("filter %s: pods %q, want %q", tc.name, got, tc.want)
		}
	}
}

// checkStreams wants as much from the RPCs that stream.
func checkStreams(t *testing.T, n *nodetest.Node, containers, pods int) {
	t.Helper()
	ctx := t.Context()
	ctrs, err := n.Runtime.StreamContainerStats(ctx, &runtimeapi.StreamContainerStatsRequest{})
	if got := drain(t, ctrs, err, (*runtimeapi.StreamContainerStatsResponse).GetContainerStats); got != containers {
		t.Errorf("StreamContainerStats has %d, want %d", got, containers)
	}
	sandboxes, err := n.Runtime.StreamPodSandboxStats(ctx, &runtimeapi.StreamPodSandboxStatsRequest{})
	if got := drain(t, sandboxes, err, (*runtimeapi.StreamPodSandboxStatsResponse).GetPodSandboxStats); got != pods {
		t.Errorf("StreamPodSandboxStats has %d, want %d", got, pods)
	}
	metrics, err := n.Runtime.StreamPodSandboxMetrics(ctx, &runtimeapi.StreamPodSandboxMetricsRequest{})
	if got := drain(t, metrics, err, (*runtimeapi.StreamPodSandboxMetricsResponse).GetPodSandboxMetrics); got != pods {
		t.Errorf("StreamPodSandboxMetrics has %d, want %d", got, pods)
	}
}

func drain[Message, Item any](t *testing.T, stream grpc.ServerStreamingClient[Message], err error, items func(*Message) []Item) int {
	t.Helper()
	var n int
	for err == nil {
		var msg *Message
		if msg, err = stream.Recv(); err == nil {
			n += len(items(msg))
		}
	}
	if err != io.EOF {
		t.Errorf("stream: %v", err)
	}
	return n
}

// As on containerd, a container that does not run is in the list with its layer, which still takes room.
func TestStatsOfWhatDoesNotRun(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	image := n.Image(t, labimage.Demo)
	created := pod.Create(t, image)
	exited := pod.Run(t, image, nodetest.Shell("dd if=/dev/zero of=/written bs=1048576 count=8"))
	exited.Wait(t)
	list := listStats(t, n, nil)
	for name, c := range map[string]*nodetest.Container{"created": created, "exited": exited} {
		got, ok := list[c.ID]
		if !ok || got.Cpu != nil || got.Memory != nil || got.WritableLayer == nil {
			t.Errorf("stats of a container that is %s are %v, want those of its layer alone", name, got)
		}
		_, err := n.Runtime.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: c.ID})
		wantError(t, err, codes.FailedPrecondition)
	}
	wantNear(t, "the layer of the container that has ended", list[exited.ID].GetWritableLayer().GetUsedBytes().GetValue(), 8<<20)

	_, err := n.Runtime.ContainerStats(t.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: strings.Repeat("f", 64)})
	wantError(t, err, codes.NotFound)
	_, err = n.Runtime.PodSandboxStats(t.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: strings.Repeat("f", 64)})
	wantError(t, err, codes.NotFound)
	pod.Stop(t)
	_, err = n.Runtime.PodSandboxStats(t.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: pod.ID})
	wantError(t, err, codes.FailedPrecondition)
	resp, err := n.Runtime.ListPodSandboxStats(t.Context(), &runtimeapi.ListPodSandboxStatsRequest{})
	if err != nil || len(resp.Stats) != 0 {
		t.Errorf("ListPodSandboxStats has %v (%v), want no stopped pod", resp.GetStats(), err)
	}
	metrics, err := n.Runtime.ListPodSandboxMetrics(t.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
	if err != nil || len(metrics.PodMetrics) != 0 {
		t.Errorf("ListPodSandboxMetrics has %v (%v), want no stopped pod", metrics.GetPodMetrics(), err)
	}
}

func TestStatsOfHostNetworkPod(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t, nodetest.HostNetwork)
	pod.Run(t, n.Image(t, labimage.Demo))
	got := onePodStats(t, n, pod.ID)
	if got.GetLinux().GetNetwork() != nil {
		t.Errorf("a pod in the host's network has the network stats %v", got.GetLinux().GetNetwork())
	}
	if got.GetLinux().GetMemory().GetUsageBytes().GetValue() == 0 || got.GetLinux().GetProcess().GetProcessCount().GetValue() != 1 {
		t.Errorf("the pod's stats are %v", got.GetLinux())
	}
}

// The stats of a pod whose containers come and go are never an error of the whole list.
func TestStatsWhileContainersComeAndGo(t *testing.T) {
	n := sharedNode(t)
	pod := n.RunPod(t)
	image := n.Image(t, labimage.Demo)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 15 {
			c, err := pod.TryCreate(t.Context(), pod.ContainerConfig(image, nodetest.Command("true")))
			if err != nil {
				t.Error(err)
				return
			}
			if err := c.TryStart(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}()
	var lists int
	for {
		select {
		case <-done:
			if lists == 0 {
				t.Error("the containers were gone before any list")
			}
			return
		default:
		}
		listStats(t, n, nil)
		if _, err := n.Runtime.ListPodSandboxStats(t.Context(), &runtimeapi.ListPodSandboxStatsRequest{}); err != nil {
			t.Error(err)
		}
		if _, err := n.Runtime.ListPodSandboxMetrics(t.Context(), &runtimeapi.ListPodSandboxMetricsRequest{}); err != nil {
			t.Error(err)
		}
		lists++
	}
}
