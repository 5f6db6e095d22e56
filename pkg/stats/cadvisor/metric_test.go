package cadvisor

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/userns-shim/userns-shim/pkg/stats"
)

var update = flag.Bool("update", false, "write the golden files of testdata")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// extraLabels is what cAdvisor serves to kubelet: each metric with the labels that it has beside kubelet's.
var extraLabels = map[string][]string{
	"container_last_seen":                              nil,
	"container_start_time_seconds":                     nil,
	"container_cpu_user_seconds_total":                 nil,
	"container_cpu_system_seconds_total":               nil,
	"container_cpu_usage_seconds_total":                {"cpu"},
	"container_cpu_cfs_periods_total":                  nil,
	"container_cpu_cfs_throttled_periods_total":        nil,
	"container_cpu_cfs_throttled_seconds_total":        nil,
	"container_memory_cache":                           nil,
	"container_memory_rss":                             nil,
	"container_memory_kernel_usage":                    nil,
	"container_memory_mapped_file":                     nil,
	"container_memory_swap":                            nil,
	"container_memory_failcnt":                         nil,
	"container_memory_usage_bytes":                     nil,
	"container_memory_max_usage_bytes":                 nil,
	"container_memory_working_set_bytes":               nil,
	"container_memory_total_active_file_bytes":         nil,
	"container_memory_total_inactive_file_bytes":       nil,
	"container_memory_failures_total":                  {"failure_type", "scope"},
	"container_oom_events_total":                       nil,
	"container_fs_inodes_free":                         {"device"},
	"container_fs_inodes_total":                        {"device"},
	"container_fs_limit_bytes":                         {"device"},
	"container_fs_usage_bytes":                         {"device"},
	"container_fs_reads_bytes_total":                   {"device"},
	"container_fs_reads_total":                         {"device"},
	"container_fs_writes_bytes_total":                  {"device"},
	"container_fs_writes_total":                        {"device"},
	"container_blkio_device_usage_total":               {"device", "major", "minor", "operation"},
	"container_network_receive_bytes_total":            {"interface"},
	"container_network_receive_packets_total":          {"interface"},
	"container_network_receive_packets_dropped_total":  {"interface"},
	"container_network_receive_errors_total":           {"interface"},
	"container_network_transmit_bytes_total":           {"interface"},
	"container_network_transmit_packets_total":         {"interface"},
	"container_network_transmit_packets_dropped_total": {"interface"},
	"container_network_transmit_errors_total":          {"interface"},
	"container_processes":                              nil,
	"container_file_descriptors":                       nil,
	"container_sockets":                                nil,
	"container_threads_max":                            nil,
	"container_threads":                                nil,
	"container_ulimits_soft":                           {"ulimit"},
	"container_spec_cpu_period":                        nil,
	"container_spec_cpu_quota":                         nil,
	"container_spec_cpu_shares":                        nil,
	"container_spec_memory_limit_bytes":                nil,
	"container_spec_memory_reservation_limit_bytes":    nil,
	"container_spec_memory_swap_limit_bytes":           nil,
	"container_pressure_cpu_stalled_seconds_total":     nil,
	"container_pressure_cpu_waiting_seconds_total":     nil,
	"container_pressure_memory_stalled_seconds_total":  nil,
	"container_pressure_memory_waiting_seconds_total":  nil,
	"container_pressure_io_stalled_seconds_total":      nil,
	"container_pressure_io_waiting_seconds_total":      nil,
}

