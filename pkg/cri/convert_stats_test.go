package cri

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/ocispec"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/stats"
)

func statsRecord() container.Record {
	return container.Record{
		ID: "c1", SandboxID: "s1", Snapshotter: "overlayfs", State: container.StateRunning, PID: 7,
		StartedAt: time.Unix(90, 0),
		Spec: container.Spec{
			Metadata: container.Metadata{Name: "main", Attempt: 1},
			Labels:   map[string]string{"l": "1"}, Annotations: map[string]string{"a": "2"},
		},
	}
}

func statsReading() stats.Reading {
	return stats.Reading{
		At: time.Unix(100, 0),
		CPU: stats.CPU{Usage: 1, Pressure: &stats.Pressure{
			Some: &stats.PressureData{Avg10: 1.5, Avg60: 2.5, Avg300: 3.5, Total: 4},
			Full: &stats.PressureData{Total: 5},
		}},
		Memory:    &stats.Memory{Usage: 10, WorkingSet: 9, Limit: 100, RSS: 8, PageFaults: 7, MajorPageFaults: 6},
		Swap:      &stats.Swap{Usage: 3, Limit: stats.Unlimited},
		IO:        stats.IO{Pressure: &stats.Pressure{Some: &stats.PressureData{Total: 11}}},
		Processes: 12,
	}
}

