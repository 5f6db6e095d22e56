package idpool

// reviewBatch is how many entries are asked about before others get the lock.
const reviewBatch = 32

// Review asks the Witness again about every range in quarantine. Call it after
// each look at the node: what a request finds in quarantine, and what Stats and
// List tell of it, is what the Witness said at the last Review, or when the range
// was released. Without it nothing is given too early, for the Witness is asked
// once more of what a request takes; but what it has found clear meanwhile is
// refused.
//
// It holds the pool for moments only, so requests go on beside it.
func (p *Pool) Review() {
	if p.witness == nil {
		return
	}
	p.reviewing.Lock()
	defer p.reviewing.Unlock()
	for shelf := range shelfCount {
		for _, q := range []queue{p.table.resting.waiting[shelf], p.table.resting.held[shelf]} {
			var last aged
			for more := true; more; {
				last, more = p.reviewBatch(q, last)
			}
		}
	}
}

// reviewBatch asks about some of the queue's entries after last, and returns the
// last one of them and whether there may be more.
func (p *Pool) reviewBatch(q queue, last aged) (aged, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	batch := q.after(last, reviewBatch)
	for _, a := range batch {
		p.askLocked(a.entry)
	}
	if len(batch) < reviewBatch {
		return aged{}, false
	}
	return batch[len(batch)-1], true
}

// allClearLocked asks the Witness about entries that a request would take out of
// quarantine, and says whether no trace is left of any.
func (p *Pool) allClearLocked(entries []*entry) bool {
	clear := true
	for _, e := range entries {
		clear = p.askLocked(e) == 0 && clear
	}
	return clear
}

// askLocked asks the Witness about an entry of the table, which then is where its
// answer belongs. Of one that does not rest there are no traces.
func (p *Pool) askLocked(e *entry) Trace {
	traces := p.ask(&e.record)
	if e.State == StateQuarantined {
		p.table.judge(e, traces)
	}
	return traces
}

func (p *Pool) ask(r *record) Trace {
	if p.witness == nil || r.State != StateQuarantined {
		return 0
	}
	return p.witness.Traces(r.Range, r.Since)
}

func (p *Pool) newEntry(r record) *entry { return p.table.newEntry(r, p.ask(&r)) }
