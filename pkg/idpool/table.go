package idpool

import (
	"fmt"
	"slices"
	"sync/atomic"

	"k8s.io/utils/third_party/forked/golang/btree"
)

// entry is a record in memory. But for what was seen of it, it never changes once
// it is in the table: a change takes it out and puts another one in, which is also
// how a change is undone.
type entry struct {
	record
	shelf   shelf         // where it lies, or would lie in quarantine
	reaches bool          // it touches a slot of table.own
	seen    atomic.Uint32 // a Trace; changed in the table by table.judge alone, with Pool.mu
}

// traces is what kept the entry from being given away, apart from its age, when
// the Witness was last asked.
func (e *entry) traces() Trace { return Trace(e.seen.Load()) }

func (e *entry) segment() Segment { return e.shelf.segment() }

// slots returns the first and the last slot that r touches.
func slots(r Range) (first, last int) {
	return int(r.Start / Unit), int((r.End() - 1) / Unit)
}

// placed is an entry in the order of first ids.
type placed struct {
	start uint32
	entry *entry
}

func (a placed) less(b placed) bool { return a.start < b.start }

// table indexes the entries of the ledger. Entries do not overlap. Nothing that a
// claim or an acquire asks of it takes longer for a larger ledger than the height
// of a tree or the 1,024 words of a bitmap.
type table struct {
	extents []Range // the pool's own, merged
	kubelet []Range // kubelet's, merged
	own     *bitmap // slots that Acquire may give
	theirs  *bitmap // slots that count as kubelet's

	entries *btree.BTree[placed]
	usage   usage
	avail   bitmap // slots of own that no entry touches
	open    bitmap // and those that only waiting entries touch

	byPod     map[PodUID]*entry // allocated ones
	bySandbox map[string]*entry
	byName    map[string]*entry // reservations
	resting   quarantine
}

func newTable(extents, kubelet []Range) (*table, error) {
	t := &table{
		extents:   merge(extents),
		kubelet:   merge(kubelet),
		entries:   btree.New(treeDegree, placed.less),
		usage:     newUsage(),
		byPod:     map[PodUID]*entry{},
		bySandbox: map[string]*entry{},
		byName:    map[string]*entry{},
		resting:   newQuarantine(),
	}
	t.own, t.theirs = usable(t.extents), usable(t.kubelet)
	if t.own.next(0) < 0 {
		return nil, fmt.Errorf("extents %v hold no whole range of %d ids: %w", extents, Unit, ErrInvalid)
	}
	t.avail, t.open = *t.own, *t.own
	for slot := t.own.next(0); slot >= 0; slot = t.own.next(slot + 1) {
		t.theirs.clear(slot)
	}
	return t, nil
}

// segmentOf returns the segment in which all of r lies.
func (t *table) segmentOf(r Range) Segment {
	holds := func(e Range) bool { return e.ContainsRange(r) }
	switch {
	case slices.ContainsFunc(t.extents, holds):
		return SegmentPool
	case slices.ContainsFunc(t.kubelet, holds):
		return SegmentKubelet
	default:
		return SegmentExternal
	}
}

// newEntry returns the entry of a record of which the Witness says traces.
func (t *table) newEntry(r record, traces Trace) *entry {
	e := &entry{record: r}
	e.seen.Store(uint32(traces))
	first, last := slots(r.Range)
	e.reaches = t.own.nextIn(first, last) >= 0
	switch t.segmentOf(r.Range) {
	case SegmentKubelet:
		e.shelf = shelfKubelet
	case SegmentExternal:
		e.shelf = shelfExternal
	default:
		if t.wholeOwn(r.Range) < 0 {
			e.shelf = shelfScraps
		}
	}
	return e
}

// wholeOwn returns the first slot of own that r covers as a whole, or -1.
func (t *table) wholeOwn(r Range) int {
	first, n := wholeSlots(r)
	return t.own.nextIn(first, first+n-1)
}