func TestContainerStatsConversion(t *testing.T) {
	reading, rate := statsReading(), uint64(2)
	got := containerStats(statsRecord(), stats.ContainerUsage{
		Reading: &reading, NanoCores: &rate,
		Layer: &stats.Layer{Mountpoint: "/snapshots", Bytes: 20, Inodes: 21, At: time.Unix(95, 0)},
	})
	at := int64(100e9)
	want := &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{
			Id: "c1", Metadata: &runtimeapi.ContainerMetadata{Name: "main", Attempt: 1},
			Labels: map[string]string{"l": "1"}, Annotations: map[string]string{"a": "2"},
		},
		Cpu: &runtimeapi.CpuUsage{
			Timestamp: at, UsageCoreNanoSeconds: number(1), UsageNanoCores: number(2),
			Psi: &runtimeapi.PsiStats{Some: &runtimeapi.PsiData{Avg10: 1.5, Avg60: 2.5, Avg300: 3.5, Total: 4}, Full: &runtimeapi.PsiData{Total: 5}},
		},
		Memory: &runtimeapi.MemoryUsage{
			Timestamp: at, WorkingSetBytes: number(9), AvailableBytes: number(91), UsageBytes: number(10),
			RssBytes: number(8), PageFaults: number(7), MajorPageFaults: number(6),
		},
		Swap: &runtimeapi.SwapUsage{Timestamp: at, SwapUsageBytes: number(3)},
		Io:   &runtimeapi.IoUsage{Timestamp: at, Psi: &runtimeapi.PsiStats{Some: &runtimeapi.PsiData{Total: 11}}},
		WritableLayer: &runtimeapi.FilesystemUsage{
			Timestamp: 95e9, FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/snapshots"}, UsedBytes: number(20), InodesUsed: number(21),
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestStatsOfContainerThatDoesNotRun(t *testing.T) {
	got := containerStats(statsRecord(), stats.ContainerUsage{Layer: &stats.Layer{Bytes: 1}})
	if got.Cpu != nil || got.Memory != nil || got.Swap != nil || got.Io != nil || got.WritableLayer.GetUsedBytes().GetValue() != 1 {
		t.Errorf("stats are %v, want those of its layer alone", got)
	}
	if got := containerStats(statsRecord(), stats.ContainerUsage{}); got.WritableLayer != nil {
		t.Errorf("a layer that was not read yet is %v", got.WritableLayer)
	}
}

func TestPodSandboxStatsConversion(t *testing.T) {
	pod := statsPod{
		sandbox: sandbox.Record{ID: "s1", Spec: sandbox.Spec{
			Metadata: sandbox.Metadata{Name: "p", UID: "u", Namespace: "n", Attempt: 2},
			Labels:   map[string]string{"l": "1"}, Annotations: map[string]string{"a": "2"},
		}},
		containers: []container.Record{statsRecord()},
		target:     stats.Pod{NetNS: "/run/netns/x"},
	}
	reading := statsReading()
	reading.IO.Pressure, reading.CPU.Pressure = nil, nil
	got := podSandboxStats(pod, stats.PodUsage{
		Reading:    reading,
		Interfaces: []stats.Interface{{Name: "net1"}, {Name: "eth0", RxBytes: 1, RxErrors: 2, TxBytes: 3, TxErrors: 4}},
		Containers: []stats.ContainerUsage{{}},
	})
	at := int64(100e9)
	eth0 := &runtimeapi.NetworkInterfaceUsage{Name: "eth0", RxBytes: number(1), RxErrors: number(2), TxBytes: number(3), TxErrors: number(4)}
	net1 := &runtimeapi.NetworkInterfaceUsage{Name: "net1", RxBytes: number(0), RxErrors: number(0), TxBytes: number(0), TxErrors: number(0)}
	want := &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{
			Id: "s1", Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Uid: "u", Namespace: "n", Attempt: 2},
			Labels: map[string]string{"l": "1"}, Annotations: map[string]string{"a": "2"},
		},
		Linux: &runtimeapi.LinuxPodSandboxStats{
			Cpu: &runtimeapi.CpuUsage{Timestamp: at, UsageCoreNanoSeconds: number(1)},
			Memory: &runtimeapi.MemoryUsage{
				Timestamp: at, WorkingSetBytes: number(9), AvailableBytes: number(91), UsageBytes: number(10),
				RssBytes: number(8), PageFaults: number(7), MajorPageFaults: number(6),
			},
			Network:    &runtimeapi.NetworkUsage{Timestamp: at, DefaultInterface: eth0, Interfaces: []*runtimeapi.NetworkInterfaceUsage{net1, eth0}},
			Process:    &runtimeapi.ProcessUsage{Timestamp: at, ProcessCount: number(12)},
			Containers: []*runtimeapi.ContainerStats{containerStats(statsRecord(), stats.ContainerUsage{})},
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDefaultInterface(t *testing.T) {
	for _, tc := range []struct {
		names []string
		want  string
	}{
		{[]string{"net1", "eth0"}, "eth0"},
		{[]string{"net2", "net1"}, "net2"},
		{nil, ""},
	} {
		var list []stats.Interface
		for _, name := range tc.names {
			list = append(list, stats.Interface{Name: name})
		}
		if got := networkUsage(time.Unix(1, 0), list).GetDefaultInterface().GetName(); got != tc.want {
			t.Errorf("of %q the default is %q, want %q", tc.names, got, tc.want)
		}
	}
}

func TestHostNetworkHasNoNetworkStats(t *testing.T) {
	if got := podSandboxStats(statsPod{}, stats.PodUsage{}).Linux.Network; got != nil {
		t.Errorf("a pod in the host's network has %v", got)
	}
}

func TestStatsTargets(t *testing.T) {
	const kubelets = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podu.slice"
	for _, tc := range []struct {
		driver         ocispec.CgroupDriver
		parent         string
		pod, container string
	}{
		{ocispec.CgroupDriverCgroupfs, "/kubepods/burstable/podu", "/kubepods/burstable/podu", "/kubepods/burstable/podu/c1"},
		{ocispec.CgroupDriverCgroupfs, "", "", "/k8s.io/c1"},
		{ocispec.CgroupDriverSystemd, kubelets, kubelets, kubelets + "/cri-containerd-c1.scope"},
		{ocispec.CgroupDriverSystemd, "", "", "/system.slice/cri-containerd-c1.scope"},
	} {
		if got := podCgroup(tc.driver, tc.parent); got != tc.pod {
			t.Errorf("%s, parent %q: cgroup of the pod is %q, want %q", tc.driver, tc.parent, got, tc.pod)
		}
		got, err := statsContainer(tc.driver, tc.parent, statsRecord())
		want := stats.Container{ID: "c1", Cgroup: tc.container, Started: time.Unix(90, 0), PID: 7, Snapshotter: "overlayfs", Snapshot: "c1"}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s, parent %q: %v (-want +got):\n%s", tc.driver, tc.parent, err, diff)
		}
		ended := statsRecord()
		ended.State = container.StateExited
		if got, err := statsContainer(tc.driver, tc.parent, ended); err != nil || got.Cgroup != "" {
			t.Errorf("a container that has ended is looked for in %q (%v)", got.Cgroup, err)
		}
	}
}
