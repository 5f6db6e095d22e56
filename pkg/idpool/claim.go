package idpool

import "fmt"

// Claim gives the pod the range r that somebody else chose, for the sandbox to
// use, and records it in b. When the pod holds r already, the sandbox joins its
// users. A range that rests in quarantine is granted when no trace of it is
// left, whatever its age; to the pod that held it last it is granted anyway,
// because what is left is that pod's own. Under ClaimsPermissive traces do not
// matter of ranges that only permissive claims can make.
//
// Errors: ErrUnmappable, ErrForbidden, ErrConflict (a *ConflictError that names
// the holder) and ErrPodHolds, for which Remappable is true; ErrInvalid (an
// empty range, under ClaimsStrict one that is not Aligned, an empty name, the
// sandbox is another pod's); and those of b.
func (p *Pool) Claim(b Bucket, pod PodUID, sandbox string, r Range) error {
	if err := p.claimable(r); err != nil {
		return fmt.Errorf("claim range %s for pod %s: %w", r, pod, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	held, err := p.heldLocked(pod, sandbox)
	switch {
	case err != nil:
		return fmt.Errorf("claim range %s for pod %s: %w", r, pod, err)
	case held != nil && held.Range == r:
		return p.joinLocked(b, held, sandbox)
	case held != nil:
		return fmt.Errorf("claim range %s for pod %s, which holds %s: %w", r, pod, held.Range, ErrPodHolds)
	}
	drop, err := p.makeWayLocked(r, func(e *entry) bool { return e.Pod == pod && e.Range == r || p.looseLocked(e) })
	if err != nil {
		return fmt.Errorf("claim range %s for pod %s: %w", r, pod, err)
	}
	pl := newPlan()
	pl.drop = drop
	pl.put = []*entry{p.allocationLocked(r, pod, sandbox)}
	pl.count = Counters{Claimed: 1, EarlyReleases: p.young(drop)}
	if len(drop) > 0 {
		pl.count.ClaimedFromQuarantine = 1
	}
	if err := p.applyLocked(b, pl); err != nil {
		return fmt.Errorf("claim range %s for pod %s: %w", r, pod, err)
	}
	return nil
}

// claimable says why r could never be claimed, nil if it could.
func (p *Pool) claimable(r Range) error {
	switch {
	case r.Length == 0:
		return fmt.Errorf("length is 0: %w", ErrInvalid)
	case !r.Mappable():
		return ErrUnmappable
	case p.claims == ClaimsPermissive:
		return nil
	}
	return strictly(r)
}

// looseLocked says whether only permissive claims, which the pool takes, can have made e. They are not kept from it by
// traces: it may hold ids of the host's users, whose processes are not the last pod's.
func (p *Pool) looseLocked(e *entry) bool {
	return p.claims == ClaimsPermissive && strictly(e.Range) != nil
}

// strictly says why ClaimsStrict refuses r, which the kernel can map.
func strictly(r Range) error {
	switch {
	case r.Overlaps(HostRange()):
		return fmt.Errorf("%s is the host's: %w", HostRange(), ErrForbidden)
	case r.Overlaps(ForeignRange()):
		return fmt.Errorf("%s is systemd's: %w", ForeignRange(), ErrForbidden)
	case !r.Aligned():
		return fmt.Errorf("start or length is no multiple of %d: %w", Unit, ErrInvalid)
	}
	return nil
}

// makeWayLocked returns the quarantined entries that must go before somebody can
// have r, or a *ConflictError for the first entry that cannot. Waived says of
// which entries traces do not matter.
func (p *Pool) makeWayLocked(r Range, waived func(*entry) bool) ([]*entry, error) {
	overlapping := p.table.overlapping(r)
	for _, e := range overlapping {
		if e.State == StateQuarantined && (waived(e) || p.askLocked(e) == 0) {
			continue
		}
		holder, _ := p.tellLocked(e)
		return nil, &ConflictError{Requested: r, Holder: holder, Traces: holder.Traces}
	}
	return overlapping, nil
}
