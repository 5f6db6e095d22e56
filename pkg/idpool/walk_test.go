package idpool

import (
	"cmp"
	"slices"
)

// fataler is a *testing.T or a *rapid.T.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// walked is what a walk over all entries says of the table.
type walked struct {
	in              [useCount]bitmap
	waiting, held   [shelfCount][]*entry
	traced, unknown int
}

func walk(p *Pool) *walked {
	w := &walked{}
	p.table.all(func(e *entry) bool {
		first, last := slots(e.Range)
		reaches, whole := false, false
		for slot := first; slot <= last; slot++ {
			w.in[e.use()].set(slot)
			own := p.table.own.has(slot)
			reaches = reaches || own
			whole = whole || own && e.Range.ContainsRange(slotRange(slot, 1))
		}
		if e.State == StateQuarantined {
			w.rest(e, reaches, whole)
		}
		return true
	})
	for s := range shelfCount {
		for _, queue := range [][]*entry{w.waiting[s], w.held[s]} {
			slices.SortFunc(queue, func(a, b *entry) int {
				return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Range.Start, b.Range.Start))
			})
		}
	}
	return w
}

func (w *walked) rest(e *entry, reaches, whole bool) {
	shelf := map[Segment]shelf{SegmentPool: shelfScraps, SegmentKubelet: shelfKubelet, SegmentExternal: shelfExternal}[e.segment()]
	if shelf == shelfScraps && whole {
		shelf = shelfPool
	}
	traces := e.traces()
	if traces == 0 {
		w.waiting[shelf] = append(w.waiting[shelf], e)
		return
	}
	w.held[shelf] = append(w.held[shelf], e)
	switch {
	case !reaches:
	case traces&TraceUnknown != 0:
		w.unknown++
	default:
		w.traced++
	}
}

// wantSameAsWalk holds that what the table keeps up to date is what a walk over all entries finds, and that Stats tells
// the same.
func wantSameAsWalk(t fataler, p *Pool) {
	t.Helper()
	w := walk(p)
	for word := range wordCount {
		w.wantWord(t, p, word)
	}
	counted := w.count(p)
	q := &p.table.resting
	if q.traced != w.traced || q.unknown != w.unknown {
		t.Fatalf("%d with traces and %d unknown keep slots, want %d and %d", q.traced, q.unknown, w.traced, w.unknown)
	}
	for s := range shelfCount {
		wantQueue(t, s, q.waiting[s], w.waiting[s])
		wantQueue(t, s, q.held[s], w.held[s])
		for _, e := range w.held[s] {
			of(&counted, s.segment()).OldestHeld = max(of(&counted, s.segment()).OldestHeld, p.clock.Since(e.Since))
		}
		for _, e := range slices.Concat(w.held[s], w.waiting[s]) {
			of(&counted, s.segment()).OldestResting = max(of(&counted, s.segment()).OldestResting, p.clock.Since(e.Since))
		}
	}
	got := p.Stats()
	got.Counters, got.Pool.LargestFreeIDs, got.Kubelet.LargestFreeIDs = Counters{}, 0, 0
	if got != counted {
		t.Fatalf("stats %+v, want %+v", got, counted)
	}
	for slot, counts := range p.table.usage.parts {
		if *counts == ([useCount]int{}) {
			t.Fatalf("nothing is counted in slot %d", slot)
		}
	}
}

// wantWord looks at 64 slots.
func (w *walked) wantWord(t fataler, p *Pool, word int) {
	t.Helper()
	for as := range useCount {
		if got, want := p.table.usage.in[as].words[word], w.in[as].words[word]; got != want {
			t.Fatalf("word %d has use %d: %x, want %x", word, as, got, want)
		}
	}
	open := p.table.own.words[word] &^ (w.in[useHeld].words[word] | w.in[useReserved].words[word] | w.in[useAllocated].words[word])
	for m, want := range map[*bitmap]uint64{&p.table.open: open, &p.table.avail: open &^ w.in[useWaiting].words[word]} {
		if m.words[word] != want || m.summary[word/64]>>(word%64)&1 == 1 != (want != 0) {
			t.Fatalf("word %d: open or available %x, want %x, or its summary is wrong", word, m.words[word], want)
		}
	}
}

func of(stats *Stats, s Segment) *SegmentStats {
	return map[Segment]*SegmentStats{SegmentPool: &stats.Pool, SegmentKubelet: &stats.Kubelet, SegmentExternal: &stats.External}[s]
}

// count counts as Stats does, but for ages and runs: slot by slot, where an entry is.
func (w *walked) count(p *Pool) Stats {
	var stats Stats
	stats.Pool.Capacity, stats.Kubelet.Capacity = p.table.own.count(), p.table.theirs.count()
	stats.Pool.Free, stats.Kubelet.Free = stats.Pool.Capacity, stats.Kubelet.Capacity
	busy := bitmap{}
	for as := range useCount {
		for slot := w.in[as].next(0); slot >= 0; slot = w.in[as].next(slot + 1) {
			busy.set(slot)
		}
	}
	for slot := busy.next(0); slot >= 0; slot = busy.next(slot + 1) {
		s := &stats.External
		switch {
		case p.table.own.has(slot):
			s = &stats.Pool
		case p.table.theirs.has(slot):
			s = &stats.Kubelet
		}
		switch {
		case w.in[useAllocated].has(slot):
			s.Allocated++
		case w.in[useReserved].has(slot):
			s.Reserved++
		case w.in[useHeld].has(slot):
			s.Quarantined++
		default:
			s.Waiting++
			s.Free++
		}
		s.Free--
	}
	stats.External.Free = 0
	return stats
}

func wantQueue(t fataler, s shelf, q queue, want []*entry) {
	t.Helper()
	var got []*entry
	for _, a := range q.after(aged{}, slotCount) {
		got = append(got, a.entry)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("queue of shelf %d holds %d entries, want %d", s, len(got), len(want))
	}
}