// Dashboards find the metrics of kubelet's cAdvisor by these names and labels.
func TestDescriptorsAreCAdvisors(t *testing.T) {
	kubelets := []string{"container", "id", "image", "name", "namespace", "pod"}
	got := map[string][]string{}
	for _, d := range New().Descriptors() {
		if _, twice := got[d.Name]; twice {
			t.Errorf("%s is there twice", d.Name)
		}
		if d.Help == "" {
			t.Errorf("%s has no help", d.Name)
		}
		base := slices.Sorted(slices.Values(d.Labels[:len(kubelets)]))
		if diff := cmp.Diff(kubelets, base); diff != "" {
			t.Errorf("first labels of %s (-want +got):\n%s", d.Name, diff)
		}
		got[d.Name] = nil
		if extra := d.Labels[len(kubelets):]; len(extra) > 0 {
			got[d.Name] = extra
		}
		if strings.HasSuffix(d.Name, "_total") != d.Counter && d.Name != "container_memory_failcnt" && d.Name != "container_fs_inodes_total" {
			t.Errorf("%s is a counter: %v", d.Name, d.Counter)
		}
	}
	if diff := cmp.Diff(extraLabels, got); diff != "" {
		t.Errorf("metrics and labels (-want +got):\n%s", diff)
	}
}

func everything() (stats.ContainerUsage, stats.Details) {
	psi := func(base uint64) *stats.Pressure {
		return &stats.Pressure{
			Some: &stats.PressureData{Total: (base + 1) * 1e9},
			Full: &stats.PressureData{Total: base * 1e9},
		}
	}
	reading := &stats.Reading{
		At: noon,
		CPU: stats.CPU{
			Usage: 12_900_000_000, User: 9e9, System: 3e9,
			Periods: 100, Throttled: 20, ThrottledTime: 4e9, Pressure: psi(10),
		},
		Memory: &stats.Memory{
			Usage: 101, Peak: 102, Limit: 103, WorkingSet: 104, RSS: 105, Cache: 106, Kernel: 107, MappedFile: 108,
			ActiveFile: 109, InactiveFile: 110, PageFaults: 111, MajorPageFaults: 112, FailCount: 113, OOMKills: 114, Pressure: psi(20),
		},
		Swap:      &stats.Swap{Usage: 201, Limit: 202},
		IO:        stats.IO{Pressure: psi(30)},
		Tasks:     &stats.Tasks{Current: 301, Limit: 302},
		Processes: 303,
	}
	layer := &stats.Layer{Mountpoint: "/snapshots", Bytes: 401, Inodes: 402, At: noon.Add(-5 * time.Second)}
	details := stats.Details{
		Limits: stats.Limits{CPUShares: 501, CPUPeriod: 502, CPUQuota: 503, MemoryReservation: 504, SwapLimit: 505},
		Disks: []stats.Disk{
			{DeviceIO: stats.DeviceIO{Major: 8, ReadBytes: 601, WriteBytes: 602, Reads: 603, Writes: 604}, Name: "/dev/sda"},
			{DeviceIO: stats.DeviceIO{Major: 8, Minor: 16}, Name: "/dev/sdb"},
		},
		Files:      stats.Files{Descriptors: 701, Sockets: 702, Limit: 703},
		Filesystem: &stats.Filesystem{Device: "/dev/sda1", Bytes: 801, Inodes: 802, InodesFree: 803},
	}
	return stats.ContainerUsage{Reading: reading, Layer: layer}, details
}

var (
	containerID = Identity{Cgroup: "/kubepods/pod1/c1", ID: "c1", Image: "registry/image:1", Namespace: "ns", Pod: "p", Container: "main"}
	podID       = Identity{Cgroup: "/kubepods/pod1", ID: "s1", Namespace: "ns", Pod: "p"}
)

// everyMetric are those of a container and a pod of which all is known.
func everyMetric() (container, pod []Metric) {
	usage, details := everything()
	set := New()
	container = set.Container(containerID, noon.Add(-time.Hour), noon, usage, details)
	pod = set.Pod(podID, noon, stats.PodUsage{Reading: *usage.Reading, Own: true, Interfaces: []stats.Interface{
		{Name: "eth0", RxBytes: 901, RxPackets: 902, RxErrors: 903, RxDropped: 904, TxBytes: 905, TxPackets: 906, TxErrors: 907, TxDropped: 908},
		{Name: "net1"},
	}}, stats.Details{Limits: details.Limits, Disks: details.Disks})
	return container, pod
}

