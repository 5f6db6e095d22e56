package cadvisor

import "github.com/userns-shim/userns-shim/pkg/stats"

// ofMemory makes a metric of a container with a memory controller.
func ofMemory(get func(*stats.Memory) uint64) func(*subject) []value {
	return func(s *subject) []value {
		if s.reading == nil || s.reading.Memory == nil {
			return nil
		}
		return one(get(s.reading.Memory))
	}
}

func memoryMetrics() []metric {
	all := []metric{
		gauge("container_memory_cache", "Memory that caches files, in bytes.",
			ofMemory(func(m *stats.Memory) uint64 { return m.Cache })),
		gauge("container_memory_rss", "Anonymous memory, in bytes.",
			ofMemory(func(m *stats.Memory) uint64 { return m.RSS })),
		gauge("container_memory_kernel_usage", "Memory that the kernel holds for the container, in bytes.",
			ofMemory(func(m *stats.Memory) uint64 { return m.Kernel })),
		gauge("container_memory_mapped_file", "Memory that maps files, in bytes.",
			ofMemory(func(m *stats.Memory) uint64 { return m.MappedFile })),
		gauge("container_memory_swap", "Swap in use, in bytes.", swapUsage),
		counter("container_memory_failcnt", "Times that the memory limit was hit; cgroup v1 only.",
			ofMemory(func(m *stats.Memory) uint64 { return m.FailCount })),
		gauge("container_memory_usage_bytes", "All memory in use, in bytes.",
			ofMemory(func(m *stats.Memory) uint64 { return m.Usage })),
		gauge("container_memory_max_usage_bytes", "The most memory that was ever in use, in bytes.",
			ofMemory(func(m *stats.Memory) uint64 { return m.Peak })),
		gauge("container_memory_working_set_bytes", "Memory in use apart from inactive file cache, in bytes.",
			ofMemory(func(m *stats.Memory) uint64 { return m.WorkingSet })),
		gauge("container_memory_total_active_file_bytes", "File cache that was used lately, in bytes.",
			ofMemory(func(m *stats.Memory) uint64 { return m.ActiveFile })),
		gauge("container_memory_total_inactive_file_bytes", "File cache that was not used lately, in bytes.",
			ofMemory(func(m *stats.Memory) uint64 { return m.InactiveFile })),
		counter("container_memory_failures_total", "Page faults.",
			pageFaults, "failure_type", "scope"),
		counter("container_oom_events_total", "Processes killed for want of memory.",
			ofMemory(func(m *stats.Memory) uint64 { return m.OOMKills })),
	}
	return append(all, pressureMetrics("memory", "memory", memoryPressure)...)
}

func memoryPressure(r *stats.Reading) *stats.Pressure {
	if r.Memory == nil {
		return nil
	}
	return r.Memory.Pressure
}

func swapUsage(s *subject) []value {
	if s.reading == nil || s.reading.Memory == nil {
		return nil
	}
	if s.reading.Swap == nil {
		return one(0)
	}
	return one(s.reading.Swap.Usage)
}

// pageFaults has the scopes of cAdvisor, which gives both the same numbers.
func pageFaults(s *subject) []value {
	if s.reading == nil || s.reading.Memory == nil {
		return nil
	}
	minor, major := s.reading.Memory.PageFaults, s.reading.Memory.MajorPageFaults
	return []value{
		{number: minor, labels: []string{"pgfault", "container"}},
		{number: major, labels: []string{"pgmajfault", "container"}},
		{number: minor, labels: []string{"pgfault", "hierarchy"}},
		{number: major, labels: []string{"pgmajfault", "hierarchy"}},
	}
}
