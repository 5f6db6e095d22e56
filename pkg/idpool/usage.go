package idpool

// use is what a slot is used for, in the order of what keeps it from others
// more.
type use int

const (
	useWaiting  use = iota // in quarantine, for its age alone
	useHeld                // in quarantine, with traces or not looked at
	useReserved            // by an operator
	useAllocated
	useCount
)

// use is what the entry makes of its slots, by what the Witness said of it last.
func (e *entry) use() use {
	switch {
	case e.State == StateAllocated:
		return useAllocated
	case e.State == StateReserved:
		return useReserved
	case e.traces() != 0:
		return useHeld
	}
	return useWaiting
}

// usage says for every slot what the entries that touch it make of it. An entry
// that covers a slot as a whole is alone there, so a run of slots changes a word
// at a time, however long it is; only of the parts at its two ends there can be
// several in one slot, which are counted.
type usage struct {
	in    [useCount]bitmap
	parts map[int]*[useCount]int // by slot; not there where no entry has a part
}

func newUsage() usage { return usage{parts: map[int]*[useCount]int{}} }

func (u *usage) add(r Range, as use)    { u.change(r, as, 1) }
func (u *usage) remove(r Range, as use) { u.change(r, as, -1) }

func (u *usage) change(r Range, as use, by int) {
	first, last := slots(r)
	if whole, n := wholeSlots(r); n > 0 {
		u.in[as].putRange(whole, whole+n-1, by > 0)
		if first < whole {
			u.changePart(first, as, by)
		}
		if last >= whole+n {
			u.changePart(last, as, by)
		}
		return
	}
	u.changePart(first, as, by)
	if last > first {
		u.changePart(last, as, by)
	}
}

func (u *usage) changePart(slot int, as use, by int) {
	counts := u.parts[slot]
	if counts == nil {
		counts = new([useCount]int)
		u.parts[slot] = counts
	}
	counts[as] += by
	u.in[as].put(slot, counts[as] > 0)
	if *counts == ([useCount]int{}) {
		delete(u.parts, slot)
	}
}

// wholeSlots returns the first of the n slots that r covers as a whole.
func wholeSlots(r Range) (first, n int) {
	from := (uint64(r.Start) + Unit - 1) / Unit
	to := r.End() / Unit
	if to <= from {
		return 0, 0
	}
	return int(from), int(to - from)
}

// kept returns the 64 slots of word w that Acquire may not give whatever its
// need, and waiting those that only wait for their age.
func (u *usage) word(w int) (kept, waiting uint64) {
	kept = u.in[useHeld].words[w] | u.in[useReserved].words[w] | u.in[useAllocated].words[w]
	return kept, u.in[useWaiting].words[w] &^ kept
}
