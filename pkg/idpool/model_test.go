package idpool

import (
	"cmp"
	"slices"
	"time"
)

// model is the ledger as a plain list of intervals, with every rule written down
// the slow way.
type model struct {
	opts    Options
	entries []Allocation
	cursor  int
	witness fakeWitness
	// said is what the witness said of a range when it was last asked. It is no part of the ledger: what fails takes none of it back.
	said map[rest]Trace
}

// rest is one stay of a range in quarantine.
type rest struct {
	r     Range
	since time.Time
}

func (m *model) clone() model {
	c := *m
	c.entries = slices.Clone(m.entries)
	return c
}

func (m *model) find(match func(Allocation) bool) int { return slices.IndexFunc(m.entries, match) }

func (m *model) ofPod(pod PodUID) int {
	return m.find(func(a Allocation) bool { return a.State == StateAllocated && a.Pod == pod })
}

func (m *model) ofSandbox(id string) int {
	return m.find(func(a Allocation) bool { return slices.Contains(a.Sandboxes, id) })
}

func (m *model) overlapping(r Range) []Allocation {
	var found []Allocation
	for _, a := range m.entries {
		if uint64(a.Range.Start) < r.End() && uint64(r.Start) < a.Range.End() {
			found = append(found, a)
		}
	}
	return found
}

func (m *model) drop(gone []Allocation) {
	m.entries = slices.DeleteFunc(m.entries, func(a Allocation) bool {
		return slices.ContainsFunc(gone, func(g Allocation) bool { return g.Range == a.Range })
	})
}

func (m *model) join(i int, sandbox string) {
	if !slices.Contains(m.entries[i].Sandboxes, sandbox) {
		m.entries[i].Sandboxes = append(slices.Clone(m.entries[i].Sandboxes), sandbox)
	}
}

// ask asks the witness about an entry at rest.
func (m *model) ask(a Allocation) Trace {
	m.said[rest{a.Range, a.Since}] = m.witness[a.Range]
	return m.witness[a.Range]
}

// review asks it about all.
func (m *model) review() {
	for _, a := range m.entries {
		if a.State == StateQuarantined {
			m.ask(a)
		}
	}
}

// waiting says whether all of the entries may be dropped, by what the witness said last.
func (m *model) waiting(entries []Allocation) bool {
	return !slices.ContainsFunc(entries, func(a Allocation) bool {
		return a.State != StateQuarantined || m.said[rest{a.Range, a.Since}] != 0
	})
}

// makeWay says whether all entries over r may be dropped, by what the witness says now.
func (m *model) makeWay(r Range, waived func(Allocation) bool) bool {
	inTheWay := m.overlapping(r)
	slices.SortFunc(inTheWay, func(a, b Allocation) int { return cmp.Compare(a.Range.Start, b.Range.Start) })
	for _, a := range inTheWay {
		if a.State != StateQuarantined || (!waived(a) && m.ask(a) != 0) {
			return false
		}
	}
	return true
}

// givable says whether Acquire may give slot if nothing stood in the way.
func (m *model) givable(slot int) bool {
	r := Range{Start: uint32(slot) * Unit, Length: Unit}
	if slot == 0 || slot == 0x7FFE || slot == 0xFFFF {
		return false
	}
	return slices.ContainsFunc(m.opts.Extents, func(e Range) bool {
		return uint64(e.Start) <= uint64(r.Start) && r.End() <= e.End()
	})
}

// search returns the first slot from the cursor on, and then from 0 on, at which
// n slots in a row are givable and ok.
func (m *model) search(n int, ok func(slot int) bool) int {
	const low, high = 0x7FD0, 0x8040 // around all extents of the test
	for _, from := range []int{max(m.cursor, low), low} {
	next:
		for slot := from; slot+n <= high; slot++ {
			for s := slot; s < slot+n; s++ {
				if !m.givable(s) || !ok(s) {
					continue next
				}
			}
			return slot
		}
	}
	return -1
}

