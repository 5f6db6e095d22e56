package hostids

import (
	"cmp"
	"slices"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// span is slots of idpool.Unit ids from first to last.
type span struct{ first, last uint32 }

// slotSet is the slots that something was seen of: spans in order, with slots between them. The pool asks it while it
// is locked, so a question takes a few steps however large the range is that it is about.
type slotSet []span

func newSlotSet(ranges []idpool.Range) slotSet {
	var spans []span
	for _, r := range ranges {
		if r.Length > 0 {
			spans = append(spans, spanOf(r))
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	var set slotSet
	for _, s := range spans {
		if n := len(set); n > 0 && s.first <= set[n-1].last+1 {
			set[n-1].last = max(set[n-1].last, s.last)
			continue
		}
		set = append(set, s)
	}
	return slices.Clip(set)
}

// touches says whether the set holds a slot that r touches.
func (s slotSet) touches(r idpool.Range) bool {
	if r.Length == 0 {
		return false
	}
	asked := spanOf(r)
	at, _ := slices.BinarySearchFunc(s, asked.first, func(have span, first uint32) int { return cmp.Compare(have.last, first) })
	return at < len(s) && s[at].first <= asked.last
}

func spanOf(r idpool.Range) span {
	return span{first: r.Start / idpool.Unit, last: uint32((r.End() - 1) / idpool.Unit)}
}
