package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/forecast"
	"github.com/userns-shim/userns-shim/internal/metrics"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/reconcile"
	"github.com/userns-shim/userns-shim/pkg/sandbox"
	"github.com/userns-shim/userns-shim/pkg/state"
)

// poolView shows the id pool to the operator's commands, with the names of pods.
type poolView struct {
	db        *state.DB
	pool      *idpool.Pool
	sandboxes *sandbox.Manager
	leaks     *reconcile.Reconciler
	tracker   *forecast.Tracker
	look      func(context.Context) error // looks at what is left of ranges in quarantine
}

var _ admin.Pool = poolView{}

// Status counts the ranges of each segment.
func (v poolView) Status() admin.PoolStatus {
	stats := v.pool.Stats()
	return admin.PoolStatus{Segments: []admin.Segment{
		v.segment(idpool.SegmentPool, stats.Pool),
		v.segment(idpool.SegmentKubelet, stats.Kubelet),
		v.segment(idpool.SegmentExternal, stats.External),
	}}
}

// poolStats is the pool as the metrics show it.
func (d *daemon) poolStats() metrics.PoolStats {
	stats := d.pool.Stats()
	out := metrics.PoolStats{
		Acquired:      stats.Counters.Acquired,
		Claimed:       stats.Counters.Claimed,
		Released:      stats.Counters.Released,
		EarlyReleases: stats.Counters.EarlyReleases,

		ClaimedFromQuarantine: stats.Counters.ClaimedFromQuarantine,
	}
	leaked := d.leaks.Leaked()
	out.LeaksFound, out.LeaksRepaired = d.leakCounts()
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
			Leaked:           leaked[name],
			LargestFreeIDs:   s.LargestFreeIDs,
			Waiting:          s.Waiting,
			OldestQuarantine: s.OldestResting,
			OldestHeld:       s.OldestHeld,
			PredictedEmpty:   d.tracker.EmptyIn(string(name), time.Now()),
		})
	}
	return out
}

func (v poolView) segment(name idpool.Segment, s idpool.SegmentStats) admin.Segment {
	var extents []admin.Extent
	for _, r := range v.pool.Extents(name) {
		extents = append(extents, admin.Extent(r))
	}
	var empty *int64
	if in := v.tracker.EmptyIn(string(name), time.Now()); in != nil {
		seconds := int64(in.Seconds())
		empty = &seconds
	}
	return admin.Segment{
		Name:           string(name),
		Extents:        extents,
		Capacity:       s.Capacity,
		Free:           s.Free,
		Allocated:      s.Allocated,
		Quarantined:    s.Quarantined,
		Reserved:       s.Reserved,
		Resting:        s.Waiting,
		LargestFreeIDs: s.LargestFreeIDs,

		PredictedEmptySeconds: empty,
	}
}

// Ranges lists what is not free.
func (v poolView) Ranges() iter.Seq[admin.Range] {
	names, ofSandbox := map[string]sandbox.Metadata{}, map[string]sandbox.Metadata{}
	for _, rec := range v.sandboxes.List() {
		names[rec.Spec.Metadata.UID], ofSandbox[rec.ID] = rec.Spec.Metadata, rec.Spec.Metadata
	}
	return func(yield func(admin.Range) bool) {
		for a := range v.pool.All() {
			md := names[string(a.Pod)]
			told := yield(admin.Range{
				Start:        a.Range.Start,
				Length:       a.Range.Length,
				State:        string(a.State),
				Segment:      string(a.Segment),
				Pod:          string(a.Pod),
				PodNamespace: md.Namespace,
				PodName:      md.Name,
				Sandboxes:    a.Sandboxes,
				Reservation:  a.Reservation,
				UsedBy:       usedBy(a, ofSandbox),
				Since:        a.Since,
				Traces:       traces(a.Traces),
			})
			if !told {
				return
			}
		}
	}
}

// usedBy names the pods that share a reservation, each once.
func usedBy(a idpool.Allocation, ofSandbox map[string]sandbox.Metadata) []string {
	var pods []string
	for _, id := range a.Sandboxes {
		md, known := ofSandbox[id]
		if name := md.Namespace + "/" + md.Name; a.State == idpool.StateReserved && known && !slices.Contains(pods, name) {
			pods = append(pods, name)
		}
	}
	return pods
}

func traces(t idpool.Trace) []string {
	if t == 0 {
		return nil
	}
	return strings.Split(t.String(), ",")
}

// Reserve implements admin.Pool.
func (v poolView) Reserve(ctx context.Context, r admin.Reservation) error {
	if err := checkReservationName(r.Name); err != nil {
		return admin.Refuse(admin.ErrInvalid, err)
	}
	return v.update(ctx, func(b idpool.Bucket) error {
		return v.pool.Reserve(b, r.Name, idpool.Range{Start: r.Start, Length: r.Length})
	})
}

// Release implements admin.Pool.
func (v poolView) Release(ctx context.Context, r admin.Release) error {
	return v.update(ctx, func(b idpool.Bucket) error {
		if r.Name != "" {
			return v.pool.Unreserve(b, r.Name)
		}
		return v.pool.Discard(b, idpool.Range{Start: r.Start, Length: r.Length}, r.Force)
	})
}

// update changes the pool, and gives errors their kinds for the client. Where a resting range stands in the way of which nobody knows what is
// left, or not lately, the node is looked at first.
func (v poolView) update(ctx context.Context, change func(idpool.Bucket) error) error {
	err := v.try(change)
	if idpool.NeedsScan(err) {
		if unseen := v.look(ctx); unseen != nil {
			err = fmt.Errorf("%w; nobody could look again: %w", err, unseen)
		} else {
			v.pool.Review()
			err = v.try(change)
		}
	}
	for from, to := range map[error]error{
		idpool.ErrInvalid: admin.ErrInvalid, idpool.ErrNotFound: admin.ErrNotFound,
		idpool.ErrConflict: admin.ErrConflict, idpool.ErrInUse: admin.ErrConflict,
	} {
		if errors.Is(err, from) {
			return admin.Refuse(to, err)
		}
	}
	return err
}

func (v poolView) try(change func(idpool.Bucket) error) error {
	return v.db.Update(func(tx *state.Tx) error { return change(tx.Raw(sandbox.PoolBucket)) })
}