func (m *model) acquire(pod PodUID, sandbox string, ids uint32, now time.Time) (Range, error) {
	held, used := m.ofPod(pod), m.ofSandbox(sandbox)
	switch {
	case used >= 0 && used != held:
		return Range{}, ErrInvalid
	case held >= 0 && m.entries[held].Range.Length != ids:
		return Range{}, ErrPodHolds
	case held >= 0:
		m.join(held, sandbox)
		return m.entries[held].Range, nil
	}
	n := int(ids / Unit)
	free := func(slot int) bool { return len(m.overlapping(slotRange(slot, 1))) == 0 }
	slot := m.search(n, free)
	for clear := slot >= 0; !clear; {
		if slot = m.reclaimable(n); slot < 0 {
			break
		}
		clear = true
		for _, a := range m.overlapping(slotRange(slot, n)) {
			clear = m.ask(a) == 0 && clear
		}
	}
	if slot < 0 {
		return Range{}, ErrExhausted
	}
	r := slotRange(slot, n)
	m.drop(m.overlapping(r))
	m.entries = append(m.entries, Allocation{Range: r, State: StateAllocated, Pod: pod, Sandboxes: []string{sandbox}, Since: now})
	m.cursor = slot + n
	return r, nil
}

func (m *model) reclaimable(n int) int {
	if n == 1 {
		if slot := m.longestRested(); slot >= 0 {
			return slot
		}
	}
	return m.search(n, func(slot int) bool { return m.waiting(m.overlapping(slotRange(slot, 1))) })
}

// longestRested returns the first slot that can be given of the pool's own entry that waits for its age longest.
func (m *model) longestRested() int {
	byAge := slices.Clone(m.entries)
	slices.SortFunc(byAge, func(a, b Allocation) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Range.Start, b.Range.Start))
	})
	for _, a := range byAge {
		own := slices.ContainsFunc(m.opts.Extents, func(e Range) bool {
			return e.Start <= a.Range.Start && a.Range.End() <= e.End()
		})
		if !own || !m.waiting([]Allocation{a}) {
			continue
		}
		for slot := int(a.Range.Start / Unit); uint64(slot)*Unit < a.Range.End(); slot++ {
			if m.givable(slot) && a.Range.ContainsRange(slotRange(slot, 1)) {
				return slot
			}
		}
	}
	return -1
}

func (m *model) claimable(r Range) error {
	strict := m.opts.Claims != ClaimsPermissive
	switch {
	case strict && r.Overlaps(Range{0x7FFE0000, Unit}):
		return ErrForbidden
	case strict && (r.Start%Unit != 0 || r.Length%Unit != 0):
		return ErrInvalid
	}
	return nil
}

// loose says whether a quarantined entry does not bind permissive claims.
func (m *model) loose(a Allocation) bool {
	strict := model{}
	return a.State == StateQuarantined && m.opts.Claims == ClaimsPermissive && strict.claimable(a.Range) != nil
}

// rejoin adds a sandbox to the pod that holds r already.
func (m *model) rejoin(pod PodUID, sandbox string, r Range) (held bool, err error) {
	i, used := m.ofPod(pod), m.ofSandbox(sandbox)
	switch {
	case used >= 0 && used != i:
		return false, ErrInvalid
	case i < 0:
		return false, nil
	case m.entries[i].Range != r:
		return false, ErrPodHolds
	}
	m.join(i, sandbox)
	return true, nil
}

func (m *model) claim(pod PodUID, sandbox string, r Range, now time.Time) error {
	if err := m.claimable(r); err != nil {
		return err
	}
	if held, err := m.rejoin(pod, sandbox, r); held || err != nil {
		return err
	}
	if !m.makeWay(r, func(a Allocation) bool { return a.Pod == pod && a.Range == r || m.loose(a) }) {
		return ErrConflict
	}
	m.drop(m.overlapping(r))
	m.entries = append(m.entries, Allocation{Range: r, State: StateAllocated, Pod: pod, Sandboxes: []string{sandbox}, Since: now})
	return nil
}

func (m *model) release(sandbox string, now time.Time) {
	i := m.ofSandbox(sandbox)
	if i < 0 {
		return
	}
	a := &m.entries[i]
	a.Sandboxes = slices.DeleteFunc(slices.Clone(a.Sandboxes), func(s string) bool { return s == sandbox })
	if len(a.Sandboxes) == 0 && a.State == StateAllocated {
		a.Sandboxes, a.State, a.Since = nil, StateQuarantined, now
		m.ask(*a)
	}
}

func (m *model) reap(now time.Time, age time.Duration) {
	m.entries = slices.DeleteFunc(m.entries, func(a Allocation) bool {
		return m.waiting([]Allocation{a}) && now.Sub(a.Since) >= age && m.ask(a) == 0
	})
}
