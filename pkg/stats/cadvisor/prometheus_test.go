package cadvisor

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// collected serves metrics as kubelet does: descriptors first, each value with its descriptor.
type collected struct {
	descriptors []Descriptor
	metrics     []Metric
}

func (c collected) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descriptors {
		out <- prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
	}
}

func (c collected) Collect(out chan<- prometheus.Metric) {
	for _, m := range c.metrics {
		kind := prometheus.GaugeValue
		if m.Counter {
			kind = prometheus.CounterValue
		}
		metric, err := prometheus.NewConstMetric(prometheus.NewDesc(m.Name, m.Help, m.Labels, nil), kind, float64(m.Value), m.Values...)
		if err != nil {
			out <- prometheus.NewInvalidMetric(prometheus.NewDesc(m.Name, m.Help, m.Labels, nil), err)
			continue
		}
		out <- metric
	}
}

// The strict registry checks names, labels and that no series is there twice.
func TestPrometheusTakesEveryMetric(t *testing.T) {
	container, pod := everyMetric()
	all := slices.Concat(container, pod)
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(collected{New().Descriptors(), all}); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var series int
	for _, family := range families {
		series += len(family.Metric)
	}
	if series != len(all) {
		t.Errorf("Prometheus has %d series of %d metrics", series, len(all))
	}
}
