package idpool

import (
	"math/bits"
	"time"
)

// SegmentStats counts ranges of Unit ids. Capacity is the sum of the four that
// follow it.
type SegmentStats struct {
	Capacity    int
	Free        int // free, or in quarantine and waiting only for its age
	Allocated   int
	Quarantined int // traces are left, or nobody has looked yet
	Reserved    int

	Waiting        int           // in quarantine for their age alone: the part of Free that is not quite
	LargestFreeIDs uint64        // longest run of Free, in ids
	OldestResting  time.Duration // age of the oldest range in quarantine, 0 for none
	OldestHeld     time.Duration // and of those that count as Quarantined
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
	// Capacity and nothing Free, so that what is Waiting there is no part of it.
	External SegmentStats
	Counters Counters
}

// Stats counts the ledger. A slot that several entries touch, which only
// permissive claims and odd reservations bring about, counts once, as what keeps
// it from others most.
func (p *Pool) Stats() Stats {
	p.mu.RLock()
	defer p.mu.RUnlock()
	t := p.table
	stats := Stats{Counters: p.counters}
	var free, kubeletFree bitmap
	for w := range wordCount {
		own, theirs := t.own.words[w], t.theirs.words[w]
		free.words[w] = stats.Pool.count(&t.usage, w, own)
		kubeletFree.words[w] = stats.Kubelet.count(&t.usage, w, theirs)
		stats.External.count(&t.usage, w, ^(own | theirs))
	}
	stats.Pool.LargestFreeIDs = uint64(free.longestRun()) * Unit
	stats.Kubelet.LargestFreeIDs = uint64(kubeletFree.longestRun()) * Unit
	stats.External.Capacity, stats.External.Free = 0, 0 // nothing there is anybody's to give
	p.agesLocked(&stats)
	return stats
}

// count adds those of the 64 slots of word w that are in mask, and returns which
// of them are free.
func (s *SegmentStats) count(u *usage, w int, mask uint64) (free uint64) {
	left := mask
	take := func(as use) int {
		taken := left & u.in[as].words[w]
		left &^= taken
		return bits.OnesCount64(taken)
	}
	s.Capacity += bits.OnesCount64(mask)
	s.Allocated += take(useAllocated)
	s.Reserved += take(useReserved)
	s.Quarantined += take(useHeld)
	free = left
	s.Free += bits.OnesCount64(free)
	s.Waiting += take(useWaiting)
	return free
}

func (p *Pool) agesLocked(stats *Stats) {
	of := map[Segment]*SegmentStats{
		SegmentKubelet: &stats.Kubelet, SegmentPool: &stats.Pool, SegmentExternal: &stats.External,
	}
	age := func(q queue) time.Duration {
		if oldest := q.oldest(); oldest != nil {
			return p.clock.Since(oldest.Since)
		}
		return 0
	}
	for shelf := range shelfCount {
		s := of[shelf.segment()]
		held := age(p.table.resting.held[shelf])
		s.OldestHeld = max(s.OldestHeld, held)
		s.OldestResting = max(s.OldestResting, held, age(p.table.resting.waiting[shelf]))
	}
}
