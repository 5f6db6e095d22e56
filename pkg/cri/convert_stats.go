package cri

import (
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/userns-shim/userns-shim/pkg/container"
	"github.com/userns-shim/userns-shim/pkg/stats"
)

// defaultInterface is the name that CNI plugins give to a pod's first interface.
const defaultInterface = "eth0"

func containerStats(rec container.Record, usage stats.ContainerUsage) *runtimeapi.ContainerStats {
	out := &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{
			Id:          rec.ID,
			Metadata:    containerMetadata(rec),
			Labels:      rec.Spec.Labels,
			Annotations: rec.Spec.Annotations,
		},
		WritableLayer: layerUsage(usage.Layer),
	}
	if r := usage.Reading; r != nil {
		out.Cpu = cpuUsage(r, usage.NanoCores)
		out.Memory = memoryUsage(r)
		out.Swap = swapUsage(r)
		out.Io = ioUsage(r)
	}
	return out
}

func podSandboxStats(pod statsPod, usage stats.PodUsage) *runtimeapi.PodSandboxStats {
	rec, r := pod.sandbox, &usage.Reading
	linux := &runtimeapi.LinuxPodSandboxStats{
		Cpu:     cpuUsage(r, usage.NanoCores),
		Memory:  memoryUsage(r),
		Io:      ioUsage(r),
		Process: &runtimeapi.ProcessUsage{Timestamp: r.At.UnixNano(), ProcessCount: number(r.Processes)},
	}
	if pod.target.NetNS != "" {
		linux.Network = networkUsage(r.At, usage.Interfaces)
	}
	for i, ctr := range usage.Containers {
		linux.Containers = append(linux.Containers, containerStats(pod.containers[i], ctr))
	}
	md := rec.Spec.Metadata
	return &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{
			Id:          rec.ID,
			Metadata:    &runtimeapi.PodSandboxMetadata{Name: md.Name, Uid: md.UID, Namespace: md.Namespace, Attempt: md.Attempt},
			Labels:      rec.Spec.Labels,
			Annotations: rec.Spec.Annotations,
		},
		Linux: linux,
	}
}

func cpuUsage(r *stats.Reading, nanoCores *uint64) *runtimeapi.CpuUsage {
	out := &runtimeapi.CpuUsage{
		Timestamp:            r.At.UnixNano(),
		UsageCoreNanoSeconds: number(r.CPU.Usage),
		Psi:                  psiStats(r.CPU.Pressure),
	}
	if nanoCores != nil {
		out.UsageNanoCores = number(*nanoCores)
	}
	return out
}

// memoryUsage leaves available_bytes out where no limit is set, as kubelet does with its own.
func memoryUsage(r *stats.Reading) *runtimeapi.MemoryUsage {
	m := r.Memory
	if m == nil {
		return nil
	}
	return &runtimeapi.MemoryUsage{
		Timestamp:       r.At.UnixNano(),
		WorkingSetBytes: number(m.WorkingSet),
		AvailableBytes:  numberIf(m.Available()),
		UsageBytes:      number(m.Usage),
		RssBytes:        number(m.RSS),
		PageFaults:      number(m.PageFaults),
		MajorPageFaults: number(m.MajorPageFaults),
		Psi:             psiStats(m.Pressure),
	}
}

func swapUsage(r *stats.Reading) *runtimeapi.SwapUsage {
	if r.Swap == nil {
		return nil
	}
	return &runtimeapi.SwapUsage{
		Timestamp:          r.At.UnixNano(),
		SwapAvailableBytes: numberIf(r.Swap.Available()),
		SwapUsageBytes:     number(r.Swap.Usage),
	}
}

// ioUsage is pressure alone: CRI has no more.
func ioUsage(r *stats.Reading) *runtimeapi.IoUsage {
	if r.IO.Pressure == nil {
		return nil
	}
	return &runtimeapi.IoUsage{Timestamp: r.At.UnixNano(), Psi: psiStats(r.IO.Pressure)}
}

func psiStats(p *stats.Pressure) *runtimeapi.PsiStats {
	if p == nil {
		return nil
	}
	return &runtimeapi.PsiStats{Full: psiData(p.Full), Some: psiData(p.Some)}
}

func psiData(d *stats.PressureData) *runtimeapi.PsiData {
	if d == nil {
		return nil
	}
	return &runtimeapi.PsiData{Total: d.Total, Avg10: d.Avg10, Avg60: d.Avg60, Avg300: d.Avg300}
}

func layerUsage(l *stats.Layer) *runtimeapi.FilesystemUsage {
	if l == nil {
		return nil
	}
	return &runtimeapi.FilesystemUsage{
		Timestamp:  l.At.UnixNano(),
		FsId:       &runtimeapi.FilesystemIdentifier{Mountpoint: l.Mountpoint},
		UsedBytes:  number(l.Bytes),
		InodesUsed: number(l.Inodes),
	}
}

func networkUsage(at time.Time, interfaces []stats.Interface) *runtimeapi.NetworkUsage {
	out := &runtimeapi.NetworkUsage{Timestamp: at.UnixNano()}
	for _, i := range interfaces {
		out.Interfaces = append(out.Interfaces, &runtimeapi.NetworkInterfaceUsage{
			Name:     i.Name,
			RxBytes:  number(i.RxBytes),
			RxErrors: number(i.RxErrors),
			TxBytes:  number(i.TxBytes),
			TxErrors: number(i.TxErrors),
		})
	}
	first := slices.IndexFunc(interfaces, func(i stats.Interface) bool { return i.Name == defaultInterface })
	if len(interfaces) > 0 {
		out.DefaultInterface = out.Interfaces[max(first, 0)]
	}
	return out
}

func number(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }

func numberIf(n uint64, known bool) *runtimeapi.UInt64Value {
	if !known {
		return nil
	}
	return number(n)
}
