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
	r := Range{Start: uint32(slot) * Unit, Length: ids}
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
	pl.drop, pl.put = []*entry{e}, []*entry{p.table.newEntry(joined)}
	if err := p.applyLocked(b, pl); err != nil {
		return fmt.Errorf("add sandbox %s to range %s: %w", sandbox, e.Range, err)
	}
	return nil
}

func (p *Pool) allocationLocked(r Range, pod PodUID, sandbox string) *entry {
	return p.table.newEntry(record{
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
	if n == 1 {
		if slot := p.oldestLocked(); slot >= 0 {
			return slot, p.touchingLocked(slot, 1), nil
		}
	}
	if slot := p.reclaimableRunLocked(n); slot >= 0 {
		return slot, p.touchingLocked(slot, n), nil
	}
	return 0, nil, p.exhaustedLocked(p.reclaimableLocked(), n)
}

// reclaimableRunLocked returns the first of n slots in a row that are free or only
// wait for their age, or -1. It asks for traces only of what it is about to take:
// with all ranges at rest, to ask for each would take milliseconds.
func (p *Pool) reclaimableRunLocked(n int) int {
	free := p.table.avail.union(&p.table.idle)
	for _, from := range []int{p.cursor, 0} {
		for slot := free.nextRun(from, n); slot >= 0; slot = free.nextRun(from, n) {
			held := p.lastHeldLocked(slot, n)
			if held < 0 {
				return slot
			}
			free.clear(held)
			from = held + 1
		}
	}
	return -1
}

// lastHeldLocked returns the last of n idle or free slots that traces keep, or -1.
func (p *Pool) lastHeldLocked(slot, n int) int {
	for at := slot + n - 1; at >= slot; at-- {
		if p.table.idle.has(at) && !p.reclaimableSlotLocked(at) {
			return at
		}
	}
	return -1
}

// oldestLocked returns the slot that has rested longest of those that only wait
// for their age, or -1.
func (p *Pool) oldestLocked() int {
	queue := p.table.resting[SegmentPool]
	for at := queue.Front(); at != nil; at = at.Next() {
		first, last := slots(at.Value.(*entry).Range)
		for slot := first; slot <= last; slot++ {
			if p.reclaimableSlotLocked(slot) {
				return slot
			}
		}
	}
	return -1
}

// reclaimableLocked returns the slots of the pool's own extents that are free or
// only wait for their age. It looks at what rests, not at what is allocated.
func (p *Pool) reclaimableLocked() *bitmap {
	free := *p.table.avail
	for _, queue := range p.table.resting {
		for at := queue.Front(); at != nil; at = at.Next() {
			first, last := slots(at.Value.(*entry).Range)
			for slot := first; slot <= last; slot++ {
				if p.reclaimableSlotLocked(slot) {
					free.set(slot)
				}
			}
		}
	}
	return &free
}

// reclaimableSlotLocked says whether the slot may be given by Acquire once the
// entries that touch it are dropped.
func (p *Pool) reclaimableSlotLocked(slot int) bool {
	if !p.table.own.has(slot) {
		return false
	}
	for _, e := range p.table.slots[slot] {
		if e.State != StateQuarantined || p.traces(e) != 0 {
			return false
		}
	}
	return true
}

// touchingLocked returns the entries that touch n slots from slot on.
func (p *Pool) touchingLocked(slot, n int) []*entry {
	var found []*entry
	for ; n > 0; slot, n = slot+1, n-1 {
		for _, e := range p.table.slots[slot] {
			if !slices.Contains(found, e) {
				found = append(found, e)
			}
		}
	}
	return found
}

func (p *Pool) exhaustedLocked(free *bitmap, n int) error {
	e := &ExhaustedError{
		WantIDs:        uint64(n) * Unit,
		FreeIDs:        uint64(free.count()) * Unit,
		LargestFreeIDs: uint64(free.longestRun()) * Unit,
	}
	// Entries of other segments may reach into the extents, when those have changed.
	for _, queue := range p.table.resting {
		for at := queue.Front(); at != nil; at = at.Next() {
			resting := at.Value.(*entry)
			if !p.ownLocked(resting) {
				continue
			}
			switch traces := p.traces(resting); {
			case traces&TraceUnknown != 0:
				e.Unknown++
			case traces != 0:
				e.Held++
			}
		}
	}
	return e
}

// ownLocked says whether the entry keeps a slot from Acquire.
func (p *Pool) ownLocked(e *entry) bool {
	first, last := slots(e.Range)
	slot := p.table.own.next(first)
	return slot >= 0 && slot <= last
}
