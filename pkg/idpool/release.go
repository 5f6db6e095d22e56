package idpool

import (
	"fmt"
	"slices"
)

// Release takes the sandbox from the users of its range. With a pod's last
// sandbox the range goes into quarantine; a reservation stays. It returns nil
// for a sandbox that uses none, so that teardown can repeat it. Call it when the
// last trace of the sandbox is gone.
//
// Errors are those of b.
func (p *Pool) Release(b Bucket, sandbox string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.table.bySandbox[sandbox]
	if e == nil {
		return nil
	}
	left := e.record
	left.Sandboxes = slices.DeleteFunc(slices.Clone(e.Sandboxes), func(id string) bool { return id == sandbox })
	pl := newPlan()
	if len(left.Sandboxes) == 0 {
		left.Sandboxes = nil
		if e.State == StateAllocated {
			left.State, left.Since = StateQuarantined, p.clock.Now()
			pl.count.Released = 1
		}
	}
	pl.drop, pl.put = []*entry{e}, []*entry{p.newEntry(left)}
	if err := p.applyLocked(b, pl); err != nil {
		return fmt.Errorf("release range %s of sandbox %s: %w", e.Range, sandbox, err)
	}
	return nil
}

// Reap frees up to limit ranges that have rested for the minimum age and of
// which no trace is left, and returns how many. Call it now and then, again
// while it returns limit: it keeps the ledger short, and nothing waits for it,
// because Acquire takes such ranges when it needs them.
//
// Errors are those of b.
func (p *Pool) Reap(b Bucket, limit int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pl := newPlan()
	for shelf := range shelfCount {
		for _, a := range p.table.resting.waiting[shelf].after(aged{}, limit-len(pl.drop)) {
			if !p.rested(a.entry) {
				break // all that follow are younger
			}
			if p.askLocked(a.entry) == 0 {
				pl.drop = append(pl.drop, a.entry)
			}
		}
	}
	if len(pl.drop) == 0 {
		return 0, nil
	}
	if err := p.applyLocked(b, pl); err != nil {
		return 0, fmt.Errorf("free %d rested ranges: %w", len(pl.drop), err)
	}
	return len(pl.drop), nil
}

// Resting says whether any range is in quarantine.
func (p *Pool) Resting() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return !p.table.resting.empty()
}
