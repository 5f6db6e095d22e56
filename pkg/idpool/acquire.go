package idpool

import (
	"fmt"
	"slices"
)

// Acquire gives the pod a range of ids host ids out of the pool's own extents,
// for the sandbox to use, and records it in b. It returns the range that the pod
// holds already when that has the same length; the sandbox then joins its users,
// once however often it asks.
//
// The search goes on where the last one ended, so that a range is used again as
// late as possible. When nothing is free, the range that has rested longest and
// of which no trace is left is taken out of quarantine.
//
// Errors: ErrInvalid (ids is no multiple of Unit, an empty name, the sandbox is
// another pod's), ErrPodHolds, ErrExhausted (an *ExhaustedError), and those of b.
func (p *Pool) Acquire(b Bucket, pod PodUID, sandbox string, ids uint32) (Range, error) {
	if ids == 0 || ids%Unit != 0 {
		return Range{}, fmt.Errorf("acquire %d ids for pod %s: not a multiple of %d: %w", ids, pod, Unit, ErrInvalid)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	held, err := p.heldLocked(pod, sandbox)
	if err != nil {
		return Range{}, fmt.Errorf("acquire range for pod %s: %w", pod, err)
	}
	if held != nil {
		if held.Range.Length != ids {
			return Range{}, fmt.Errorf("acquire %d ids for pod %s, which holds %s: %w", ids, pod, held.Range, ErrPodHolds)
		}
		return held.Range, p.joinLocked(b, held, sandbox)
	}
	n := int(ids / Unit)
	slot, drop, err := p.findLocked(n)
	if err != nil {
		return Range{}, fmt.Errorf("acquire range for pod %s: %w", pod, err)
	}
	r := slotRange(slot, n)
	pl := newPlan()
	pl.drop = drop
	pl.put = []*entry{p.allocationLocked(r, pod, sandbox)}
	pl.cursor = (slot + n) % slotCount
	pl.count = Counters{Acquired: 1, EarlyReleases: p.young(drop)}
	if err := p.applyLocked(b, pl); err != nil {
		return Range{}, fmt.Errorf("acquire range %s for pod %s: %w", r, pod, err)
	}
	return r, nil
}

// heldLocked returns the entry that the pod holds, nil for none, and ErrInvalid
// when pod or sandbox is empty or the sandbox uses another entry.
func (p *Pool) heldLocked(pod PodUID, sandbox string) (*entry, error) {
	if pod == "" || sandbox == "" {
		return nil, fmt.Errorf("pod UID %q, sandbox %q: empty: %w", pod, sandbox, ErrInvalid)
	}
	held, used := p.table.byPod[pod], p.table.bySandbox[sandbox]
	if used != nil && used != held {
		return nil, fmt.Errorf("sandbox %s uses range %s of another holder: %w", sandbox, used.Range, ErrInvalid)
	}
	return held, nil
}

// joinLocked adds the sandbox to the users of e, unless it is one.
func (p *Pool) joinLocked(b Bucket, e *entry, sandbox string) error {
	if slices.Contains(e.Sandboxes, sandbox) {
		return nil
	}
	joined := e.record
	joined.Sandboxes = append(slices.Clone(e.Sandboxes), sandbox)
	pl := newPlan()
	pl.drop, pl.put = []*entry{e}, []*entry{p.newEntry(joined)}
	if err := p.applyLocked(b, pl); err != nil {
		return fmt.Errorf("add sandbox %s to range %s: %w", sandbox, e.Range, err)
	}
	return nil
}

func (p *Pool) allocationLocked(r Range, pod PodUID, sandbox string) *entry {
	return p.newEntry(record{
		Range: r, State: StateAllocated, Pod: pod, Sandboxes: []string{sandbox}, Since: p.clock.Now(),
	})
}

// young counts the entries that leave quarantine before their time.
func (p *Pool) young(drop []*entry) uint64 {
	var n uint64
	for _, e := range drop {
		if !p.rested(e) {
			n++
		}
	}
	return n
}

// findLocked returns the first of n slots in a row to give away, and the
// quarantined entries that must go for it.
func (p *Pool) findLocked(n int) (slot int, drop []*entry, err error) {
	if slot := p.table.avail.findRun(p.cursor, n); slot >= 0 {
		return slot, nil, nil
	}
	// What is taken out of quarantine was found clear by the last Review, and is
	// asked for once more, because the Witness may know better by now. A range of
	// which it does is not open any more, so that the search goes on without it.
	for {
		slot := p.reclaimableLocked(n)
		if slot < 0 {
			return 0, nil, p.exhaustedLocked(n)
		}
		drop := p.table.overlapping(slotRange(slot, n))
		if p.allClearLocked(drop) {
			return slot, drop, nil
		}
	}
}

// reclaimableLocked returns the first of n slots in a row that are free or only
// wait for their age, or -1. Of single slots it is the one that has rested
// longest of those that an entry covers as a whole.
func (p *Pool) reclaimableLocked(n int) int {
	if n == 1 {
		if oldest := p.table.resting.waiting[shelfPool].oldest(); oldest != nil {
			return p.table.wholeOwn(oldest.Range)
		}
	}
	return p.table.open.findRun(p.cursor, n)
}

func slotRange(slot, n int) Range {
	return Range{Start: uint32(slot) * Unit, Length: uint32(n) * Unit}
}

func (p *Pool) exhaustedLocked(n int) error {
	return &ExhaustedError{
		WantIDs:        uint64(n) * Unit,
		FreeIDs:        uint64(p.table.open.count()) * Unit,
		LargestFreeIDs: uint64(p.table.open.longestRun()) * Unit,
		Held:           p.table.resting.traced,
		Unknown:        p.table.resting.unknown,
	}
}
