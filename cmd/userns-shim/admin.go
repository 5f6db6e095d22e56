package main

import (
	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/metrics"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
)

// poolView shows the id pool to the operator's commands, with the names of pods.
type poolView struct {
	pool      *idpool.Pool
	sandboxes *sandbox.Manager
}

var _ admin.Pool = poolView{}

// Status counts the ranges of each segment.
func (v poolView) Status() admin.PoolStatus {
	stats := v.pool.Stats()
	return admin.PoolStatus{Segments: []admin.Segment{
		segment(idpool.SegmentPool, stats.Pool),
		segment(idpool.SegmentKubelet, stats.Kubelet),
		segment(idpool.SegmentExternal, stats.External),
	}}
}

// poolStats is the pool as the metrics show it.
func (d *daemon) poolStats() metrics.PoolStats {
	stats := d.pool.Stats()
	out := metrics.PoolStats{
		Acquired:      stats.Counters.Acquired,
		Claimed:       stats.Counters.Claimed,
		EarlyReleases: stats.Counters.EarlyReleases,
	}
	for name, s := range map[idpool.Segment]idpool.SegmentStats{
		idpool.SegmentPool: stats.Pool, idpool.SegmentKubelet: stats.Kubelet, idpool.SegmentExternal: stats.External,
	} {
		out.Segments = append(out.Segments, metrics.Segment{
			Name:             string(name),
			Capacity:         s.Capacity,
			Free:             s.Free,
			Allocated:        s.Allocated,
			Quarantined:      s.Quarantined,
			Reserved:         s.Reserved,
			LargestFreeIDs:   s.LargestFreeIDs,
			OldestQuarantine: s.OldestResting,
		})
	}
	return out
}

func segment(name idpool.Segment, s idpool.SegmentStats) admin.Segment {
	return admin.Segment{
		Name:           string(name),
		Capacity:       s.Capacity,
		Free:           s.Free,
		Allocated:      s.Allocated,
		Quarantined:    s.Quarantined,
		Reserved:       s.Reserved,
		Resting:        s.Waiting,
		LargestFreeIDs: s.LargestFreeIDs,
	}
}

// Ranges lists what is not free.
func (v poolView) Ranges() []admin.Range {
	names := map[string]sandbox.Metadata{}
	for _, rec := range v.sandboxes.List() {
		names[rec.Spec.Metadata.UID] = rec.Spec.Metadata
	}
	list := v.pool.List()
	out := make([]admin.Range, 0, len(list))
	for _, a := range list {
		md := names[string(a.Pod)]
		out = append(out, admin.Range{
			Start:        a.Range.Start,
			Length:       a.Range.Length,
			State:        string(a.State),
			Segment:      string(a.Segment),
			Pod:          string(a.Pod),
			PodNamespace: md.Namespace,
			PodName:      md.Name,
			Sandboxes:    a.Sandboxes,
			Reservation:  a.Reservation,
			Since:        a.Since,
		})
	}
	return out
}
