package cadvisor

import "github.com/userns-shim/userns-shim/pkg/stats"

func ofLimits(get func(stats.Limits) []value) func(*subject) []value {
	return func(s *subject) []value {
		if s.reading == nil {
			return nil
		}
		return get(s.details.Limits)
	}
}

func limitMetrics() []metric {
	return []metric{
		gauge("container_spec_cpu_period", "Period of the processor quota, in microseconds.",
			ofLimits(func(l stats.Limits) []value { return one(l.CPUPeriod) })),
		gauge("container_spec_cpu_quota", "Processor time allowed in each period, in microseconds.",
			ofLimits(func(l stats.Limits) []value {
				if l.CPUQuota == 0 {
					return nil
				}
				return finite(l.CPUQuota)
			})),
		gauge("container_spec_cpu_shares", "Share of the processors when they are contended.",
			ofLimits(func(l stats.Limits) []value { return one(l.CPUShares) })),
		gauge("container_spec_memory_limit_bytes", "Memory limit in bytes, 0 for none.",
			func(s *subject) []value {
				if s.reading == nil || s.reading.Memory == nil {
					return nil
				}
				return zeroIfUnlimited(s.reading.Memory.Limit)
			}),
		gauge("container_spec_memory_reservation_limit_bytes", "Reserved memory in bytes.",
			ofLimits(func(l stats.Limits) []value { return zeroIfUnlimited(l.MemoryReservation) })),
		gauge("container_spec_memory_swap_limit_bytes", "Swap limit in bytes, 0 for none; on cgroup v1 of memory and swap together.",
			ofLimits(func(l stats.Limits) []value { return zeroIfUnlimited(l.SwapLimit) })),
	}
}
