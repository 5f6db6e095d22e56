package cadvisor

import "github.com/userns-shim/userns-shim/pkg/stats"

func lifeMetrics() []metric {
	return []metric{
		gauge("container_last_seen", "Unix time at which the container was last seen.",
			func(s *subject) []value {
				if s.reading == nil {
					return nil
				}
				return one(uint64(s.now.Unix()))
			}),
		gauge("container_start_time_seconds", "Unix time at which the container was started.",
			func(s *subject) []value {
				if !s.container {
					return nil
				}
				return one(uint64(s.started.Unix()))
			}),
	}
}

// ofCPU makes a metric of processor time.
func ofCPU(get func(stats.CPU) []value) func(*subject) []value {
	return func(s *subject) []value {
		if s.reading == nil {
			return nil
		}
		return get(s.reading.CPU)
	}
}

// ofQuota is for what is only counted while there is a quota.
func ofQuota(get func(stats.CPU) []value) func(*subject) []value {
	return func(s *subject) []value {
		if s.reading == nil || s.details.Limits.CPUQuota == 0 || s.details.Limits.CPUQuota == stats.Unlimited {
			return nil
		}
		return get(s.reading.CPU)
	}
}

func cpuMetrics() []metric {
	all := []metric{
		counter("container_cpu_user_seconds_total", "Processor time spent in user mode, in seconds.",
			ofCPU(func(c stats.CPU) []value { return seconds(c.User) })),
		counter("container_cpu_system_seconds_total", "Processor time spent in the kernel, in seconds.",
			ofCPU(func(c stats.CPU) []value { return seconds(c.System) })),
		counter("container_cpu_usage_seconds_total", "Processor time spent, in seconds.",
			ofCPU(func(c stats.CPU) []value {
				v := seconds(c.Usage)
				v[0].labels = []string{"total"} // of all processors
				return v
			}), "cpu"),
		counter("container_cpu_cfs_periods_total", "Periods in which the processor quota was enforced.",
			ofQuota(func(c stats.CPU) []value { return one(c.Periods) })),
		counter("container_cpu_cfs_throttled_periods_total", "Periods in which the processor quota ran out.",
			ofQuota(func(c stats.CPU) []value { return one(c.Throttled) })),
		counter("container_cpu_cfs_throttled_seconds_total", "Time spent waiting for the next period after the processor quota ran out.",
			ofQuota(func(c stats.CPU) []value { return seconds(c.ThrottledTime) })),
	}
	return append(all, pressureMetrics("cpu", "a processor", func(r *stats.Reading) *stats.Pressure { return r.CPU.Pressure })...)
}

// pressureMetrics are "stalled", when no task could go on, and "waiting", when at least one
// could not.
func pressureMetrics(name, what string, of func(*stats.Reading) *stats.Pressure) []metric {
	total := func(pick func(*stats.Pressure) *stats.PressureData) func(*subject) []value {
		return func(s *subject) []value {
			if s.reading == nil || of(s.reading) == nil || pick(of(s.reading)) == nil {
				return nil
			}
			return seconds(pick(of(s.reading)).Total)
		}
	}
	return []metric{
		counter("container_pressure_"+name+"_stalled_seconds_total",
			"Time in which all tasks waited for "+what+", in seconds.",
			total(func(p *stats.Pressure) *stats.PressureData { return p.Full })),
		counter("container_pressure_"+name+"_waiting_seconds_total",
			"Time in which some task waited for "+what+", in seconds.",
			total(func(p *stats.Pressure) *stats.PressureData { return p.Some })),
	}
}
