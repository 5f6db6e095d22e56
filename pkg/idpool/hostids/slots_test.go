package hostids

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/userns-shim/userns-shim/pkg/idpool"
)

// TestSlotSetAgainstWalk: a set says of any range what a walk over all slots says, those at the ends of uid_t included.
func TestSlotSetAgainstWalk(t *testing.T) {
	draw := rapid.Custom(func(t *rapid.T) idpool.Range {
		base := rapid.SampledFrom([]uint32{0, 100 * idpool.Unit, 0xFFF00000}).Draw(t, "base")
		start := base + rapid.Uint32Range(0, 15*idpool.Unit).Draw(t, "start")
		length := rapid.SampledFrom([]uint32{0, 1, idpool.Unit - 1, idpool.Unit, idpool.Unit + 1, 4 * idpool.Unit}).Draw(t, "length")
		return idpool.Range{Start: start, Length: uint32(min(uint64(length), 1<<32-uint64(start)))}
	})
	rapid.Check(t, func(t *rapid.T) {
		ranges := rapid.SliceOfN(draw, 0, 20).Draw(t, "ranges")
		seen := map[uint32]bool{}
		for _, r := range ranges {
			for id := uint64(r.Start) &^ (idpool.Unit - 1); id < r.End() && r.Length > 0; id += idpool.Unit {
				seen[uint32(id/idpool.Unit)] = true
			}
		}
		set := newSlotSet(ranges)
		for range 20 {
			r := draw.Draw(t, "asked")
			want := false
			for id := uint64(r.Start) &^ (idpool.Unit - 1); id < r.End() && r.Length > 0; id += idpool.Unit {
				want = want || seen[uint32(id/idpool.Unit)]
			}
			if got := set.touches(r); got != want {
				t.Fatalf("%v touches %s: %t", set, r, got)
			}
		}
	})
}
