package e2ekubelet

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/userns-shim/userns-shim/internal/labnode"
	"github.com/userns-shim/userns-shim/internal/testkit/nodetest"
)

// busy is a pod that has used a processor for six seconds, holds 48 MiB of a volume in memory, and has 24 MiB in its root filesystem and 8 in a volume
// on disk; and then does nothing, so that what is measured stands still.
const busy = `
containers:
- name: main
  image: IMAGE
  resources: {limits: {memory: 256Mi}}
  command:
  - sh
  - -c
  - |
    dd if=/dev/zero of=/memory/x bs=1M count=48
    dd if=/dev/zero of=/x bs=1M count=24
    dd if=/dev/zero of=/disk/x bs=1M count=8
    timeout 6 sh -c 'while :; do :; done'
    touch /tmp/done
    sleep infinity
  volumeMounts: [{name: memory, mountPath: /memory}, {name: disk, mountPath: /disk}]
  readinessProbe: {exec: {command: [ls, /tmp/done]}, periodSeconds: 1, failureThreshold: 100}
volumes: [{name: memory, emptyDir: {medium: Memory}}, {name: disk, emptyDir: {}}]
`

// usage is what a cgroup itself says.
type usage struct {
	cpuSeconds                    float64
	bytes, workingSet, rss, procs float64
}

// usageOf reads the cgroups of a process, or their parents.
func usageOf(t testing.TB, pid int, parent bool) usage {
	t.Helper()
	dir := func(controller string) string {
		own := cgroupDir(t, pid, controller)
		if parent {
			return filepath.Dir(own)
		}
		return own
	}
	var u usage
	memory := dir("memory")
	fields := map[string]float64{}
	for line := range strings.Lines(cgroupValue(t, memory, "memory.stat") + "\n") {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			fields[name] = number(t, value)
		}
	}
	u.bytes = number(t, cgroupValue(t, memory, "memory.usage_in_bytes", "memory.current"))
	if _, old := fields["total_rss"]; old {
		u.workingSet, u.rss = u.bytes-fields["total_inactive_file"], fields["total_rss"]
		u.cpuSeconds = number(t, cgroupValue(t, dir("cpuacct"), "cpuacct.usage")) / 1e9
	} else {
		u.workingSet, u.rss = u.bytes-fields["inactive_file"], fields["anon"]
		_, micros, _ := strings.Cut(cgroupValue(t, dir("cpu"), "cpu.stat"), "usage_usec ")
		micros, _, _ = strings.Cut(micros, "\n")
		u.cpuSeconds = number(t, micros) / 1e6
	}
	u.procs = number(t, cgroupValue(t, dir("pids"), "pids.current"))
	return u
}

