package main

import (
	"context"
	"time"

	"github.com/userns-shim/userns-shim/internal/forecast"
	"github.com/userns-shim/userns-shim/pkg/cri"
	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// forecaster tells the forecast what is free, at its pace.
type forecaster struct {
	pool    *idpool.Pool
	tracker *forecast.Tracker
}

// run works until ctx ends.
func (f forecaster) run(ctx context.Context) {
	ticker := time.NewTicker(f.tracker.Interval())
	defer ticker.Stop()
	for {
		f.sample(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (f forecaster) sample(now time.Time) {
	stats := f.pool.Stats()
	for name, s := range map[idpool.Segment]idpool.SegmentStats{idpool.SegmentPool: stats.Pool, idpool.SegmentKubelet: stats.Kubelet} {
		if s.Capacity > 0 {
			f.tracker.Observe(string(name), forecast.Sample{At: now, Count: s.Free})
		}
	}
}

// poolCapacity is the pool as CRI's status shows it.
func (d *daemon) poolCapacity() []cri.Capacity {
	stats := d.pool.Stats()
	return []cri.Capacity{
		{Segment: string(idpool.SegmentPool), Free: stats.Pool.Free, Total: stats.Pool.Capacity},
		{Segment: string(idpool.SegmentKubelet), Free: stats.Kubelet.Free, Total: stats.Kubelet.Capacity},
	}
}
