package stats

import (
	"path/filepath"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/cgroups/v3/cgroup2/stats"
)

// version2 reads the one hierarchy of version 2.
type version2 struct {
	root string
}

func (v version2) dir(cgroup string) string { return filepath.Join(v.root, cgroup) }

func (v version2) read(cgroup string) (Reading, error) {
	// The library takes a cgroup that does not exist for one that uses nothing.
	dir := v.dir(cgroup)
	if !has(dir, "cgroup.procs") {
		return Reading{}, ErrGone
	}
	group, err := cgroup2.Load(cgroup, cgroup2.WithMountpoint(v.root))
	if err != nil {
		return Reading{}, err
	}
	metrics, err := group.StatFiltered(cgroup2.StatPids | cgroup2.StatCPU | cgroup2.StatMemory | cgroup2.StatMemoryEvents | cgroup2.StatIO)
	if err != nil {
		return Reading{}, err
	}
	out := fromVersion2(metrics)
	// Nor does it tell a counter that is 0 from one of a controller that is not enabled.
	if !has(dir, "memory.current") {
		out.Memory, out.Swap = nil, nil
	}
	if !has(dir, "memory.swap.current") {
		out.Swap = nil
	}
	if !has(dir, "pids.current") {
		out.Tasks = nil
	}
	if kernel, ok := readKey(dir, "memory.stat", "kernel"); ok && out.Memory != nil {
		out.Memory.Kernel = kernel
	}
	return out, nil
}

func (v version2) limits(cgroup string) Limits {
	dir := v.dir(cgroup)
	out := Limits{
		CPUShares:         shares(readNumber(dir, "cpu.weight")),
		MemoryReservation: readNumber(dir, "memory.min"),
		SwapLimit:         readNumber(dir, "memory.swap.max"),
	}
	data, err := slurp(filepath.Join(dir, "cpu.max"))
	if fields := strings.Fields(string(data)); err == nil && len(fields) == 2 {
		out.CPUQuota, out.CPUPeriod = parseNumber(fields[0]), parseNumber(fields[1])
	}
	return out
}

// shares puts a weight of 1-10000 on the scale of version 1, 2-262144, evenly as cAdvisor does.
// The ways from shares to weights that OCI runtimes go are several, and not even.
func shares(weight uint64) uint64 {
	if weight == 0 {
		return 0
	}
	return 2 + (min(weight, 10000)-1)*262142/9999
}

// fromVersion2 converts what the library reads; all of it includes the cgroups below.
func fromVersion2(m *stats.Metrics) Reading {
	cpu, mem := m.GetCPU(), m.GetMemory()
	const micro = 1000 // nanoseconds
	out := Reading{
		CPU: CPU{
			Usage:         cpu.GetUsageUsec() * micro,
			User:          cpu.GetUserUsec() * micro,
			System:        cpu.GetSystemUsec() * micro,
			Periods:       cpu.GetNrPeriods(),
			Throttled:     cpu.GetNrThrottled(),
			ThrottledTime: cpu.GetThrottledUsec() * micro,
			Pressure:      pressure(cpu.GetPSI()),
		},
		Memory: &Memory{
			Usage:      mem.GetUsage(),
			Peak:       mem.GetMaxUsage(),
			Limit:      mem.GetUsageLimit(),
			WorkingSet: mem.GetUsage() - min(mem.GetUsage(), mem.GetInactiveFile()),
			RSS:        mem.GetAnon(),
			Cache:      mem.GetFile(),
			// What there is before Linux 5.18, which counts everything.
			Kernel:          mem.GetKernelStack() + mem.GetSlab(),
			MappedFile:      mem.GetFileMapped(),
			ActiveFile:      mem.GetActiveFile(),
			InactiveFile:    mem.GetInactiveFile(),
			PageFaults:      mem.GetPgfault(),
			MajorPageFaults: mem.GetPgmajfault(),
			OOMKills:        m.GetMemoryEvents().GetOomKill(),
			Pressure:        pressure(mem.GetPSI()),
		},
		Swap:  &Swap{Usage: mem.GetSwapUsage(), Limit: mem.GetSwapLimit()},
		IO:    IO{Pressure: pressure(m.GetIo().GetPSI())},
		Tasks: &Tasks{Current: m.GetPids().GetCurrent(), Limit: m.GetPids().GetLimit()},
	}
	for _, d := range m.GetIo().GetUsage() {
		out.IO.Devices = append(out.IO.Devices, DeviceIO{
			Major: d.GetMajor(), Minor: d.GetMinor(),
			ReadBytes: d.GetRbytes(), WriteBytes: d.GetWbytes(),
			Reads: d.GetRios(), Writes: d.GetWios(),
		})
	}
	return out
}

func pressure(psi *stats.PSIStats) *Pressure {
	if psi == nil || psi.GetSome() == nil && psi.GetFull() == nil {
		return nil
	}
	return &Pressure{Some: pressureData(psi.GetSome()), Full: pressureData(psi.GetFull())}
}

func pressureData(d *stats.PSIData) *PressureData {
	if d == nil {
		return nil
	}
	return &PressureData{
		Avg10: d.GetAvg10(), Avg60: d.GetAvg60(), Avg300: d.GetAvg300(),
		Total: d.GetTotal() * 1000, // microseconds
	}
}
