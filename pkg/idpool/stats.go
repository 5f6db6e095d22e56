package idpool

import "time"

// SegmentStats counts ranges of Unit ids. Capacity is the sum of the four that
// follow it.
type SegmentStats struct {
	Capacity    int
	Free        int // free, or in quarantine and waiting only for its age
	Allocated   int
	Quarantined int // traces are left
	Reserved    int

	Waiting        int           // the part of Free that is still in quarantine
	LargestFreeIDs uint64        // longest run of Free, in ids
	OldestResting  time.Duration // age of the oldest range in quarantine, 0 for none
}

// Counters count committed requests since Load.
type Counters struct {
	Acquired              uint64 // by Acquire, for a pod that held none
	Claimed               uint64 // by Claim, likewise
	ClaimedFromQuarantine uint64 // the part of Claimed that took a resting range
	Released              uint64 // ranges that went into quarantine
	EarlyReleases         uint64 // ranges that left quarantine before their age
}

func (c *Counters) add(d Counters) {
	c.Acquired += d.Acquired
	c.Claimed += d.Claimed
	c.ClaimedFromQuarantine += d.ClaimedFromQuarantine
	c.Released += d.Released
	c.EarlyReleases += d.EarlyReleases
}

func (c *Counters) sub(d Counters) {
	c.Acquired -= d.Acquired
	c.Claimed -= d.Claimed
	c.ClaimedFromQuarantine -= d.ClaimedFromQuarantine
	c.Released -= d.Released
	c.EarlyReleases -= d.EarlyReleases
}

// Stats is the pool at one moment.
type Stats struct {
	Kubelet SegmentStats
	Pool    SegmentStats
	// External counts what entries occupy outside both segments; it has no
	// Capacity and nothing Free.
	External SegmentStats
	Counters Counters
}

// Stats counts the ledger. A slot that several entries touch, which only
// permissive claims and odd reservations bring about, counts once, as what keeps
// it from others most.
func (p *Pool) Stats() Stats {
	p.mu.RLock()
	defer p.mu.RUnlock()
	stats := Stats{Counters: p.counters}
	ofPool, ofKubelet := *p.table.own, *p.table.theirs // what is free
	stats.Pool.Capacity, stats.Kubelet.Capacity = ofPool.count(), ofKubelet.count()
	uses := map[*entry]use{} // of entries with many slots, whose traces are looked up once
	for slot := p.table.busy.next(0); slot >= 0; slot = p.table.busy.next(slot + 1) {
		use := p.useLocked(slot, uses)
		switch {
		case ofPool.has(slot):
			stats.Pool.count(use, slot, &ofPool)
		case ofKubelet.has(slot):
			stats.Kubelet.count(use, slot, &ofKubelet)
		case use == useWaiting:
			stats.External.Quarantined++ // nothing there is anybody's to give
		default:
			stats.External.count(use, slot, &ofPool)
		}
	}
	stats.Pool.free(&ofPool)
	stats.Kubelet.free(&ofKubelet)
	p.agesLocked(&stats)
	return stats
}

// use is what a slot is used for, in the order of what keeps it from others
// more.
type use int

const (
	useWaiting use = iota
	useHeld
	useReserved
	useAllocated
)

func (p *Pool) useLocked(slot int, known map[*entry]use) use {
	strongest := useWaiting
	for _, e := range p.table.slots[slot] {
		this, ok := known[e]
		if !ok {
			this = p.use(e)
		}
		if !ok && e.Range.Length > Unit {
			known[e] = this
		}
		strongest = max(strongest, this)
	}
	return strongest
}

// use is what an entry makes of its slots.
func (p *Pool) use(e *entry) use {
	switch {
	case e.State == StateAllocated:
		return useAllocated
	case e.State == StateReserved:
		return useReserved
	case p.traces(e) != 0:
		return useHeld
	}
	return useWaiting
}

// count counts a slot that is in use, and takes it out of free unless it only
// waits for its age.
func (s *SegmentStats) count(u use, slot int, free *bitmap) {
	switch u {
	case useWaiting:
		s.Waiting++
		return
	case useHeld:
		s.Quarantined++
	case useReserved:
		s.Reserved++
	case useAllocated:
		s.Allocated++
	}
	free.clear(slot)
}

func (s *SegmentStats) free(free *bitmap) {
	s.Free, s.LargestFreeIDs = free.count(), uint64(free.longestRun())*Unit
}

func (p *Pool) agesLocked(stats *Stats) {
	for segment, s := range map[Segment]*SegmentStats{
		SegmentKubelet: &stats.Kubelet, SegmentPool: &stats.Pool, SegmentExternal: &stats.External,
	} {
		if oldest := p.table.resting[segment].Front(); oldest != nil {
			s.OldestResting = p.clock.Since(oldest.Value.(*entry).Since)
		}
	}
}
