package statusz

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

const (
	// unit is the number of ids in a range.
	unit = 65536
	// maxBlocks bounds the map of a segment. The pool's default segment of 2,046 ranges has a block for each.
	maxBlocks = 2048
)

// Extent is a run of host ids.
type Extent struct{ Start, Length uint64 }

// Range is what somebody has or had of a segment.
type Range struct {
	Extent
	// State is allocated, reserved, quarantined, or resting for a range that only waits for its age; leaked for one about which the node and
	// the ledger disagree, beside what it is in the ledger.
	State string
	Owner string // in words
}

// block is a square of the map: one range's worth of ids, or several where the segment is large.
type block struct {
	State string // the strongest of what is in it, empty for free
	Title string
}

// states are what a block shows, the weaker ones first.
var states = [...]string{"", "resting", "quarantined", "reserved", "allocated", "leaked"}

// cell is what a block is made of.
type cell struct {
	counts [len(states)]int // by index in states
	owner  string           // of all that were counted
}

func (c *cell) own(owner string) {
	if c.owner != "" {
		owner = c.owner + "; " + owner
	}
	c.owner = shorten(owner)
}

// drawMap returns the blocks of the extents, and how many ranges a block stands for. What of the ranges lies
// outside of the extents is left out.
func drawMap(extents []Extent, ranges []Range) (blocks []block, each int) {
	extents = slices.SortedFunc(slices.Values(extents), func(a, b Extent) int { return cmp.Compare(a.Start, b.Start) })
	var units uint64
	for _, e := range extents {
		units += e.Length / unit
	}
	if units == 0 {
		return nil, 1
	}
	each = int((units + maxBlocks - 1) / maxBlocks)
	cells := make([]cell, (int(units)+each-1)/each)
	for _, r := range ranges {
		state := max(slices.Index(states[:], r.State), 0)
		for id := r.Start / unit * unit; id < r.Start+r.Length; id += unit {
			if at, ok := position(extents, id); ok {
				cells[at/each].counts[state]++
				if each == 1 { // else it is not shown
					cells[at/each].own(r.Owner)
				}
			}
		}
	}
	blocks = make([]block, len(cells))
	for i, c := range cells {
		blocks[i] = c.block(idAt(extents, i*each), each)
	}
	return blocks, each
}

// position is the place of an id's unit among those of the extents.
func position(extents []Extent, id uint64) (int, bool) {
	before := uint64(0)
	for _, e := range extents {
		if id >= e.Start && id < e.Start+e.Length {
			return int(before + (id-e.Start)/unit), true
		}
		before += e.Length / unit
	}
	return 0, false
}

// idAt is the first id of the unit at a position.
func idAt(extents []Extent, at int) uint64 {
	left := uint64(at)
	for _, e := range extents {
		if left < e.Length/unit {
			return e.Start + left*unit
		}
		left -= e.Length / unit
	}
	return 0
}

func (c cell) block(start uint64, each int) block {
	b := block{}
	words := []string{fmt.Sprintf("%d:%d", start, each*unit)}
	for i, name := range slices.Backward(states[:]) {
		if i == 0 || c.counts[i] == 0 {
			continue
		}
		if b.State == "" {
			b.State = name
		}
		if each > 1 {
			name = fmt.Sprintf("%d %s", c.counts[i], name)
		}
		words = append(words, name)
	}
	if b.State == "" {
		return block{} // nothing to say, and most blocks are like that
	}
	if each == 1 {
		words = append(words, c.owner)
	}
	b.Title = strings.Join(words, " ")
	return b
}
