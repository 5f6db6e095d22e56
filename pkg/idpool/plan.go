package idpool

import "slices"

// plan is what one request changes: entries in memory and, under the same keys,
// records in the bucket.
type plan struct {
	drop   []*entry // taken out of the ledger, or replaced by one of put
	put    []*entry
	cursor int // the cursor from now on; less than 0 leaves it
	count  Counters
}

func newPlan() plan { return plan{cursor: -1} }

// applyLocked carries the plan out: memory first, and back again if the
// transaction fails. So memory never offers what the bucket does not, whatever
// becomes of the transaction.
func (p *Pool) applyLocked(b Bucket, pl plan) error {
	before := p.cursor
	p.swapLocked(pl.drop, pl.put)
	if pl.cursor >= 0 {
		p.cursor = pl.cursor
	}
	p.counters.add(pl.count)
	b.OnRollback(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.swapLocked(pl.put, pl.drop)
		p.cursor = before
		p.counters.sub(pl.count)
	})
	return pl.write(b)
}

// swapLocked replaces the entries of drop by those of put. It goes through both
// backwards when it undoes, which does not matter: entries never overlap.
func (p *Pool) swapLocked(drop, put []*entry) {
	for _, e := range drop {
		p.table.remove(e)
	}
	for _, e := range put {
		p.table.insert(e)
	}
}

// write brings the bucket to what memory holds.
func (pl plan) write(b Bucket) error {
	for _, e := range pl.drop {
		start := e.Range.Start
		if slices.ContainsFunc(pl.put, func(o *entry) bool { return o.Range.Start == start }) {
			continue // about to be overwritten
		}
		if err := b.Delete(keyOf(start)); err != nil {
			return err
		}
	}
	for _, e := range pl.put {
		value, err := e.encode()
		if err != nil {
			return err
		}
		if err := b.Put(keyOf(e.Range.Start), value); err != nil {
			return err
		}
	}
	if pl.cursor >= 0 {
		return b.Put(cursorKey, encodeCursor(pl.cursor))
	}
	return nil
}
