package main

import (
	"iter"

	"github.com/userns-shim/userns-shim/internal/admin"
	"github.com/userns-shim/userns-shim/internal/statusz"
	"github.com/userns-shim/userns-shim/internal/version"
	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// keptEvents is how many of the pool's events the status page shows.
const keptEvents = 256

func (d *daemon) poolView() poolView {
	return poolView{db: d.db, pool: d.pool, sandboxes: d.sandboxes, leaks: d.leaks, tracker: d.tracker}
}

func (d *daemon) statusPage() *statusz.Handler {
	return statusz.New(statusz.Options{
		Version: version.Version,
		Started: d.started,
		Pool: func() statusz.Pool {
			leaked := map[string]int{}
			for _, s := range d.poolStats().Segments {
				leaked[s.Name] = s.Leaked
			}
			view := d.poolView()
			return pagePool(view.Status(), view.Ranges(), leaked)
		},
		History: d.history,
	})
}

// pagePool is the pool as the status page shows it.
func pagePool(status admin.PoolStatus, ranges iter.Seq[admin.Range], leaked map[string]int) statusz.Pool {
	of := map[string][]statusz.Range{}
	for r := range ranges {
		of[r.Segment] = append(of[r.Segment], statusz.Range{
			Extent: statusz.Extent{Start: uint64(r.Start), Length: uint64(r.Length)}, State: pageState(r), Owner: owner(r),
		})
	}
	var pool statusz.Pool
	for _, s := range status.Segments {
		page := statusz.Segment{
			Name: s.Name, Capacity: s.Capacity, Free: s.Free, Resting: s.Resting, Allocated: s.Allocated,
			Quarantined: s.Quarantined, Reserved: s.Reserved, Leak: leaked[s.Name], EmptyIn: emptyIn(s), Ranges: of[s.Name],
		}
		for _, e := range s.Extents {
			page.Extents = append(page.Extents, statusz.Extent{Start: uint64(e.Start), Length: uint64(e.Length)})
		}
		pool.Segments = append(pool.Segments, page)
	}
	return pool
}

// pageState tells ranges that only wait for their age from those of which traces are left.
func pageState(r admin.Range) string {
	if r.State == string(idpool.StateQuarantined) && len(r.Traces) == 0 {
		return "resting"
	}
	return r.State
}
