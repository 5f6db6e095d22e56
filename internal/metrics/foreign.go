package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ForeignKinds are what owners are, and ForeignSources where they are looked for, as in package foreign.
var (
	ForeignKinds = []string{
		"namespace", "process", "pin-copy", "user", "group", "subuid", "subgid", "nsresource", "nspawn", "containers-storage", "lxc",
	}
	ForeignSources = []string{"processes", "mounts", "subordinate-ids", "nsresource", "nspawn", "containers-storage", "lxc", "name-service"}
)

// ForeignScan is the outcome of one look for foreign owners of ids.
type ForeignScan struct {
	Owners map[string]int // by kind, every kind
	Failed []string       // sources that were not read
	Took   time.Duration
}

// foreignMetrics tell of others that have ids of the pool.
type foreignMetrics struct {
	owners   *prometheus.GaugeVec
	failures *prometheus.CounterVec
	last     prometheus.Gauge
	took     prometheus.Gauge
}

func newForeignMetrics() foreignMetrics {
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: namespace, Subsystem: "idpool", Name: name, Help: help}
	}
	m := foreignMetrics{
		owners: prometheus.NewGaugeVec(gauge("foreign_owners",
			"Others on the node that have ids of the pool's extents or of a pod, as of the last scan, by kind of owner."), []string{"kind"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: "idpool", Name: "foreign_scan_failures_total",
			Help: "Sources that a scan for foreign owners could not read, or not in time, by source.",
		}, []string{"source"}),
		last: prometheus.NewGauge(gauge("foreign_scan_timestamp_seconds", "When the last scan for foreign owners ended, in seconds since 1970; 0 before the first.")),
		took: prometheus.NewGauge(gauge("foreign_scan_duration_seconds", "How long the last scan for foreign owners took.")),
	}
	for _, kind := range ForeignKinds {
		m.owners.WithLabelValues(kind)
	}
	for _, source := range ForeignSources {
		m.failures.WithLabelValues(source)
	}
	return m
}

func (m foreignMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.owners, m.failures, m.last, m.took}
}

// ObserveForeign is told of each scan for foreign owners of ids.
func (m *Metrics) ObserveForeign(s ForeignScan) {
	for kind, n := range s.Owners {
		m.foreign.owners.WithLabelValues(kind).Set(float64(n))
	}
	for _, source := range s.Failed {
		m.foreign.failures.WithLabelValues(source).Inc()
	}
	m.foreign.last.SetToCurrentTime()
	m.foreign.took.Set(s.Took.Seconds())
}
