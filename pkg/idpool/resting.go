package idpool

import (
	"cmp"

	"k8s.io/utils/third_party/forked/golang/btree"
)

// treeDegree gives nodes of up to 63 items: with 65,534 entries a path has
// three of them.
const treeDegree = 32

// shelf is where in quarantine an entry lies. It never changes.
type shelf int

const (
	shelfPool   shelf = iota // Acquire may give at least one whole slot of it
	shelfScraps              // in the pool's own extents too, but without such a slot
	shelfKubelet
	shelfExternal
	shelfCount
)

func (s shelf) segment() Segment {
	switch s {
	case shelfKubelet:
		return SegmentKubelet
	case shelfExternal:
		return SegmentExternal
	}
	return SegmentPool
}

// aged orders entries by the time for which they have rested, the oldest first.
// It goes by the wall clock alone: times of this run and times that were read
// from records have to have one order.
type aged struct {
	since int64 // nanoseconds since 1970
	start uint32
	entry *entry
}

func agedOf(e *entry) aged { return aged{e.Since.UnixNano(), e.Range.Start, e} }

func (a aged) less(b aged) bool {
	return cmp.Or(cmp.Compare(a.since, b.since), cmp.Compare(a.start, b.start)) < 0
}

// queue is entries in quarantine, the oldest first.
type queue struct{ tree *btree.BTree[aged] }

func newQueue() queue { return queue{btree.New(treeDegree, aged.less)} }

func (q queue) add(e *entry)    { q.tree.ReplaceOrInsert(agedOf(e)) }
func (q queue) remove(e *entry) { q.tree.Delete(agedOf(e)) }

// oldest returns nil for an empty queue.
func (q queue) oldest() *entry {
	first, _ := q.tree.Min()
	return first.entry
}

// after returns up to n entries that follow last, or the first ones when last is
// the zero value.
func (q queue) after(last aged, n int) []aged {
	if n <= 0 {
		return nil
	}
	var found []aged
	collect := func(a aged) bool {
		if a != last {
			found = append(found, a)
		}
		return len(found) < n
	}
	if last.entry == nil {
		q.tree.Ascend(collect)
	} else {
		q.tree.AscendGreaterOrEqual(last, collect)
	}
	return found
}

// quarantine is what of the ledger rests, apart by whether Acquire and Reap have
// to wait for more than an age.
type quarantine struct {
	waiting [shelfCount]queue // the Witness found no trace when it was last asked
	held    [shelfCount]queue
	// Of the entries that keep slots from Acquire:
	traced  int // with traces
	unknown int // nobody has looked at
}

func newQuarantine() (q quarantine) {
	for s := range shelfCount {
		q.waiting[s], q.held[s] = newQueue(), newQueue()
	}
	return q
}

func (q *quarantine) queueOf(e *entry) queue {
	if e.traces() == 0 {
		return q.waiting[e.shelf]
	}
	return q.held[e.shelf]
}

func (q *quarantine) add(e *entry) {
	q.queueOf(e).add(e)
	q.count(e, 1)
}

func (q *quarantine) remove(e *entry) {
	q.queueOf(e).remove(e)
	q.count(e, -1)
}

func (q *quarantine) count(e *entry, by int) {
	switch traces := e.traces(); {
	case !e.reaches:
	case traces&TraceUnknown != 0:
		q.unknown += by
	case traces != 0:
		q.traced += by
	}
}

func (q *quarantine) empty() bool {
	for s := range shelfCount {
		if q.waiting[s].oldest() != nil || q.held[s].oldest() != nil {
			return false
		}
	}
	return true
}
