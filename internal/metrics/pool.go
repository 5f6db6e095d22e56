package metrics

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Segment counts one segment of the pool, in ranges of 65,536 ids.
type Segment struct {
	Name                                   string // kubelet, pool or external
	Capacity                               int    // 0 for external, which has no extents
	Free, Allocated, Quarantined, Reserved int
	// Waiting counts what is in quarantine for its minimum age alone. In segments with extents it is a part of Free.
	Waiting int
	// Leaked counts what is not as the records say and was not repaired. It is no part of the capacity: such ranges
	// count as one of the four above too.
	Leaked         int
	LargestFreeIDs uint64
	// OldestQuarantine is the age of the oldest range in quarantine, OldestHeld that of those that count as Quarantined.
	OldestQuarantine, OldestHeld time.Duration
	// PredictedEmpty is when nothing is free any more if it goes on as of late, nil when nothing says so.
	PredictedEmpty *time.Duration
}

// External is the segment of what lies in no extent.
const External = "external"

// states are the segment's ranges by state. Every segment has all states, so that a query finds zeros and no gaps.
func (s Segment) states() map[string]int {
	states := map[string]int{
		"free": s.Free, "allocated": s.Allocated, "quarantined": s.Quarantined,
		"reserved": s.Reserved, "external": 0, "leaked": s.Leaked, "waiting": s.Waiting,
	}
	if s.Name == External {
		states["external"], states["allocated"] = s.Allocated, 0
	}
	return states
}

func (s Segment) emptyIn() float64 {
	if s.PredictedEmpty == nil {
		return math.Inf(1)
	}
	return s.PredictedEmpty.Seconds()
}

// PoolStats is the pool at one moment, with what was counted since the start.
type PoolStats struct {
	Segments          []Segment
	Acquired, Claimed uint64
	// ClaimedFromQuarantine is the part of Claimed that took a range that rested.
	ClaimedFromQuarantine uint64
	Released              uint64
	EarlyReleases         uint64
	// LeaksFound and LeaksRepaired are by kind of leak.
	LeaksFound, LeaksRepaired map[string]uint64
}

var (
	capacity = poolDesc("capacity_ranges", "Ranges of 65,536 ids that the segment's extents hold: kubelet draws from kubelet, userns-shim from pool.", "segment")
	inState  = poolDesc("ranges", "Ranges of 65,536 ids by state. Of quarantined ones traces are left, or nobody has looked yet. Waiting ones are in quarantine for their minimum age alone; "+
		"they are free ones too, but for those outside of both segments. "+
		"External ones are allocated outside of both segments. Leaked ones are in one of the other states too: records and node disagree about them, "+
		"and that was not repaired.", "segment", "state")
	largest       = poolDesc("largest_free_ids", "Length of the longest run of free ids.", "segment")
	oldest        = poolDesc("oldest_quarantine_age_seconds", "Age of the range that has been in quarantine for longest, 0 for none.", "segment")
	oldestHeld    = poolDesc("oldest_held_age_seconds", "Time in quarantine of the range that was there for longest of those in state quarantined, 0 for none. Ranges that only wait for their minimum age do not count.", "segment")
	predicted     = poolDesc("predicted_empty_seconds", "When the segment has nothing free any more if it goes on as of late, +Inf where nothing says that it will.", "segment")
	leased        = poolDesc("allocations_total", "Ranges that pods got, by who chose them: acquire for userns-shim, claim for the client.", "source")
	fromRest      = poolDesc("claims_from_quarantine_total", "Claimed ranges that rested in quarantine, and of whose last pod nothing was left or that pod itself came back.")
	released      = poolDesc("releases_total", "Ranges that went into quarantine when their pod's last sandbox was removed.")
	leaksFound    = poolDesc("leaks_found_total", "Leaks of ranges that were found, by kind: ledger, record, pin, process, layer or container.", "kind")
	leaksRepaired = poolDesc("leaks_repaired_total", "Leaks of ranges that were repaired, by kind.", "kind")
	early         = poolDesc("quarantine_early_releases_total", "Ranges that left quarantine before their minimum age, because the pool was under pressure or the client claimed them.")
)

func poolDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "idpool", name), help, labels, nil)
}

// poolCollector reads the pool once for each scrape.
type poolCollector struct {
	stats func() PoolStats
}

// Describe implements prometheus.Collector.
func (c *poolCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{capacity, inState, largest, oldest, oldestHeld, predicted, leased, fromRest, released, early, leaksFound, leaksRepaired} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *poolCollector) Collect(ch chan<- prometheus.Metric) {
	stats := c.stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for _, s := range stats.Segments {
		for state, n := range s.states() {
			gauge(inState, float64(n), s.Name, state)
		}
		gauge(oldest, s.OldestQuarantine.Seconds(), s.Name)
		gauge(oldestHeld, s.OldestHeld.Seconds(), s.Name)
		if s.Name == External {
			continue // it has no extents
		}
		gauge(capacity, float64(s.Capacity), s.Name)
		gauge(largest, float64(s.LargestFreeIDs), s.Name)
		gauge(predicted, s.emptyIn(), s.Name)
	}
	counter(leased, stats.Acquired, "acquire")
	counter(leased, stats.Claimed, "claim")
	counter(fromRest, stats.ClaimedFromQuarantine)
	counter(released, stats.Released)
	counter(early, stats.EarlyReleases)
	for kind, n := range stats.LeaksFound {
		counter(leaksFound, n, kind)
	}
	for kind, n := range stats.LeaksRepaired {
		counter(leaksRepaired, n, kind)
	}
}
