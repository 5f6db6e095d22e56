package cadvisor

import (
	"slices"
	"time"

	"github.com/userns-shim/userns-shim/pkg/stats"
)

// Descriptor says what a metric is. Its first labels are the same for all.
type Descriptor struct {
	Name, Help string
	Labels     []string
	Counter    bool // a gauge otherwise
}

// Metric is one value. Labels has a value for each label of its descriptor, in the same order.
type Metric struct {
	Descriptor
	Values []string
	Value  uint64
	// At is when the value was read; the zero time means for this request.
	At time.Time
}

// baseLabels are what kubelet puts on all metrics of its cAdvisor.
var baseLabels = []string{"id", "name", "image", "namespace", "pod", "container"}

// Identity says whose metrics they are.
type Identity struct {
	Cgroup         string
	ID             string // of the container or of the sandbox
	Image          string // empty for a pod
	Namespace, Pod string
	Container      string // empty for a pod
}

func (id Identity) values() []string {
	return []string{id.Cgroup, id.ID, id.Image, id.Namespace, id.Pod, id.Container}
}

// subject is all that metrics are made of. Of a pod, only what it has a cgroup or a network for
// is set.
type subject struct {
	now        time.Time
	started    time.Time
	container  bool
	reading    *stats.Reading
	layer      *stats.Layer
	details    stats.Details
	interfaces []stats.Interface
}

// value is one of a metric's values, with those of its own labels.
type value struct {
	number uint64
	labels []string
	at     time.Time
}

// metric is a descriptor with the way to its values; none where there is nothing to tell.
type metric struct {
	Descriptor
	values func(s *subject) []value
}

func counter(name, help string, values func(*subject) []value, labels ...string) metric {
	m := gauge(name, help, values, labels...)
	m.Counter = true
	return m
}

func gauge(name, help string, values func(*subject) []value, labels ...string) metric {
	all := append(baseLabels[:len(baseLabels):len(baseLabels)], labels...)
	return metric{Descriptor: Descriptor{Name: name, Help: help, Labels: all}, values: values}
}

// one is a single value without labels of its own.
func one(number uint64, labels ...string) []value {
	return []value{{number: number, labels: labels}}
}

// finite leaves out what is not limited.
func finite(number uint64) []value {
	if number == stats.Unlimited {
		return nil
	}
	return one(number)
}

// zeroIfUnlimited is how cAdvisor shows a limit that is not set.
func zeroIfUnlimited(number uint64) []value {
	if number == stats.Unlimited {
		return one(0)
	}
	return one(number)
}

// seconds are whole ones: CRI's values are integers.
func seconds(nanos uint64) []value { return one(nanos / uint64(time.Second)) }

// Set is all metrics that there are.
type Set struct {
	metrics []metric
}

// New returns the set.
func New() *Set {
	return &Set{metrics: slices.Concat(
		lifeMetrics(), cpuMetrics(), memoryMetrics(), diskMetrics(), networkMetrics(), processMetrics(), limitMetrics(),
	)}
}

// Descriptors returns those of all metrics that there can be.
func (s *Set) Descriptors() []Descriptor {
	out := make([]Descriptor, len(s.metrics))
	for i, m := range s.metrics {
		out[i] = m.Descriptor
	}
	return out
}

// Container returns the metrics of a container that runs.
func (s *Set) Container(id Identity, started, now time.Time, usage stats.ContainerUsage, details stats.Details) []Metric {
	return s.of(id, &subject{
		now: now, started: started, container: true,
		reading: usage.Reading, layer: usage.Layer, details: details,
	})
}

// Pod returns those of a pod's own cgroup, where it has one, and of its network.
func (s *Set) Pod(id Identity, now time.Time, usage stats.PodUsage, details stats.Details) []Metric {
	pod := &subject{now: now, details: details, interfaces: usage.Interfaces}
	if usage.Own {
		pod.reading = &usage.Reading
	}
	return s.of(id, pod)
}

func (s *Set) of(id Identity, whose *subject) []Metric {
	base := id.values()
	var out []Metric
	for _, m := range s.metrics {
		for _, v := range m.values(whose) {
			values := append(base[:len(base):len(base)], v.labels...)
			out = append(out, Metric{Descriptor: m.Descriptor, Values: values, Value: v.number, At: v.at})
		}
	}
	return out
}