// overlapping returns the entries that have an id in common with r, in order.
func (t *table) overlapping(r Range) []*entry {
	var found []*entry
	if before := t.at(r.Start); before != nil && before.Range.Start < r.Start {
		found = append(found, before)
	}
	t.entries.AscendGreaterOrEqual(placed{start: r.Start}, func(p placed) bool {
		if uint64(p.start) >= r.End() {
			return false
		}
		found = append(found, p.entry)
		return true
	})
	return found
}

// at returns the entry that holds id, nil for none.
func (t *table) at(id uint32) (found *entry) {
	t.entries.DescendLessOrEqual(placed{start: id}, func(p placed) bool {
		if p.entry.Range.Contains(id) {
			found = p.entry
		}
		return false
	})
	return found
}

// all calls fn once for each entry, in order, until it returns false.
func (t *table) all(fn func(*entry) bool) {
	t.entries.Ascend(func(p placed) bool { return fn(p.entry) })
}

func (t *table) insert(e *entry) {
	t.entries.ReplaceOrInsert(placed{e.Range.Start, e})
	t.usage.add(e.Range, e.use())
	t.derive(e.Range)
	for _, id := range e.Sandboxes {
		t.bySandbox[id] = e
	}
	switch e.State {
	case StateAllocated:
		t.byPod[e.Pod] = e
	case StateReserved:
		t.byName[e.Name] = e
	case StateQuarantined:
		t.resting.add(e)
	}
}

func (t *table) remove(e *entry) {
	t.entries.Delete(placed{start: e.Range.Start})
	t.usage.remove(e.Range, e.use())
	t.derive(e.Range)
	for _, id := range e.Sandboxes {
		deleteFrom(&t.bySandbox, id)
	}
	switch e.State {
	case StateAllocated:
		deleteFrom(&t.byPod, e.Pod)
	case StateReserved:
		deleteFrom(&t.byName, e.Name)
	case StateQuarantined:
		t.resting.remove(e)
	}
}

// deleteFrom deletes the key. A map never gives memory back, so an empty one is
// replaced: one of 65,534 entries has 4 MiB.
func deleteFrom[K comparable](m *map[K]*entry, key K) {
	if delete(*m, key); len(*m) == 0 {
		*m = map[K]*entry{}
	}
}

// judge notes what the Witness says now of e, which is in the table and rests.
func (t *table) judge(e *entry, traces Trace) {
	if traces == e.traces() {
		return
	}
	before := e.use()
	t.resting.remove(e)
	e.seen.Store(uint32(traces))
	t.resting.add(e)
	if after := e.use(); after != before {
		t.usage.remove(e.Range, before)
		t.usage.add(e.Range, after)
		t.derive(e.Range)
	}
}

// derive brings avail and open to what usage says of the slots that r touches.
func (t *table) derive(r Range) {
	first, last := slots(r)
	for w := first / 64; w <= last/64; w++ {
		kept, waiting := t.usage.word(w)
		t.open.setWord(w, t.own.words[w]&^kept)
		t.avail.setWord(w, t.own.words[w]&^(kept|waiting))
	}
}

// contradiction says why e cannot be in the table beside what is there, nil if
// it can.
func (t *table) contradiction(e *entry) error {
	if others := t.overlapping(e.Range); len(others) > 0 {
		return fmt.Errorf("record %q overlaps record %q: %w", keyOf(e.Range.Start), keyOf(others[0].Range.Start), ErrCorrupt)
	}
	for _, id := range e.Sandboxes {
		if o := t.bySandbox[id]; o != nil {
			return fmt.Errorf("records %q and %q share sandbox %s: %w", keyOf(e.Range.Start), keyOf(o.Range.Start), id, ErrCorrupt)
		}
	}
	if o := t.byPod[e.Pod]; o != nil && e.State == StateAllocated {
		return fmt.Errorf("records %q and %q share pod %s: %w", keyOf(e.Range.Start), keyOf(o.Range.Start), e.Pod, ErrCorrupt)
	}
	if o := t.byName[e.Name]; o != nil && e.State == StateReserved {
		return fmt.Errorf("records %q and %q share the name %q: %w", keyOf(e.Range.Start), keyOf(o.Range.Start), e.Name, ErrCorrupt)
	}
	return nil
}
