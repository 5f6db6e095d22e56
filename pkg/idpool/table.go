package idpool

import (
	"container/list"
	"fmt"
	"slices"
)

// entry is a record in memory. It never changes once it is in the table: a
// change takes it out and puts another one in, which is also how a change is
// undone.
type entry struct {
	record
	segment Segment
	resting *list.Element // its place in table.resting; guarded by Pool.mu
}

// slots returns the first and the last slot that r touches.
func slots(r Range) (first, last int) {
	return int(r.Start / Unit), int((r.End() - 1) / Unit)
}

// table indexes the entries of the ledger. Entries do not overlap.
type table struct {
	extents []Range // the pool's own, merged
	kubelet []Range // kubelet's, merged
	own     *bitmap // slots that Acquire may give
	theirs  *bitmap // slots that count as kubelet's

	busy      bitmap  // slots that an entry touches
	avail     *bitmap // slots of own that none touches
	idle      bitmap  // slots of own that only quarantined entries touch
	slots     [slotCount][]*entry
	byPod     map[PodUID]*entry // allocated ones
	bySandbox map[string]*entry
	byName    map[string]*entry      // reservations
	resting   map[Segment]*list.List // quarantined ones, the oldest first
}

func newTable(extents, kubelet []Range) (*table, error) {
	t := &table{
		extents:   merge(extents),
		kubelet:   merge(kubelet),
		byPod:     map[PodUID]*entry{},
		bySandbox: map[string]*entry{},
		byName:    map[string]*entry{},
		resting: map[Segment]*list.List{
			SegmentKubelet: list.New(), SegmentPool: list.New(), SegmentExternal: list.New(),
		},
	}
	t.own, t.theirs = usable(t.extents), usable(t.kubelet)
	if t.own.next(0) < 0 {
		return nil, fmt.Errorf("extents %v hold no whole range of %d ids: %w", extents, Unit, ErrInvalid)
	}
	avail := *t.own
	t.avail = &avail
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

func (t *table) newEntry(r record) *entry {
	return &entry{record: r, segment: t.segmentOf(r.Range)}
}

// overlapping returns the entries that have an id in common with r, in order.
func (t *table) overlapping(r Range) []*entry {
	var found []*entry
	first, last := slots(r)
	for slot := first; slot <= last; slot++ {
		for _, e := range t.slots[slot] {
			if e.Range.Overlaps(r) && !slices.Contains(found, e) {
				found = append(found, e)
			}
		}
	}
	return found
}

// at returns the entry that holds id, nil for none.
func (t *table) at(id uint32) *entry {
	for _, e := range t.slots[id/Unit] {
		if e.Range.Contains(id) {
			return e
		}
	}
	return nil
}

// all calls fn once for each entry, in the order of slots, until it returns
// false.
func (t *table) all(fn func(*entry) bool) {
	for slot := t.busy.next(0); slot >= 0; slot = t.busy.next(slot + 1) {
		for _, e := range t.slots[slot] {
			if first, _ := slots(e.Range); first == slot && !fn(e) {
				return
			}
		}
	}
}

func (t *table) insert(e *entry) {
	first, last := slots(e.Range)
	for slot := first; slot <= last; slot++ {
		t.slots[slot] = append(t.slots[slot], e)
		t.index(slot)
	}
	for _, id := range e.Sandboxes {
		t.bySandbox[id] = e
	}
	switch e.State {
	case StateAllocated:
		t.byPod[e.Pod] = e
	case StateReserved:
		t.byName[e.Name] = e
	case StateQuarantined:
		e.resting = insertByAge(t.resting[e.segment], e)
	}
}

func (t *table) remove(e *entry) {
	first, last := slots(e.Range)
	for slot := first; slot <= last; slot++ {
		left := slices.DeleteFunc(t.slots[slot], func(o *entry) bool { return o == e })
		if len(left) == 0 {
			left = nil // 65,536 empty slices would keep their arrays
		}
		t.slots[slot] = left
		t.index(slot)
	}
	for _, id := range e.Sandboxes {
		delete(t.bySandbox, id)
	}
	switch e.State {
	case StateAllocated:
		delete(t.byPod, e.Pod)
	case StateReserved:
		delete(t.byName, e.Name)
	case StateQuarantined:
		t.resting[e.segment].Remove(e.resting)
		e.resting = nil
	}
}

// index brings the bitmaps to what the slot's entries are.
func (t *table) index(slot int) {
	entries := t.slots[slot]
	awake := func(e *entry) bool { return e.State != StateQuarantined }
	t.busy.put(slot, len(entries) > 0)
	t.avail.put(slot, len(entries) == 0 && t.own.has(slot))
	t.idle.put(slot, len(entries) > 0 && t.own.has(slot) && !slices.ContainsFunc(entries, awake))
}

// insertByAge keeps l ordered. Almost always e is the youngest; when a failed
// transaction gives a reclaimed range back it is the oldest.
func insertByAge(l *list.List, e *entry) *list.Element {
	if front := l.Front(); front != nil && e.Since.Before(front.Value.(*entry).Since) {
		return l.PushFront(e)
	}
	for at := l.Back(); at != nil; at = at.Prev() {
		if !e.Since.Before(at.Value.(*entry).Since) {
			return l.InsertAfter(e, at)
		}
	}
	return l.PushFront(e)
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
