package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

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
