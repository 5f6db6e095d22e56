package idpool

import (
	"errors"
	"time"

	"pgregory.net/rapid"
)

func (m *model) restore(pod PodUID, sandbox string, r Range, now time.Time) error {
	if held, err := m.rejoin(pod, sandbox, r); held || err != nil {
		return err
	}
	inTheWay := m.overlapping(r)
	for _, a := range inTheWay {
		if a.State != StateQuarantined {
			return ErrConflict
		}
	}
	m.drop(inTheWay)
	for _, a := range inTheWay {
		m.restsOn(a, uint64(a.Range.Start), uint64(r.Start))
		m.restsOn(a, r.End(), a.Range.End())
	}
	m.entries = append(m.entries, Allocation{Range: r, State: StateAllocated, Pod: pod, Sandboxes: []string{sandbox}, Since: now})
	return nil
}

// restsOn keeps what an entry had from start on and before end.
func (m *model) restsOn(a Allocation, start, end uint64) {
	if start >= end {
		return
	}
	a.Range = Range{Start: uint32(start), Length: uint32(end - start)}
	m.ask(a)
	m.entries = append(m.entries, a)
}

// putToRest returns how many entries came of it.
func (m *model) putToRest(pod PodUID, r Range, now time.Time) int {
	var parts []Range
	if len(m.overlapping(r)) == 0 {
		parts = append(parts, r)
	} else {
		for id := uint64(r.Start); id < r.End(); {
			end := min((id/Unit+1)*Unit, r.End())
			part := Range{Start: uint32(id), Length: uint32(end - id)}
			if len(m.overlapping(part)) == 0 {
				parts = append(parts, part)
			}
			id = end
		}
	}
	for _, part := range parts {
		a := Allocation{Range: part, State: StateQuarantined, Pod: pod, Since: now}
		m.ask(a)
		m.entries = append(m.entries, a)
	}
	return len(parts)
}

func (m *model) discard(r Range, force bool) error {
	i := m.find(func(a Allocation) bool { return a.Range == r })
	switch {
	case i < 0:
		return ErrNotFound
	case m.entries[i].State != StateQuarantined:
		return ErrInUse
	case m.ask(m.entries[i]) != 0 && !force:
		return ErrInUse
	}
	m.drop([]Allocation{m.entries[i]})
	return nil
}

// drawKnown is any range, an entry's, or a part of an entry's.
func (m *machine) drawKnown(t *rapid.T) Range {
	how := rapid.SampledFrom([]string{"any", "entry", "part"}).Draw(t, "how")
	if how == "any" || len(m.model.entries) == 0 {
		return drawRange(t)
	}
	r := rapid.SampledFrom(m.model.entries).Draw(t, "entry").Range
	if how == "part" {
		before := rapid.Uint32Range(0, r.Length-1).Draw(t, "before")
		r = Range{Start: r.Start + before, Length: rapid.Uint32Range(1, r.Length-before).Draw(t, "length")}
	}
	return r
}

// stepRecovery does one random request of those that mend the ledger.
func (m *machine) stepRecovery(t *rapid.T, b *fakeTx, pod PodUID, sandbox string) {
	now, r := m.clock.Now(), m.drawKnown(t)
	var got, want error
	request := rapid.SampledFrom([]string{"restore", "rest", "discard"}).Draw(t, "request")
	switch request {
	case "restore":
		got, want = m.pool.Restore(b, pod, sandbox, r), m.model.restore(pod, sandbox, r, now)
	case "rest":
		var parts int
		parts, got = m.pool.Rest(b, pod, r)
		if wanted := m.model.putToRest(pod, r, now); parts != wanted {
			t.Fatalf("rest(%s, %s) = %d, want %d", pod, r, parts, wanted)
		}
	case "discard":
		force := rapid.Bool().Draw(t, "force")
		got, want = m.pool.Discard(b, r, force), m.model.discard(r, force)
	}
	if !errors.Is(got, want) || (got == nil) != (want == nil) {
		t.Fatalf("%s(%s, %s) = %v, want %v", request, pod, r, got, want)
	}
}
