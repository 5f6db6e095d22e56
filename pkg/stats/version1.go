package stats

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup1/stats"
)

// unlimited1 is where version 1 says "no limit": the largest number of bytes that are whole
// pages, which depends on the size of a page.
const unlimited1 = 1 << 62

// The files that throttling keeps. The recursive ones are what a pod's cgroup needs, whose
// processes are all further down; kernels before 4.18 have only the others.
var (
	servicedFiles = []string{"blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"}
	bytesFiles    = []string{"blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"}
)

// version1 reads one hierarchy for each controller, as legacy and hybrid machines have them.
// The library reads the controllers one after another: its reading of a whole cgroup starts a
// goroutine for each, and of memory it would read four times the files that are looked at here. Of
// disks it reads what is not recursive. OCI runtimes put containers into a hybrid machine's
// hierarchy of version 2 as well, which has their pressure.
type version1 struct {
	root        string
	controllers []controller
}

// controller is one of the library's.
type controller interface {
	Stat(path string, to *stats.Metrics) error
}

func newVersion1(root string) version1 {
	return version1{root: root, controllers: []controller{
		cgroup1.NewCpu(root),
		cgroup1.NewCpuacct(root),
		cgroup1.NewPids(root),
		cgroup1.NewMemory(root, cgroup1.IgnoreModules("memsw", "kmem", "kmem.tcp")),
	}}
}

func (v version1) of(controller, cgroup string) string {
	return filepath.Join(v.root, controller, cgroup)
}

func (v version1) dir(cgroup string) string {
	for _, controller := range []string{"pids", "memory"} {
		if dir := v.of(controller, cgroup); has(dir, "") {
			return dir
		}
	}
	return v.of("cpuacct", cgroup)
}

func (v version1) read(cgroup string) (Reading, error) {
	metrics := &stats.Metrics{CPU: &stats.CPUStat{Usage: &stats.CPUUsage{}, Throttling: &stats.Throttle{}}}
	for _, c := range v.controllers {
		// This kernel, or this cgroup, may lack a controller.
		if err := c.Stat(cgroup, metrics); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Reading{}, err
		}
	}
	out := fromVersion1(metrics)
	if out.Memory != nil {
		out.Memory.Kernel = readNumber(v.of("memory", cgroup), "memory.kmem.usage_in_bytes")
		out.Swap = v.swap(cgroup, out.Memory.Limit)
	}
	out.IO.Devices = joinDevices(v.counts(cgroup, bytesFiles), v.counts(cgroup, servicedFiles))
	v.addPressure(cgroup, &out)
	return out, nil
}

func (v version1) addPressure(cgroup string, to *Reading) {
	unified := v.of("unified", cgroup)
	to.CPU.Pressure = readPressure(unified, "cpu.pressure")
	to.IO.Pressure = readPressure(unified, "io.pressure")
	if to.Memory != nil {
		to.Memory.Pressure = readPressure(unified, "memory.pressure")
	}
}

// swap takes the usage from memory.stat, which the library leaves out. The difference of the two
// counters, with and without swap, is off by what changed between their readings. A kernel that does
// not account swap has neither.
func (v version1) swap(cgroup string, memoryLimit uint64) *Swap {
	dir := v.of("memory", cgroup)
	usage, ok := readKey(dir, "memory.stat", "total_swap")
	if !ok {
		return nil
	}
	limit := limit1(readNumber(dir, "memory.memsw.limit_in_bytes"))
	if limit != Unlimited {
		limit -= min(limit, memoryLimit)
	}
	return &Swap{Usage: usage, Limit: limit}
}

// counts reads the first of the files that there is.
func (v version1) counts(cgroup string, files []string) []deviceCounts {
	for _, file := range files {
		if data, err := slurp(filepath.Join(v.of("blkio", cgroup), file)); err == nil {
			return parseDeviceCounts(data)
		}
	}
	return nil
}

func (v version1) limits(cgroup string) Limits {
	cpu, memory := v.of("cpu", cgroup), v.of("memory", cgroup)
	return Limits{
		CPUShares:         readNumber(cpu, "cpu.shares"),
		CPUPeriod:         readNumber(cpu, "cpu.cfs_period_us"),
		CPUQuota:          readNumber(cpu, "cpu.cfs_quota_us"),
		MemoryReservation: limit1(readNumber(memory, "memory.soft_limit_in_bytes")),
		SwapLimit:         limit1(readNumber(memory, "memory.memsw.limit_in_bytes")),
	}
}

// fromVersion1 converts what the library reads. Only the counters whose names begin with
// "total" include the cgroups below.
func fromVersion1(m *stats.Metrics) Reading {
	out := Reading{CPU: CPU{
		Usage:         m.GetCPU().GetUsage().GetTotal(),
		User:          m.GetCPU().GetUsage().GetUser(),
		System:        m.GetCPU().GetUsage().GetKernel(),
		Periods:       m.GetCPU().GetThrottling().GetPeriods(),
		Throttled:     m.GetCPU().GetThrottling().GetThrottledPeriods(),
		ThrottledTime: m.GetCPU().GetThrottling().GetThrottledTime(),
	}}
	if pids := m.GetPids(); pids != nil {
		out.Tasks = &Tasks{Current: pids.GetCurrent(), Limit: pids.GetLimit()}
		if pids.GetLimit() == 0 { // the library's "max"
			out.Tasks.Limit = Unlimited
		}
	}
	if mem := m.GetMemory(); mem != nil {
		usage := mem.GetUsage()
		out.Memory = &Memory{
			Usage:           usage.GetUsage(),
			Peak:            usage.GetMax(),
			Limit:           limit1(usage.GetLimit()),
			WorkingSet:      usage.GetUsage() - min(usage.GetUsage(), mem.GetTotalInactiveFile()),
			RSS:             mem.GetTotalRSS(),
			Cache:           mem.GetTotalCache(),
			MappedFile:      mem.GetTotalMappedFile(),
			ActiveFile:      mem.GetTotalActiveFile(),
			InactiveFile:    mem.GetTotalInactiveFile(),
			PageFaults:      mem.GetTotalPgFault(),
			MajorPageFaults: mem.GetTotalPgMajFault(),
			FailCount:       usage.GetFailcnt(),
			OOMKills:        m.GetMemoryOomControl().GetOomKill(),
		}
	}
	return out
}

func limit1(bytes uint64) uint64 {
	if bytes > unlimited1 {
		return Unlimited
	}
	return bytes
}

// joinDevices puts the two files of each device together.
func joinDevices(bytes, operations []deviceCounts) []DeviceIO {
	var out []DeviceIO
	for _, b := range bytes {
		d := DeviceIO{Major: b.major, Minor: b.minor, ReadBytes: b.reads, WriteBytes: b.writes}
		for _, o := range operations {
			if o.major == b.major && o.minor == b.minor {
				d.Reads, d.Writes = o.reads, o.writes
			}
		}
		out = append(out, d)
	}
	return out
}
