package idpool

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Finding is something about the ledger that an operator should know. None stops
// the pool from working.
type Finding struct {
	Kind  FindingKind `json:"kind"`
	Range Range       `json:"range"`
	Pod   PodUID      `json:"pod,omitempty"` // whose range it is, where it is one's
}

// FindingKind tells findings apart.
type FindingKind string

const (
	// FindingOutside: an entry lies in no extent. The extents were changed
	// while its pod lives, or the claim came from elsewhere.
	FindingOutside FindingKind = "outside-extents"
	// FindingNotStrict: an entry that only permissive claims could make is in
	// a pool whose claims are strict.
	FindingNotStrict FindingKind = "not-strict"
	// FindingExtentsMeet: kubelet's extents and the pool's own have these ids
	// in common, so kubelet may claim what was acquired.
	FindingExtentsMeet FindingKind = "extents-meet"
	// FindingSigned: an entry reaches ids of 1<<31 and above, which programs
	// that take ids for signed numbers get wrong.
	FindingSigned FindingKind = "above-signed"
)

// Findings returns what is odd about the ledger now, ordered by range.
func (p *Pool) Findings() []Finding {
	var found []Finding
	for _, own := range p.table.extents {
		for _, theirs := range p.table.kubelet {
			if own.Overlaps(theirs) {
				start := max(own.Start, theirs.Start)
				end := min(own.End(), theirs.End())
				common := Range{Start: start, Length: uint32(end - uint64(start))}
				found = append(found, Finding{Kind: FindingExtentsMeet, Range: common})
			}
		}
	}
	for _, e := range p.entries() {
		found = append(found, p.odd(e)...)
	}
	slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Compare(a.Range.Start, b.Range.Start) })
	return found
}

func (p *Pool) odd(e *entry) []Finding {
	if e.State == StateReserved {
		return nil // an operator's own words
	}
	var found []Finding
	note := func(k FindingKind) { found = append(found, Finding{Kind: k, Range: e.Range, Pod: e.Pod}) }
	if e.segment() == SegmentExternal {
		note(FindingOutside)
	}
	if p.claims == ClaimsStrict && p.claimable(e.Range) != nil {
		note(FindingNotStrict)
	}
	if e.Range.End() > 1<<31 {
		note(FindingSigned)
	}
	return found
}

// Verify compares what the pool holds in memory with the records of b and
// returns ErrCorrupt for each difference. b must not belong to a transaction
// beside one that writes.
func (p *Pool) Verify(b Bucket) error {
	records, cursor, err := readBucket(b)
	if err != nil {
		return fmt.Errorf("verify id pool: %w", err)
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	var errs []error
	if cursor != p.cursor {
		errs = append(errs, fmt.Errorf("cursor is %d, stored %d: %w", p.cursor, cursor, ErrCorrupt))
	}
	stored := map[uint32]*record{}
	for _, r := range records {
		stored[r.Range.Start] = r
	}
	p.table.all(func(e *entry) bool {
		r := stored[e.Range.Start]
		delete(stored, e.Range.Start)
		if !e.equal(r) {
			errs = append(errs, fmt.Errorf("record of range %s differs from memory: %w", e.Range, ErrCorrupt))
		}
		return true
	})
	for _, r := range stored {
		errs = append(errs, fmt.Errorf("record of range %s is unknown in memory: %w", r.Range, ErrCorrupt))
	}
	return errors.Join(errs...)
}

// equal says whether o would be stored as r is. Since is left out: Load cuts
// times that lie in the future.
func (r *record) equal(o *record) bool {
	if o == nil {
		return false
	}
	a, b := *r, *o
	a.Since, b.Since = time.Time{}, time.Time{}
	left, errLeft := json.Marshal(a)
	right, errRight := json.Marshal(b)
	return errLeft == nil && errRight == nil && string(left) == string(right)
}
