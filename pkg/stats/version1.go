package stats

import (
	"errors"
	"os"
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
// The library reads all but the disk: of that it takes what is not recursive. OCI runtimes put
// containers into a hybrid machine's hierarchy of version 2 as well, which has their pressure.
type version1 struct {
	root       string
	subsystems []cgroup1.Subsystem
}

func newVersion1(root string) version1 {
	return version1{root: root, subsystems: []cgroup1.Subsystem{
		cgroup1.NewCpu(root),
		cgroup1.NewCpuacct(root),
		cgroup1.NewPids(root),
		cgroup1.NewMemory(root, cgroup1.IgnoreModules(missingModules(root)...)),
	}}
}

// missingModules names the counters of the memory controller that this kernel does not have:
// those of swap can be switched off, those of the kernel's memory are on their way out.
func missingModules(root string) []string {
	var missing []string
	for _, module := range []string{"memsw", "kmem", "kmem.tcp"} {
		for _, file := range []string{"usage_in_bytes", "max_usage_in_bytes", "failcnt", "limit_in_bytes"} {
			if !has(filepath.Join(root, "memory"), "memory."+module+"."+file) {
				missing = append(missing, module)
				break
			}
		}
	}
	return missing
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
	hierarchy := func() ([]cgroup1.Subsystem, error) { return v.subsystems, nil }
	group, err := cgroup1.Load(cgroup1.StaticPath(cgroup), cgroup1.WithHierarchy(hierarchy))
	if errors.Is(err, cgroup1.ErrCgroupDeleted) {
		return Reading{}, ErrGone
	}
	if err != nil {
		return Reading{}, err
	}
	metrics, err := group.Stat(cgroup1.IgnoreNotExist)
	if err != nil {
		return Reading{}, err
	}
	out := fromVersion1(metrics)
	out.Swap = v.swap(cgroup, metrics)
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

// swap takes the usage from memory.stat, which the library leaves out. The difference of its two
// counters, with and without swap, is off by what changed between their readings.
func (v version1) swap(cgroup string, m *stats.Metrics) *Swap {
	usage, ok := readKey(v.of("memory", cgroup), "memory.stat", "total_swap")
	if !ok || m.GetMemory() == nil {
		return nil
	}
	limit := limit1(m.GetMemory().GetSwap().GetLimit())
	if limit != Unlimited {
		limit -= min(limit, limit1(m.GetMemory().GetUsage().GetLimit()))
	}
	return &Swap{Usage: usage, Limit: limit}
}

// counts reads the first of the files that there is.
func (v version1) counts(cgroup string, files []string) []deviceCounts {
	for _, file := range files {
		if data, err := os.ReadFile(filepath.Join(v.of("blkio", cgroup), file)); err == nil {
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
			Kernel:          mem.GetKernel().GetUsage(),
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
