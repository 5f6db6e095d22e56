package cadvisor

import "github.com/userns-shim/userns-shim/pkg/stats"

// ofFiles makes a metric of a container's open files; a pod's are not counted again.
func ofFiles(get func(stats.Files) []value) func(*subject) []value {
	return func(s *subject) []value {
		if !s.container {
			return nil
		}
		return get(s.details.Files)
	}
}

func ofTasks(get func(*stats.Tasks) []value) func(*subject) []value {
	return func(s *subject) []value {
		if s.reading == nil || s.reading.Tasks == nil {
			return nil
		}
		return get(s.reading.Tasks)
	}
}

func processMetrics() []metric {
	return []metric{
		gauge("container_processes", "Processes.",
			func(s *subject) []value {
				if s.reading == nil {
					return nil
				}
				return one(s.reading.Processes)
			}),
		gauge("container_file_descriptors", "Open file descriptors of all processes.",
			ofFiles(func(f stats.Files) []value { return one(f.Descriptors) })),
		gauge("container_sockets", "Open sockets of all processes.",
			ofFiles(func(f stats.Files) []value { return one(f.Sockets) })),
		gauge("container_threads_max", "The most threads allowed, 0 for no limit.",
			ofTasks(func(t *stats.Tasks) []value { return zeroIfUnlimited(t.Limit) })),
		gauge("container_threads", "Threads.",
			ofTasks(func(t *stats.Tasks) []value { return one(t.Current) })),
		gauge("container_ulimits_soft", "Soft resource limits of the first process.",
			ofFiles(func(f stats.Files) []value {
				if f.Limit == 0 || f.Limit == stats.Unlimited {
					return nil
				}
				return one(f.Limit, "max_open_files")
			}), "ulimit"),
	}
}
