package idpool

import (
	"errors"
	"fmt"
)

// Reserve keeps r, of any start and length, from every pod that does not name
// the reservation. A range in quarantine is reserved when no trace of it is
// left; one that the same reservation had before is reserved anyway. Reserving the same range under the same name again is no error.
//
// Errors: ErrInvalid (an empty name, an empty range or one that leaves uid_t),
// ErrInUse (the name is another range's), ErrConflict (a *ConflictError), and those of b.
func (p *Pool) Reserve(b Bucket, name string, r Range) error {
	if name == "" {
		return fmt.Errorf("reserve range %s: no name: %w", r, ErrInvalid)
	}
	if err := r.check(); err != nil {
		return fmt.Errorf("reserve range as %q: %w", name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.table.byName[name]; e != nil {
		if e.Range == r {
			return nil
		}
		return fmt.Errorf("reserve range %s as %q, which names %s: %w", r, name, e.Range, ErrInUse)
	}
	drop, err := p.makeWayLocked(r, func(e *entry) bool { return e.Name == name && e.Range == r })
	if err != nil {
		return fmt.Errorf("reserve range %s as %q: %w", r, name, err)
	}
	pl := newPlan()
	pl.drop = drop
	pl.put = []*entry{p.newEntry(record{Range: r, State: StateReserved, Name: name, Since: p.clock.Now()})}
	pl.count.EarlyReleases = p.young(drop)
	if err := p.applyLocked(b, pl); err != nil {
		return fmt.Errorf("reserve range %s as %q: %w", r, name, err)
	}
	return nil
}

// Join lets the sandbox use the range reserved under name, beside whoever else
// does: the only way in which two pods share ids. Release ends it.
//
// Errors: ErrNotFound, ErrUnmappable, ErrForbidden or ErrInvalid when no pod
// could be given the reserved range, ErrInvalid when the sandbox uses another
// range, and those of b.
func (p *Pool) Join(b Bucket, name, sandbox string) (Range, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.table.byName[name]
	if e == nil {
		return Range{}, fmt.Errorf("join reservation %q: %w", name, ErrNotFound)
	}
	if err := p.claimable(e.Range); err != nil {
		return Range{}, fmt.Errorf("join reservation %q of range %s: %w", name, e.Range, err)
	}
	if used := p.table.bySandbox[sandbox]; sandbox == "" || (used != nil && used != e) {
		return Range{}, fmt.Errorf("join reservation %q: sandbox %q is empty or uses another range: %w", name, sandbox, ErrInvalid)
	}
	return e.Range, p.joinLocked(b, e, sandbox)
}

// Unreserve gives the reservation up. Its range goes into quarantine as a pod's
// does, for processes and files of those who shared it may be left; one that no
// pod is ever given is forgotten at once.
//
// Errors: ErrNotFound, ErrInUse, and those of b.
func (p *Pool) Unreserve(b Bucket, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.table.byName[name]
	if e == nil {
		return fmt.Errorf("give up reservation %q: %w", name, ErrNotFound)
	}
	if len(e.Sandboxes) > 0 {
		return fmt.Errorf("give up reservation %q with %d sandboxes: %w", name, len(e.Sandboxes), ErrInUse)
	}
	pl := newPlan()
	pl.drop = []*entry{e}
	if err := p.claimable(e.Range); err == nil || errors.Is(err, ErrInvalid) {
		left := e.record
		left.State, left.Since = StateQuarantined, p.clock.Now()
		pl.put = []*entry{p.newEntry(left)}
		pl.count.Released = 1
	}
	if err := p.applyLocked(b, pl); err != nil {
		return fmt.Errorf("give up reservation %q: %w", name, err)
	}
	return nil
}

// Discard takes the range r out of quarantine before its time. With force it does so although traces of it are left,
// whose owners share ids with the next pod that gets the range.
//
// Errors: ErrNotFound (no entry is r), ErrInUse (it is not in quarantine, or traces are
// left and force is false, for which NeedsScan is true), and those of b.
func (p *Pool) Discard(b Bucket, r Range, force bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.table.at(r.Start)
	switch {
	case e == nil || e.Range != r:
		return fmt.Errorf("discard range %s: %w", r, ErrNotFound)
	case e.State != StateQuarantined:
		return fmt.Errorf("discard range %s, which is %s: %w", r, e.State, ErrInUse)
	}
	if traces := p.askLocked(e); traces != 0 && !force {
		return fmt.Errorf("discard range %s %w", r, &tracedError{traces})
	}
	pl := newPlan()
	pl.drop = []*entry{e}
	pl.count.EarlyReleases = p.young(pl.drop)
	if err := p.applyLocked(b, pl); err != nil {
		return fmt.Errorf("discard range %s: %w", r, err)
	}
	return nil
}
