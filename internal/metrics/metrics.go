// Package metrics holds the Prometheus metrics of the daemon and serves them. It reads the id
// pool when it is scraped and is told of calls and commits; it decides nothing.
package metrics

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const namespace = "userns_shim"

// Metrics are what the daemon counts. Its methods may be called concurrently.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	commits  *prometheus.HistogramVec
	leases   leaseMetrics
	foreign  foreignMetrics
}

// New returns metrics that read the pool through stats.
func New(version string, stats func() PoolStats) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace,
			Name:      "cri_request_duration_seconds",
			Help:      "How long CRI calls took, by method and gRPC code.",
			Buckets:   prometheus.ExponentialBuckets(0.001, 2.5, 12), // 1 ms to 24 s
		}, []string{"method", "code"}),
		commits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace,
			Name:      "state_commit_duration_seconds",
			Help:      "How long commits of the state database took, by outcome.",
			Buckets:   prometheus.ExponentialBuckets(0.0001, 2.5, 12), // 100 µs to 2.4 s
		}, []string{"outcome"}),
	}
	for _, outcome := range []string{"ok", "error"} {
		m.commits.WithLabelValues(outcome)
	}
	m.leases = newLeaseMetrics()
	m.foreign = newForeignMetrics()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: namespace,
		Name:      "build_info",
		Help:      "The version of this userns-shim; the value is always 1.",
	}, []string{"version"})
	build.WithLabelValues(version).Set(1)
	m.registry.MustRegister(m.leases.collectors()...)
	m.registry.MustRegister(m.foreign.collectors()...)
	m.registry.MustRegister(m.requests, m.commits, build, &poolCollector{stats: stats},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// ObserveRequest is told of each CRI call that ended.
func (m *Metrics) ObserveRequest(method, code string, took time.Duration) {
	m.requests.WithLabelValues(method, code).Observe(took.Seconds())
}

// ObserveCommit is told of each commit of the state database.
func (m *Metrics) ObserveCommit(took time.Duration, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	m.commits.WithLabelValues(outcome).Observe(took.Seconds())
}

// readTimeout bounds the headers of a scrape.
const readTimeout = 10 * time.Second

// writeTimeout bounds an answer, so that a reader who does not read holds none.
const writeTimeout = 30 * time.Second

// Serve answers scrapes of /metrics on the listener until ctx ends, and what asks for one of the pages, by path.
func (m *Metrics) Serve(ctx context.Context, listener net.Listener, pages map[string]http.Handler) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	for path, page := range pages {
		mux.Handle("GET "+path, page)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: readTimeout, WriteTimeout: writeTimeout}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
