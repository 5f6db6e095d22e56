package idpool

import (
	"testing"

	"pgregory.net/rapid"
)

// naiveRun is nextRun as one would write it first.
func naiveRun(set []bool, from, n int) int {
	for start := from; start+n <= len(set); start++ {
		run := 0
		for run < n && set[start+run] {
			run++
		}
		if run == n {
			return start
		}
	}
	return -1
}

func naiveLongest(set []bool) int {
	longest, run := 0, 0
	for _, in := range set {
		run++
		if !in {
			run = 0
		}
		longest = max(longest, run)
	}
	return longest
}

func TestBitmapAgainstNaiveSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m bitmap
		set := make([]bool, slotCount)
		flip := func(from, length int, in bool) {
			for slot := from; slot < min(from+length, slotCount); slot++ {
				if set[slot] = in; in {
					m.set(slot)
				} else {
					m.clear(slot)
				}
			}
		}
		// Runs near each other and near the borders of words.
		base := rapid.SampledFrom([]int{0, 4096 - 300, slotCount - 700}).Draw(t, "base")
		for range rapid.IntRange(0, 40).Draw(t, "runs") {
			flip(base+rapid.IntRange(0, 699).Draw(t, "from"), rapid.IntRange(1, 200).Draw(t, "length"), rapid.Bool().Draw(t, "in"))
		}
		count := 0
		for slot, in := range set {
			if in {
				count++
			}
			if m.has(slot) != in {
				t.Fatalf("slot %d: has = %v", slot, !in)
			}
		}
		if m.count() != count || m.longestRun() != naiveLongest(set) {
			t.Fatalf("count %d want %d, longest %d want %d", m.count(), count, m.longestRun(), naiveLongest(set))
		}
		for range 20 {
			n := rapid.SampledFrom([]int{1, 2, 3, 31, 63, 64, 65, 66, 127, 128, 129, 200, 400}).Draw(t, "n")
			from := min(base+rapid.IntRange(0, 720).Draw(t, "cursor"), slotCount-1)
			if got, want := m.nextRun(from, n), naiveRun(set, from, n); got != want {
				t.Fatalf("nextRun(%d, %d) = %d, want %d", from, n, got, want)
			}
			want := naiveRun(set, from, n)
			if want < 0 {
				want = naiveRun(set, 0, n)
			}
			if got := m.findRun(from, n); got != want {
				t.Fatalf("findRun(%d, %d) = %d, want %d", from, n, got, want)
			}
		}
	})
}

func TestBitmapFull(t *testing.T) {
	var m bitmap
	for slot := range slotCount {
		m.set(slot)
	}
	if got := m.nextRun(0, slotCount); got != 0 {
		t.Errorf("a run of everything starts at %d", got)
	}
	if got := m.nextRun(1, slotCount); got != -1 {
		t.Errorf("a run of everything after slot 1 starts at %d", got)
	}
	if got := m.nextRun(0, slotCount+1); got != -1 {
		t.Errorf("a run of more than everything starts at %d", got)
	}
	if got := m.longestRun(); got != slotCount {
		t.Errorf("longest run %d", got)
	}
	if got := m.next(slotCount); got != -1 {
		t.Errorf("next after the end = %d", got)
	}
}
