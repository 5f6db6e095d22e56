package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// FailureReasons are why a pod gets no range.
var FailureReasons = []string{"exhausted", "fragmented", "conflict", "invalid", "io"}

// ConflictsWith are what a requested mapping meets. A pod is one that has the ids, ended one of which only stopped sandboxes have them, quarantine a range that rests, held another
// range of the same pod, host ids that no pod is given, and kernel those that it cannot map.
var ConflictsWith = []string{"pod", "ended", "quarantine", "reservation", "held", "host", "kernel"}

// leaseMetrics count requests for ranges. All of their series exist from the start, so that a rate over the first failure is seen.
type leaseMetrics struct {
	duration  prometheus.Histogram
	failures  *prometheus.CounterVec
	conflicts *prometheus.CounterVec
}

func newLeaseMetrics() leaseMetrics {
	m := leaseMetrics{
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace,
			Subsystem: "idpool",
			Name:      "allocation_duration_seconds",
			Help:      "How long the pool took to find a range for a pod, without the commit.",
			Buckets:   prometheus.ExponentialBuckets(2e-6, 4, 10), // 2 µs to 0.5 s
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace,
			Subsystem: "idpool",
			Name:      "allocation_failures_total",
			Help:      "Pods that got no range, by reason.",
		}, []string{"reason"}),
		conflicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace,
			Subsystem: "idpool",
			Name:      "conflicts_total",
			Help:      "Requested mappings that could not be given, by what they met; the pod got another range or none.",
		}, []string{"with"}),
	}
	for _, reason := range FailureReasons {
		m.failures.WithLabelValues(reason)
	}
	for _, with := range ConflictsWith {
		m.conflicts.WithLabelValues(with)
	}
	return m
}

func (m leaseMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.duration, m.failures, m.conflicts}
}

// ObserveLease is told of each request for a range. Conflict is one of ConflictsWith and failure one of FailureReasons, each empty
// for none.
func (m *Metrics) ObserveLease(took time.Duration, conflict, failure string) {
	m.leases.duration.Observe(took.Seconds())
	if conflict != "" {
		m.leases.conflicts.WithLabelValues(conflict).Inc()
	}
	if failure != "" {
		m.leases.failures.WithLabelValues(failure).Inc()
	}
}