func TestGoldenMetrics(t *testing.T) {
	container, pod := everyMetric()
	for name, metrics := range map[string][]Metric{"container": container, "pod": pod} {
		var text strings.Builder
		for _, m := range metrics {
			kind := map[bool]string{true: "counter", false: "gauge"}[m.Counter]
			fmt.Fprintf(&text, "%s %s %q = %d", kind, m.Name, m.Values[len(baseLabels):], m.Value)
			if !m.At.IsZero() {
				fmt.Fprintf(&text, " at %s", m.At.Format(time.TimeOnly))
			}
			text.WriteByte('\n')
		}
		path := filepath.Join("testdata", name+".txt")
		if *update {
			if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), text.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

// kubelet drops a metric without a descriptor, and Prometheus a scrape with one series twice or
// with values that do not fit the labels.
func TestEveryMetricFitsItsDescriptor(t *testing.T) {
	descriptors := map[string]Descriptor{}
	for _, d := range New().Descriptors() {
		descriptors[d.Name] = d
	}
	container, pod := everyMetric()
	seen, served := map[string]bool{}, map[string]bool{}
	for _, m := range slices.Concat(container, pod) {
		d, ok := descriptors[m.Name]
		if !ok || len(d.Labels) != len(m.Values) {
			t.Errorf("%s has the values %q for the labels %q", m.Name, m.Values, d.Labels)
		}
		series := fmt.Sprintf("%s %q", m.Name, m.Values)
		if seen[series] {
			t.Errorf("%s is there twice", series)
		}
		seen[series], served[m.Name] = true, true
	}
	for name := range descriptors {
		if !served[name] {
			t.Errorf("%s is described, and not served of a container of which all is known", name)
		}
	}
}

func TestIdentityIsInTheLabels(t *testing.T) {
	container, pod := everyMetric()
	for _, tc := range []struct {
		metrics []Metric
		want    map[string]string
	}{
		{container, map[string]string{"id": "/kubepods/pod1/c1", "name": "c1", "image": "registry/image:1", "namespace": "ns", "pod": "p", "container": "main"}},
		{pod, map[string]string{"id": "/kubepods/pod1", "name": "s1", "image": "", "namespace": "ns", "pod": "p", "container": ""}},
	} {
		for _, m := range tc.metrics {
			got := map[string]string{}
			for i, label := range baseLabels {
				got[label] = m.Values[i]
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", m.Name, diff)
			}
		}
	}
}

// Of what the kernel does not account there is no metric, rather than one that says 0.
func TestUnknownIsLeftOut(t *testing.T) {
	usage := stats.ContainerUsage{Reading: &stats.Reading{At: noon}}
	details := stats.Details{Limits: stats.Limits{CPUQuota: stats.Unlimited, SwapLimit: stats.Unlimited}, Files: stats.Files{Limit: stats.Unlimited}}
	got := map[string]uint64{}
	for _, m := range New().Container(containerID, noon, noon, usage, details) {
		got[m.Name] = m.Value
	}
	for name := range got {
		for _, absent := range []string{"_memory_usage", "_fs_", "_blkio_", "_pressure_", "_threads", "_cfs_", "_quota", "_ulimits", "_network_", "_oom_"} {
			if strings.Contains(name, absent) {
				t.Errorf("%s = %d of a container without", name, got[name])
			}
		}
	}
	if limit, ok := got["container_spec_memory_swap_limit_bytes"]; !ok || limit != 0 {
		t.Errorf("a swap limit that is not set is %d, %v; want cAdvisor's 0", limit, ok)
	}
	pod := New().Pod(podID, noon, stats.PodUsage{Reading: *usage.Reading}, stats.Details{})
	if len(pod) != 0 {
		t.Errorf("a pod without a cgroup and a network of its own has metrics %v", pod)
	}
}