func number(t testing.TB, text string) float64 {
	t.Helper()
	value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// near tells whether a value is within a tenth of the cgroup's, give or take the unit that it is counted in.
func near(what string, got, want, unit float64) error {
	if math.Abs(got-want) <= want/10+unit {
		return nil
	}
	return fmt.Errorf("%s is %g, the cgroup's own %g", what, got, want)
}

const (
	mib  = 1 << 20
	page = 4096
)

// TestStatsOfKubelet compares what kubelet tells about pods with their cgroups: first as it finds out by itself, then with the
// feature gate by which it asks userns-shim, under which the same pods go on.
func TestStatsOfKubelet(t *testing.T) {
	n := sharedNode(t)
	pods := []*pod{n.run(t, false, busy), n.run(t, true, busy)}
	ids := runningContainers(t, pods)
	t.Run("default gates", func(t *testing.T) {
		for _, p := range pods {
			p.wantStats(t, 0)
			if got, err := p.summary(t.Context()); err != nil || got.Network != nil {
				t.Errorf("the pod's network is %v, %v: docs/compatibility.md says that it is missing", got, err)
			}
		}
		n.wantImageFs(t)
	})
	fromCRI := n.defaults()
	fromCRI.Config["featureGates"] = map[string]bool{"PodAndContainerStatsFromCRI": true}
	n.restartKubelet(t, fromCRI)
	t.Run("PodAndContainerStatsFromCRI", func(t *testing.T) {
		for _, p := range pods {
			p.wantStats(t, 1) // CRI's metrics are integers
			p.wantNetwork(t)
		}
		n.wantImageFs(t)
	})
	n.restartKubelet(t, n.defaults())
	wantSame(t, pods, ids)
}

func (n *node) restartKubelet(t *testing.T, opts labnode.KubeletOptions) {
	t.Helper()
	if err := n.kubelet.Restart(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
}

// wantImageFs compares what evictions and the garbage collection of images go by with the disk.
func (n *node) wantImageFs(t *testing.T) {
	t.Helper()
	eventually(t, "summary of the filesystem for images", func() error {
		var disk syscall.Statfs_t
		if err := syscall.Statfs(n.SnapshotsDir(), &disk); err != nil {
			return err
		}
		got := n.imageFs(t)
		used, _ := nodetest.DiskUse(t, n.SnapshotsDir())
		return errors.Join(
			near("bytes that are used", float64(*got.UsedBytes), float64(used), 0),
			near("bytes that are available", float64(*got.AvailableBytes), float64(disk.Bavail)*float64(disk.Bsize), 0),
			near("capacity", float64(*got.CapacityBytes), float64(disk.Blocks)*float64(disk.Bsize), 0),
		)
	})
}

// wantStats compares summary and metrics with the cgroups. A part of a second is lost where seconds have no fraction.
func (p *pod) wantStats(t *testing.T, secondUnit float64) {
	t.Helper()
	p.ready(t)
	pid := p.container(t, "main").PID(t)
	eventually(t, p.name+": summary", func() error {
		got, err := p.summary(t.Context())
		if err != nil {
			return err
		}
		return p.compareSummary(t, got, pid)
	})
	eventually(t, p.name+": metrics", func() error {
		got, err := p.metrics(t.Context())
		if err != nil {
			return err
		}
		return compareMetrics(t, got, pid, secondUnit)
	})
}

func (p *pod) compareSummary(t *testing.T, got *podSummary, pid int) error {
	t.Helper()
	if len(got.Containers) != 1 || got.Containers[0].Name != "main" {
		return fmt.Errorf("the summary has the containers %+v", got.Containers)
	}
	c, own, all := got.Containers[0], usageOf(t, pid, false), usageOf(t, pid, true)
	if c.CPU.UsageNanoCores == nil || got.CPU.UsageNanoCores == nil {
		return errors.New("there is no rate of processor use")
	}
	volumes := map[string]float64{}
	for _, v := range got.Volume {
		volumes[v.Name] = float64(v.UsedBytes)
	}
	log := float64(0)
	for _, entry := range p.logFiles(t) {
		log += entry
	}
	return errors.Join(
		near("container's processor time", float64(c.CPU.UsageCoreNanoSeconds)/1e9, own.cpuSeconds, 0),
		near("container's memory", float64(c.Memory.UsageBytes), own.bytes, 0),
		near("container's working set", float64(c.Memory.WorkingSetBytes), own.workingSet, 0),
		near("container's anonymous memory", float64(c.Memory.RSSBytes), own.rss, 0),
		near("container's available memory", float64(c.Memory.AvailableBytes), 256*mib-own.workingSet, 0),
		near("pod's processor time", float64(got.CPU.UsageCoreNanoSeconds)/1e9, all.cpuSeconds, 0),
		near("pod's memory", float64(got.Memory.UsageBytes), all.bytes, 0),
		near("pod's working set", float64(got.Memory.WorkingSetBytes), all.workingSet, 0),
		near("pod's processes", float64(got.Processes.Count), all.procs, 0),
		near("container's writable layer", float64(c.Rootfs.UsedBytes), 24*mib, 0),
		near("container's log", float64(c.Logs.UsedBytes), log, page),
		near("volume on disk", volumes["disk"], 8*mib, 0),
		near("volume in memory", volumes["memory"], 48*mib, 0),
		// The volume in memory counts as memory, not as storage.
		near("pod's ephemeral storage", float64(got.EphemeralStorage.UsedBytes), 32*mib, 16*page),
	)
}

// logFiles are the sizes on disk of the pod's logs.
func (p *pod) logFiles(t *testing.T) (sizes []float64) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(p.node.kubelet.Logs, namespace+"_"+p.name+"_*", "main", "*.log"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("the pod's logs are %v, %v", paths, err)
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, float64(info.Size()))
	}
	return sizes
}

func compareMetrics(t *testing.T, got map[string]float64, pid int, secondUnit float64) error {
	t.Helper()
	own, all := usageOf(t, pid, false), usageOf(t, pid, true)
	return errors.Join(
		near("container_cpu_usage_seconds_total", got["container_cpu_usage_seconds_total main"], own.cpuSeconds, secondUnit),
		near("container_memory_usage_bytes", got["container_memory_usage_bytes main"], own.bytes, 0),
		near("container_memory_working_set_bytes", got["container_memory_working_set_bytes main"], own.workingSet, 0),
		near("container_memory_rss", got["container_memory_rss main"], own.rss, 0),
		near("container_processes", got["container_processes main"], own.procs, 0),
		near("container_spec_memory_limit_bytes", got["container_spec_memory_limit_bytes main"], 256*mib, 0),
		near("container_cpu_usage_seconds_total of the pod", got["container_cpu_usage_seconds_total "], all.cpuSeconds, secondUnit),
		near("container_memory_usage_bytes of the pod", got["container_memory_usage_bytes "], all.bytes, 0),
	)
}

// wantNetwork compares the traffic of the pod, of which it makes some, with its interface's own counters.
func (p *pod) wantNetwork(t *testing.T) {
	t.Helper()
	p.sh(t, "ping -c 3 -i 0.2 -s 1400 -q 10.88.0.1")
	eventually(t, p.name+": network", func() error {
		got, err := p.summary(t.Context())
		if err != nil {
			return err
		}
		if got.Network == nil || got.Network.Name != "eth0" {
			return fmt.Errorf("the pod's network is %+v", got.Network)
		}
		metrics, err := p.metrics(t.Context())
		if err != nil {
			return err
		}
		counters := strings.Fields(p.sh(t, "cat /sys/class/net/eth0/statistics/rx_bytes /sys/class/net/eth0/statistics/tx_bytes"))
		rx, tx := number(t, counters[0]), number(t, counters[1])
		return errors.Join(
			near("received", float64(got.Network.RxBytes), rx, 0),
			near("sent", float64(got.Network.TxBytes), tx, 0),
			near("container_network_receive_bytes_total", metrics["container_network_receive_bytes_total "], rx, 0),
			near("container_network_transmit_bytes_total", metrics["container_network_transmit_bytes_total "], tx, 0),
		)
	})
}
