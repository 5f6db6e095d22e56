package idpool

import "math/bits"

const (
	slotCount   = 1 << 16 // slots of Unit ids in all of uid_t
	wordCount   = slotCount / 64
	foreignSlot = 0x7FFE // the slot of ForeignRange
)

// bitmap is a set of slots. A second level, one bit for each word that is not
// empty, keeps the search for one slot at a few steps however full the set is.
type bitmap struct {
	words   [wordCount]uint64
	summary [wordCount / 64]uint64
}

func (m *bitmap) has(slot int) bool { return m.words[slot/64]>>(slot%64)&1 != 0 }

func (m *bitmap) set(slot int) {
	w := slot / 64
	m.words[w] |= 1 << (slot % 64)
	m.summary[w/64] |= 1 << (w % 64)
}

func (m *bitmap) clear(slot int) {
	w := slot / 64
	m.words[w] &^= 1 << (slot % 64)
	if m.words[w] == 0 {
		m.summary[w/64] &^= 1 << (w % 64)
	}
}

func (m *bitmap) put(slot int, in bool) {
	if in {
		m.set(slot)
	} else {
		m.clear(slot)
	}
}

// setWord makes bits the slots from 64 w on.
func (m *bitmap) setWord(w int, bits uint64) {
	m.words[w] = bits
	if bits != 0 {
		m.summary[w/64] |= 1 << (w % 64)
	} else {
		m.summary[w/64] &^= 1 << (w % 64)
	}
}

// putRange puts every slot from first to last in, or takes it out.
func (m *bitmap) putRange(first, last int, in bool) {
	for w := first / 64; w <= last/64; w++ {
		mask := ^uint64(0)
		if w == first/64 {
			mask &= ^uint64(0) << (first % 64)
		}
		if w == last/64 {
			mask &= ^uint64(0) >> (63 - last%64)
		}
		if in {
			m.setWord(w, m.words[w]|mask)
		} else {
			m.setWord(w, m.words[w]&^mask)
		}
	}
}

func (m *bitmap) count() int {
	n := 0
	for _, w := range m.words {
		n += bits.OnesCount64(w)
	}
	return n
}

// next returns the first member at or after slot, or -1.
func (m *bitmap) next(slot int) int {
	if slot >= slotCount {
		return -1
	}
	w := slot / 64
	if rest := m.words[w] >> (slot % 64); rest != 0 {
		return slot + bits.TrailingZeros64(rest)
	}
	w++
	for s := w / 64; s < len(m.summary); s++ {
		rest := m.summary[s]
		if s == w/64 {
			rest &= ^uint64(0) << (w % 64)
		}
		if rest != 0 {
			found := s*64 + bits.TrailingZeros64(rest)
			return found*64 + bits.TrailingZeros64(m.words[found])
		}
	}
	return -1
}

// nextIn returns the first member from first to last, or -1.
func (m *bitmap) nextIn(first, last int) int {
	if found := m.next(first); found <= last {
		return found
	}
	return -1
}

// findRun returns the first slot of the first run of n members that starts at
// or after cursor, and when there is none, of the first run at all; -1 when the
// whole set has none. It looks at every run before it gives up.
func (m *bitmap) findRun(cursor, n int) int {
	if found := m.nextRun(cursor, n); found >= 0 || cursor == 0 {
		return found
	}
	return m.nextRun(0, n)
}

// nextRun returns the first slot >= from at which n members follow each other,
// or -1.
func (m *bitmap) nextRun(from, n int) int {
	switch {
	case n <= 0 || n > slotCount || from >= slotCount:
		return -1
	case n == 1:
		return m.next(from)
	case n <= 64:
		return m.nextShortRun(from, n)
	default:
		return m.nextLongRun(from, n)
	}
}

// nextShortRun looks for 2 to 64 members in a row, 64 possible starts at a time:
// a bit that survives being anded with its own shifts starts a run. A loop over
// single runs would crawl through a set in which every second slot is taken.
func (m *bitmap) nextShortRun(from, n int) int {
	for w := from / 64; w < wordCount; w++ {
		lo, hi := m.words[w], uint64(0)
		if w+1 < wordCount {
			hi = m.words[w+1]
		}
		if w == from/64 {
			lo &= ^uint64(0) << (from % 64)
		}
		for have := 1; have < n && lo != 0; {
			shift := min(have, n-have)
			lo &= lo>>shift | hi<<(64-shift)
			hi &= hi >> shift
			have += shift
		}
		if lo != 0 {
			return w*64 + bits.TrailingZeros64(lo)
		}
	}
	return -1
}

// nextLongRun looks for more than 64 members in a row. Such a run crosses a word
// boundary, so only the ends of words that are not full matter.
func (m *bitmap) nextLongRun(from, n int) int {
	run := 0 // members in a row up to the current word
	for w := from / 64; w < wordCount; w++ {
		word := m.words[w]
		if w == from/64 {
			word &= ^uint64(0) << (from % 64)
		}
		low := bits.TrailingZeros64(^word) // 64 for a full word
		if run+low >= n {
			return w*64 - run
		}
		if low == 64 {
			run += 64
		} else {
			run = bits.LeadingZeros64(^word)
		}
	}
	return -1
}

// longestRun returns the length of the longest run of members, in slots.
func (m *bitmap) longestRun() int {
	longest, run := 0, 0
	for _, word := range m.words {
		switch word {
		case 0:
			run = 0
		case ^uint64(0):
			run += 64
		default:
			longest = max(longest, run+bits.TrailingZeros64(^word))
			for longest < 64 && hasRun(word, longest+1) {
				longest++
			}
			run = bits.LeadingZeros64(^word)
		}
		longest = max(longest, run)
	}
	return longest
}

// hasRun says whether n bits of the word, at most 64, are set in a row. It takes
// as many steps as n has binary digits: in a set of many short runs counting each
// of them would crawl.
func hasRun(word uint64, n int) bool {
	for have := 1; have < n && word != 0; {
		shift := min(have, n-have)
		word &= word >> shift
		have += shift
	}
	return word != 0
}
