package main

import (
	"iter"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/statusz"
	"github.com/userns-shim/userns-shim/internal/version"
	"github.com/userns-shim/userns-shim/pkg/idpool"
	"github.com/userns-shim/userns-shim/pkg/reconcile"
)

// keptEvents is how many of the pool's events the status page shows.
const keptEvents = 256

func (d *daemon) poolView() poolView {
	return poolView{db: d.db, pool: d.pool, sandboxes: d.sandboxes, leaks: d.leaks, tracker: d.tracker, look: d.witness.Look}
}

func (d *daemon) statusPage() *statusz.Handler {
	return statusz.New(statusz.Options{
		Version: version.Version,
		Started: d.started,
		Pool: func() statusz.Pool {
			leaked := map[string]int{}
			for segment, n := range d.leaks.Leaked() {
				leaked[string(segment)] = n
			}
			view := d.poolView()
			return pagePool(view.Status(), view.Ranges(), leaked, leakedRanges(d.leaks.Findings()))
		},
		History: d.history,
	})
}

// leakedRanges are those about which node and ledger disagree still.
func leakedRanges(report reconcile.Report) []statusz.Range {
	var out []statusz.Range
	for _, f := range report.Findings {
		if !f.Repaired() && f.Range.Length > 0 {
			out = append(out, statusz.Range{Extent: pageExtent(f.Range.Start, f.Range.Length), State: "leaked", Owner: f.Found})
		}
	}
	return out
}

func pageExtent(start, length uint32) statusz.Extent {
	return statusz.Extent{Start: uint64(start), Length: uint64(length)}
}

// pagePool is the pool as the status page shows it.
func pagePool(status admin.PoolStatus, ranges iter.Seq[admin.Range], leaked map[string]int, leaks []statusz.Range) statusz.Pool {
	of := map[string][]statusz.Range{}
	for r := range ranges {
		of[r.Segment] = append(of[r.Segment], statusz.Range{Extent: pageExtent(r.Start, r.Length), State: pageState(r), Owner: owner(r)})
	}
	for _, r := range leaks {
		segment := segmentAt(status, r.Start)
		of[segment] = append(of[segment], r)
	}
	var pool statusz.Pool
	for _, s := range status.Segments {
		page := statusz.Segment{
			Name: s.Name, Capacity: s.Capacity, Free: s.Free, Resting: s.Resting, Allocated: s.Allocated,
			Quarantined: s.Quarantined, Reserved: s.Reserved, Leak: leaked[s.Name], EmptyIn: emptyIn(s), Ranges: of[s.Name],
		}
		for _, e := range s.Extents {
			page.Extents = append(page.Extents, pageExtent(e.Start, e.Length))
		}
		pool.Segments = append(pool.Segments, page)
	}
	return pool
}

// segmentAt is the segment that an id lies in, as the ledger tells segments.
func segmentAt(status admin.PoolStatus, id uint64) string {
	for _, s := range status.Segments {
		for _, e := range s.Extents {
			if id >= uint64(e.Start) && id-uint64(e.Start) < uint64(e.Length) {
				return s.Name
			}
		}
	}
	return string(idpool.SegmentExternal)
}

// pageState tells ranges that only wait for their age from those of which traces are left.
func pageState(r admin.Range) string {
	if r.State == string(idpool.StateQuarantined) && len(r.Traces) == 0 {
		return "resting"
	}
	return r.State
}
