package stats

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Options are what a Collector needs; all are required.
type Options struct {
	Reader *Reader
	Layers LayerReader
	Clock  clock.PassiveClock
	Logger klog.Logger
}

// Collector puts together what containers and pods use. It is safe for concurrent use.
type Collector struct {
	reader *Reader
	clock  clock.PassiveClock
	rates  *rates
	layers *layers
}

// New returns a collector; Close ends it.
func New(opts Options) *Collector {
	return &Collector{
		reader: opts.Reader,
		clock:  opts.Clock,
		rates:  newRates(),
		layers: newLayers(opts.Layers, opts.Clock, opts.Logger),
	}
}

// Close waits for what is being read in the background.
func (c *Collector) Close() { c.layers.close() }

// Container says where to look.
type Container struct {
	ID string
	// Cgroup is below the root of the hierarchy; empty for a container that does not run, of
	// which only the layer is looked at.
	Cgroup                string
	Started               time.Time
	PID                   int
	Snapshotter, Snapshot string
}

// ContainerUsage is what a container uses.
type ContainerUsage struct {
	Reading   *Reading // nil for a container that does not run
	NanoCores *uint64  // nil where there is nothing to compare with
	Layer     *Layer   // nil until it was summed up once
	// Err is why Reading is nil for a container that runs; it wraps ErrGone when that has just changed.
	Err error
}

// Containers returns one result for each container.
func (c *Collector) Containers(ctx context.Context, list []Container) []ContainerUsage {
	keys := make([]layerKey, len(list))
	for i, ctr := range list {
		keys[i] = layerKey{ctr.Snapshotter, ctr.Snapshot}
	}
	layers := c.layers.get(ctx, keys)
	out := make([]ContainerUsage, len(list))
	for i, ctr := range list {
		out[i].Layer = layers[i]
		if ctr.Cgroup == "" {
			continue
		}
		reading, err := c.reader.Read(ctr.Cgroup)
		if err != nil {
			out[i].Err = err
			continue
		}
		out[i].Reading = &reading
		out[i].NanoCores = c.rate(ctr.ID, reading, ctr.Started)
	}
	return out
}

func (c *Collector) rate(id string, reading Reading, born time.Time) *uint64 {
	rate, ok := c.rates.observe(id, sample{at: reading.At, usage: reading.CPU.Usage}, born)
	if !ok {
		return nil
	}
	return &rate
}

// Pod says where to look.
type Pod struct {
	ID string
	// Cgroup is that which only this pod's containers are in; empty where there is none.
	Cgroup string
	// NetNS is the path of the pod's network namespace; empty for the host's.
	NetNS      string
	Containers []Container
}

// PodUsage is what a pod uses.
type PodUsage struct {
	// Reading is that of the pod's own cgroup, or else the sum of its containers'.
	Reading    Reading
	Own        bool
	NanoCores  *uint64
	Interfaces []Interface
	Containers []ContainerUsage
	// Err says that the pod could not be read; the rest is not set then.
	Err error
}

// Pods returns one result for each pod.
func (c *Collector) Pods(ctx context.Context, list []Pod) []PodUsage {
	var all []Container
	for _, pod := range list {
		all = append(all, pod.Containers...)
	}
	usages := c.Containers(ctx, all)
	out := make([]PodUsage, len(list))
	for i, pod := range list {
		n := len(pod.Containers)
		out[i] = c.pod(pod, usages[:n:n])
		usages = usages[n:]
	}
	return out
}

func (c *Collector) pod(pod Pod, containers []ContainerUsage) PodUsage {
	out := PodUsage{Containers: containers}
	if err := c.readPod(pod, &out); err != nil {
		return PodUsage{Err: err}
	}
	if pod.NetNS == "" {
		return out
	}
	var err error
	out.Interfaces, err = Interfaces(pod.NetNS)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("network namespace of pod %s: %w", pod.ID, ErrGone)
	}
	if err != nil {
		return PodUsage{Err: err}
	}
	return out
}

// readPod reads the pod's cgroup. A pod without one, or with one that no container was started
// in yet, uses what its containers use.
func (c *Collector) readPod(pod Pod, out *PodUsage) error {
	if pod.Cgroup != "" {
		reading, err := c.reader.Read(pod.Cgroup)
		if err != nil && !errors.Is(err, ErrGone) {
			return err
		}
		if err == nil {
			out.Reading, out.Own = reading, true
			out.NanoCores = c.rate(pod.ID, reading, time.Time{})
		}
	}
	if !out.Own {
		out.Reading = sum(out.Containers)
		out.Reading.At = c.clock.Now()
	}
	if out.NanoCores == nil {
		out.NanoCores = sumRates(out.Containers)
	}
	return nil
}

// sumRates has no result when a container's rate is missing: the sum would be too low.
func sumRates(containers []ContainerUsage) *uint64 {
	var total uint64
	for _, ctr := range containers {
		switch {
		case ctr.Reading == nil:
		case ctr.NanoCores == nil:
			return nil
		default:
			total += *ctr.NanoCores
		}
	}
	return &total
}

// sum adds up what can be added up: limits and pressure cannot.
func sum(containers []ContainerUsage) Reading {
	total := Reading{Memory: &Memory{Limit: Unlimited}, Swap: &Swap{Limit: Unlimited}}
	for _, ctr := range containers {
		r := ctr.Reading
		if r == nil {
			continue
		}
		total.CPU.Usage += r.CPU.Usage
		total.CPU.User += r.CPU.User
		total.CPU.System += r.CPU.System
		total.Processes += r.Processes
		if m := r.Memory; m != nil {
			total.Memory.Usage += m.Usage
			total.Memory.WorkingSet += m.WorkingSet
			total.Memory.RSS += m.RSS
			total.Memory.Cache += m.Cache
			total.Memory.PageFaults += m.PageFaults
			total.Memory.MajorPageFaults += m.MajorPageFaults
		}
		if r.Swap != nil {
			total.Swap.Usage += r.Swap.Usage
		}
	}
	return total
}
