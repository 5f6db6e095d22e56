package foreign

import (
	"slices"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// Ledger is what the scanner asks of the pool; *idpool.Pool is one.
type Ledger interface {
	// Extents are what a segment draws from.
	Extents(segment idpool.Segment) []idpool.Range
	// Holder is the entry that has an id.
	Holder(id uint32) (idpool.Allocation, bool)
}

// maxSteps bounds how many ranges of one owner are looked up.
const maxSteps = 4096

// claims tells which ids are the ledger's.
type claims struct {
	ledger  Ledger
	extents map[idpool.Segment][]idpool.Range
}

func claimsOf(l Ledger) claims {
	c := claims{ledger: l, extents: map[idpool.Segment][]idpool.Range{}}
	for _, segment := range []idpool.Segment{idpool.SegmentPool, idpool.SegmentKubelet} {
		c.extents[segment] = l.Extents(segment)
	}
	return c
}

// common returns what r has in common with the extents of all segments but one, which may be "".
func (c claims) common(r idpool.Range, except idpool.Segment) []idpool.Range {
	var common []idpool.Range
	for segment, extents := range c.extents {
		if segment == except {
			continue
		}
		for _, e := range extents {
			if start, end := max(r.Start, e.Start), min(r.End(), e.End()); r.Overlaps(e) {
				common = append(common, idpool.Range{Start: start, Length: uint32(end - uint64(start))})
			}
		}
	}
	// Ids in no segment are the ledger's while a pod has claimed them.
	if len(common) == 0 && r.Length > 0 {
		if h, ok := c.ledger.Holder(r.Start); ok && h.Segment == idpool.SegmentExternal {
			common = append(common, r)
		}
	}
	return common
}

// admit completes an owner, and says whether it is one to tell of. Ids that are reserved are its own by an operator's word.
// A running owner of ids in quarantine is what is left of their last pod, which the pool itself tells of as a trace.
func (c claims) admit(o *Owner, except idpool.Segment) bool {
	admitted, steps := false, 0
	for _, r := range c.common(o.Range, except) {
		for id := uint64(r.Start); id < r.End(); steps++ {
			if steps == maxSteps {
				return true
			}
			h, ok := c.ledger.Holder(uint32(id))
			switch {
			case !ok:
				admitted = true
				id = id - id%idpool.Unit + idpool.Unit
				continue
			case h.State == idpool.StateAllocated:
				o.Pod = h.Pod
				return true
			case h.State == idpool.StateQuarantined && !o.Kind.Running():
				admitted = true
			}
			id = h.Range.End()
		}
	}
	return admitted
}

// touches is a quick look whether r has an id of the ledger.
func (c claims) touches(r idpool.Range) bool { return len(c.common(r, "")) > 0 }

// touching says whether any of the ranges has.
func (c claims) touching(ranges []idpool.Range) bool { return slices.ContainsFunc(ranges, c.touches) }
