package idpool

import "fmt"

// UnknownPod stands for the last owner of a range of which nobody knows whose it was.
const UnknownPod PodUID = "unknown"

// Restore records that a sandbox of the pod uses r, because on the node it does so already: neither extents,
// policy nor quarantine are asked. What rests there gives way; what rests beside it, as a part of the same entry,
// rests on. It is for a ledger that lost the entry.
//
// Errors: ErrInvalid (an empty range or name, the sandbox uses another range), ErrPodHolds, ErrConflict (a
// *ConflictError), and those of b.
func (p *Pool) Restore(b Bucket, pod PodUID, sandbox string, r Range) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("restore range of pod %s: %w", pod, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	held, err := p.heldLocked(pod, sandbox)
	switch {
	case err != nil:
		return fmt.Errorf("restore range %s of pod %s: %w", r, pod, err)
	case held != nil && held.Range == r:
		return p.joinLocked(b, held, sandbox)
	case held != nil:
		return fmt.Errorf("restore range %s of pod %s, which holds %s: %w", r, pod, held.Range, ErrPodHolds)
	}
	overlapping := p.table.overlapping(r)
	for _, e := range overlapping {
		if e.State != StateQuarantined {
			holder, _ := p.tellLocked(e)
			return fmt.Errorf("restore range %s of pod %s: %w", r, pod, &ConflictError{Requested: r, Holder: holder})
		}
	}
	pl := newPlan()
	pl.drop, pl.put = overlapping, []*entry{p.allocationLocked(r, pod, sandbox)}
	for _, e := range overlapping {
		for _, part := range e.Range.without(r) {
			left := e.record
			left.Range = part
			pl.put = append(pl.put, p.newEntry(left))
		}
	}
	if err := p.applyLocked(b, pl); err != nil {
		return fmt.Errorf("restore range %s of pod %s: %w", r, pod, err)
	}
	return nil
}

// Rest puts r into quarantine, because the node still uses ids of it and the ledger knows of nobody who does.
// The pod is the last owner, or UnknownPod. Only those units of r are put there that no entry touches; it returns
// how many that were.
//
// Errors: ErrInvalid (an empty range or pod), and those of b.
func (p *Pool) Rest(b Bucket, pod PodUID, r Range) (int, error) {
	if err := r.check(); err != nil {
		return 0, fmt.Errorf("put range to rest: %w", err)
	}
	if pod == "" {
		return 0, fmt.Errorf("put range %s to rest: no pod: %w", r, ErrInvalid)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pl, now := newPlan(), p.clock.Now()
	for _, part := range p.freePartsLocked(r) {
		pl.put = append(pl.put, p.newEntry(record{Range: part, State: StateQuarantined, Pod: pod, Since: now}))
	}
	if len(pl.put) == 0 {
		return 0, nil
	}
	if err := p.applyLocked(b, pl); err != nil {
		return 0, fmt.Errorf("put range %s to rest: %w", r, err)
	}
	return len(pl.put), nil
}

// freePartsLocked is r as a whole where no entry touches it, and else what its units have of it, without those
// that an entry touches.
func (p *Pool) freePartsLocked(r Range) []Range {
	if len(p.table.overlapping(r)) == 0 {
		return []Range{r}
	}
	var parts []Range
	first, last := slots(r)
	for slot := first; slot <= last; slot++ {
		start := max(uint64(slot)*Unit, uint64(r.Start))
		end := min((uint64(slot)+1)*Unit, r.End())
		part := Range{Start: uint32(start), Length: uint32(end - start)}
		if len(p.table.overlapping(part)) == 0 {
			parts = append(parts, part)
		}
	}
	return parts
}
